"""Trains agents where episodes end for good in a region on the way, and counts how often they end there.

    python -m benchmarks.terminal_states

Each agent is trained twice with each seed: as it is, and on the same environment whose ends look like time limits, so
that it does not learn them. Doing nothing and random actions stand beside them.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from grasp_agent import ExploreConfig, GraspAgent, TrainConfig

Place = NDArray[np.float32]
REGIONS: dict[str, Callable[[Place], bool]] = {
    "pit": lambda place: bool(abs(place[0]) < 0.25 and abs(place[1]) < 0.6),
    "ring": lambda place: bool(0.35 < np.hypot(*place) < 0.6 and not (place[0] > 0 and abs(place[1]) < 0.25)),
    "cliff": lambda place: bool(place[1] < -0.4 and abs(place[0]) < 0.7),
}
"""Regions of the square from -1 to 1 in which episodes end."""


class Walk(gym.Env[Any, Any]):
    """A point in a square that moves by at most 0.15 in each direction, to a goal within 40 steps.

    Args:
        region: its name.
        ends: False reports ends as time limits.
    """

    distance_threshold = 0.15

    def __init__(self, region: str, ends: bool = True) -> None:
        place = spaces.Box(-2, 2, (2,), np.float32)
        names = ("observation", "achieved_goal", "desired_goal")
        self.observation_space, self.action_space = (
            spaces.Dict(dict.fromkeys(names, place)),
            spaces.Box(-1, 1, (2,), np.float32),
        )
        self._inside, self._ends = REGIONS[region], ends
        self._place = self._goal = np.zeros(2, np.float32)
        self._steps = 0

    def _free(self) -> Place:
        while self._inside(place := self.np_random.uniform(-1, 1, 2).astype(np.float32)):
            pass
        return place

    def _observation(self) -> dict[str, Place]:
        return {"observation": self._place.copy(), "achieved_goal": self._place.copy(), "desired_goal": self._goal}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Draws start and goal outside the region."""
        super().reset(seed=seed)
        self._steps, self._place, self._goal = 0, self._free(), self._free()
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Moves the point."""
        self._steps += 1
        self._place = np.clip(self._place + 0.15 * np.asarray(action), -1, 1).astype(np.float32)
        ended, near = self._inside(self._place), bool(np.linalg.norm(self._place - self._goal) < 0.15)
        late = self._steps >= 40 or (ended and not self._ends)
        return self._observation(), 0.0, ended and self._ends, late, {"is_success": near, "ended": ended}


def play(predict: Callable[[Any], Any], region: str, episodes: int, seed: int) -> tuple[int, int]:
    """Returns the numbers of episodes that ended in the region, and that ended at the goal."""
    env, ended, reached = Walk(region), 0, 0
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed + episode)
        info: dict[str, Any] = {}
        terminated = truncated = False
        while not (terminated or truncated):
            observation, _, terminated, truncated, info = env.step(predict(observation))
        ended, reached = ended + info["ended"], reached + info["is_success"]
    return ended, reached


def trained(region: str, ends: bool, seed: int, steps: int) -> Callable[[Any], Any]:
    """Returns the actions of an agent that was trained in an environment."""
    agent = GraspAgent(
        "MultiInputPolicy",
        Walk(region, ends),
        seed=seed,
        horizon=25,
        explore=ExploreConfig(learning_starts=steps // 2, refit_growth=2.0),
        train=TrainConfig(gradient_steps=600),
        device="cpu",
    ).learn(steps)
    return lambda observation: agent.predict(observation, deterministic=True)[0]


def main() -> None:
    """Prints a line for each region and agent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each agent, seeds 0, 1, ...")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--episodes", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for region in REGIONS:
        space = Walk(region).action_space
        space.seed(0)
        rows: dict[str, list[Callable[[Any], Any]]] = {
            "doing nothing": [lambda _: np.zeros(2, np.float32)],
            "random actions": [lambda _, space=space: space.sample()],
            "ends look like time limits": [],
            "ends are learned": [],
        }
        for name, players in rows.items():
            if not players:
                learned = name == "ends are learned"
                players += [trained(region, learned, seed, options.steps) for seed in range(options.seeds)]
            counts = [play(player, region, options.episodes, seed=10_000) for player in players]
            ended, reached = (", ".join(str(count[place]) for count in counts) for place in (0, 1))
            print(
                f"{region:6} {name:28} of {options.episodes} episodes ended in it: {ended}; at the goal: {reached}",
                flush=True,
            )


if __name__ == "__main__":
    main()
