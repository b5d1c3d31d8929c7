"""Objects that move in contact only: panda-gym's reach and push, learned from nothing with default settings.

    pip install panda-gym                            # with PyBullet
    python -m benchmarks.contacts --jobs 2           # resumes where it was stopped

Each agent is trained from scratch with seeds from 0 and plays 50 episodes with seeds from 10000 after each number of
steps of the same training. Doing nothing and random actions play the same. Beside the success at the end of episodes
stands the share of steps in which the object moves: an agent that never touches it has learned nothing.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from benchmarks import pages
from benchmarks.learning_cost import Constant
from benchmarks.stages import RIVALS, command, stages
from grasp_agent import GraspAgent, evaluate
from grasp_agent.zoo.algorithms import untrained

EPISODES, SEED = 50, 10_000
ENVS: dict[str, tuple[int, ...]] = {"PandaReach-v3": (1000, 2000), "PandaPush-v3": (5000, 10_000)}
"""Environments, and the steps after which agents play."""
GRASP, SAC = "grasp", "sac"
_MOVED = 1e-4  # entries of the achieved goal by which it moves in a step [m]; chosen by hand
Row = dict[str, Any]


class Moves(gym.Wrapper[Any, Any, Any, Any]):
    """Counts the steps, and those in which the achieved goal moves."""

    steps = moved = 0
    _last: Any = None

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """See `gymnasium.Env.reset`."""
        observation, info = self.env.reset(**options)
        self._last = observation["achieved_goal"].copy()
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        observation, *rest = self.env.step(action)
        self.steps += 1
        self.moved += bool(np.abs(observation["achieved_goal"] - self._last).max() > _MOVED)
        self._last = observation["achieved_goal"].copy()
        return observation, *rest  # type: ignore[return-value]


def measured(job: tuple[str, str, int]) -> Row:
    """Trains one agent, unless it is a rival, and plays after each number of steps.

    Args:
        job: name of the agent, id of the environment and training seed.
    """
    import panda_gym  # noqa: F401  registers the environments  # pyright: ignore[reportMissingImports]

    name, env_id, seed = job
    torch.set_num_threads(1)
    env, stops = gym.make(env_id), ENVS[env_id]
    row: Row = {"agent": name, "env": env_id, "seed": seed, "learning_cpu_s": [], "success": [], "moved": []}
    if name in RIVALS:
        agent: Any = Constant(env.action_space, still=name == "nothing")
    elif name == SAC:
        agent = untrained(SAC, env, steps=stops[-1], seed=seed)
    else:
        agent = GraspAgent("MultiInputPolicy", env, seed=seed, device="cpu")
    for seconds in (0,) if name in RIVALS else stages(agent, stops):
        row["learning_cpu_s"].append(seconds)
        played = Moves(gym.make(env_id))
        row["success"].append([bool(e.success_end) for e in evaluate(agent, played, EPISODES, SEED).episodes])
        row["moved"].append(round(played.moved / played.steps, 4))
        played.close()
    return row


def page(rows: list[Row]) -> str:
    """Returns the page of results."""
    parts = []
    for env_id in [name for name in ENVS if any(row["env"] == name for row in rows)]:
        lines = ["| agent | steps | trainings | success, mean | worst to best | object moves in | CPU s of learning |"]
        lines.append(f"|{'---|' * 7}")
        for name in (GRASP, SAC, *RIVALS):
            found = [row for row in rows if row["env"] == env_id and row["agent"] == name]
            for index, steps in enumerate(ENVS[env_id] if name not in RIVALS else (0,)):
                if not found:
                    continue
                rates = [sum(row["success"][index]) / EPISODES for row in found]
                moved = sum(row["moved"][index] for row in found) / len(found)
                spent = sum(sum(row["learning_cpu_s"][: index + 1]) for row in found) / len(found)
                cells = [name, f"{steps:,}" if steps else "-", f"{len(found)}", f"{sum(rates) / len(rates):.2f}"]
                cells += [f"{min(rates):.2f} to {max(rates):.2f}", f"{100 * moved:.1f} %"]
                lines.append(f"| {' | '.join([*cells, f'{spent:.0f}' if steps else '-'])} |")
        parts += [f"## `{env_id}`", "\n".join(lines)]
    return pages.page(
        "Objects that move in contact",
        "python -m benchmarks.contacts",
        f"Trained from scratch with default settings; success at the end of {EPISODES} episodes with seeds from "
        f"{SEED}, and the share of their steps in which the achieved goal (the hand in `PandaReach-v3`, the block in "
        "`PandaPush-v3`) moves. SAC has hindsight and the settings of the bundled baselines. Doing nothing and random "
        "actions play the same episodes.",
        *parts,
    )


if __name__ == "__main__":
    command("contacts", page, measured, tuple(ENVS), (GRASP, SAC))
