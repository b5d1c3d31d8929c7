"""A ball with inertia in a maze, simulated by MuJoCo, as a goal environment."""

# MuJoCo's bindings come without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from grasp_envs.goal_env import GoalEnv
from grasp_envs.options import EnvOptions
from grasp_envs.rendering import FixedCamera

if TYPE_CHECKING:
    from typing_extensions import Unpack

RADIUS = 0.1
"""Radius of the ball [m]."""

LAYOUTS = MappingProxyType(
    {
        "umaze": (
            "#####",
            "#   #",
            "### #",
            "#   #",
            "#####",
        ),
        "medium": (
            "########",
            "#  ##  #",
            "#  #   #",
            "##   ###",
            "#  #   #",
            "# #  # #",
            "#   #  #",
            "########",
        ),
        "large": (
            "############",
            "#    #     #",
            "# ## # # # #",
            "#      #   #",
            "# #### ### #",
            "#  # #     #",
            "## # # # ###",
            "#  #   #   #",
            "############",
        ),
    }
)
"""The mazes by name: rows of cells of 1 m from top to bottom, `#` is a wall (those of D4RL, Fu et al. 2020)."""

_MODEL = Path(__file__).parent / "assets" / "point_maze.xml"
_FRAME_SKIP = 10  # timesteps per step
_SPEED_LIMIT = 10.0  # largest absolute velocity of an accepted state, along an axis [m/s]
_WALL_HEIGHT = 0.2  # [m]
_TARGET_GROUP = 3  # group of geoms of the goal marker
_FOVY = 14.0  # vertical field of view of the camera [deg]
_CROPPED = 0.6  # part of the outer wall that is outside of the image [m]
_SHADE_OFFSET = (0.035, -0.05)  # of a wall's shadow, along x and y [m]
_SHADE_BLURS = (-0.02, 0.0, 0.02, 0.04)  # growth of the boxes that make up a shadow [m]
_MAX_DRAWS = 10_000  # attempts at a free position


class PointMazeEnv(GoalEnv):
    """A ball with inertia has to be driven through a maze to a goal, and to be stopped there.

    ## Description

    A force drives a ball of 1 kg and radius 0.1 m through a maze of cells of 1 m; it must reach a goal and stay
    there. Friction of 2 N s/m stops it in about half a second and limits its velocity to 2 m/s along each axis.
    Walls stop the ball along their normal and let it slide along them. The physics is MuJoCo's: timestep 0.01 s, ten
    timesteps per step (0.1 s).

    | Id                          | Layout     | Maze [m] | Time limit [steps] |
    |-----------------------------|------------|----------|--------------------|
    | `grasp/PointMaze-v0`        | `"umaze"`  | 5 x 5    | 100                |
    | `grasp/PointMazeMedium-v0`  | `"medium"` | 8 x 8    | 200                |
    | `grasp/PointMazeLarge-v0`   | `"large"`  | 12 x 9   | 300                |

    ## Action space

    `Box(-1, 1, (2,), float32)`; entries beyond the bounds are clipped.

    | Num | Action                         | Min | Max | Unit |
    |-----|--------------------------------|-----|-----|------|
    | 0   | force along x (to the right)   | -1  | 1   | 4 N  |
    | 1   | force along y (up)             | -1  | 1   | 4 N  |

    ## Observation space

    `Dict` of three float64 Boxes; the origin is the middle of the maze, W x H its size.

    | Key             | Shape | Content                      | Min        | Max      | Unit |
    |-----------------|-------|------------------------------|------------|----------|------|
    | `observation`   | (4,)  | 0-1: x, y of the ball        | -W/2, -H/2 | W/2, H/2 | m    |
    |                 |       | 2-3: its velocity            | -Inf       | Inf      | m/s  |
    | `achieved_goal` | (2,)  | x, y of the ball             | -W/2, -H/2 | W/2, H/2 | m    |
    | `desired_goal`  | (2,)  | x, y of the goal             | -W/2, -H/2 | W/2, H/2 | m    |

    With `observation="pixels"`, `observation` is an image of the maze without the goal, uint8 (64, 64, 3); it does
    not show the velocity, which `frames=2` does: two images on the axis of channels. With `goal="pixels"`,
    `desired_goal` is an image with the ball at the goal, and there is no `achieved_goal`.

    ## Rewards

    `"sparse"`: 0 if the ball is within 0.2 m of the goal, -1 otherwise. `"dense"`: minus that distance [m].

    ## Starting state

    Position and goal are uniform over all free positions, and never so close that the episode starts in success.
    The ball starts at rest. `reset(options={"state": [x, y, vx, vy], "goal": [x, y]})` sets either.

    ## Episode end

    Truncation at the time limit; termination only with `terminate_on_success=True`, at the first success.
    `info["is_success"]` says whether the ball is at the goal now.

    ## Arguments

    | Keyword                | Default    | Meaning                                                     |
    |------------------------|------------|-------------------------------------------------------------|
    | `layout`               | `"umaze"`  | or `"medium"`, `"large"`, or rows of `#` and space          |
    | `observation`          | `"state"`  | or `"pixels"`                                               |
    | `goal`                 | `"state"`  | or `"pixels"`                                               |
    | `frames`               | `1`        | images in an observation                                    |
    | `reward_type`          | `"sparse"` | or `"dense"`                                                |
    | `terminate_on_success` | `False`    | end the episode with the first success                      |
    | `render_mode`          | `None`     | or `"rgb_array"`                                            |
    | `render_size`          | `480`      | height and width of a frame [pixels]                        |

    ## Version history

    * v0: first version.
    """

    def __init__(
        self,
        *,
        layout: str | tuple[str, ...] = "umaze",
        **options: Unpack[EnvOptions],
    ) -> None:
        """Builds the maze; the class docstring describes the arguments.

        Raises:
            ValueError: If a keyword has a value that is not among its choices.
        """
        self.cells = _read_layout(layout)
        half = np.array(self.cells.shape[::-1]) / 2.0
        positions = spaces.Box(-half, half, dtype=np.float64)
        bound = np.array([*half, np.inf, np.inf])
        super().__init__(
            state_size=4,
            action_size=2,
            vector_space=spaces.Box(-bound, bound, dtype=np.float64),
            goal_space=positions,
            distance_threshold=0.2,
            **options,
        )
        self._half = half
        self._model = _build(self.cells)
        self._data = mujoco.MjData(self._model)
        self._camera = FixedCamera(self._model, "view", hidden_group=_TARGET_GROUP)

    def is_free(self, position: ArrayLike) -> NDArray[np.bool_]:
        """Returns whether the ball fits at positions [*, 2] [m]: at least its radius away from every wall."""
        position = np.asarray(position, dtype=np.float64)
        rows, columns = np.nonzero(self.cells)
        walls = np.stack((columns + 0.5, self.cells.shape[0] - rows - 0.5), axis=-1) - self._half  # their centres
        gap = np.maximum(np.abs(position[..., None, :] - walls) - 0.5, 0.0)
        clear = np.linalg.norm(gap, axis=-1).min(axis=-1) >= RADIUS - 1e-3
        return clear & (np.abs(position) <= self._half).all(axis=-1)

    def goal_to_pixels(self, points: ArrayLike) -> NDArray[np.float64]:
        """Returns pixels [*, 2] (x right, y down) in the frame of `render()` of positions [*, 2] [m]."""
        points = np.asarray(points, dtype=np.float64)
        height = np.zeros((*points.shape[:-1], 1))
        return self._camera.to_pixels(np.concatenate((points, height), axis=-1), self.render_size)

    def close(self) -> None:
        """Frees the graphics memory."""
        self._camera.close()

    def _draw_position(self) -> NDArray[np.float64]:
        for _ in range(_MAX_DRAWS):
            position = self.np_random.uniform(-self._half, self._half)
            if self.is_free(position):
                return position
        raise RuntimeError(f"no free position in {_MAX_DRAWS} draws: the maze has hardly any free space")

    def _draw_state(self) -> NDArray[np.float64]:
        return np.concatenate((self._draw_position(), np.zeros(2)))

    def _draw_goal(self) -> NDArray[np.float64]:
        return self._draw_position()

    def _state_error(self, state: NDArray[np.float64]) -> str | None:
        if np.abs(state[2:]).max() > _SPEED_LIMIT:
            return f"must have velocities state[2:] within +-{_SPEED_LIMIT} m/s"
        return self._goal_error(state[:2])

    def _goal_error(self, goal: NDArray[np.float64]) -> str | None:
        # Contacts are soft: a ball that presses against a wall overlaps it a little, which `is_free` tolerates.
        return None if self.is_free(goal) else f"must be a position at least {RADIUS} m away from every wall"

    def _goal_state(self, goal: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate((goal, np.zeros(2)))

    def _set_state(self, state: NDArray[np.float64]) -> None:
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = state[:2]
        self._data.qvel[:] = state[2:]

    def _get_state(self) -> NDArray[np.float64]:
        return np.concatenate((self._data.qpos, self._data.qvel))

    def _advance(self, action: NDArray[np.float64]) -> None:
        self._data.ctrl[:] = action
        mujoco.mj_step(self._model, self._data, nstep=_FRAME_SKIP)

    def _get_vector(self) -> NDArray[np.float64]:
        return self._get_state()

    def _get_achieved_goal(self) -> NDArray[np.float64]:
        return self._data.qpos.copy()

    def _render_image(self, size: int, goal: NDArray[np.float64] | None) -> NDArray[np.uint8]:
        if goal is not None:
            self._data.mocap_pos[0, :2] = goal
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        return self._camera.render(self._data, size, hide=goal is None)


def _read_layout(layout: object) -> NDArray[np.bool_]:
    """Returns where the walls are, [rows, columns], from top to bottom."""
    rows = LAYOUTS.get(layout) if isinstance(layout, str) else layout
    choices = f"one of {', '.join(map(repr, LAYOUTS))}, or rows of '#' and ' ' of one length within a closed wall"
    if not isinstance(rows, list | tuple) or not all(
        isinstance(row, str) and not set(row) - {"#", " "} for row in rows
    ):
        raise ValueError(f"layout must be {choices}, got {layout!r}")
    cells = [[cell == "#" for cell in row] for row in rows]
    if not cells or len({len(row) for row in cells}) != 1:
        raise ValueError(f"layout must be {choices}, got {layout!r}")
    array = np.array(cells, dtype=np.bool_)
    border = np.ones_like(array)
    border[1:-1, 1:-1] = False
    if not array[border].all() or array.all():
        raise ValueError(f"layout must be {choices}, got {layout!r}")
    return array


def _build(cells: NDArray[np.bool_]) -> Any:
    """Returns the model: walls as boxes, one for each run of cells in a row, and a camera that shows all of it."""
    spec = mujoco.MjSpec.from_file(str(_MODEL))
    height, width = cells.shape
    for row in range(height):
        y, column = height / 2 - row - 0.5, 0
        for wall, run in groupby(cells[row]):
            length = len(list(run))
            if wall:
                x = column + length / 2 - width / 2
                _add_box(spec, (x, y, _WALL_HEIGHT / 2), (length / 2, 0.5, _WALL_HEIGHT / 2), "wall")
                for blur in _SHADE_BLURS:
                    centre = (x + _SHADE_OFFSET[0], y + _SHADE_OFFSET[1], 1e-3)
                    _add_box(spec, centre, (length / 2 + blur, 0.5 + blur, 1e-3), "shade")
            column += length
    distance = (max(height, width) / 2 - _CROPPED) / np.tan(np.deg2rad(_FOVY) / 2)
    spec.worldbody.add_camera(name="view", pos=[0, 0, distance + _WALL_HEIGHT], fovy=_FOVY)
    spec.stat.center, spec.stat.extent = [0, 0, 0], float(max(height, width))
    return spec.compile()


def _add_box(spec: Any, centre: tuple[float, ...], halves: tuple[float, ...], material: str) -> None:
    """Adds a wall, or a part of its shadow."""
    solid = int(material == "wall")
    spec.worldbody.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, pos=centre, size=halves, material=material, contype=solid, conaffinity=solid
    )
