"""The running plans of several environments: the state that `predict` returns and takes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from grasp_agent.planners.refusals import refused

_KEPT = 64  # refused steps that are kept; chosen by hand
MEMORY = ("before", "expected", "refused", "refusals")
"""Fields of `PlanState` that do not belong to one plan."""


class PlanState(NamedTuple):
    """The running plans of n environments."""

    actions: NDArray[np.float32]
    """`[n, H, A]`, in [-1, 1]."""
    states: NDArray[np.float32]
    """`[n, H + 1, S]`, predicted states from the one at which the plan begins [model units]."""
    gains: NDArray[np.float32]
    """`[n, H, A, S]`, feedback: changes of the actions by a deviation from those states."""
    goals: NDArray[np.float64]
    """`[n, G]`, the plans' goals [the environment's units]."""
    step: NDArray[np.int64]
    """`[n]`, actions executed."""
    accepted: NDArray[np.bool_]
    """`[n]`, whether the plan was accepted."""
    valid: NDArray[np.bool_]
    """`[n]`, whether there is a plan."""
    final: NDArray[np.bool_]
    """`[n]`, whether it leads to the goal; else to a state on the way, as the goal is too far for a plan."""
    before: NDArray[np.float32]
    """`[n, S]`, the states in which the last actions were taken."""
    expected: NDArray[np.float32]
    """`[n, S]`, the states that the model predicts after these; those of `before` where no action was taken."""
    refused: NDArray[np.float32]
    """`[n, R, 2, S]`, steps that the environment refused in this episode, as the states that were reached and those
    that were predicted [model units]; two equal ones stand for none."""
    refusals: NDArray[np.int64]
    """`[n]`, number of these so far; the latest R are kept."""

    @classmethod
    def blank(cls, count: int, horizon: int, action_size: int, state_size: int, goal_size: int) -> PlanState:
        """Returns the state of `count` environments without plans."""
        return cls(
            actions=np.zeros((count, horizon, action_size), np.float32),
            states=np.zeros((count, horizon + 1, state_size), np.float32),
            gains=np.zeros((count, horizon, action_size, state_size), np.float32),
            goals=np.zeros((count, goal_size), np.float64),
            step=np.zeros(count, np.int64),
            accepted=np.zeros(count, np.bool_),
            valid=np.zeros(count, np.bool_),
            final=np.ones(count, np.bool_),
            before=np.zeros((count, state_size), np.float32),
            expected=np.zeros((count, state_size), np.float32),
            refused=np.zeros((count, _KEPT, 2, state_size), np.float32),
            refusals=np.zeros(count, np.int64),
        )

    @classmethod
    def of(cls, state: tuple[NDArray[Any], ...], blank: PlanState) -> PlanState:
        """Returns a copy of the state that `predict` returned.

        Args:
            state: arrays in the order of the fields.
            blank: a state of the expected shapes; H, where all arrays agree on it, may differ.

        Raises:
            ValueError: if an array has another shape or type, or holds what no plan does.
        """
        expected = f"state: expected what predict returned for {len(blank.step)} environments"
        if not isinstance(state, (tuple, list)) or len(state) != len(cls._fields):
            found = f"{len(state)} arrays" if isinstance(state, (tuple, list)) else type(state).__name__
            raise ValueError(f"{expected}, {len(cls._fields)} arrays, got {found}")
        horizon = getattr(state[0], "shape", (0, 0))[1:2]
        if horizon and horizon != blank.actions.shape[1:2] and horizon[0] > 0:  # the horizon was changed meanwhile
            sizes = blank.actions.shape[2], blank.states.shape[2], blank.goals.shape[1]
            blank = cls.blank(len(blank.step), horizon[0], *sizes)
        arrays = []
        for name, given, wanted in zip(cls._fields, state, blank, strict=True):
            array = given if isinstance(given, np.ndarray) else np.empty((), object)
            if array.shape != wanted.shape or array.dtype.kind != wanted.dtype.kind:
                found = f"{array.dtype} {list(array.shape)}" if array.dtype != object else type(given).__name__
                raise ValueError(f"{expected}, {name} as {wanted.dtype} {list(wanted.shape)}, got {found}")
            if not np.isfinite(array).all() or (name in ("step", "refusals") and (array < 0).any()):
                raise ValueError(f"{expected}, got {name} that are not finite, or negative")
            arrays.append(array.astype(wanted.dtype))
        return cls._make(arrays)

    def copy(self) -> PlanState:
        """Returns a deep copy."""
        return self._make(array.copy() for array in self)

    def rows(self, index: NDArray[np.int64]) -> PlanState:
        """Returns a copy of some environments' plans."""
        return self._make(array[index] for array in self)

    def begin_episodes(self, index: NDArray[Any]) -> None:
        """Discards some environments' plans and what is remembered of them, in place."""
        self.valid[index] = False
        for name in MEMORY:
            getattr(self, name)[index] = 0

    def advance(self, states: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        """Goes on by one action, in place, taken in `states` `[n, S]`, after which others `[n, S]` are predicted."""
        self.before[:], self.expected[:] = states, expected
        self.step[:] += 1

    def refusing(self, states: NDArray[np.float32], least: float) -> NDArray[np.bool_]:
        """Returns where the environment refused the last step, `[n]`: most of the predicted change is missing.

        Args:
            states: `[n, S]`, the present ones.
            least: predicted changes that are smaller do not count [model units].
        """
        before, expected, reached = (torch.from_numpy(part) for part in (self.before, self.expected, states))
        return refused(before, expected, reached, least).numpy()

    def remember_refused(self, rows: NDArray[np.int64], states: NDArray[np.float32]) -> None:
        """Adds the last steps of some environments to those that were refused, in place; `states` are all `[n, S]`."""
        self.refused[rows, self.refusals[rows] % _KEPT] = np.stack([states[rows], self.expected[rows]], 1)
        self.refusals[rows] += 1

    def replace_plans(self, index: NDArray[np.int64], plans: PlanState) -> None:
        """Replaces some environments' plans, in place, but not what they remember."""
        for name, mine, theirs in zip(self._fields, self, plans, strict=True):
            if name not in MEMORY:
                mine[index] = theirs  # type: ignore[index]

    def put(self, index: NDArray[np.int64], plans: PlanState) -> None:
        """Replaces some environments' plans, in place."""
        for mine, theirs in zip(self, plans, strict=True):
            mine[index] = theirs  # type: ignore[index]

    def deviations(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns differences `[n, S]` of states `[n, S]` from those predicted for the present step."""
        return states - self.ahead(0)

    def feedback(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the present actions `[n, A]` for states `[n, S]`, with feedback, in [-1, 1]."""
        rows, step = np.arange(len(states)), np.minimum(self.step, self.actions.shape[1] - 1)
        change = np.einsum("nas,ns->na", self.gains[rows, step], self.deviations(states))
        return np.clip(self.actions[rows, step] + np.where(np.isfinite(change), change, 0), -1, 1)

    def usable(self, states: NDArray[np.float32], radius: float) -> NDArray[np.bool_]:
        """Returns where plans predict states within `radius` of states `[n, S]`, `[n]`; after its end, the last one."""
        return self.valid & (np.linalg.norm(self.deviations(states), axis=-1) <= radius)

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

    def staying(self) -> PlanState:
        """Returns plans that repeat the last step, not accepted: the feedback holds the last state."""
        horizon = self.actions.shape[1]
        return self._replace(
            actions=self.actions[:, -1:].repeat(horizon, 1),
            states=self.states[:, -1:].repeat(horizon + 1, 1),
            gains=self.gains[:, -1:].repeat(horizon, 1),
            step=np.zeros_like(self.step),
            accepted=np.zeros_like(self.accepted),
        )

    def ahead(self, count: int) -> NDArray[np.float32]:
        """Returns the states `[n, S]` predicted for `count` steps after the present one."""
        return self.states[np.arange(len(self.step)), np.minimum(self.step + count, self.states.shape[1] - 1)]

    def remaining(self, count: int = 0) -> NDArray[np.float32]:
        """Returns the plans `[n, H, A]` from `count` steps after the present one, padded with zeros at the end."""
        horizon = self.actions.shape[1]
        index = self.step[:, None] + count + np.arange(horizon)
        moved = np.take_along_axis(self.actions, np.minimum(index, horizon - 1)[..., None], axis=1)
        return np.where((index < horizon)[..., None], moved, 0).astype(np.float32)


class PlanView(NamedTuple):
    """The plan of the first environment, for drawing."""

    path: NDArray[np.float32]
    """`[H + 1, G]`, predicted achieved goals from the state at which the plan begins [the environment's units];
    constant while there is no plan to follow."""
    virtual: NDArray[np.float32]
    """`[N, H, G]`, virtual states of the candidates when the plan was made; empty if there were none."""
    step: int
    """Index of the action being executed."""
    fresh: bool
    """Whether the plan came into use in this call."""
    accepted: bool
    """Whether it was accepted, see `Criteria.accept`."""
