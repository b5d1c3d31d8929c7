"""Balls among walls as a goal environment."""

from __future__ import annotations

from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from grasp_envs.ball_layouts import LAYOUTS, Layout
from grasp_envs.ball_physics import LIMIT, RADIUS, STEP, Rectangle, ball_step, is_free, sample_free
from grasp_envs.drawing import BALLS, GOAL, Scene
from grasp_envs.goal_env import GoalEnv
from grasp_envs.options import EnvOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

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


DOORS = ("fixed", "random")
DOOR_WIDTH = 0.3
"""Width of the door in `"rooms"` [m]."""
DOOR_LIMIT = 0.7
"""Largest distance of a random door's middle from the wall's middle [m]."""


class BallNavEnv(GoalEnv):
    """Balls have to be steered around walls, each to a goal of its own, and to stay there.

    ## Description

    A ball moves in a square arena [-1, 1]^2 with walls; it must reach a goal and stay there. It slides along
    walls without friction, so pushing straight at a goal behind a wall gets it stuck. In the layout
    `"trap"` it starts inside a U-shaped wall and has to move away from the goal first. In the layout `"maze"`
    a dead end leads straight towards the goal, and the detour takes more than 80 steps. In the layout
    `"rooms"` a wall with one door separates two rooms, the ball in the one and its goal in the other.

    With `door="random"`, as in `grasp/WallDoor-v0`, that door is elsewhere in each episode: its middle's y, in
    [-0.7, 0.7] m, stands last in the vector observation and in the state.

    With `balls=n` there are n of them, each with its own start and goal, all moved at once by one action.
    They do not collide: they pass through each other, so each could be steered on its own (`blocks`).

    | Id                     | Layout      | Balls | Time limit [steps] |
    |------------------------|-------------|-------|--------------------|
    | `grasp/BallNav-v0`     | `"barrier"` | 1     | 100                |
    | `grasp/Wall-v0`        | `"rooms"`   | 1     | 100                |
    | `grasp/WallDoor-v0`    | `"rooms"`   | 1     | 100                |
    | `grasp/BallNavTrap-v0` | `"trap"`    | 1     | 100                |
    | `grasp/BallNavMaze-v0` | `"maze"`    | 1     | 200                |
    | `grasp/BallNav4-v0`    | `"barrier"` | 4     | 100                |

    ## Action space

    `Box(-1, 1, (2 n,), float32)`; entries beyond the bounds are clipped. For ball i = 0, ..., n - 1:

    | Num     | Action                                        | Min | Max | Unit          |
    |---------|-----------------------------------------------|-----|-----|---------------|
    | 2 i     | displacement along x (to the right) in a step | -1  | 1   | 0.06 m / step |
    | 2 i + 1 | displacement along y (up) in a step           | -1  | 1   | 0.06 m / step |

    There is no velocity: the positions are the whole state. A step is two substeps of a moved and pushed-out
    disc (`ball_step`).

    ## Observation space

    `Dict` of three float64 Boxes; positions stand ball after ball: x0, y0, x1, y1, ...

    | Key             | Shape  | Content                       | Min   | Max  | Unit |
    |-----------------|--------|-------------------------------|-------|------|------|
    | `observation`   | (2 n,) | x, y of each ball's centre    | -0.94 | 0.94 | m    |
    | `achieved_goal` | (2 n,) | the same                      | -0.94 | 0.94 | m    |
    | `desired_goal`  | (2 n,) | x, y of each ball's goal      | -0.94 | 0.94 | m    |

    With `observation="pixels"`, `observation` is an image of the arena without goals, uint8 (64, 64, 3); with
    `goal="pixels"`, `desired_goal` is one with the balls at their goals, and there is no `achieved_goal`.

    ## Rewards

    The distance is that of the ball that is farthest from its own goal. `"sparse"`: 0 if it is at most
    0.05 m, -1 otherwise. `"dense"`: minus that distance in metres.

    ## Starting state

    | Layout      | Walls                   | Start: x, y [m]              | Goal: x, y [m]               |
    |-------------|-------------------------|------------------------------|------------------------------|
    | `"open"`    | none                    | anywhere                     | anywhere                     |
    | `"barrier"` | an upright wall midway  | anywhere free                | anywhere free                |
    | `"rooms"`   | an upright one, a door  | anywhere in the left room    | anywhere in the right room |
    | `"trap"`    | a U open to the left    | [-0.15, 0.15], [-0.2, 0.2]   | [0.55, 0.9], [-0.35, 0.35]   |
    | `"maze"`    | bends and a dead end    | [-0.9, -0.7], [0.65, 0.9]    | [-0.9, -0.7], [-0.9, -0.65]  |

    With `anywhere=True` both are anywhere free in every layout. They are uniform, independent from ball to
    ball, and never so close that the episode starts in success. Either is set by
    `reset(options={"state": [x0, y0, ...], "goal": [x0, y0, ...]})`.

    ## Episode end

    Truncation at the time limit; termination only with `terminate_on_success=True`, at the first success.
    `info["is_success"]` says whether every ball is at its goal now.

    ## Arguments

    | Keyword                | Default     | Meaning                                                         |
    |------------------------|-------------|-----------------------------------------------------------------|
    | `balls`                | `1`         | how many                                                        |
    | `layout`               | `"barrier"` | or `"open"`, `"rooms"`, `"trap"`, `"maze"`, or your own `Layout`|
    | `door`                 | `"fixed"`   | or `"random"`, for the layout `"rooms"`                         |
    | `anywhere`             | `False`     | starts and goals all over the arena, e.g. for gathering data    |
    | `observation`          | `"state"`   | or `"pixels"`                                                   |
    | `goal`                 | `"state"`   | or `"pixels"`                                                   |
    | `frames`               | `1`         | images in an observation, the newest last                       |
    | `reward_type`          | `"sparse"`  | or `"dense"`                                                    |
    | `terminate_on_success` | `False`     | end the episode with the first success                          |
    | `render_mode`          | `None`      | or `"rgb_array"`                                                |
    | `render_size`          | `480`       | height and width of a frame [pixels]                            |

    ## Version history

    * v0: first version.
    """

    def __init__(
        self,
        *,
        balls: int = 1,
        layout: str | Layout = "barrier",
        door: str = "fixed",
        anywhere: bool = False,
        **options: Unpack[EnvOptions],
    ) -> None:
        """Builds the arena; the class docstring describes the arguments.

        Raises:
            ValueError: If a keyword has a value that is not among its choices.
        """
        if not isinstance(balls, int | np.integer) or balls < 1:
            raise ValueError(f"balls must be an integer of at least 1, got {balls!r}")
        if not isinstance(layout, Layout) and layout not in tuple(LAYOUTS):
            choices = ", ".join(map(repr, LAYOUTS))
            raise ValueError(f"layout must be one of {choices} or a Layout, got {layout!r}")
        if door not in DOORS or (door == "random" and layout != "rooms"):
            raise ValueError(f'door must be "fixed" or, for the layout "rooms", "random", got {door!r}')
        size, doors = 2 * int(balls), int(door == "random")
        positions = spaces.Box(-LIMIT, LIMIT, (size,), np.float64)
        super().__init__(
            state_size=size + doors,
            action_size=size,
            vector_space=spaces.Box(-LIMIT, LIMIT, (size + doors,), np.float64) if doors else positions,
            goal_space=positions,
            distance_threshold=0.05,
            **options,
        )
        self.balls = int(balls)
        self.layout = layout if isinstance(layout, Layout) else LAYOUTS[layout]
        self.anywhere = bool(anywhere)
        self.walls = self.layout.wall_array()
        self._door: NDArray[np.float64] | None = np.zeros(1) if doors else None
        self._positions = np.zeros((self.balls, 2))
        self._scenes: dict[int, Scene] = {}

    @property
    def blocks(self) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
        """Groups of entries that are independent of all others.

        Returns:
            One pair per ball: entries of the vector observation (and of the goals), entries of the action. Empty where
            there is a door that all of them depend on.
        """
        if self._door is not None:
            return ()
        pairs = [(2 * ball, 2 * ball + 1) for ball in range(self.balls)]
        return tuple((pair, pair) for pair in pairs)

    def goal_distance(self, achieved_goal: ArrayLike, desired_goal: ArrayLike) -> NDArray[np.float64]:
        """Returns the distance [*] [m] of the ball that is farthest from its goal, for goals [*, 2 n]."""
        gaps = self._by_ball(np.asarray(achieved_goal) - np.asarray(desired_goal))
        return np.linalg.norm(gaps, axis=-1).max(axis=-1)

    def goal_to_pixels(self, points: ArrayLike) -> NDArray[np.float64]:
        """Returns pixels [*, 2 n] (x right, y down, ball after ball) in `render()`'s frame of goals [*, 2 n] [m]."""
        points = np.asarray(points, dtype=np.float64)
        return self._scene(self.render_size).to_pixels(self._by_ball(points)).reshape(points.shape)

    def _by_ball(self, vectors: NDArray[Any]) -> NDArray[Any]:
        return vectors.reshape(*vectors.shape[:-1], self.balls, 2)

    def _draw_state(self) -> NDArray[np.float64]:
        if self._door is None:
            return self._draw_positions(self.layout.start)
        self._open_door(self.np_random.uniform(-DOOR_LIMIT, DOOR_LIMIT, 1))
        return np.concatenate((self._draw_positions(self.layout.start), self._door))

    def _draw_goal(self) -> NDArray[np.float64]:
        return self._draw_positions(self.layout.goal)

    def _draw_positions(self, region: Rectangle) -> NDArray[np.float64]:
        return sample_free(self.np_random, self.balls, self.walls, None if self.anywhere else region).ravel()

    def _state_error(self, state: NDArray[np.float64]) -> str | None:
        walls = self.walls
        if self._door is not None and len(state) > self._goal_size:
            state, door = np.split(state, [self._goal_size])
            if abs(door[0]) > DOOR_LIMIT:
                return f"must have the door's middle, its last entry, within +-{DOOR_LIMIT}"
            walls = _walls_with_door(door[0])
        blocked = np.flatnonzero(~is_free(self._by_ball(state), walls))
        if not blocked.size:
            return None
        whose = "" if self.balls == 1 else f" for every ball (not so for {', '.join(map(str, blocked))})"
        return f"must be a free position{whose}, within +-{LIMIT} and at least {RADIUS} away from every wall"

    def _goal_error(self, goal: NDArray[np.float64]) -> str | None:
        return self._state_error(goal)

    def _goal_state(self, goal: NDArray[np.float64]) -> NDArray[np.float64]:
        return goal if self._door is None else np.concatenate((goal, self._door))

    def _set_state(self, state: NDArray[np.float64]) -> None:
        if self._door is not None:
            state, door = np.split(state, [self._goal_size])
            self._open_door(door)
        self._positions = self._by_ball(np.clip(state, -LIMIT, LIMIT))

    def _open_door(self, middle: NDArray[np.float64]) -> None:
        self._door, self.walls = middle.copy(), _walls_with_door(float(middle[0]))
        self._scenes.clear()

    def _get_state(self) -> NDArray[np.float64]:
        positions = self._positions.ravel()
        return positions if self._door is None else np.concatenate((positions, self._door))

    def _advance(self, action: NDArray[np.float64]) -> None:
        self._positions = ball_step(self._positions, self._by_ball(action), self.walls)

    def _get_vector(self) -> NDArray[np.float64]:
        return self._get_state()

    def _get_achieved_goal(self) -> NDArray[np.float64]:
        return self._positions.ravel()

    def _render_image(self, size: int, goal: NDArray[np.float64] | None) -> NDArray[np.uint8]:
        canvas = self._scene(size).canvas()
        colours = list(islice(cycle(BALLS), self.balls))
        if goal is not None:
            # A single goal has another colour than its ball; several have the colours of their balls.
            rings = [colour.body for colour in colours] if self.balls > 1 else [GOAL]
            for centre, ring in zip(self._by_ball(goal), rings, strict=True):
                canvas.goal(centre, self.distance_threshold, self.distance_threshold + RADIUS, ring)
        for position, colour in zip(self._positions, colours, strict=True):
            canvas.ball(position, RADIUS, colour)
        return canvas.image

    def _scene(self, size: int) -> Scene:
        if size not in self._scenes:
            self._scenes[size] = Scene(size, tuple((x0, y0, x1, y1) for x0, y0, x1, y1 in self.walls.tolist()))
        return self._scenes[size]


def _walls_with_door(middle: float) -> NDArray[np.float64]:
    """Returns the wall of `"rooms"` [2, 4] with its door at another height."""
    walls = LAYOUTS["rooms"].wall_array()
    walls[0, 3], walls[1, 1] = middle - DOOR_WIDTH / 2, middle + DOOR_WIDTH / 2
    return walls
