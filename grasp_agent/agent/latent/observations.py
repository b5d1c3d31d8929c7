"""Observations of any space, single or stacked, for models that take them as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

_GOAL, _PRESENT = "desired_goal", ("observation", "achieved_goal")


class Observations:
    """Stacks and unstacks the observations of a space: a Box, or a Dict of Boxes.

    Args:
        space: of single observations.
        goal: returns observations at the goal; None for the desired goal of Dicts, see `LatentAgent`.

    Raises:
        ValueError: for another space.
    """

    def __init__(self, space: spaces.Space[Any], goal: Callable[[Any], Any] | None) -> None:
        parts = space.spaces if isinstance(space, spaces.Dict) else {"": space}
        for name, part in parts.items():
            if not isinstance(part, spaces.Box):
                raise ValueError(f"observation space: expected a Box or a Dict of Boxes, got {part} {name}".rstrip())
        if goal is not None and not callable(goal):
            raise ValueError(f"goal: expected a function of observations, got {goal!r}")
        self._space, self._parts, self._goal = space, parts, goal

    @property
    def has_goal_function(self) -> bool:
        """Whether goals come from a function that was given."""
        return self._goal is not None

    def example(self) -> Any:
        """Returns one stacked observation `[1, ...]`: the space's first sample."""
        space = deepcopy(self._space)  # of which the seed is the environment's own
        space.seed(0)
        return self.batched(space.sample())[0]

    def batched(self, observation: Any) -> tuple[Any, bool]:
        """Returns stacked observations, and whether they were stacked already.

        Raises:
            ValueError: if they do not fit the space.
        """
        if isinstance(self._space, spaces.Dict) != isinstance(observation, Mapping):
            raise ValueError(f"observation: expected one of {self._space}, got {type(observation).__name__}")
        given = observation if isinstance(observation, Mapping) else {"": observation}
        missing = sorted(set(self._parts) - set(given))
        if missing:
            raise ValueError(f"observation: expected {', '.join(self._parts)}, misses {', '.join(missing)}")
        arrays = {name: self._array(name, given[name]) for name in self._parts}
        stacked = {array.ndim - len(self._parts[name].shape) for name, array in arrays.items()}  # type: ignore[arg-type]
        if len(stacked) != 1 or len({len(array) for array in arrays.values()} if stacked == {1} else {0}) != 1:
            shapes = {name: list(array.shape) for name, array in arrays.items()}
            raise ValueError(f"observation: expected all entries single or of one length, got {shapes}")
        is_batch = stacked == {1}
        arrays = arrays if is_batch else {name: array[None] for name, array in arrays.items()}
        return self._joined(arrays), is_batch

    def length(self, batch: Any) -> int:
        """Returns the number of stacked observations."""
        return len(next(iter(batch.values())) if isinstance(batch, dict) else batch)

    def rows(self, batch: Any, index: NDArray[np.int64]) -> Any:
        """Returns some of the stacked observations."""
        return {name: array[index] for name, array in batch.items()} if isinstance(batch, dict) else batch[index]

    def packed(self, batch: Any) -> NDArray[np.uint8]:
        """Returns stacked observations as rows of bytes, `[n, R]`, without any loss."""
        arrays = self.batched(batch)[0]
        parts = arrays.values() if isinstance(arrays, dict) else [arrays]
        rows = [np.ascontiguousarray(part).reshape(len(part), -1).view(np.uint8) for part in parts]
        return np.concatenate(rows, 1)

    def unpacked(self, rows: NDArray[np.uint8]) -> Any:
        """Inverts `packed`."""
        arrays, first = {}, 0
        for name, space in self._parts.items():
            shape = space.shape or ()
            dtype = np.dtype(space.dtype or np.float32)
            size = int(np.prod(shape)) * dtype.itemsize
            part = np.ascontiguousarray(rows[:, first : first + size])
            arrays[name] = part.view(dtype).reshape(len(rows), *shape)
            first += size
        return self._joined(arrays)

    def goals(self, batch: Any) -> Any | None:
        """Returns stacked observations at the goals of observations; None if these name none.

        Raises:
            ValueError: if the goal function returns something else.
        """
        if self._goal is not None:
            try:
                found, is_batch = self.batched(self._goal(batch))
            except ValueError as error:
                raise ValueError(f"goal: its function returned what is no observation: {error}") from error
            if not is_batch or self.length(found) != self.length(batch):
                raise ValueError(f"goal: expected its function to return {self.length(batch)} stacked observations")
            return found
        if not isinstance(batch, dict) or _GOAL not in batch:
            return None
        present = [name for name in _PRESENT if name in batch]
        if any(batch[name].shape != batch[_GOAL].shape for name in present):
            return None  # a goal names a part of what is observed: the rest of it is not known
        return {**batch, **dict.fromkeys(present, batch[_GOAL])} if present else None

    def _array(self, name: str, values: Any) -> NDArray[Any]:
        space, entry = self._parts[name], f"observation {name!r}" if name else "observation"
        try:
            array = np.asarray(values, space.dtype)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{entry}: expected numbers {list(space.shape or ())}, got {error}") from error
        if array.shape[-len(space.shape or ()) :] != space.shape or array.ndim - len(space.shape or ()) not in (0, 1):
            raise ValueError(f"{entry}: expected {list(space.shape or ())} or [n, ...], got {list(array.shape)}")
        if not np.isfinite(array).all():
            raise ValueError(f"{entry}: expected finite numbers, got NaN or infinity")
        return array

    def _joined(self, arrays: dict[str, NDArray[Any]]) -> Any:
        return arrays if isinstance(self._space, spaces.Dict) else arrays[""]
