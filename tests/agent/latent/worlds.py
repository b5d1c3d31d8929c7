"""A point on a plane, and world models of it in the forms that users have."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from grasp_agent import LatentAgent

STEP = 0.1
LIMIT = 20.0
THICK = 0.15  # half the thickness of the wall of `Bay`


class Point(gym.Env[Any, Any]):
    """A point that its action moves, in a square; with `delay`, by the action of the step before."""

    def __init__(self, *, delay: bool = False, length: int = 60, dictionary: bool = False) -> None:
        box = spaces.Box(-LIMIT, LIMIT, (2,), np.float32)
        self._dictionary = dictionary
        self.observation_space = (
            spaces.Dict({"observation": box, "achieved_goal": box, "desired_goal": box}) if dictionary else box
        )
        self.action_space = spaces.Box(-3.0, 3.0, (2,), np.float32)  # not [-1, 1]: agents have to scale
        self._delay, self._length = delay, length

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-1, 1, 2)
        self.goal = self.np_random.uniform(-1, 1, 2)
        self._before, self._steps = np.zeros(2), 0
        return self._observed(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        action = np.asarray(action, np.float64) / 3
        moved = self._before if self._delay else action
        self.position = np.clip(self.position + STEP * moved, -LIMIT, LIMIT)
        self._before, self._steps = action, self._steps + 1
        success = bool(np.linalg.norm(self.position - self.goal) < 0.1)
        return self._observed(), float(success), False, self._steps >= self._length, {"is_success": success}

    def _observed(self) -> Any:
        position = self.position.astype(np.float32)
        if not self._dictionary:
            return position
        return {"observation": position, "achieved_goal": position, "desired_goal": self.goal.astype(np.float32)}


class Exact(torch.nn.Module):
    """The point's motion over `skip` steps, in latents `[2, 3]`: positions beside entries that never change."""

    def __init__(self, skip: int = 1, *, delay: bool = False) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(STEP))
        self.skip, self.delay = skip, delay

    def encode(self, observation: Any) -> Tensor:
        position = observation["observation"] if isinstance(observation, dict) else observation
        return torch.nn.functional.pad(torch.as_tensor(position)[..., None], (0, 2), value=1.0)

    def step(self, latents: Tensor, actions: Tensor) -> Tensor:
        now = actions[:, -1].unflatten(-1, (self.skip, 2))
        if self.delay:
            earlier = actions[:, -2].unflatten(-1, (self.skip, 2))[:, -1:]
            now = torch.cat([earlier, now[:, :-1]], 1)
        moved = self.scale * now.sum(1)
        return latents[:, -1] + torch.nn.functional.pad(moved[..., None], (0, 2))


def moved(latents: Tensor, actions: Tensor) -> Tensor:
    """A plain function of vectors."""
    return latents[:, -1] + STEP * actions[:, -1]


class Bay(Point):
    """The point in a square of side 4 with a wall at x = 0 that leaves a gap at the top; goals are at its right."""

    def __init__(self, *, anywhere: bool = False) -> None:
        super().__init__(dictionary=True, length=80)
        self._anywhere = anywhere

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.goal = self.np_random.uniform([-1, -1.5], [-0.3, 0]), np.array([0.6, -1.0])
        if self._anywhere:
            self.position = self.np_random.uniform(-1.8, 1.8, 2)
        return self._observed(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        before = self.position
        found = super().step(action)
        self.position = behind_wall(torch.from_numpy(before), torch.from_numpy(self.position)).numpy()
        return self._observed(), *found[1:]


def behind_wall(before: Tensor, after: Tensor) -> Tensor:
    """Positions `[..., 2]` after a move that the wall of `Bay` and its borders may stop."""
    left = before[..., 0] < 0
    beside = torch.where(left, after[..., 0].clamp_max(-THICK), after[..., 0].clamp_min(THICK))
    inside = (after[..., 0].abs() < THICK) | (before[..., 0] * after[..., 0] < 0)
    x = torch.where(inside & (after[..., 1] < 1), beside, after[..., 0])
    return torch.stack([x, after[..., 1]], -1).clamp(-2, 2)


def in_bay(latents: Tensor, actions: Tensor) -> Tensor:
    """The exact motion in `Bay`."""
    return behind_wall(latents[:, -1], latents[:, -1] + STEP * actions[:, -1])


def played(env: Point, episodes: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    """Recorded random play: observations and actions."""
    recorded, random = [], np.random.default_rng(0)
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        seen, actions = [observation], random.uniform(-3, 3, (20, 2))
        seen += [env.step(action)[0] for action in actions]
        recorded.append((np.stack(seen), actions))
    return recorded


def solved(agent: LatentAgent, env: Point, episodes: int = 5) -> list[bool]:
    """Plays episodes to the environment's goals, given as observations."""
    ends = []
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        if not isinstance(observation, dict):
            agent.set_goal(env.goal.astype(np.float32))
        agent.forget()
        done, info = False, {}
        while not done:
            action, _ = agent.predict(observation)
            assert env.action_space.contains(action)
            observation, _, _, done, info = env.step(action)
        ends.append(info["is_success"])
    return ends
