"""The running plans of several environments: the state that `predict` returns and takes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class PlanState(NamedTuple):
    """The running plans of n environments."""

    actions: NDArray[np.float32]
    """`[n, H, A]`, in [-1, 1]."""
    states: NDArray[np.float32]
    """`[n, H + 1, S]`, predicted states from the one at which the plan was made [model units]."""
    goals: NDArray[np.float64]
    """`[n, G]`, the plans' goals [the environment's units]."""
    step: NDArray[np.int64]
    """`[n]`, actions executed."""
    accepted: NDArray[np.bool_]
    """`[n]`, whether the plan was accepted."""
    valid: NDArray[np.bool_]
    """`[n]`, whether there is a plan."""

    @classmethod
    def blank(cls, count: int, horizon: int, action_size: int, state_size: int, goal_size: int) -> PlanState:
        """Returns the state of `count` environments without plans."""
        return cls(
            actions=np.zeros((count, horizon, action_size), np.float32),
            states=np.zeros((count, horizon + 1, state_size), np.float32),
            goals=np.zeros((count, goal_size), np.float64),
            step=np.zeros(count, np.int64),
            accepted=np.zeros(count, np.bool_),
            valid=np.zeros(count, np.bool_),
        )

    @classmethod
    def of(cls, state: tuple[NDArray[Any], ...], count: int) -> PlanState:
        """Returns a copy of the state that `predict` returned.

        Raises:
            ValueError: if it is not for `count` environments.
        """
        if len(state) != len(cls._fields) or any(len(array) != count for array in state):
            raise ValueError(f"state: expected what predict returned for {count} environments")
        return cls._make(np.array(array) for array in state)

    def copy(self) -> PlanState:
        """Returns a deep copy."""
        return self._make(array.copy() for array in self)

    def rows(self, index: NDArray[np.int64]) -> PlanState:
        """Returns a copy of some environments' plans."""
        return self._make(array[index] for array in self)

    def put(self, index: NDArray[np.int64], plans: PlanState) -> None:
        """Replaces some environments' plans, in place."""
        for mine, theirs in zip(self, plans, strict=True):
            mine[index] = theirs  # type: ignore[index]

    def aims_at(self, goals: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
        """Returns where there is a plan for the goal `[n, G]`, `[n]`."""
        return self.valid & (goals == self.goals).all(-1)

    def held(self, start: NDArray[np.float32], fixed: tuple[int, ...], near: float) -> NDArray[np.float32]:
        """Returns states `[n, S]`, their entries `fixed` taken from the running plans where they are that `near`."""
        if not fixed:
            return start
        entries = list(fixed)
        before, now = self.states[:, 0, entries], start[:, entries]
        same = self.valid & (np.linalg.norm(now - before, axis=-1) <= near)
        kept = start.copy()
        kept[:, entries] = np.where(same[:, None], before, now)
        return kept

    def remaining(self) -> NDArray[np.float32]:
        """Returns the plans `[n, H, A]` without the executed actions, padded with zeros at the end."""
        horizon = self.actions.shape[1]
        index = self.step[:, None] + np.arange(horizon)
        moved = np.take_along_axis(self.actions, np.minimum(index, horizon - 1)[..., None], axis=1)
        return np.where((index < horizon)[..., None], moved, 0).astype(np.float32)
