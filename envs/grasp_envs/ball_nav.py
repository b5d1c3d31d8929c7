"""A ball among walls as a goal environment."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from grasp_envs.ball_physics import LIMIT, RADIUS, STEP, Rectangle, ball_step, is_free, sample_free
from grasp_envs.drawing import Scene
from grasp_envs.goal_env import GoalEnv

__all__ = [
    "LAYOUTS",
    "LIMIT",
    "RADIUS",
    "STEP",
    "BallNavEnv",
    "Layout",
    "ball_step",
    "is_free",
    "sample_free",
]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Walls of an arena and where its episodes start and end; (x_low, y_low, x_high, y_high) each [m]."""

    walls: tuple[Rectangle, ...] = ()
    """Axis-aligned walls."""
    start: Rectangle = (-LIMIT, -LIMIT, LIMIT, LIMIT)
    """Where the ball's centre starts: uniformly in the free part of this rectangle."""
    goal: Rectangle = (-LIMIT, -LIMIT, LIMIT, LIMIT)
    """Where the goal lies: uniformly in the free part of this rectangle."""

    def wall_array(self) -> NDArray[np.float64]:
        """The walls as an array [W, 4] for `ball_step`."""
        return np.array(self.walls, dtype=np.float64).reshape(-1, 4)


LAYOUTS = MappingProxyType(
    {
        "open": Layout(),
        "barrier": Layout(walls=((-0.06, -0.6, 0.06, 0.6),)),
        "trap": Layout(
            walls=(
                (0.25, -0.45, 0.37, 0.45),
                (-0.45, 0.33, 0.37, 0.45),
                (-0.45, -0.45, 0.37, -0.33),
            ),
            start=(-0.15, -0.2, 0.15, 0.2),
            goal=(0.55, -0.35, 0.9, 0.35),
        ),
    }
)
"""The layouts by name."""


class BallNavEnv(GoalEnv):
    """A ball has to find its way around walls to a goal, and to stay there.

    ## Description

    A ball moves in a square arena [-1, 1]^2 with walls; it must reach a goal and stay there. It slides along
    walls without friction, so pushing straight at a goal behind a wall gets it stuck. In the layout
    `"trap"` it starts inside a U-shaped wall and has to move away from the goal first.

    ## Action space

    `Box(-1, 1, (2,), float32)`; entries beyond the bounds are clipped.

    | Num | Action                                        | Min | Max | Unit          |
    |-----|-----------------------------------------------|-----|-----|---------------|
    | 0   | displacement along x (to the right) in a step | -1  | 1   | 0.06 m / step |
    | 1   | displacement along y (up) in a step           | -1  | 1   | 0.06 m / step |

    There is no velocity: the position is the whole state. A step is two substeps of a moved and pushed-out
    disc (`ball_step`).

    ## Observation space

    `Dict` of three float64 Boxes.

    | Key             | Shape | Content                   | Min   | Max  | Unit |
    |-----------------|-------|---------------------------|-------|------|------|
    | `observation`   | (2,)  | x, y of the ball's centre | -0.94 | 0.94 | m    |
    | `achieved_goal` | (2,)  | the same                  | -0.94 | 0.94 | m    |
    | `desired_goal`  | (2,)  | x, y of the goal          | -0.94 | 0.94 | m    |

    With `observation="pixels"`, `observation` is a picture of the arena without the goal, uint8 (64, 64, 3).

    ## Rewards

    `"sparse"`: 0 if the centre is within 0.05 m of the goal, -1 otherwise. `"dense"`: minus that distance in
    metres.

    ## Starting state

    | Layout      | Walls                   | Start: x, y [m]              | Goal: x, y [m]               |
    |-------------|-------------------------|------------------------------|------------------------------|
    | `"open"`    | none                    | anywhere                     | anywhere                     |
    | `"barrier"` | an upright wall midway  | anywhere free                | anywhere free                |
    | `"trap"`    | a U open to the left    | [-0.15, 0.15], [-0.2, 0.2]   | [0.55, 0.9], [-0.35, 0.35]   |

    Both are uniform, and never so close that the episode starts in success. Either is set by
    `reset(options={"state": [x, y], "goal": [x, y]})`.

    ## Episode end

    Truncation after 100 steps; termination only with `terminate_on_success=True`, at the first success.
    `info["is_success"]` says whether the ball is at the goal now.

    ## Arguments

    | Keyword                | Default     | Meaning                                                    |
    |------------------------|-------------|------------------------------------------------------------|
    | `layout`               | `"barrier"` | `"open"`, `"barrier"`, `"trap"`, or a `Layout` of your own |
    | `observation`          | `"state"`   | or `"pixels"`                                              |
    | `reward_type`          | `"sparse"`  | or `"dense"`                                               |
    | `terminate_on_success` | `False`     | end the episode with the first success                     |
    | `render_mode`          | `None`      | or `"rgb_array"`                                           |
    | `render_size`          | `480`       | height and width of a frame [pixels]                       |

    ## Version history

    * v0: first version.
    """

    def __init__(
        self,
        *,
        layout: str | Layout = "barrier",
        observation: str = "state",
        reward_type: str = "sparse",
        terminate_on_success: bool = False,
        render_mode: str | None = None,
        render_size: int = 480,
    ) -> None:
        """Build the arena; the class docstring describes the arguments.

        Raises:
            ValueError: If a keyword has a value that is not among its choices.
        """
        if not isinstance(layout, Layout) and layout not in tuple(LAYOUTS):
            choices = ", ".join(map(repr, LAYOUTS))
            raise ValueError(f"layout must be one of {choices} or a Layout, got {layout!r}")
        plane = spaces.Box(-LIMIT, LIMIT, (2,), np.float64)
        super().__init__(
            state_size=2,
            vector_space=plane,
            goal_space=plane,
            distance_threshold=0.05,
            observation=observation,
            reward_type=reward_type,
            terminate_on_success=terminate_on_success,
            render_mode=render_mode,
            render_size=render_size,
        )
        self.layout = layout if isinstance(layout, Layout) else LAYOUTS[layout]
        self.walls = self.layout.wall_array()
        self._position = np.zeros(2)
        self._scenes: dict[int, Scene] = {}

    def goal_to_pixels(self, points: ArrayLike) -> NDArray[np.float64]:
        """Pixels [*, 2] (x right, y down) in the frame of `render()` of points of the arena [*, 2] [m]."""
        return self._scene(self.render_size).to_pixels(points)

    def _draw_state(self) -> NDArray[np.float64]:
        return sample_free(self.np_random, 1, self.walls, self.layout.start)[0]

    def _draw_goal(self) -> NDArray[np.float64]:
        return sample_free(self.np_random, 1, self.walls, self.layout.goal)[0]

    def _why_not_state(self, state: NDArray[np.float64]) -> str | None:
        if is_free(state, self.walls):
            return None
        return f"must be a free position, within +-{LIMIT} and at least {RADIUS} away from every wall"

    def _why_not_goal(self, goal: NDArray[np.float64]) -> str | None:
        return self._why_not_state(goal)

    def _set_state(self, state: NDArray[np.float64]) -> None:
        self._position = np.clip(state, -LIMIT, LIMIT)

    def _get_state(self) -> NDArray[np.float64]:
        return self._position

    def _advance(self, action: NDArray[np.float64]) -> None:
        self._position = ball_step(self._position, action, self.walls)

    def _get_vector(self) -> NDArray[np.float64]:
        return self._position

    def _get_achieved_goal(self) -> NDArray[np.float64]:
        return self._position

    def _picture(self, size: int, goal: NDArray[np.float64] | None) -> NDArray[np.uint8]:
        picture = self._scene(size).canvas()
        if goal is not None:
            picture.goal(goal, self.distance_threshold, self.distance_threshold + RADIUS)
        picture.ball(self._position, RADIUS)
        return picture.image

    def _scene(self, size: int) -> Scene:
        if size not in self._scenes:
            self._scenes[size] = Scene(size, self.layout.walls)
        return self._scenes[size]
