"""Actions of any space as vectors in [-1, 1]: a Box by its range, choices as the corners of a simplex."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from grasp_agent.task.actions import check_actions, from_space, to_space

_MOST = 4096  # entries of a vector; chosen by hand


class ActionCodec:
    """Translates between actions and the vectors that a model takes and a planner finds.

    A choice among n is a vector of n entries, 1 for what is chosen and -1 for the others.

    Args:
        space: a bounded Box of one axis, Discrete, MultiDiscrete of one axis or MultiBinary(n).

    Attributes:
        size: A, entries of a vector.
        choices: how many entries belong to each choice; empty for a Box.

    Raises:
        ValueError: for another space.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.space = space
        self.choices, self._first = _choices(space)
        if not self.choices:
            check_actions(space)
        self.size: int = sum(self.choices) if self.choices else space.shape[0]  # type: ignore[index]
        if self.size > _MOST:
            raise ValueError(f"action space: expected at most {_MOST} choices, got {self.size}")

    def encode(self, actions: NDArray[Any]) -> NDArray[np.float32]:
        """Returns vectors `[..., A]` of actions `[..., ...]`, as an environment takes them."""
        if isinstance(self.space, spaces.Box):
            return from_space(actions, self.space)
        chosen = np.asarray(actions).astype(np.int64)
        chosen = (chosen[..., None] if isinstance(self.space, spaces.Discrete) else chosen) - self._first
        parts = [2 * np.eye(n, dtype=np.float32)[chosen[..., i]] - 1 for i, n in enumerate(self.choices)]
        return np.concatenate(parts, -1)

    def decode(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Returns actions of vectors `[..., A]`: inside the bounds, or the greatest entry of each choice."""
        if isinstance(self.space, spaces.Box):
            return to_space(vectors, self.space)
        parts = np.split(vectors, np.cumsum(self.choices)[:-1], -1)
        chosen = np.stack([part.argmax(-1) for part in parts], -1) + self._first
        chosen = chosen[..., 0] if isinstance(self.space, spaces.Discrete) else chosen
        return chosen.astype(self.space.dtype)

    def random(self, generator: np.random.Generator, count: int) -> NDArray[np.float32]:
        """Returns vectors `[count, A]` of random choices."""
        drawn = [2 * np.eye(n, dtype=np.float32)[generator.integers(n, size=count)] - 1 for n in self.choices]
        return np.concatenate(drawn, -1)


def _choices(space: spaces.Space[Any]) -> tuple[tuple[int, ...], NDArray[np.int64]]:
    """Returns the numbers of choices, and the first of each; none for other spaces."""
    if isinstance(space, spaces.Discrete):
        return (int(space.n),), np.array([space.start], np.int64)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return tuple(space.nvec.tolist()), np.asarray(space.start, np.int64)
    if isinstance(space, spaces.MultiBinary) and isinstance(space.n, int):  # as Stable-Baselines3 takes them
        return (2,) * space.shape[0], np.zeros(space.shape[0], np.int64)
    return (), np.zeros(0, np.int64)
