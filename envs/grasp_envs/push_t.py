"""Push-T: a T-shaped block has to be pushed to a pose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import shapely
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from grasp_envs.drawing import BALLS, GOAL, SHADOW, WALL, Canvas, Rectangle, Scene
from grasp_envs.goal_env import GoalEnv
from grasp_envs.options import EnvOptions
from grasp_envs.push_t_physics import AGENT_RADIUS, BARS, REACH, RIM, SIZE, Board, block_corners, touches

if TYPE_CHECKING:
    from typing_extensions import Unpack

POSITION_TOLERANCE = 20.0
"""Largest distance of the block from its goal in success [1/512 of the board]."""
ANGLE_TOLERANCE = np.pi / 9.0
"""Largest difference of its angle [rad]."""

_LEVER = POSITION_TOLERANCE / ANGLE_TOLERANCE  # length that makes angles comparable with distances [u / rad]
_HALF = SIZE / 2.0  # of the board [u]
_AGENT_START = (50.0, 450.0)  # limits of the disc's starting coordinates [u]
_BLOCK_START = (130.0, 382.0)  # limits of the block's and the goal's coordinates [u]
_UNIT = 1e-6  # largest accepted deviation of a goal's (cosine, sine) from unit length
_BARS: tuple[Rectangle, ...] = tuple(
    (x0 / _HALF, -y1 / _HALF, x1 / _HALF, -max(y0 - 15.0, 0.0) / _HALF) for x0, y0, x1, y1 in BARS
)
"""The bars as they are drawn: y points up, and they overlap, so that no seam shows."""


class PushTEnv(GoalEnv):
    """A disc has to push a T-shaped block to a position and an angle, and to leave it there.

    ## Description

    The task of diffusion policy (Chi et al. 2023, arXiv 2303.04137) with random goals, as in DINO-WM (Zhou et al.
    2024, arXiv 2411.04983): a T-shaped block lies on a board of 512 x 512 units (u), a disc pushes it. The block
    stays where it is left. The physics is pymunk's with the settings of the original task: ten steps a second, each of
    ten timesteps, in which a controller moves the disc towards a target. As in the original, y points DOWN.

    ## Action space

    `Box(-1, 1, (2,), float32)`; entries beyond the bounds are clipped.

    | Num | Action                                      | Min | Max | Unit  |
    |-----|---------------------------------------------|-----|-----|-------|
    | 0   | the target's displacement from the disc, x  | -1  | 1   | 100 u |
    | 1   | the target's displacement from the disc, y  | -1  | 1   | 100 u |

    ## Observation space

    `Dict` of three float64 Boxes.

    | Key             | Shape | Content                               | Min  | Max | Unit |
    |-----------------|-------|---------------------------------------|------|-----|------|
    | `observation`   | (8,)  | 0-1: x, y of the disc                 | 0    | 512 | u    |
    |                 |       | 2-3: its velocity                     | -Inf | Inf | u/s  |
    |                 |       | 4-5: x, y of the block                | -64  | 576 | u    |
    |                 |       | 6-7: cosine and sine of its angle     | -1   | 1   | -    |
    | `achieved_goal` | (4,)  | the block's pose: entries 4-7         |      |     |      |
    | `desired_goal`  | (4,)  | the pose it should have               |      |     |      |

    The block's position is the middle of the top edge of the T, which can be pressed a little over the board's edge.
    With `observation="pixels"`, `observation` is an image of the board without the goal, uint8 (64, 64, 3). With
    `goal="pixels"`, `desired_goal` is one with the block at the goal, the disc where it starts or as `goal_state` has
    it, and there is no `achieved_goal`.

    ## Rewards

    Success is a distance of at most 20 u and a difference of the angles of at most pi / 9. `"sparse"`: 0 in success, -1
    otherwise. `"dense"`: minus the greater of distance [u] and angle times 20 / (pi / 9) [u / rad].

    ## Starting state

    The disc is uniform in [50, 450]^2 where it does not touch the block, block and goal in [130, 382]^2, both with any
    angle, and never so close that the episode starts in success. `reset(options={"state": [x, y, vx, vy, block x, block
    y, block angle], "goal": [x, y, cosine, sine]})` sets either.

    ## Episode end

    Truncation after 150 steps; termination only with `terminate_on_success=True`, at the first success.
    `info["is_success"]` says whether the block is at its goal now, `info["coverage"]` which fraction of the goal's
    outline it covers (the original task's measure; 0.95 is its success).


    ## Arguments

    | Keyword                | Default    | Meaning                                |
    |------------------------|------------|----------------------------------------|
    | `observation`          | `"state"`  | or `"pixels"`                          |
    | `goal`                 | `"state"`  | or `"pixels"`                          |
    | `frames`               | `1`        | images in an observation               |
    | `reward_type`          | `"sparse"` | or `"dense"`                           |
    | `terminate_on_success` | `False`    | end the episode with the first success |
    | `render_mode`          | `None`     | or `"rgb_array"`                       |
    | `render_size`          | `480`      | height and width of a frame [pixels]   |

    ## Version history

    * v0: first version.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}  # type: ignore[misc]

    def __init__(
        self,
        **options: Unpack[EnvOptions],
    ) -> None:
        """Builds the board; the class docstring describes the arguments.

        Raises:
            ValueError: If a keyword has a value that is not among its choices.
        """
        low, high = np.array([-RIM, -RIM, -1.0, -1.0]), np.array([SIZE + RIM, SIZE + RIM, 1.0, 1.0])
        agent_low, agent_high = np.array([0.0, 0.0, -np.inf, -np.inf]), np.array([SIZE, SIZE, np.inf, np.inf])
        super().__init__(
            state_size=7,
            action_size=2,
            vector_space=spaces.Box(
                np.concatenate((agent_low, low)), np.concatenate((agent_high, high)), dtype=np.float64
            ),
            goal_space=spaces.Box(low, high, dtype=np.float64),
            distance_threshold=POSITION_TOLERANCE,
            **options,
        )
        self._board = Board()
        self._scenes: dict[int, Scene] = {}

    @property
    def frame(self) -> dict[str, Any]:
        """The block's own frame, in which the dynamics do not depend on its pose: entries of observation and action."""
        return {
            "origin": (4, 5),
            "heading": (6, 7),
            "points": ((0, 1),),
            "vectors": ((2, 3),),
            "actions": ((0, 1),),
            "lever": _LEVER,
        }

    @property
    def goal_weights(self) -> tuple[float, ...]:
        """Weights of the entries of two goals' difference: cosine and sine weigh as much as their arc [u]."""
        return (1.0, 1.0, _LEVER, _LEVER)

    @property
    def rests(self) -> bool:
        """Whether the environment rests under action 0: the block stays where it is left."""
        return True

    def goal_distance(self, achieved_goal: ArrayLike, desired_goal: ArrayLike) -> NDArray[np.float64]:
        """Returns the greater of distance and scaled angle [*] [u], for poses [*, 4]: x, y, cosine, sine."""
        achieved, desired = np.asarray(achieved_goal, np.float64), np.asarray(desired_goal, np.float64)
        distance = np.linalg.norm(achieved[..., :2] - desired[..., :2], axis=-1)
        cosine = (achieved[..., 2:] * desired[..., 2:]).sum(axis=-1)
        sine = achieved[..., 2] * desired[..., 3] - achieved[..., 3] * desired[..., 2]
        turned = np.abs(np.arctan2(sine, cosine))
        return np.maximum(distance, turned * _LEVER)

    def coverage(self) -> float:
        """Returns the fraction of the goal's outline that the block covers."""
        goal = _outline((*self.goal[:2], _angle(self.goal)))
        return float(_outline(self._board.state[4:]).intersection(goal).area / goal.area)

    def goal_to_pixels(self, points: ArrayLike) -> NDArray[np.float64]:
        """Returns pixels [*, 2] (x right, y down) in the frame of `render()` of the positions of poses [*, 4]."""
        return self._scene(self.render_size).to_pixels(_to_scene(np.asarray(points, np.float64)[..., :2]))

    def _info(self) -> dict[str, Any]:
        return {**super()._info(), "coverage": self.coverage()}

    def _draw_state(self) -> NDArray[np.float64]:
        pose = self._draw_pose()
        while touches(agent := self.np_random.uniform(*_AGENT_START, size=2), pose):
            pass
        return np.concatenate((agent, np.zeros(2), pose))

    def _draw_goal(self) -> NDArray[np.float64]:
        x, y, angle = self._draw_pose()
        return np.array([x, y, np.cos(angle), np.sin(angle)])

    def _draw_pose(self) -> NDArray[np.float64]:
        return np.array([*self.np_random.uniform(*_BLOCK_START, size=2), self.np_random.uniform(-np.pi, np.pi)])

    def _state_error(self, state: NDArray[np.float64]) -> str | None:
        if not ((state[:2] >= 0) & (state[:2] <= SIZE)).all():
            return f"must have the disc's position state[:2] in [0, {SIZE:g}]"
        if not ((state[4:6] >= -RIM) & (state[4:6] <= SIZE + RIM)).all():
            return f"must have the block's position state[4:6] in [{-RIM:g}, {SIZE + RIM:g}]"
        return None

    def _goal_error(self, goal: NDArray[np.float64]) -> str | None:
        if not ((goal[:2] >= -RIM) & (goal[:2] <= SIZE + RIM)).all():
            return f"must have a position goal[:2] in [{-RIM:g}, {SIZE + RIM:g}]"
        if abs(float(np.hypot(*goal[2:])) - 1.0) > _UNIT:
            return "must have the cosine and the sine of an angle in goal[2:]"
        return None

    def _goal_state(self, goal: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate((self._board.state[:2], np.zeros(2), goal[:2], [_angle(goal)]))

    def _set_state(self, state: NDArray[np.float64]) -> None:
        self._board.state = state

    def _get_state(self) -> NDArray[np.float64]:
        return self._board.state

    def _advance(self, action: NDArray[np.float64]) -> None:
        self._board.push(self._board.state[:2] + REACH * action)

    def _get_vector(self) -> NDArray[np.float64]:
        return np.concatenate((self._board.state[:4], self._get_achieved_goal()))

    def _get_achieved_goal(self) -> NDArray[np.float64]:
        x, y, angle = self._board.state[4:]
        return np.array([x, y, np.cos(angle), np.sin(angle)])

    def _render_image(self, size: int, goal: NDArray[np.float64] | None) -> NDArray[np.uint8]:
        canvas = self._scene(size).canvas()
        state = self._board.state
        if goal is not None:
            self._paint_block(canvas, (*goal[:2], _angle(goal)), fill=False)
        self._paint_block(canvas, state[4:], fill=True)
        canvas.ball(_to_scene(state[:2]), AGENT_RADIUS / _HALF, BALLS[0])
        return canvas.image

    def _paint_block(self, canvas: Canvas, pose: ArrayLike, *, fill: bool) -> None:
        x, y, angle = np.asarray(pose, np.float64)
        pose_options = {"origin": _to_scene((x, y)), "turn": -float(angle)}
        if fill:
            shadow = {"origin": _to_scene((x + 2.0, y + 4.0)), "turn": -float(angle)}
            canvas.boxes(_BARS, SHADOW, corner=0.01, alpha=0.28, blur=0.03, **shadow)
            canvas.boxes(_BARS, WALL, corner=0.012, **pose_options)
        else:
            canvas.boxes(_BARS, GOAL, corner=0.012, alpha=0.35, **pose_options)

    def _scene(self, size: int) -> Scene:
        if size not in self._scenes:
            self._scenes[size] = Scene(size, ())
        return self._scenes[size]


def _to_scene(position: ArrayLike) -> NDArray[np.float64]:
    return (np.asarray(position, np.float64) - _HALF) * (1.0, -1.0) / _HALF


def _angle(goal: NDArray[np.float64]) -> float:
    return float(np.arctan2(goal[3], goal[2]))


def _outline(pose: ArrayLike) -> shapely.Polygon:
    return shapely.MultiPolygon([shapely.Polygon(bar) for bar in block_corners(pose)]).buffer(0.0)
