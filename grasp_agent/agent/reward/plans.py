"""What a policy that replans at every step keeps between two steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grasp_agent.task.action_codec import ActionCodec

_CORRELATION = 0.9  # of the noise on actions, from step to step; chosen by hand


class RunningPlans(NamedTuple):
    """The plans of n environments, from which their next searches start."""

    actions: NDArray[np.float32]
    """`[n, H, A]` in [-1, 1], from the present step on; zeros where an episode begins."""
    noise: NDArray[np.float32]
    """`[n, A]`, the present noise on actions [its standard deviations]."""
    steps: NDArray[np.int64]
    """`[n]`, calls so far; the greatest one is part of the seed of the next search."""

    @classmethod
    def blank(cls, count: int, horizon: int, size: int) -> RunningPlans:
        """Returns the plans of environments whose episodes begin."""
        zeros = np.zeros((count, horizon, size), np.float32)
        return cls(zeros, zeros[:, 0].copy(), np.zeros(count, np.int64))

    @classmethod
    def of(cls, state: Any, blank: RunningPlans) -> RunningPlans:
        """Returns a copy of plans that a call returned.

        Args:
            state: what `predict` returned as its second value.
            blank: plans of the right shapes.

        Raises:
            ValueError: if they do not fit.
        """
        shapes = [part.shape for part in blank]
        if not isinstance(state, tuple) or [np.shape(part) for part in state] != shapes:
            raise ValueError(f"state: expected what predict returned, arrays of shapes {shapes}")
        actions, noise, steps = state
        return cls(np.array(actions, np.float32), np.array(noise, np.float32), np.array(steps, np.int64))

    def begin(self, rows: NDArray[np.bool_]) -> None:
        """Discards the plans of rows `[n]`, whose episodes begin."""
        for part in self:
            part[rows] = 0


def noisy(
    codec: ActionCodec,
    scale: float,
    action: NDArray[np.float32],
    noise: NDArray[np.float32],
    random: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Adds noise, which goes on from that of the last step; of choices, some are redrawn.

    Args:
        codec: of the actions.
        scale: standard deviation of the noise, or the probability that a choice is redrawn.
        action: `[n, A]` in [-1, 1].
        noise: `[n, A]`, that of the last step [standard deviations].
        random: random numbers.

    Returns:
        The actions `[n, A]`, and the noise `[n, A]`.
    """
    if codec.choices:
        kept = random.random((len(action), len(codec.choices))) >= scale
        kept = np.repeat(kept, codec.choices, axis=-1)
        return np.where(kept, action, codec.random(random, len(action))), noise
    fresh = random.standard_normal(noise.shape, np.float32)
    noise = _CORRELATION * noise + np.float32((1 - _CORRELATION**2) ** 0.5) * fresh
    return (action + scale * noise).clip(-1, 1), noise
