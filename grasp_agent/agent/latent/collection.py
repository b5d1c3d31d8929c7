"""Recorded episodes for a world model: of datasets, and of smooth random actions in the environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from grasp_agent.agent.latent.memory import LatentEpisode
from grasp_agent.agent.latent.observations import Observations
from grasp_agent.planners import Coloured, NoiseSource
from grasp_agent.replay.offline import episodes_of, scaled_actions
from grasp_agent.task.actions import to_space

_ENCODED = 256  # observations that are encoded at a time; chosen by hand
_LONGEST = 1000  # steps of an episode without a time limit; chosen by hand
_BETA = 2.0  # exponent of the noise of random actions, see `Coloured`; chosen by hand
Recorded = tuple[Any, NDArray[Any]]
"""Observations `[T + 1, ...]`, and actions `[T, A]` [the environment's units]."""


def episodes_in(
    source: Any, action_space: spaces.Box, observations: Observations, encode: Callable[[Any], Tensor]
) -> list[LatentEpisode]:
    """Returns the episodes of a source of data, encoded.

    Args:
        source: see `LatentAgent.add_replay`.
        action_space: of the environment.
        observations: its observations.
        encode: from observations `[n, ...]` to latents `[n, S]`.

    Raises:
        ValueError: if it is of another kind, has no step, or does not fit.
    """
    if not isinstance(source, (list, tuple)):
        found = episodes_of(source, action_space, observations.packed)
        return [LatentEpisode(_encoded(observations.unpacked(e.states), encode), e.actions) for e in found]  # type: ignore[arg-type]
    episodes = []
    for number, pair in enumerate(source):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError(
                f"replay: expected a list of pairs of observations and actions, got {type(pair).__name__} in it"
            )
        actions, lengths = scaled_actions(pair[1], action_space), _lengths(pair[0])
        if lengths != {len(actions) + 1}:
            length = ", ".join(map(str, sorted(lengths)))
            raise ValueError(
                f"replay: expected one more observation than actions, got {length} and {len(actions)}, episode {number}"
            )
        episodes.append(LatentEpisode(_encoded(pair[0], encode), actions))
    if not sum(len(episode.actions) for episode in episodes):
        raise ValueError("replay: expected at least one step, got none")
    return episodes


def random_episodes(env: gym.Env[Any, Any], steps: int, seed: int) -> list[Recorded]:
    """Plays episodes of smooth random actions, of `steps` steps in all, at least."""
    assert isinstance(env.action_space, spaces.Box)
    noise, size = NoiseSource(seed, torch.device("cpu"), torch.float32), env.action_space.shape[0]
    episodes: list[Recorded] = []
    while sum(len(actions) for _, actions in episodes) < steps:
        draw = Coloured(beta=_BETA).sample(noise, 1, _LONGEST, size)[0].numpy()
        actions = to_space(np.clip(draw, -1, 1).astype(np.float32), env.action_space)
        observation, _ = env.reset(seed=seed + len(episodes))
        seen, done, taken = [observation], False, 0
        while not done and taken < _LONGEST:
            observation, _, terminated, truncated, _ = env.step(actions[taken])
            seen.append(observation)
            taken, done = taken + 1, terminated or truncated
        episodes.append((_stacked(seen), actions[:taken]))
    return episodes


def _encoded(observations: Any, encode: Callable[[Any], Tensor]) -> Tensor:
    """Returns latents `[n, S]` of observations `[n, ...]`, some at a time."""
    count = max(_lengths(observations))
    return torch.cat([encode(_part(observations, slice(i, i + _ENCODED))) for i in range(0, count, _ENCODED)])


def _stacked(observations: list[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {key: np.stack([one[key] for one in observations]) for key in observations[0]}
    return np.stack(observations)


def _lengths(observations: Any) -> set[int]:
    """Returns the lengths of all entries of stacked observations."""
    return {len(entry) for entry in (observations.values() if isinstance(observations, dict) else [observations])}


def _part(observations: Any, rows: slice) -> Any:
    if isinstance(observations, dict):
        return {key: values[rows] for key, values in observations.items()}
    return observations[rows]
