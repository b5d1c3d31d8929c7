"""Steps of Stable-Baselines3's replay buffer, as the model is trained on them, and checks of where they come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from torch import Tensor

from grasp_agent.models.dynamics.rewarded import Transitions
from grasp_agent.models.dynamics.state_value import Backups
from grasp_agent.task.action_codec import ActionCodec

Where = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Moments and environments of steps in a replay buffer, `[...]`."""


def check_env(env: gym.Env[Any, Any] | VecEnv) -> None:
    """Checks that the agent can plan for rewards in an environment.

    Raises:
        ValueError: if its spaces do not fit, or it is normalised by running statistics of Stable-Baselines3.
    """
    check_spaces(env.observation_space, env.action_space)
    normalising = unwrap_vec_normalize(env) if isinstance(env, VecEnv) else None
    if normalising is not None and normalising.norm_obs:
        raise ValueError("VecNormalize: expected norm_obs=False; the model normalises by itself")


def check_spaces(space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    """Checks that the agent can plan for rewards with such observations and actions; raises ValueError where not."""
    if isinstance(space, spaces.Dict) and "desired_goal" in space.spaces:
        raise ValueError('policy: expected "MultiInputPolicy" for an environment with goals, got "MlpPolicy"')
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not space.shape[0]:
        raise ValueError(
            f"observation space: expected a Box with one axis, got {space}; gymnasium.wrappers.FlattenObservation "
            "makes one of others"
        )
    ActionCodec(action_space)


def check_step(step: int, observations: NDArray[Any], rewards: NDArray[Any], infos: list[dict[str, Any]]) -> None:
    """Checks what an environment returned; raises ValueError that names the step and what is not finite."""
    lasts = [info["terminal_observation"] for info in infos if info.get("terminal_observation") is not None]
    for name, values in (("observation", observations), ("observation", lasts), ("reward", rewards)):
        if not np.isfinite(values).all():
            raise ValueError(f"environment step {step}: {name}: expected finite numbers, got {np.asarray(values)}")


def recorded(buffer: ReplayBuffer, codec: ActionCodec) -> Transitions:
    """Returns all steps `[M]` of a buffer."""
    times, envs = np.divmod(np.arange(buffer.size() * buffer.n_envs), buffer.n_envs)
    return transitions(buffer, codec, (times, envs))


def drawn(
    buffer: ReplayBuffer, random: np.random.Generator, members: int, count: int, latest: int | None = None
) -> Where:
    """Returns where random steps `[members, count]` are in a buffer, others for each member.

    Args:
        buffer: recorded steps.
        random: random numbers.
        members: K.
        count: of steps for each.
        latest: moments that are drawn from, the latest ones; None for all.
    """
    shape = members, count
    moments = buffer.size() if latest is None else min(latest, buffer.size())
    return (buffer.pos - 1 - random.integers(moments, size=shape)) % buffer.buffer_size, random.integers(
        buffer.n_envs, size=shape
    )


def backups(buffer: ReplayBuffer, where: Where, steps: int, discount: float) -> Backups:
    """Returns what followed upon the states at moments and environments.

    Args:
        buffer: recorded steps.
        where: the moments and environments.
        steps: how many are looked ahead, unless the episode ends or the record does.
        discount: of a step.
    """
    times, envs = where
    newest, last, going = (buffer.pos - 1) % buffer.buffer_size, times, np.ones(times.shape, bool)
    total, weights = np.zeros(times.shape, np.float32), np.ones(times.shape, np.float32)
    for ahead in range(steps):
        now = (times + ahead) % buffer.buffer_size
        total += np.where(going, weights * buffer.rewards[now, envs], 0)
        weights, last = np.where(going, np.float32(discount) * weights, weights), np.where(going, now, last)
        after = (now + 1) % buffer.buffer_size
        goes_on = (buffer.next_observations[now, envs] == buffer.observations[after, envs]).all(-1)
        going = going & (buffer.dones[now, envs] == 0) & (now != newest) & goes_on  # `learn` may reset unrecorded
    weights = weights * (1 - _ended(buffer, (last, envs)))
    parts = buffer.observations[where], total, buffer.next_observations[last, envs], weights
    return Backups(*_tensors(buffer, *parts))


def transitions(buffer: ReplayBuffer, codec: ActionCodec, where: Where) -> Transitions:
    """Returns the steps of moments and environments."""
    actions = buffer.actions[where]
    if codec.choices:
        actions = codec.encode(actions.reshape(*where[0].shape, *codec.space.shape))  # type: ignore[misc]
    rest = buffer.next_observations[where], buffer.rewards[where], _ended(buffer, where)
    return Transitions(*_tensors(buffer, buffer.observations[where], actions, *rest))


def _ended(buffer: ReplayBuffer, where: Where) -> NDArray[np.float32]:
    return buffer.dones[where] * (1 - buffer.timeouts[where])  # a time limit does not end an episode for good


def _tensors(buffer: ReplayBuffer, *parts: NDArray[Any]) -> Iterator[Tensor]:
    return (torch.as_tensor(part, dtype=torch.float32, device=buffer.device) for part in parts)
