"""The abstract goal environment that every environment of this package is an instance of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from grasp_envs.options import check_action, check_keywords, check_known, check_vector, refuse

PIXELS = 64
"""Height and width of an image observation [pixels]."""

_MAX_DRAWS = 1_000  # attempts at a start without success

Observation = dict[str, NDArray[Any]]


class GoalEnv(gym.Env[Observation, NDArray[np.float32]], ABC):
    """Reach a goal and stay there: a Dict-observation environment that hindsight relabelling can use.

    The observation is a dictionary of `observation`, `achieved_goal` [G] and `desired_goal` [G]. Success
    means that the achieved goal lies within `distance_threshold` of the desired one (`goal_distance`, in the
    goal's unit).

    A subclass says what the state is, how an action changes it and how the scene is drawn; everything that
    a user of a goal environment relies on (spaces, rewards, options, errors, rendering) is here, once.

    Attributes:
        distance_threshold: Largest distance between achieved and desired goal in success [goal unit].
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}  # type: ignore[misc]

    def __init__(
        self,
        *,
        state_size: int,
        action_size: int,
        vector_space: spaces.Box,
        goal_space: spaces.Box,
        distance_threshold: float,
        observation: str = "state",
        goal: str = "state",
        frames: int = 1,
        reward_type: str = "sparse",
        terminate_on_success: bool = False,
        render_mode: str | None = None,
        render_size: int = 480,
        **unknown: object,
    ) -> None:
        """Builds the spaces and checks the keywords that all environments share.

        Args:
            state_size: Length S of the vector that `reset(options={"state": ...})` takes.
            action_size: Length A of an action; every entry lies in [-1, 1].
            vector_space: Space of the vector observation.
            goal_space: Space of achieved and desired goals [G].
            distance_threshold: Largest distance that counts as success [goal unit].
            observation: `"state"` for the vector, `"pixels"` for an image without the goal marker.
            goal: `"state"` for vectors, or, where observations are images, `"pixels"`: then `desired_goal` is an
                image of the goal being reached, and there is no `achieved_goal` next to `observation`. Nothing can be
                relabelled then, and Stable-Baselines3's checker refuses the environment, since it takes everything
                with `compute_reward` for a goal environment.
            frames: Images in an observation, the last ones, stacked on the axis of channels, the newest last; two
                show velocities.
            reward_type: `"sparse"` (0 in success, -1 otherwise) or `"dense"` (minus the distance).
            terminate_on_success: Whether the episode ends with the first success.
            render_mode: None or `"rgb_array"`.
            render_size: Height and width of a rendered frame [pixels].
            **unknown: Refused.

        Raises:
            TypeError: If a keyword is unknown.
            ValueError: If a keyword has a value that is not among its choices.
        """
        check_known(type(self), unknown)
        check_keywords(observation, goal, frames, reward_type, render_mode, render_size)
        self.observation_type = observation
        self.reward_type = reward_type
        self.terminate_on_success = bool(terminate_on_success)
        self.distance_threshold = float(distance_threshold)
        self.render_mode = render_mode
        self.render_size = int(render_size)
        self.action_space: spaces.Box = spaces.Box(  # pyright: ignore[reportIncompatibleVariableOverride]
            -1.0, 1.0, (action_size,), np.float32
        )
        image = spaces.Box(0, 255, (PIXELS, PIXELS, 3), np.uint8)
        images = spaces.Box(0, 255, (PIXELS, PIXELS, 3 * int(frames)), np.uint8)
        observations = vector_space if observation == "state" else images
        goals = {"achieved_goal": goal_space, "desired_goal": goal_space}
        self.observation_space: spaces.Dict = spaces.Dict(  # pyright: ignore[reportIncompatibleVariableOverride]
            {"observation": observations, **(goals if goal == "state" else {"desired_goal": image})}
        )
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=int(frames))
        self._goal_image: NDArray[np.uint8] | None = None if goal == "state" else np.empty(0, np.uint8)
        self._state_size = state_size
        self._action_size = action_size
        self._goal_size = goal_space.shape[0]
        self._goal: NDArray[np.float64] | None = None

    @property
    def state(self) -> NDArray[np.float64]:
        """The full physical state [S], as `reset(options={"state": ...})` takes it."""
        return self._get_state().copy()

    @property
    def goal(self) -> NDArray[np.float64]:
        """The desired goal [G] of this episode.

        Raises:
            gymnasium.error.ResetNeeded: If `reset` was not called yet.
        """
        if self._goal is None:
            raise gym.error.ResetNeeded("call reset() first: there is no state and no goal before it")
        return self._goal.copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode, from a drawn or a given state and towards a drawn or a given goal.

        Args:
            seed: Seed of `np_random`; None continues the present generator.
            options: None, or a dictionary with `"state"` [S], and `"goal"` [G] or `"goal_state"` [S], a whole
                state at the goal. The others are drawn, and never so that the episode starts in success.

        Returns:
            The observation and `{"is_success": bool}` (a subclass may say more).

        Raises:
            ValueError: If an option is unknown, has the wrong shape, is not finite or is not a possible
                state or goal.
        """
        super().reset(seed=seed)
        state, goal, goal_state = self._read_options(options or {})
        if goal_state is not None:
            self._set_state(goal_state)
            goal = self._get_achieved_goal().copy()
        self._set_state(self._draw_state() if state is None else state)
        self._goal = self._draw_goal() if goal is None else goal
        if state is None or goal is None:
            self._leave_success(redraw_goal=goal is None)
        self._frames.clear()
        if self._goal_image is not None:
            self._goal_image = self._image_of(self._goal_state(self.goal) if goal_state is None else goal_state)
        return self._observe(), self._info()

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Applies one action [A]; entries beyond the bounds are clipped to [-1, 1].

        Returns:
            Observation, reward, terminated, truncated (always False: the time limit is a wrapper's) and
            `{"is_success": bool}`.

        Raises:
            ValueError: If the action is not of shape [A] or not finite.
        """
        goal = self.goal
        self._advance(check_action(action, self._action_size))
        info = self._info()
        reward = float(self.compute_reward(self._get_achieved_goal(), goal, info))
        return self._observe(), reward, self.terminate_on_success and info["is_success"], False, info

    def goal_distance(self, achieved_goal: ArrayLike, desired_goal: ArrayLike) -> NDArray[np.float64]:
        """Returns the distance of achieved [*, G] from desired goals [*, G]; Euclidean unless a subclass overrides it.

        Success, rewards and evaluations use this distance.

        Returns:
            Distances [*] [goal unit].
        """
        return np.linalg.norm(np.asarray(achieved_goal) - np.asarray(desired_goal), axis=-1)

    def compute_reward(
        self, achieved_goal: ArrayLike, desired_goal: ArrayLike, info: Any = None
    ) -> float | NDArray[np.float64]:
        """Returns the reward of having achieved one goal while another was desired, for any number of pairs at once.

        Args:
            achieved_goal: Achieved goals [*, G].
            desired_goal: Desired goals [*, G].
            info: Not used; the reward depends on the two goals alone.

        Returns:
            Rewards [*], a float for a single pair: 0 in success and -1 otherwise (sparse), or minus the
            `goal_distance` (dense).
        """
        distance = self.goal_distance(achieved_goal, desired_goal)
        sparse = self.reward_type == "sparse"
        reward = np.where(distance <= self.distance_threshold, 0.0, -1.0) if sparse else -distance
        return float(reward) if reward.ndim == 0 else reward

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Returns an image of scene and goal, uint8 [render_size, render_size, 3]; None without a render mode."""
        if self.render_mode is None:
            gym.logger.warn('render() does nothing without a render mode: pass render_mode="rgb_array"')
            return None
        return self._render_image(self.render_size, self.goal)

    @abstractmethod
    def goal_to_pixels(self, points: ArrayLike) -> NDArray[np.float64]:
        """Returns the positions of points of goal space [*, G] in the frame of `render()`.

        Returns:
            Pixel coordinates [*, 2 P] of the P positions that a goal consists of, one after another (P = 1, unless
            there are several bodies), x to the right and y down; (0, 0) is the frame's upper left corner
            and (0.5, 0.5) the centre of its first pixel.
        """

    @abstractmethod
    def _draw_state(self) -> NDArray[np.float64]:
        """Draws a starting state [S] from `np_random`."""

    @abstractmethod
    def _draw_goal(self) -> NDArray[np.float64]:
        """Draws a goal [G] from `np_random`."""

    @abstractmethod
    def _state_error(self, state: NDArray[np.float64]) -> str | None:
        """Returns what is wrong with a finite state [S], or None."""

    @abstractmethod
    def _goal_error(self, goal: NDArray[np.float64]) -> str | None:
        """Returns what is wrong with a finite goal [G], or None."""

    @abstractmethod
    def _set_state(self, state: NDArray[np.float64]) -> None:
        """Puts the simulation into a state [S]."""

    @abstractmethod
    def _get_state(self) -> NDArray[np.float64]:
        """Returns the simulation's state [S]."""

    @abstractmethod
    def _advance(self, action: NDArray[np.float64]) -> None:
        """Simulates one step under an action [A] inside its bounds."""

    @abstractmethod
    def _get_vector(self) -> NDArray[np.float64]:
        """Returns the vector observation."""

    @abstractmethod
    def _get_achieved_goal(self) -> NDArray[np.float64]:
        """Returns the achieved goal [G]."""

    @abstractmethod
    def _goal_state(self, goal: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns a state [S] at rest in which a goal [G] is reached; components outside of the goal are unchanged."""

    @abstractmethod
    def _render_image(self, size: int, goal: NDArray[np.float64] | None) -> NDArray[np.uint8]:
        """Returns an image of the scene [size, size, 3], contiguous; without a goal marker if the goal is None."""

    def _observe(self) -> Observation:
        observation = self._get_vector().copy() if self.observation_type == "state" else self._stacked_frames()
        if self._goal_image is not None:
            return {"observation": observation, "desired_goal": self._goal_image.copy()}
        return {
            "observation": observation,
            "achieved_goal": self._get_achieved_goal().copy(),
            "desired_goal": self.goal,
        }

    def _stacked_frames(self) -> NDArray[np.uint8]:
        """Returns the last frames, stacked; before the first step the first one is repeated."""
        self._frames.append(self._render_image(PIXELS, None))
        missing = (self._frames.maxlen or 1) - len(self._frames)
        return np.concatenate((*[self._frames[0]] * missing, *self._frames), axis=-1)

    def _image_of(self, state: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Returns the image observation of a state [S]."""
        present = self._get_state().copy()
        self._set_state(state)
        image = self._render_image(PIXELS, None)
        self._set_state(present)
        return image

    def _info(self) -> dict[str, Any]:
        return {"is_success": self._is_success()}

    def _is_success(self) -> bool:
        return bool(self.goal_distance(self._get_achieved_goal(), self.goal) <= self.distance_threshold)

    def _leave_success(self, *, redraw_goal: bool) -> None:
        for _ in range(_MAX_DRAWS):
            if not self._is_success():
                return
            if redraw_goal:
                self._goal = self._draw_goal()
            else:
                self._set_state(self._draw_state())
        raise RuntimeError(f"no start without success in {_MAX_DRAWS} draws: starts and goals must differ")

    def _read_options(
        self, options: Mapping[str, Any]
    ) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None, NDArray[np.float64] | None]:
        unknown = sorted(map(str, set(options) - {"state", "goal", "goal_state"}))
        if unknown:
            raise ValueError(f"unknown reset option {', '.join(unknown)}; valid options: state, goal, goal_state")
        if options.get("goal") is not None and options.get("goal_state") is not None:
            raise ValueError("reset options goal and goal_state: expected one of them, got both")
        state = goal = goal_state = None
        if options.get("state") is not None:
            state = check_vector("state", options["state"], self._state_size)
            refuse("state", state, self._state_error(state))
        if options.get("goal") is not None:
            goal = check_vector("goal", options["goal"], self._goal_size)
            refuse("goal", goal, self._goal_error(goal))
        if options.get("goal_state") is not None:
            goal_state = check_vector("goal_state", options["goal_state"], self._state_size)
            refuse("goal_state", goal_state, self._state_error(goal_state))
        return state, goal, goal_state
