"""Agents and environments that the tests of comparisons name as `contestants:NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import grasp_agent
from grasp_agent.zoo import baselines

ENV = "grasp/BallNav-v0"
EPISODES = 12


class Straight:
    """Heads for the goal."""

    def __init__(self, name: str = "straight", gain: float = 4.0) -> None:
        self.name, self.gain, self.calls = name, gain, 0

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
        self.calls += 1
        return np.clip(self.gain * (observation["desired_goal"] - observation["achieved_goal"]), -1, 1), None


class Still:
    """Rests."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._size = env.action_space.shape or ()

    def predict(self, *_: Any, **__: Any):
        return np.zeros(self._size, np.float32), None


class StillToo(Still):
    """The same under another name."""

    def __init__(self) -> None:
        self._size = (1,)


class StillTwin(Still):
    """The same under yet another name."""


STILL_TOO = StillToo()


class Twice(gym.Env[Any, Any]):
    """Starts differ each time, whatever the seed."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))
    count = 0

    def reset(self, *, seed: int | None = None, options: Any = None):
        Twice.count += 1
        return np.array([self.count], np.float32), {}

    def step(self, action: Any):
        return np.zeros(1, np.float32), 1.0, True, False, {}


STRAIGHT = Straight()


class Curt:
    """Its `predict` has too few arguments."""

    def predict(self, observation: Any):
        return np.zeros(2, np.float32), None


BAD = Curt()


def baseline_file() -> str:
    entry = baselines.find("sac", ENV)
    return str(Path(str(baselines.__file__)).parent / entry.file)


class Careless:
    """Forgets the second half of its answer."""

    def predict(self, *_: Any, **__: Any):
        return np.zeros(2, np.float32)


class Own:
    """Has a goal where the environment has none, which its first action reaches."""

    goal = grasp_agent.Goal.at({0: 0.0, 1: 0.0, 2: 0.0}, tolerance=100)
    name = "own"

    def predict(self, *_: Any, **__: Any):
        return np.zeros(1, np.float32), None


class OwnLater(Own):
    """Gets its goal when it is made."""

    goal = None  # type: ignore[assignment]

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.goal = grasp_agent.Goal.at({0: 0.0, 1: 0.0, 2: 0.0}, tolerance=100)
