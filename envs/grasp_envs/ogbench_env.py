"""OGBench's environments (Park et al. 2024, arXiv 2410.20092) as goal environments."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from numpy.typing import ArrayLike, NDArray

from grasp_envs.options import check_action, check_render
from grasp_envs.rendering import choose_backend

Observation = dict[str, NDArray[np.float64]]

_CUBES = {"single": 1, "double": 2, "triple": 3, "quadruple": 4, "octuple": 8}
_ARM, _CUBE, _BUTTON = 19, 9, 4  # entries of the observation that describe the arm, each cube and each button
_POSITION, _DRAWER, _WINDOW = 10.0, 18.0, 15.0  # units of the observation per metre
_NEAR = 0.04  # of cubes, drawer and window [m]
_BUTTON_RULE = 0.5  # between equal (0) and different one-hot states (1.4)
_UNJUDGED = 1e-3  # weight of entries that do not decide on success; small, as weights must not be 0


class Criterion(NamedTuple):
    """A part of OGBench's rule of success, which holds if all parts hold."""

    entries: tuple[int, ...]
    """Entries of the observation."""
    tolerance: float
    """Largest Euclidean distance of these entries from those of the goal [the observation's units]."""


def success_criteria(name: str) -> tuple[Criterion, ...]:
    """Returns what success means in an environment, from the source code of ogbench 1.2.2.

    The position of the body, or of the ball (`MazeEnv.compute_success`, `BallEnv.compute_success`); the positions of
    all cubes, the states of all buttons, the positions of drawer and window (`_compute_successes`).

    Args:
        name: OGBench's own id, one of `OGBENCH_LIMITS`.
    """
    family, variant = name.split("-")[:2]
    if family == "antsoccer":
        return (Criterion((15, 16), 0.5),)
    if family.endswith("maze"):
        return (Criterion((0, 1), 1.0 if family == "pointmaze" else 0.5),)
    cubes = {"cube": _CUBES.get(variant, 0), "scene": 1, "puzzle": 0}[family]
    rows, _, columns = variant.partition("x") if family == "puzzle" else ("1", "x", "2" if family == "scene" else "0")
    after_cubes = _ARM + cubes * _CUBE
    after_buttons = after_cubes + int(rows) * int(columns) * _BUTTON
    starts = range(_ARM, after_cubes, _CUBE)
    criteria = [Criterion((first, first + 1, first + 2), _NEAR * _POSITION) for first in starts]
    criteria += [Criterion((first, first + 1), _BUTTON_RULE) for first in range(after_cubes, after_buttons, _BUTTON)]
    if family == "scene":
        criteria.append(Criterion((after_buttons,), _NEAR * _DRAWER))
        criteria.append(Criterion((after_buttons + 2,), _NEAR * _WINDOW))
    return tuple(criteria)


class OGBenchEnv(gym.Env[Observation, NDArray[np.float32]]):
    """An environment of OGBench that observes its goal, and plays the five tasks of its evaluation.

    ## Ids

    `gym.make("ogbench/pointmaze-medium-v0")`, and so on for all of `grasp_envs.OGBENCH_IDS`. Where this project takes
    the name of an environment, `ogbench:` and the name of a dataset also works, see `grasp_envs.registered_id`.

    ## Observation space

    `Dict` of three unbounded float64 Boxes `[O]`. `observation` is OGBench's, `achieved_goal` a copy of it, and
    `desired_goal` OGBench's `info["goal"]`: a whole observation of a state in which the goal is reached.

    ## Rewards and success

    `info["is_success"]` is OGBench's `info["success"]`, of the state after the action. The reward is 0 in success and
    -1 otherwise (`compute_reward`), where OGBench itself gives 1 and 0. It follows OGBench's rule, but from the two
    observations: OGBench compares cubes with where they are to be, `desired_goal` shows them after they have settled
    there, up to 0.15 mm away. Within that of the tolerance of 40 mm, reward and `is_success` may differ. Everything
    else that decides is in the observations. After a teleport, observation and success are those from before it.

    ## Episode end

    OGBench's protocol ends an episode at the first success, and counts that as success. So does this environment, so
    that success at the end and success at any step are the same. With `terminate_at_goal=False` episodes go on to the
    time limit, and success at any step is the protocol's.

    ## Starting state

    `reset(seed=s)` plays task s mod 5 + 1 (of five; OGBench draws one), so that equally many of consecutive seeds
    play each; without a seed the task is drawn. `reset(options={"task_id": i})` chooses it; it is in
    `info["task_id"]`. The noise of starts and goals is OGBench's. All that is random follows from the seed, and NumPy's
    global generator, from which OGBench draws, is left as it was.

    Attributes:
        criteria: what success means.
        distance_threshold: largest `goal_distance` in success, 1.
        goal_weights: `[O]`, weights with which the Euclidean distance of two goals is at most 1 only in success (for a
            single criterion: just in success); entries that do not decide weigh 0.001.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012  as in Gymnasium
    distance_threshold = 1.0

    def __init__(
        self,
        *,
        name: str,
        terminate_at_goal: bool = True,
        render_mode: str | None = None,
        render_size: int = 480,
    ) -> None:
        """Makes OGBench's environment.

        Args:
            name: OGBench's own id, one of `OGBENCH_LIMITS`.
            terminate_at_goal: whether the episode ends with the first success.
            render_mode: None or `"rgb_array"`.
            render_size: height and width of a rendered frame [pixels].

        Raises:
            gymnasium.error.DependencyNotInstalled: If OGBench is not installed.
            ValueError: If a keyword has a value that is not among its choices.
        """
        check_render(render_mode, render_size)
        self.criteria = success_criteria(name)
        self.render_mode = render_mode
        self._random = np.random.RandomState(0)
        self._teleports = "teleport" in name
        self._goal: NDArray[np.float64] | None = None
        with self._own_draws():
            options = {"terminate_at_goal": bool(terminate_at_goal), "width": render_size, "height": render_size}
            self._inner: Any = _made(name, options)
            inner = self._inner.observation_space
        self.metadata = {**self.metadata, "render_fps": self._inner.metadata.get("render_fps", 20)}
        own = self._inner.action_space
        self.action_space: spaces.Box = spaces.Box(  # pyright: ignore[reportIncompatibleVariableOverride]
            -1.0, 1.0, own.shape, np.float32
        )
        names = ("observation", "achieved_goal", "desired_goal")
        self.observation_space: spaces.Dict = spaces.Dict(  # pyright: ignore[reportIncompatibleVariableOverride]
            {key: spaces.Box(-np.inf, np.inf, inner.shape, np.float64) for key in names}
        )
        weights = np.full(inner.shape, _UNJUDGED)
        for entries, tolerance in self.criteria:
            weights[list(entries)] = 1 / tolerance
        self.goal_weights = tuple(weights.tolist())

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode of one of the tasks.

        Args:
            seed: of everything random in this and later episodes; None continues. It also chooses the task.
            options: None, or `{"task_id": i}` with i from 1.

        Returns:
            The observation, and OGBench's info with `is_success` and `task_id`.

        Raises:
            ValueError: If an option is unknown, or there is no such task.
        """
        super().reset(seed=seed)
        task = self._task(seed, options or {})
        episode = int(self.np_random.integers(2**31))
        self._random = np.random.RandomState(episode)
        self._inner.action_space.seed(episode)  # OGBench takes some random steps in a reset
        with self._own_draws():
            observation, info = self._inner.reset(seed=episode, options={"task_id": task})
        self._goal = _finite(info["goal"])
        return self._outcome(observation, info, bool(self.goal_distance(observation, self._goal) <= 1))

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Applies one action [A]; entries beyond the bounds are clipped to [-1, 1].

        Returns:
            Observation, reward, terminated, truncated (always False: the time limit is a wrapper's), and OGBench's
            info with `is_success` and `task_id`.

        Raises:
            ValueError: If the action is not of shape [A] or not finite.
            gymnasium.error.ResetNeeded: If `reset` was not called yet.
            FloatingPointError: If the simulation gives an observation that is not finite.
        """
        if self._goal is None:
            raise gym.error.ResetNeeded("call reset() first: there is no goal before it")
        checked = check_action(action, self.action_space.shape[0])
        with self._own_draws() if self._teleports else nullcontext():  # OGBench draws where a teleport leads
            observation, _, terminated, _, info = self._inner.step(checked)
        known, info = self._outcome(observation, info, bool(info["success"]))
        reward = float(self.compute_reward(known["achieved_goal"], self._goal))
        return known, reward, bool(terminated), False, info

    def goal_distance(self, achieved_goal: ArrayLike, desired_goal: ArrayLike) -> NDArray[np.float64]:
        """Returns how far observations [*, O] are from fulfilling the criteria of goals [*, O].

        Returns:
            The largest distance of all criteria, each in units of its tolerance [*]: success is at most 1. In
            `pointmaze` this is the distance to the goal [m].
        """
        difference = np.asarray(achieved_goal, np.float64) - np.asarray(desired_goal, np.float64)
        parts = [np.linalg.norm(difference[..., list(c.entries)], axis=-1) / c.tolerance for c in self.criteria]
        return np.max(parts, axis=0)

    def compute_reward(
        self, achieved_goal: ArrayLike, desired_goal: ArrayLike, info: Any = None
    ) -> float | NDArray[np.float64]:
        """Returns the reward of having achieved one goal while another was desired, for any number of pairs at once.

        Args:
            achieved_goal: achieved goals [*, O].
            desired_goal: desired goals [*, O].
            info: not used; the reward depends on the two goals alone.

        Returns:
            Rewards [*], a float for a single pair: 0 in success, -1 otherwise.
        """
        reward = np.where(self.goal_distance(achieved_goal, desired_goal) <= self.distance_threshold, 0.0, -1.0)
        return float(reward) if reward.ndim == 0 else reward

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Returns an image of scene and goal, uint8 [render_size, render_size, 3]; None without a render mode."""
        if self.render_mode is None:
            gym.logger.warn('render() does nothing without a render mode: pass render_mode="rgb_array"')
            return None
        choose_backend()
        return np.ascontiguousarray(self._inner.render())

    def close(self) -> None:
        """Frees the graphics memory."""
        for name in ("custom_renderer", "_renderer"):
            renderer = getattr(self._inner, name, None)
            if renderer is not None:
                renderer.close()
                setattr(self._inner, name, None)
        self._inner.close()

    def _task(self, seed: int | None, options: dict[str, Any]) -> int:
        count = int(self._inner.num_tasks)
        if set(options) - {"task_id"}:
            raise ValueError(f"the options of reset are task_id, got {sorted(options)}")
        chosen = options.get("task_id")
        if chosen is None:
            return int(self.np_random.integers(count)) + 1 if seed is None else seed % count + 1
        if not isinstance(chosen, int | np.integer) or not 1 <= chosen <= count:
            raise ValueError(f"option task_id must be a whole number from 1 to {count}, got {chosen!r}")
        return int(chosen)

    def _outcome(self, observation: ArrayLike, info: dict[str, Any], success: bool) -> Any:
        assert self._goal is not None
        values = _finite(observation)
        known = {"observation": values, "achieved_goal": values.copy(), "desired_goal": self._goal.copy()}
        return known, {**info, "is_success": success, "task_id": int(self._inner.cur_task_id)}

    @contextmanager
    def _own_draws(self) -> Iterator[None]:
        """Gives OGBench, which draws from NumPy's global generator, that of the episode."""
        before = np.random.get_state()
        np.random.set_state(self._random.get_state())
        try:
            yield
        finally:
            self._random.set_state(np.random.get_state())
            np.random.set_state(before)


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = np.array(values, np.float64)
    if not np.isfinite(array).all():
        raise FloatingPointError(f"OGBench's simulation gave an observation that is not finite: {array}")
    return array


def _made(name: str, options: dict[str, Any]) -> Any:
    """Makes OGBench's environment without wrappers."""
    try:
        import ogbench  # noqa: F401  registers its environments  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        if error.name != "ogbench":
            raise
        raise gym.error.DependencyNotInstalled(
            'OGBench is not installed; it comes with `pip install "grasp-agent[ogbench]"` (Python 3.10 to 3.12)'
        ) from error
    spec = gym.spec(name)
    assert spec.entry_point is not None
    with warnings.catch_warnings():  # dm_control looks for a display, and does without
        warnings.filterwarnings("ignore", message=".*DISPLAY")
        creator: Any = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    if isinstance(creator, type):
        return _with_own_action_space(creator)(**{**spec.kwargs, **options})
    env = creator(**{**spec.kwargs, **options})
    Path(env.fullpath).unlink(missing_ok=True)  # the model of a maze, which is no longer needed
    return env


def _with_own_action_space(kind: Any) -> Any:
    """Returns the class of a robot arm that keeps its action space, which else is new, and not seeded, at each use."""

    class Seedable(kind):
        @cached_property
        def action_space(self) -> spaces.Box:
            return spaces.Box(-1.0, 1.0, (5,), np.float32)

    return Seedable
