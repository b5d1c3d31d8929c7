"""The entries of observations that make up the state of a world model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class StateMap:
    """The entries of observation and achieved goal that make up the state; duplicates are left out.

    Attributes:
        columns: `[S]`, indices into the observation followed by the achieved goal; the whole observation comes first.
        goal_index: `[G]`, indices into the state of the entries of the achieved goal.
    """

    columns: tuple[int, ...]
    goal_index: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.columns or min(self.columns) < 0:
            raise ValueError(f"columns: expected indices from 0, got {self.columns}")
        if not self.goal_index or min(self.goal_index) < 0 or max(self.goal_index) >= len(self.columns):
            raise ValueError(f"goal_index: expected indices below {len(self.columns)}, got {self.goal_index}")

    @classmethod
    def discover(cls, raw: Array, goal_size: int) -> StateMap:
        """Finds duplicate entries in samples `[M, O + G]` of observation and achieved goal."""
        size = raw.shape[1] - goal_size
        columns, goal_index = list(range(size)), []
        for entry in range(size, raw.shape[1]):
            varies = bool(np.ptp(raw[:, entry]) > 0)
            same = [c for c in range(size) if varies and np.array_equal(raw[:, c], raw[:, entry])]
            goal_index.append(columns.index(same[0]) if same else len(columns))
            if not same:
                columns.append(entry)
        return cls(columns=tuple(columns), goal_index=tuple(goal_index))

    def restore(self, states: Array, observation_size: int) -> Array:
        """Returns raw vectors `[..., O + G]` of states `[..., S]`: the inverse of `select`."""
        return np.concatenate([states[..., :observation_size], states[..., list(self.goal_index)]], axis=-1)

    def select(self, raw: Array) -> Array:
        """Returns states `[..., S]` of raw vectors `[..., O + G]`."""
        return raw[..., list(self.columns)]
