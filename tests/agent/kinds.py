"""Algorithms on which the cases of conformance run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from agents import ENV
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm

Observation = Any
"""A dictionary of arrays, or an array."""


class Kind(NamedTuple):
    """An algorithm and a saved model of it."""

    algorithm: type[BaseAlgorithm]
    make: Callable[..., Any]
    """Builds an untrained model from an environment and settings."""
    file: Path
    """File of a briefly trained model."""
    shape: tuple[int, ...] = (2,)
    """Of an action."""
    dtype: type[np.generic] = np.float32
    """Of an action."""
    foreign: str = "grasp/Reacher-v0"
    """An environment with other spaces."""
    other: dict[str, Any] = {"horizon": 7}  # noqa: RUF012
    """A setting that may be replaced."""

    def load(self, **how: Any) -> Any:
        """Loads the briefly trained model."""
        return self.algorithm.load(self.file, device="cpu", **how)


def sac(env: Any = ENV, **settings: Any) -> SAC:
    """As small as `tiny`."""
    given: dict[str, Any] = {
        "policy_kwargs": {"net_arch": [16]},
        "learning_starts": 20,
        "batch_size": 16,
        "buffer_size": 1000,
        "seed": 3,
        "device": "cpu",
    }
    return SAC("MultiInputPolicy", env, **{**given, **settings})


def observations(count: int, first: int = 0, *, single: bool = False) -> Observation:
    """First observations of different episodes, as a batch or a single one."""
    env = gym.make(ENV)
    drawn = [env.reset(seed=first + row)[0] for row in range(count)]
    space = env.observation_space
    env.close()
    if single:
        return drawn[0]
    if not isinstance(space, gym.spaces.Dict):
        return np.array(drawn, space.dtype).reshape(-1, *(space.shape or ()))
    return {k: np.array([o[k] for o in drawn], b.dtype).reshape(-1, *(b.shape or ())) for k, b in space.items()}


def each(observation: Observation, function: Callable[[Any], Any]) -> Observation:
    """Returns an observation with all its arrays changed."""
    if isinstance(observation, dict):
        return {key: function(value) for key, value in observation.items()}
    return function(observation)


def row(batch: Observation, index: int) -> Observation:
    return each(batch, lambda value: value[index])


def short(**options: Any) -> gym.Env[Any, Any]:
    return gym.make(ENV, max_episode_steps=20, **options)
