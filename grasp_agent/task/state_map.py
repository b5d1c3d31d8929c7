"""The entries of observations that make up the state of a world model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grasp_agent.task.redundancy import determines

Array = NDArray[np.floating[Any]]
_FAR = 1e3  # least distance from zero at which an origin is subtracted; chosen by hand
_JUMP = 1.0  # change of a goal's entry in a step that counts as a jump [standard deviations]; chosen by hand
_LOST = 1e-4  # fraction of an entry's standard deviation that single precision may round away; chosen by hand


@dataclass(frozen=True, kw_only=True)
class StateMap:
    """The entries of observation and achieved goal that make up the state; duplicates are left out.

    Attributes:
        columns: `[S]`, indices into the observation followed by the achieved goal: the whole observation comes first,
            or the state is the goal's entries alone, see `reduced`.
        goal_index: `[G]`, indices into the state of the entries of the achieved goal.
        origin: `[S]`, subtracted from the state in double precision, for entries far from zero (map coordinates, time
            stamps); empty for zeros.
    """

    columns: tuple[int, ...]
    goal_index: tuple[int, ...]
    origin: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.columns or min(self.columns) < 0:
            raise ValueError(f"columns: expected indices from 0, got {self.columns}")
        if not self.goal_index or min(self.goal_index) < 0 or max(self.goal_index) >= len(self.columns):
            raise ValueError(f"goal_index: expected indices below {len(self.columns)}, got {self.goal_index}")

        if self.origin and not (len(self.origin) == len(self.columns) and np.isfinite(self.origin).all()):
            raise ValueError(f"origin: expected {len(self.columns)} finite values or none, got {self.origin}")

    @classmethod
    def discover(cls, raw: Array, goal_size: int) -> StateMap:
        """Finds duplicate entries and an origin in samples `[M, O + G]` of observation and achieved goal."""
        origin = _origin(raw)
        raw = (raw - origin).astype(np.float32)
        size = raw.shape[1] - goal_size
        columns, goal_index = list(range(size)), []
        for entry in range(size, raw.shape[1]):
            varies = bool(np.ptp(raw[:, entry]) > 0)
            same = [c for c in range(size) if varies and np.array_equal(raw[:, c], raw[:, entry])]
            same = [c for c in same if origin[c] == origin[entry]]
            goal_index.append(columns.index(same[0]) if same else len(columns))
            if not same:
                columns.append(entry)
        offsets = tuple(map(float, origin[columns])) if origin.any() else ()
        return cls(columns=tuple(columns), goal_index=tuple(goal_index), origin=offsets)

    @property
    def all_named(self) -> bool:
        """Whether goals name the whole state."""
        return len(set(self.goal_index)) == len(self.columns)

    def reduced(self, episodes: Sequence[Array]) -> StateMap:
        """Returns the map of the goal's entries alone, if the other entries are functions of them, else this map.

        Such entries, as the square of a position, carry no information and would pass for velocities. The goal's must
        be in the observation and change without jumps: sine and cosine are functions of an angle, but where it leaps
        from 180 to -180 degrees, they are the better state.

        Args:
            episodes: raw vectors `[T + 1, O + G]` of each.
        """
        named = sorted(set(self.goal_index))
        observation_size = episodes[0].shape[1] - len(self.goal_index)
        if self.all_named or max(self.columns[entry] for entry in named) >= observation_size:
            return self
        others = [entry for entry in range(len(self.columns)) if entry not in named]
        states = [self.select(raw) for raw in episodes]
        every, origins = np.concatenate(states), np.repeat(np.arange(len(states)), [len(part) for part in states])
        steps = np.concatenate([np.abs(np.diff(part[:, named], axis=0)) for part in states])
        smooth = bool((steps <= _JUMP * every[:, named].std(0)).all())
        if not (smooth and determines(every[:, named], every[:, others], origins)):
            return self
        return StateMap(
            columns=tuple(self.columns[entry] for entry in named),
            goal_index=tuple(named.index(entry) for entry in self.goal_index),
            origin=tuple(self.origin[entry] for entry in named) if self.origin else (),
        )

    def restore(self, states: Array, observation_size: int) -> Array:
        """Returns raw vectors `[..., O + G]` of states `[..., S]`, with 0 for entries that `select` leaves out."""
        states = states + np.array(self.origin) if self.origin else states
        goals = states[..., list(self.goal_index)]
        raw = np.zeros((*states.shape[:-1], observation_size + goals.shape[-1]), states.dtype)
        raw[..., list(self.columns)], raw[..., observation_size:] = states, goals
        return raw

    def select(self, raw: Array) -> NDArray[np.float32]:
        """Returns states `[..., S]`, relative to the origin, of raw vectors `[..., O + G]`."""
        chosen = raw[..., list(self.columns)]
        return (chosen - np.array(self.origin) if self.origin else chosen).astype(np.float32)

    def achieved(self, states: Array) -> Array:
        """Returns achieved goals `[..., G]` of states `[..., S]`."""
        index = list(self.goal_index)
        return states[..., index] + np.array(self.origin)[index] if self.origin else states[..., index]

    def relative(self, goals: Array) -> NDArray[np.float32]:
        """Returns goals `[..., G]` relative to the origin."""
        origin = np.array(self.origin)[list(self.goal_index)] if self.origin else 0
        return (goals - origin).astype(np.float32)


def _origin(raw: Array) -> NDArray[np.float64]:
    """Returns an origin `[O + G]` of samples `[M, O + G]`: not 0 where single precision loses digits."""
    far, spread = np.abs(raw).max(0), raw.std(0, dtype=np.float64)
    lost = (far > _FAR) & (far * np.finfo(np.float32).eps > _LOST * spread)
    return np.where(lost, np.rint(raw.mean(0, dtype=np.float64)), 0.0)
