"""An environment with rewards, and small agents for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from grasp_agent import GraspAgent, evaluate
from grasp_agent.agent.reward.agent import RewardAgent
from grasp_agent.models.dynamics.rewarded import RewardModelConfig
from grasp_agent.planners import ICEM

SPOT = np.array([0.6, -0.4])


class Field(gym.Env[Any, Any]):
    """A point that is rewarded near a spot; the episode ends for good where x < -1.2. Actions have odd bounds."""

    def __init__(self, broken: str = "") -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = spaces.Box(np.array([-3.0, 0.0]), np.array([1.0, 4.0]), dtype=np.float64)
        self.broken = broken

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-0.8, 0.8, 2)
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.place = self.place + 0.1 * (np.asarray(action) - [-1.0, 2.0])
        reward = float("nan") if self.broken == "reward" else -float(np.abs(self.place - SPOT).sum())
        return self._seen(), reward, bool(self.place[0] < -1.2), False, {}

    def _seen(self) -> Any:
        return np.array([*self.place, np.nan if self.broken == "observation" else 5.0])


class Wordy(gym.ActionWrapper[Any, Any, Any]):
    """Takes words."""

    def __init__(self) -> None:
        super().__init__(Field())
        self.action_space = spaces.Text(3)


class Choosing(gym.ActionWrapper[Any, Any, Any]):
    """Takes one of five directions, each with one of two speeds."""

    def __init__(self) -> None:
        super().__init__(limited())
        self.action_space = spaces.MultiDiscrete([5, 2])

    def action(self, action: Any) -> Any:
        direction, speed = action
        way = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)][direction]
        return np.array([-1.0, 2.0]) + (0.7 + speed) * np.array(way)


def limited(**options: Any) -> TimeLimit[Any, Any]:
    return TimeLimit(Field(**options), 25)


def small(env: Any = None, **settings: Any) -> RewardAgent:
    given: dict[str, Any] = {
        "planner": ICEM(iterations=2, samples=32, elites=6),
        "model": RewardModelConfig(members=2, width=32),
        "learning_starts": 150,
        "first_steps": 300,
        "buffer_size": 2000,
        "horizon": 6,
        "seed": 3,
        "device": "cpu",
    }
    made: Any = GraspAgent("MlpPolicy", limited() if env is None else env, **{**given, **settings})
    return made


def made(kind: Any, env: Any = None) -> Any:
    """Returns an untrained model of Stable-Baselines3 with small networks."""
    settings: dict[str, Any] = {"seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [16]}}  # they write into it
    return kind("MlpPolicy", limited() if env is None else env, **settings)


def drawn(count: int) -> np.ndarray:
    return np.array([Field().reset(seed=row)[0] for row in range(count)])


class Constant:
    """Takes one action for ever."""

    def __init__(self, action: Any) -> None:
        self._action = np.array(action)

    def predict(self, *_: Any, **__: Any) -> tuple[Any, None]:
        return self._action, None


def returned(agent: Any) -> float:
    return float(np.mean([episode.return_ for episode in evaluate(agent, limited(), 10, 500).episodes]))


def reloaded(agent: RewardAgent, folder: Path) -> RewardAgent:
    """Returns a copy that was read from a file."""
    agent.save(folder / "agent.zip")
    return cast(RewardAgent, GraspAgent.load(folder / "agent.zip", device="cpu"))
