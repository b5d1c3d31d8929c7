"""Steps of Stable-Baselines3's replay buffer, as the model is trained on them, and checks of where they come from."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from grasp_agent.models.dynamics.rewarded import Transitions
from grasp_agent.task.actions import check_actions


def check_env(env: gym.Env[Any, Any] | VecEnv) -> None:
    """Checks that the agent can plan for rewards in an environment.

    Raises:
        ValueError: if its spaces do not fit, or it is normalised by running statistics of Stable-Baselines3.
    """
    check_spaces(env.observation_space, env.action_space)
    if isinstance(env, VecEnv) and unwrap_vec_normalize(env) is not None:
        raise ValueError("VecNormalize: expected an environment without it; the model normalises by itself")


def check_spaces(space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    """Checks that the agent can plan for rewards with such observations and actions; raises ValueError where not."""
    if isinstance(space, spaces.Dict) and "desired_goal" in space.spaces:
        raise ValueError('policy: expected "MultiInputPolicy" for an environment with goals, got "MlpPolicy"')
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not space.shape[0]:
        raise ValueError(
            f"observation space: expected a Box with one axis, got {space}; gymnasium.wrappers.FlattenObservation "
            "makes one of others"
        )
    check_actions(action_space)


def check_step(step: int, observations: NDArray[Any], rewards: NDArray[Any], infos: list[dict[str, Any]]) -> None:
    """Checks what an environment returned; raises ValueError that names the step and what is not finite."""
    lasts = [info["terminal_observation"] for info in infos if info.get("terminal_observation") is not None]
    for name, values in (("observation", observations), ("observation", lasts), ("reward", rewards)):
        if not np.isfinite(values).all():
            raise ValueError(f"environment step {step}: {name}: expected finite numbers, got {np.asarray(values)}")


def recorded(buffer: ReplayBuffer) -> Transitions:
    """Returns all steps `[M]` of a buffer."""
    times, envs = np.divmod(np.arange(buffer.size() * buffer.n_envs), buffer.n_envs)
    return _steps(buffer, (times, envs))


def sampled(buffer: ReplayBuffer, random: np.random.Generator, members: int, count: int) -> Transitions:
    """Returns random steps `[members, count]` of a buffer, others for each member."""
    shape = members, count
    return _steps(buffer, (random.integers(buffer.size(), size=shape), random.integers(buffer.n_envs, size=shape)))


def _steps(buffer: ReplayBuffer, where: tuple[NDArray[np.int64], NDArray[np.int64]]) -> Transitions:
    """Returns the steps of moments and environments."""
    vectors = (buffer.observations, buffer.actions, buffer.next_observations)
    ended = buffer.dones[where] * (1 - buffer.timeouts[where])  # a time limit does not end an episode for good
    parts = *(part[where] for part in vectors), buffer.rewards[where], ended
    return Transitions(*(torch.as_tensor(part, dtype=torch.float32, device=buffer.device) for part in parts))
