"""Mazes with thin walls, which nobody has tuned for; some observations have redundant entries.

A point in the unit square moves by up to a step along each axis, first x, then y; a move into a wall or out of the
square is not made. Starts and goals are anywhere free; *far* ones are at least half as far apart, on the way round the
walls, as any two points. Episodes are truncated. Walls are thinner than two steps.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

ID = "benchmarks/RedundantMaze-v0"
RADIUS = 0.05  # success radius [arena widths]
_LEAST_DISTANCE = 0.2  # of start and goal [arena widths]
_CELLS = 50  # of the grid on which ways round the walls are measured, along each axis
Point = NDArray[np.float64]


class Layout(NamedTuple):
    """A maze."""

    walls: tuple[tuple[float, float, float, float], ...]
    """Left, bottom, right and top edge of each [arena widths]."""
    steps: int = 120
    """Time limit [steps]."""
    step: float = 0.04
    """Greatest move along an axis [arena widths]."""


LAYOUTS = {
    "two": Layout(((0.0, 0.30, 0.70, 0.36), (0.30, 0.64, 1.0, 0.70))),
    "corridors": Layout(
        (
            (0.0, 0.18, 0.82, 0.24),
            (0.18, 0.38, 1.0, 0.44),
            (0.0, 0.58, 0.82, 0.64),
            (0.18, 0.78, 1.0, 0.84),
        ),
        steps=240,
    ),
    "rooms": Layout(
        (
            (0.47, 0.0, 0.53, 0.18),
            (0.47, 0.32, 0.53, 0.68),
            (0.47, 0.82, 0.53, 1.0),
            (0.0, 0.47, 0.18, 0.53),
            (0.32, 0.47, 0.68, 0.53),
        ),
        steps=200,
    ),
    "hook": Layout(
        (
            (0.2, 0.2, 0.26, 0.8),
            (0.2, 0.74, 0.8, 0.8),
            (0.74, 0.4, 0.8, 0.8),
            (0.0, 0.2, 0.26, 0.26),
            (0.4, 0.4, 0.8, 0.46),
            (0.4, 0.4, 0.46, 0.6),
        ),
        steps=200,
    ),
    "comb": Layout(
        (
            (0.16, 0.2, 0.21, 1.0),
            (0.37, 0.0, 0.42, 0.8),
            (0.58, 0.2, 0.63, 1.0),
            (0.79, 0.0, 0.84, 0.8),
            (0.21, 0.5, 0.29, 0.55),
        ),
        steps=240,
    ),
    "fork": Layout(
        (
            (0.3, 0.3, 0.35, 0.85),
            (0.3, 0.3, 0.75, 0.35),
            (0.52, 0.5, 0.57, 1.0),
            (0.7, 0.3, 0.75, 0.8),
            (0.0, 0.56, 0.2, 0.61),
            (0.86, 0.5, 1.0, 0.55),
            (0.1, 0.12, 0.6, 0.17),
        ),
        steps=200,
    ),
}
"""`comb` and `fork` are those of reported figures, see `benchmarks.unseen_mazes`; the others may be tuned on."""


class Maze(gym.Env[dict[str, Point], NDArray[np.float32]]):
    """A point among thin walls, see above; the achieved goal is `[x, y]`.

    Args:
        layout: a name in `LAYOUTS`.
        redundant: whether the observation is `[x, y, x^2, y^2]` instead of `[x, y]`.
        far: whether all starts are far from their goals.
    """

    def __init__(self, layout: str = "two", *, redundant: bool = False, far: bool = False) -> None:
        self.layout, self._redundant, self._far = LAYOUTS[layout], redundant, far
        box = spaces.Box(0, 1, (2,), np.float64)
        self.observation_space: Any = spaces.Dict(
            observation=spaces.Box(0, 1, (4 if redundant else 2,), np.float64), achieved_goal=box, desired_goal=box
        )
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Point], dict[str, Any]]:
        """See `gymnasium.Env.reset`."""
        super().reset(seed=seed)
        self._point, self._goal, self._taken = self._draw(), self._draw(), 0
        while not self._apart():
            if self._far:  # no goal may be far from this start
                self._point = self._draw()
            self._goal = self._draw()
        return self._observed(), {"is_success": False}

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Point], float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        self._taken += 1
        self._point = self.moved(self._point, np.asarray(action, np.float64))
        reward = float(self.compute_reward(self._point, self._goal, {}))
        return self._observed(), reward, False, self._taken >= self.layout.steps, {"is_success": reward == 0}

    def moved(self, point: Point, action: Point) -> Point:
        """Returns the point after a step with an action `[2]`."""
        moves = self.layout.step * np.clip(action, -1, 1)
        for axis in range(2):
            moved = point.copy()
            moved[axis] += moves[axis]
            if is_free(moved, self.layout):
                point = moved
        return point

    def compute_reward(self, achieved: Point, desired: Point, info: Any) -> NDArray[np.float64]:
        """Returns 0 within the success radius and -1 elsewhere, `[...]`, of goals `[..., 2]`."""
        return np.where(np.linalg.norm(achieved - desired, axis=-1) <= RADIUS, 0.0, -1.0)

    def _apart(self) -> bool:
        if np.linalg.norm(self._point - self._goal) < _LEAST_DISTANCE:
            return False
        return not self._far or way(self.layout, self._point, self._goal) >= longest_way(self.layout) / 2

    def _draw(self) -> Point:
        """Returns a free point."""
        while not is_free(point := self.np_random.uniform(size=2), self.layout):
            pass
        return point

    def _observed(self) -> dict[str, Point]:
        point = self._point
        return {
            "observation": np.concatenate([point, point**2]) if self._redundant else point.copy(),
            "achieved_goal": point.copy(),
            "desired_goal": self._goal.copy(),
        }


def is_free(point: Point, layout: Layout) -> bool:
    """Returns whether a point is in the square and in no wall."""
    x, y = point
    inside = 0 <= x <= 1 and 0 <= y <= 1
    return bool(inside) and not any(left < x < right and low < y < high for left, low, right, high in layout.walls)


def way(layout: Layout, start: Point, goal: Point) -> float:
    """Returns the length of the shortest way round the walls, on a grid [arena widths]."""
    return float(_ways(layout)[_cell(start), _cell(goal)])


def longest_way(layout: Layout) -> float:
    """Returns the greatest length of a shortest way [arena widths]."""
    ways = _ways(layout)
    return float(ways[np.isfinite(ways)].max())


def _cell(point: Point) -> int:
    column, row = np.minimum((point * _CELLS).astype(int), _CELLS - 1)
    return int(column * _CELLS + row)


@cache
def _ways(layout: Layout) -> NDArray[np.float64]:
    """Returns shortest ways between the centres of all cells, `[cells^2, cells^2]`, infinite for those in walls."""
    centres = (np.stack(np.meshgrid(*[np.arange(_CELLS)] * 2, indexing="ij"), -1).reshape(-1, 2) + 0.5) / _CELLS
    free = np.array([is_free(centre, layout) for centre in centres]).reshape(_CELLS, _CELLS)
    number = np.arange(_CELLS**2).reshape(_CELLS, _CELLS)
    one, other, length = [], [], []
    for across, up in ((1, 0), (0, 1), (1, 1), (1, -1)):
        low, high = max(0, -up), _CELLS - max(0, up)
        first = (slice(0, _CELLS - across), slice(low, high))
        second = (slice(across, _CELLS), slice(low + up, high + up))
        both = free[first] & free[second]
        if across and up:  # no way cuts a corner
            both &= free[second[0], first[1]] & free[first[0], second[1]]
        one.append(number[first][both])
        other.append(number[second][both])
        length.append(np.full(int(both.sum()), np.hypot(across, up) / _CELLS))
    entries = np.concatenate(length), (np.concatenate(one), np.concatenate(other))
    return dijkstra(coo_array(entries, (_CELLS**2, _CELLS**2)).tocsr(), directed=False)


gym.register("benchmarks/Maze-v0", entry_point="benchmarks.mazes:Maze")
gym.register(ID, entry_point="benchmarks.mazes:Maze", kwargs={"redundant": True})
