"""Balls that slide along walls without friction: pure functions of arrays of any number of balls."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

RADIUS = 0.06
"""Radius of the ball [m]."""

STEP = 0.06
"""Largest displacement along one axis in one step [m]."""

LIMIT = 1.0 - RADIUS
"""Largest coordinate of the ball's centre in the arena [-1, 1]^2 [m]."""

_SUBSTEPS = 2  # per step; each moves a ball by less than its radius
_PASSES = 2  # over all walls, per substep
_TOLERANCE = 1e-6  # overlap with a wall that `is_free` accepts, for rounding errors [m]

Rectangle = tuple[float, float, float, float]


def ball_step(position: ArrayLike, action: ArrayLike, walls: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moves balls by one step; they slide along walls without friction and never enter them.

    Args:
        position: Centres of the balls [*, 2] [m].
        action: Actions [*, 2]; entries are clipped to [-1, 1], and 1 moves a free ball by 0.06 m.
        walls: Rectangles (x_low, y_low, x_high, y_high) [W, 4] [m].

    Returns:
        The new centres [*, 2] [m].
    """
    position, action = np.broadcast_arrays(np.asarray(position, np.float64), np.asarray(action, np.float64))
    move = np.clip(action, -1.0, 1.0) * (STEP / _SUBSTEPS)
    x, y = position[..., 0].flatten(), position[..., 1].flatten()
    move_x, move_y = move[..., 0].ravel(), move[..., 1].ravel()
    for _ in range(_SUBSTEPS):
        x += move_x
        y += move_y
        # A second pass settles concave corners, where one wall pushes into the other.
        for _ in range(_PASSES):
            for wall in walls:
                _push_out(x, y, wall)
        np.clip(x, -LIMIT, LIMIT, out=x)
        np.clip(y, -LIMIT, LIMIT, out=y)
    return np.stack((x, y), axis=-1).reshape(position.shape)


def is_free(position: ArrayLike, walls: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns whether balls at centres [*, 2] are inside the arena and overlap no wall [W, 4], as [*]."""
    position = np.asarray(position, np.float64)
    free = np.all(np.abs(position) <= LIMIT + _TOLERANCE, axis=-1, keepdims=True)
    for wall in walls:
        gap = position - np.clip(position, wall[:2], wall[2:])
        free &= np.linalg.norm(gap, axis=-1, keepdims=True) >= RADIUS - _TOLERANCE
    return free[..., 0]


def sample_free(
    rng: np.random.Generator, count: int, walls: NDArray[np.float64], region: Rectangle | None = None
) -> NDArray[np.float64]:
    """Draws free centres uniformly by rejection.

    Args:
        rng: Source of randomness.
        count: How many to draw.
        walls: Rectangles (x_low, y_low, x_high, y_high) [W, 4] [m].
        region: Rectangle to draw from; None stands for the whole arena.

    Returns:
        Centres of balls that overlap no wall [count, 2] [m].

    Raises:
        ValueError: If the region seems to have no free part.
    """
    low_high = np.array(region or (-LIMIT, -LIMIT, LIMIT, LIMIT)).reshape(2, 2)
    found = np.empty((0, 2))
    for _ in range(1_000):
        if len(found) >= count:
            return found[:count]
        drawn = rng.uniform(*low_high, size=(count, 2))
        found = np.concatenate((found, drawn[is_free(drawn, walls)]))
    raise ValueError(f"expected a region with room for the ball, found none in {low_high.ravel()}")


def _push_out(x: NDArray[np.float64], y: NDArray[np.float64], wall: NDArray[np.float64]) -> None:
    """Pushes centres [M] in place out of one wall, along the normal at its closest point."""
    x_low, y_low, x_high, y_high = wall
    normal_x = x - np.minimum(np.maximum(x, x_low), x_high)
    normal_y = y - np.minimum(np.maximum(y, y_low), y_high)
    square = normal_x * normal_x + normal_y * normal_y
    hit = np.flatnonzero(square < RADIUS * RADIUS)
    if not hit.size:
        return
    distance = np.sqrt(square[hit])
    scale = RADIUS / np.where(distance > 0.0, distance, 1.0) - 1.0
    x[hit] += normal_x[hit] * scale
    y[hit] += normal_y[hit] * scale
    buried = hit[distance == 0.0]
    if buried.size:
        _dig_out(x, y, wall, buried)


def _dig_out(x: NDArray[np.float64], y: NDArray[np.float64], wall: NDArray[np.float64], rows: NDArray[np.intp]) -> None:
    """Puts centres that lie inside a wall (impossible from a free position) just outside its nearest face."""
    x_low, y_low, x_high, y_high = wall
    exits = np.array((x_low - RADIUS, x_high + RADIUS, y_low - RADIUS, y_high + RADIUS))
    inside = np.stack((x[rows], x[rows], y[rows], y[rows]), axis=-1)
    face = np.abs(inside - exits).argmin(axis=-1)
    across = face < 2
    x[rows[across]] = exits[face[across]]
    y[rows[~across]] = exits[face[~across]]
