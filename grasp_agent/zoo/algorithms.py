"""Stable-Baselines3's algorithms with common settings, for comparison with `GraspAgent`."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from importlib import import_module
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

ALGORITHMS = {
    "sac": "stable_baselines3.SAC",
    "td3": "stable_baselines3.TD3",
    "ddpg": "stable_baselines3.DDPG",
    "ppo": "stable_baselines3.PPO",
    "a2c": "stable_baselines3.A2C",
    "tqc": "sb3_contrib.TQC",
    "trpo": "sb3_contrib.TRPO",
    "crossq": "sb3_contrib.CrossQ",
}
"""Algorithms for continuous actions, by their names in RL Zoo."""

_GOAL = {"policy_kwargs": {"net_arch": [64, 64]}, "learning_rate": 1e-3, "gamma": 0.95}
"""Settings for goal environments: with these SAC + HER learns a ball's 2-D task in some thousand steps."""
_OFF_POLICY = {"batch_size": 256, "learning_starts": 500}
_HINDSIGHT = {
    "replay_buffer_class": HerReplayBuffer,
    "replay_buffer_kwargs": {"n_sampled_goal": 4, "goal_selection_strategy": "future"},
}


def algorithm(name: str) -> type[BaseAlgorithm]:
    """Returns an algorithm's class.

    Raises:
        ValueError: for an unknown name, or one of a package that is not installed.
    """
    if name not in ALGORITHMS:
        raise ValueError(f"algorithm: expected one of {', '.join(ALGORITHMS)}, got {name!r}")
    package, kind = ALGORITHMS[name].split(".")
    try:
        return getattr(import_module(package), kind)
    except ImportError as error:
        raise ValueError(f"algorithm: {name} needs the package {package}: pip install {package}") from error


def untrained(name: str, env: gym.Env[Any, Any] | VecEnv, *, steps: int, seed: int, **changes: Any) -> BaseAlgorithm:
    """Returns an untrained model.

    In goal environments off-policy algorithms use hindsight (HER, Andrychowicz et al. 2017, arXiv 1707.01495),
    with small networks; elsewhere the settings are Stable-Baselines3's defaults.

    Args:
        name: of the algorithm.
        env: its environment.
        steps: environment steps of the training, and the size of the replay buffer.
        seed: of everything random.
        **changes: settings that replace these.
    """
    kind = algorithm(name)
    goals = isinstance(env.observation_space, spaces.Dict)
    off_policy = issubclass(kind, OffPolicyAlgorithm)
    settings: dict[str, Any] = deepcopy(_GOAL) if goals else {}  # algorithms write into their `policy_kwargs`
    if off_policy:
        settings |= {"buffer_size": max(1, steps), **(_OFF_POLICY if goals else {})}
    if off_policy and "achieved_goal" in getattr(env.observation_space, "spaces", {}):
        settings |= deepcopy(_HINDSIGHT)
    policy = "MultiInputPolicy" if goals else "MlpPolicy"
    construct: Callable[..., BaseAlgorithm] = kind
    return construct(policy, env, seed=seed, device="cpu", **{**settings, **deepcopy(changes)})
