"""Arenas of balls among walls."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from grasp_envs.ball_physics import LIMIT, Rectangle


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Walls of an arena and where its episodes start and end; (x_low, y_low, x_high, y_high) each [m]."""

    walls: tuple[Rectangle, ...] = ()
    """Axis-aligned walls."""
    start: Rectangle = (-LIMIT, -LIMIT, LIMIT, LIMIT)
    """Where a ball's centre starts: uniformly in the free part of this rectangle."""
    goal: Rectangle = (-LIMIT, -LIMIT, LIMIT, LIMIT)
    """Where its goal lies: uniformly in the free part of this rectangle."""

    def wall_array(self) -> NDArray[np.float64]:
        """Returns the walls as an array [W, 4] for `ball_step`."""
        return np.array(self.walls, dtype=np.float64).reshape(-1, 4)


LAYOUTS = MappingProxyType(
    {
        "open": Layout(),
        "barrier": Layout(walls=((-0.06, -0.6, 0.06, 0.6),)),
        "rooms": Layout(
            walls=((-0.06, -1.0, 0.06, 0.3), (-0.06, 0.6, 0.06, 1.0)),
            start=(-0.94, -0.94, -0.12, 0.94),
            goal=(0.12, -0.94, 0.94, 0.94),
        ),
        "trap": Layout(
            walls=(
                (0.25, -0.45, 0.37, 0.45),
                (-0.45, 0.33, 0.37, 0.45),
                (-0.45, -0.45, 0.37, -0.33),
            ),
            start=(-0.15, -0.2, 0.15, 0.2),
            goal=(0.55, -0.35, 0.9, 0.35),
        ),
        "maze": Layout(
            walls=(
                (-0.62, 0.47, 0.62, 0.57),
                (-0.62, -0.57, -0.52, 0.57),
                (-0.14, -0.05, 1.0, 0.05),
                (-1.0, -0.57, 0.62, -0.47),
            ),
            start=(-0.9, 0.65, -0.7, 0.9),
            goal=(-0.9, -0.9, -0.7, -0.65),
        ),
    }
)
"""The layouts by name."""
