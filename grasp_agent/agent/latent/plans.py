"""The running plans of a `LatentAgent`: the state that its `predict` returns and takes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class LatentPlans(NamedTuple):
    """The running plans of n environments, with what their model has seen; S entries of a latent, E of an action block.

    An action block holds the `frame_skip` actions of a model step, one after the other.
    """

    actions: NDArray[np.float32]
    """`[n, H, E]`, in [-1, 1]."""
    states: NDArray[np.float32]
    """`[n, H + 1, S]`, predicted latents from the one at which the plan begins."""
    goals: NDArray[np.float32]
    """`[n, S]`, the plans' goals."""
    step: NDArray[np.int64]
    """`[n]`, model steps executed."""
    part: NDArray[np.int64]
    """`[n]`, environment steps executed of the present block."""
    accepted: NDArray[np.bool_]
    """`[n]`, whether the plan was accepted."""
    valid: NDArray[np.bool_]
    """`[n]`, whether there is a plan."""
    seen: NDArray[np.bool_]
    """`[n]`, whether the episode has begun, so that there is a history."""
    past_states: NDArray[np.float32]
    """`[n, h - 1, S]`, latents before the present model step."""
    past_actions: NDArray[np.float32]
    """`[n, h - 1, E]`, action blocks before the present model step."""
    block: NDArray[np.float32]
    """`[n, E]`, the present block."""

    @classmethod
    def blank(cls, count: int, horizon: int, size: int, block: int, history: int) -> LatentPlans:
        """Returns the state of `count` environments at the beginning of their episodes."""
        return cls(
            actions=np.zeros((count, horizon, block), np.float32),
            states=np.zeros((count, horizon + 1, size), np.float32),
            goals=np.zeros((count, size), np.float32),
            step=np.zeros(count, np.int64),
            part=np.zeros(count, np.int64),
            accepted=np.zeros(count, np.bool_),
            valid=np.zeros(count, np.bool_),
            seen=np.zeros(count, np.bool_),
            past_states=np.zeros((count, history - 1, size), np.float32),
            past_actions=np.zeros((count, history - 1, block), np.float32),
            block=np.zeros((count, block), np.float32),
        )

    @classmethod
    def of(cls, state: tuple[NDArray[Any], ...], blank: LatentPlans) -> LatentPlans:
        """Returns a copy of the state that `predict` returned, in the shapes of `blank`.

        Raises:
            ValueError: if an array has another shape or type, or is not finite.
        """
        expected = f"state: expected what predict returned for {len(blank.step)} environments"
        if not isinstance(state, (tuple, list)) or len(state) != len(cls._fields):
            raise ValueError(f"{expected}, {len(cls._fields)} arrays, got {type(state).__name__}")
        for name, given, wanted in zip(cls._fields, state, blank, strict=True):
            if getattr(given, "shape", None) != wanted.shape or given.dtype.kind != wanted.dtype.kind:
                found = f"{given.dtype} {list(given.shape)}" if isinstance(given, np.ndarray) else type(given).__name__
                raise ValueError(f"{expected}, {name} as {wanted.dtype} {list(wanted.shape)}, got {found}")
            if not np.isfinite(given).all():
                raise ValueError(f"{expected}, got {name} that are not finite")
        return cls._make(np.array(given, wanted.dtype) for given, wanted in zip(state, blank, strict=True))

    def begin(self, rows: NDArray[np.bool_]) -> None:
        """Forgets the plans and histories of environments `[n]` that begin a new episode, in place."""
        self.valid[rows], self.seen[rows], self.part[rows] = False, False, 0

    def observe(self, rows: NDArray[np.int64], latents: NDArray[np.float32]) -> None:
        """Fills the history of new episodes with their first latents `[m, S]`, and rest, in place."""
        new = ~self.seen[rows]
        self.past_states[rows[new]] = latents[new, None]
        self.past_actions[rows[new]] = 0.0
        self.seen[rows] = True

    def put(
        self,
        rows: NDArray[np.int64],
        actions: NDArray[np.float32],
        states: NDArray[np.float32],
        goals: NDArray[np.float32],
        accepted: NDArray[np.bool_],
    ) -> None:
        """Replaces the plans of some environments, in place."""
        self.actions[rows], self.states[rows], self.goals[rows] = actions, states, goals
        self.accepted[rows], self.valid[rows], self.step[rows] = accepted, True, 0

    def remaining(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the actions of plans from the present step on, followed by rest, `[m, H, E]`."""
        horizon = self.actions.shape[1]
        index = self.step[rows, None] + np.arange(horizon)
        moved = np.take_along_axis(self.actions[rows], np.minimum(index, horizon - 1)[..., None], 1)
        return np.where((index < horizon)[..., None], moved, 0).astype(np.float32)

    def begin_block(self, rows: NDArray[np.int64], latents: NDArray[np.float32]) -> None:
        """Takes the present block of some environments from their plans, in latents `[m, S]`, in place."""
        self.block[rows] = self.actions[rows, self.step[rows]]
        if self.past_states.shape[1]:
            self.past_states[rows] = np.concatenate([self.past_states[rows, 1:], latents[:, None]], 1)
            self.past_actions[rows] = np.concatenate([self.past_actions[rows, 1:], self.block[rows, None]], 1)
        self.step[rows] += 1

    def advance(self, frame_skip: int) -> NDArray[np.float32]:
        """Returns the present actions `[n, A]`, in [-1, 1], and goes on to the next ones, in place."""
        size = self.block.shape[1] // frame_skip
        columns = self.part[:, None] * size + np.arange(size)
        actions = np.take_along_axis(self.block, columns, 1)
        self.part[:] = (self.part + 1) % frame_skip
        return actions
