"""Actions: [-1, 1] inside the agent, the environment's units outside."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


def check_actions(action_space: spaces.Space[Any]) -> None:
    """Checks that the agent can plan with these actions.

    Raises:
        ValueError: unless they are a bounded Box of one axis.
    """
    if not isinstance(action_space, spaces.Box):
        raise ValueError(f"action space: expected a Box (continuous actions), got {action_space}")
    if len(action_space.shape) != 1 or not action_space.is_bounded():
        raise ValueError(f"action space: expected a bounded Box with one axis, got {action_space}")
    low, high = _limits(action_space)
    with np.errstate(over="ignore"):
        if not action_space.shape[0] or not np.isfinite(high - low).all():
            raise ValueError(f"action space: expected at least one entry, and finite ranges, got {action_space}")


def whole_numbers(space: spaces.Box) -> bool:
    """Returns whether actions are whole numbers."""
    return not np.issubdtype(space.dtype, np.floating)


def to_space(actions: NDArray[Any], space: spaces.Box) -> NDArray[Any]:
    """Returns actions in [-1, 1] as actions of the space, in its dtype and bounds.

    Whole numbers have equal parts of [-1, 1], from the lowest to the highest.
    """
    low, high = _limits(space)
    scaled = low + (actions.astype(np.float64) + 1) / 2 * (high - low)
    if whole_numbers(space):
        whole, highest = np.rint(scaled), space.high.astype(np.float64)
        inside = np.clip(whole, space.low.astype(np.float64), np.nextafter(highest, -np.inf))
        return np.where(whole >= highest, space.high, inside.astype(space.dtype))  # 2^63 - 1 is no float64
    return np.clip(scaled.astype(space.dtype), space.low, space.high)


def from_space(actions: NDArray[Any], space: spaces.Box) -> NDArray[np.float32]:
    """Returns actions of the space in [-1, 1]; a whole number is the middle of its part."""
    low, high = _limits(space)
    span = np.where(high > low, high - low, 1.0)
    return np.where(high > low, 2 * (actions.astype(np.float64) - low) / span - 1, 0.0).astype(np.float32)


def _limits(space: spaces.Box) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    margin = 0.5 if whole_numbers(space) else 0.0
    return space.low.astype(np.float64) - margin, space.high.astype(np.float64) + margin
