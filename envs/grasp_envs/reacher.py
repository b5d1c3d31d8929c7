"""The two-link arm of Gymnasium's Reacher as a goal environment."""

# MuJoCo's bindings come without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import mujoco
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from grasp_envs.goal_env import GoalEnv
from grasp_envs.options import EnvOptions
from grasp_envs.rendering import FixedCamera

if TYPE_CHECKING:
    from typing_extensions import Unpack

LINK_0 = 0.1
"""Length of the upper arm [m]."""

LINK_1 = 0.11
"""Length of the forearm up to the fingertip [m]."""

ELBOW_LIMIT = 3.0
"""Largest absolute angle of joint 1 [rad]; the stop is soft."""

OUTER_REACH = LINK_0 + LINK_1
"""Distance of the fingertip from the base with a straight arm [m]."""

INNER_REACH = float(np.sqrt(LINK_0**2 + LINK_1**2 + 2.0 * LINK_0 * LINK_1 * np.cos(ELBOW_LIMIT)))
"""Distance of the fingertip from the base with the elbow at its limit [m]."""

_MODEL = Path(__file__).parent / "assets" / "reacher.xml"
_FRAME_SKIP = 2  # timesteps per step, as in Gymnasium's `Reacher-v5`
_ELBOW_GIVE = 0.6  # accepted states reach so far beyond the soft stop [rad]
_START_ELBOW = 2.5  # largest absolute starting angle of joint 1 [rad]
_START_SPEED = 0.005  # largest absolute starting velocity of a joint [rad/s]
_GOAL_RADII = (0.03, 0.2)  # smallest and largest distance of goals from the base [m]
_PLANE_HEIGHT = 0.01  # of the plane in which the arm moves [m]
_TARGET_GROUP = 3  # group of geoms of the goal marker


def fingertip(angles: ArrayLike) -> NDArray[np.float64]:
    """Returns the position of the fingertip [*, 2] [m] for joint angles [*, 2] [rad]."""
    angles = np.asarray(angles, dtype=np.float64)
    upper, fore = angles[..., 0], angles[..., 0] + angles[..., 1]
    x = LINK_0 * np.cos(upper) + LINK_1 * np.cos(fore)
    y = LINK_0 * np.sin(upper) + LINK_1 * np.sin(fore)
    return np.stack((x, y), axis=-1)


class ReacherEnv(GoalEnv):
    """A two-link arm has to bring its fingertip to a goal, and to hold it there.

    ## Description

    A two-link arm in a horizontal plane; its fingertip must reach a goal and stay there. The dynamics are
    exactly those of Gymnasium's `Reacher-v5`: links of 0.1 m and 0.11 m, MuJoCo's RK4 integrator with a
    timestep of 0.01 s and two timesteps per step (0.02 s). Different are the goal interface, the starts
    (the whole circle), the reward and the rendering.

    ## Action space

    `Box(-1, 1, (2,), float32)`; entries beyond the bounds are clipped.

    | Num | Action                           | Min | Max | Unit    |
    |-----|----------------------------------|-----|-----|---------|
    | 0   | torque at joint 0 (the shoulder) | -1  | 1   | 200 N m |
    | 1   | torque at joint 1 (the elbow)    | -1  | 1   | 200 N m |

    ## Observation space

    `Dict` of three float64 Boxes.

    | Key             | Shape | Content                                      | Min   | Max  | Unit  |
    |-----------------|-------|----------------------------------------------|-------|------|-------|
    | `observation`   | (6,)  | 0-1: cosines of the angles of joints 0 and 1 | -1    | 1    | -     |
    |                 |       | 2-3: sines of the angles of joints 0 and 1   | -1    | 1    | -     |
    |                 |       | 4-5: velocities of joints 0 and 1            | -Inf  | Inf  | rad/s |
    | `achieved_goal` | (2,)  | x, y of the fingertip                        | -0.21 | 0.21 | m     |
    | `desired_goal`  | (2,)  | x, y of the goal                             | -0.21 | 0.21 | m     |

    With `observation="pixels"`, `observation` is an image of the arm without the goal, uint8 (64, 64, 3). With
    `goal="pixels"`, `desired_goal` is one with the fingertip at the goal, and there is no `achieved_goal`.

    ## Rewards

    `"sparse"`: 0 if the fingertip is within 0.02 m of the goal, -1 otherwise. `"dense"`: minus that
    distance [m].

    ## Starting state

    The angle of joint 0 is uniform over the circle, that of joint 1 uniform in [-2.5, 2.5] rad, both
    velocities are uniform in [-0.005, 0.005] rad/s. The goal is uniform in the ring between 0.03 m and 0.2
    m around the base, all of which the arm reaches, and never so close that the episode starts in success.
    `reset(options={"state": [q0, q1, dq0, dq1], "goal": [x, y]})` sets either.

    ## Episode end

    Truncation after 50 steps; termination only with `terminate_on_success=True`, at the first success.
    `info["is_success"]` says whether the fingertip is at the goal now.

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

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 50}  # type: ignore[misc]

    def __init__(
        self,
        **options: Unpack[EnvOptions],
    ) -> None:
        """Loads the arm; the class docstring describes the arguments.

        Raises:
            ValueError: If a keyword has a value that is not among its choices.
        """
        bound = np.array([1.0, 1.0, 1.0, 1.0, np.inf, np.inf])
        super().__init__(
            state_size=4,
            action_size=2,
            vector_space=spaces.Box(-bound, bound, dtype=np.float64),
            goal_space=spaces.Box(-OUTER_REACH, OUTER_REACH, (2,), np.float64),
            distance_threshold=0.02,
            **options,
        )
        self._model = mujoco.MjModel.from_xml_path(str(_MODEL))
        self._data = mujoco.MjData(self._model)
        self._camera = FixedCamera(self._model, "view", hidden_group=_TARGET_GROUP)

    def goal_to_pixels(self, points: ArrayLike) -> NDArray[np.float64]:
        """Returns pixels [*, 2] (x right, y down) in the frame of `render()` of points of the plane [*, 2] [m]."""
        points = np.asarray(points, dtype=np.float64)
        height = np.full((*points.shape[:-1], 1), _PLANE_HEIGHT)
        return self._camera.to_pixels(np.concatenate((points, height), axis=-1), self.render_size)

    def close(self) -> None:
        """Frees the graphics memory."""
        self._camera.close()

    def _draw_state(self) -> NDArray[np.float64]:
        shoulder = self.np_random.uniform(-np.pi, np.pi)
        elbow = self.np_random.uniform(-_START_ELBOW, _START_ELBOW)
        return np.array([shoulder, elbow, *self.np_random.uniform(-_START_SPEED, _START_SPEED, size=2)])

    def _draw_goal(self) -> NDArray[np.float64]:
        inner, outer = _GOAL_RADII
        radius = np.sqrt(self.np_random.uniform(inner**2, outer**2))
        angle = self.np_random.uniform(-np.pi, np.pi)
        return radius * np.array([np.cos(angle), np.sin(angle)])

    def _state_error(self, state: NDArray[np.float64]) -> str | None:
        limit = ELBOW_LIMIT + _ELBOW_GIVE
        return None if abs(state[1]) <= limit else f"must have an elbow angle state[1] within +-{limit} rad"

    def _goal_error(self, goal: NDArray[np.float64]) -> str | None:
        if INNER_REACH <= np.linalg.norm(goal) <= OUTER_REACH:
            return None
        return f"must be {INNER_REACH:.4f} m to {OUTER_REACH:.2f} m from the base, where the arm reaches"

    def _goal_state(self, goal: NDArray[np.float64]) -> NDArray[np.float64]:
        bend = (goal @ goal - LINK_0**2 - LINK_1**2) / (2 * LINK_0 * LINK_1)
        elbow = np.arccos(np.clip(bend, -1.0, 1.0))
        shoulder = np.arctan2(goal[1], goal[0]) - np.arctan2(LINK_1 * np.sin(elbow), LINK_0 + LINK_1 * np.cos(elbow))
        return np.array([shoulder, elbow, 0.0, 0.0])

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
        angles = self._data.qpos
        return np.concatenate((np.cos(angles), np.sin(angles), self._data.qvel))

    def _get_achieved_goal(self) -> NDArray[np.float64]:
        return fingertip(self._data.qpos)

    def _render_image(self, size: int, goal: NDArray[np.float64] | None) -> NDArray[np.uint8]:
        if goal is not None:
            self._data.mocap_pos[0, :2] = goal
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        return self._camera.render(self._data, size, hide=goal is None)
