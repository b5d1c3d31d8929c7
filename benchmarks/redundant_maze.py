"""A maze whose observation has redundant entries: a point's position and its square; goals name the position only."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

ID = "benchmarks/RedundantMaze-v0"
WALLS = ((0.0, 0.30, 0.70, 0.36), (0.30, 0.64, 1.0, 0.70))
"""Left, bottom, right and top edge of each wall [arena widths]."""
STEP, RADIUS, STEPS = 0.04, 0.05, 120  # greatest move along an axis, success radius [arena widths]; time limit [steps]
_LEAST_DISTANCE = 0.2  # of start and goal [arena widths]

Point = NDArray[np.float64]


class RedundantMaze(gym.Env[dict[str, Point], NDArray[np.float32]]):
    """A point in the unit square with two walls, which leave a passage at opposite ends.

    The observation is `[x, y, x^2, y^2]`, the achieved goal `[x, y]`. An action in [-1, 1]^2 moves the point by up to
    `STEP` along each axis, first x, then y; a move into a wall or out of the square is not made. Starts and goals are
    anywhere free. Truncated after `STEPS` steps.
    """

    def __init__(self) -> None:
        box = spaces.Box(0, 1, (2,), np.float64)
        self.observation_space: Any = spaces.Dict(
            observation=spaces.Box(0, 1, (4,), np.float64), achieved_goal=box, desired_goal=box
        )
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Point], dict[str, Any]]:
        """See `gymnasium.Env.reset`."""
        super().reset(seed=seed)
        self._point, self._goal, self._taken = self._draw(), self._draw(), 0
        while np.linalg.norm(self._point - self._goal) < _LEAST_DISTANCE:
            self._goal = self._draw()
        return self._observed(), {"is_success": False}

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Point], float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        self._taken += 1
        moves = STEP * np.clip(np.asarray(action, np.float64), -1, 1)
        for axis in range(2):
            moved = self._point.copy()
            moved[axis] += moves[axis]
            if is_free(moved):
                self._point = moved
        reward = float(self.compute_reward(self._point, self._goal, {}))
        return self._observed(), reward, False, self._taken >= STEPS, {"is_success": reward == 0}

    def compute_reward(self, achieved: Point, desired: Point, info: Any) -> NDArray[np.float64]:
        """Returns 0 within the success radius and -1 elsewhere, `[...]`, of goals `[..., 2]`."""
        return np.where(np.linalg.norm(achieved - desired, axis=-1) <= RADIUS, 0.0, -1.0)

    def _draw(self) -> Point:
        """Returns a free point."""
        while not is_free(point := self.np_random.uniform(size=2)):
            pass
        return point

    def _observed(self) -> dict[str, Point]:
        point = self._point
        return {
            "observation": np.concatenate([point, point**2]),
            "achieved_goal": point.copy(),
            "desired_goal": self._goal.copy(),
        }


def is_free(point: Point) -> bool:
    """Returns whether a point is in the square and in no wall."""
    x, y = point
    inside = 0 <= x <= 1 and 0 <= y <= 1
    return bool(inside) and not any(left < x < right and low < y < high for left, low, right, high in WALLS)


gym.register(ID, entry_point="benchmarks.redundant_maze:RedundantMaze")
