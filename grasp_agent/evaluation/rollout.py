"""Seeded rollouts of any agent with Stable-Baselines3's `predict`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np

from grasp_agent.reading import reading
from grasp_agent.task.goal import Goal
from grasp_agent.task.observation import numbers
from grasp_agent.task.success import reported_success
from grasp_envs import registered_id

LONGEST = 10_000
"""Steps after which an episode without a time limit is given up."""


class Predictor(Protocol):
    """An object with Stable-Baselines3's `predict`: a `GraspAgent`, SAC, a controller written by hand."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Chooses an action for an observation; the second result is the predictor's own state."""
        ...


class Moment(NamedTuple):
    """One instant of a rollout: the action is chosen but not yet taken."""

    step: int
    """Actions taken so far."""
    observation: Any
    """The agent's observation here."""
    reward: float
    """Reward for arriving here; 0 at the start."""
    return_: float
    """Sum of rewards so far."""
    success: bool | None
    """Whether the goal is reached here; None at the start and where the environment does not report it."""
    seconds: float | None
    """Time that `predict` took [s]; None at the end, where no action is chosen."""
    plan: Any | None
    """The agent's `last_plan` after that `predict`; None for an agent without plans and at the end."""
    distance: float | None
    """From the achieved to the desired goal [goal units]: the environment's own `goal_distance` where it has one, else
    Euclidean; None where the observation has no goal."""
    achieved: np.ndarray | None
    """`[G]`, the achieved goal [goal units]; None where the observation has no goal."""


def rollout(
    agent: Predictor, env: gym.Env[Any, Any], seed: int, deterministic: bool = True, goal: Goal | None = None
) -> Iterator[Moment]:
    """Plays one episode, yielding at each instant: T steps give T + 1 moments, the last without an action.

    The environment may be inspected or rendered while the generator waits. For `goal`, see `evaluate`.

    Raises:
        ValueError: if the agent does not return an action and a state, or an environment without a time limit does not
            end an episode in `LONGEST` steps.
    """
    goal, limited = own_goal(agent) if goal is None else goal, has_time_limit(env)
    observation, _ = env.reset(seed=seed)
    own_memory = forgotten(agent)
    reward, total, success, done, step = 0.0, 0.0, None, False, 0
    state: dict[str, Any] = {}
    while not done:
        if step >= LONGEST and not limited:
            raise ValueError(
                f"env: expected an episode to end, got {LONGEST} steps without an end and no time limit; "
                "gymnasium.wrappers.TimeLimit(env, max_episode_steps) sets one"
            )
        started = time.perf_counter()
        action, after = _answer(agent, agent.predict(observation, deterministic=deterministic, **state))
        if not own_memory and after is not None:
            state = {"state": after, "episode_start": np.zeros(1, np.bool_)}
        seconds = time.perf_counter() - started
        plan = getattr(agent, "last_plan", None)
        yield Moment(step, observation, reward, total, success, seconds, plan, *_distance(goal, env, observation))
        observation, value, terminated, truncated, info = env.step(action)
        reward, done, step = float(value), terminated or truncated, step + 1
        total += reward
        success = _success(goal, observation, info)
    yield Moment(step, observation, reward, total, success, None, None, *_distance(goal, env, observation))


def has_time_limit(env: gym.Env[Any, Any]) -> bool:
    """Returns whether the environment, or a wrapper of it, ends its episodes after a number of steps."""
    spec = getattr(env, "spec", None)
    if spec is not None and spec.max_episode_steps is not None:
        return True
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit):
            return True
        env = env.env
    return False


def made(env_id: str, options: Mapping[str, Any], render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Makes an environment from its id, see `grasp_envs.registered_id`, with options.

    Raises:
        ValueError: of one line that names the id and the options, where there are any and it refuses them.
        Exception: what the environment raises without options.
    """
    env_id = registered_id(env_id)
    given = options if render_mode is None else {**options, "render_mode": render_mode}
    if not options:
        return gym.make(env_id, **given)
    with reading(env_id, f"it cannot be made with the options {str(dict(options))[:200]}"):
        return gym.make(env_id, **given)


@contextmanager
def opened(
    env: str | gym.Env[Any, Any],
    agent: object,
    render_mode: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[gym.Env[Any, Any]]:
    """Makes an environment from its id and closes it at the end; one that is given stays open.

    Without `options`, the agent's own id is made with those that the agent was trained with.

    Raises:
        ValueError: for a vector environment, or an agent without `predict`.
    """
    if agent is not None and not callable(getattr(agent, "predict", None)):
        raise ValueError(f"agent: expected one with predict, such as grasp_agent.load(...), got {agent!r}")
    if isinstance(env, str):
        is_own = getattr(agent, "env_id", None) == registered_id(env)
        own_options = getattr(agent, "env_kwargs", {}) if is_own else {}
        own = made(env, own_options if options is None else options, render_mode)
        try:
            yield own
        finally:
            own.close()
    elif isinstance(env, gym.Env):
        yield env
    else:
        raise ValueError(
            f"env: expected a Gymnasium id or a single gymnasium.Env, got {type(env).__name__}; "
            "for vector environments use stable_baselines3's evaluate_policy"
        )


def named(env: gym.Env[Any, Any]) -> str:
    """Returns an environment's id, or its class's name where it has none."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def label(agent: Predictor) -> str:
    """Returns the agent's `name` if it has one, else its class's."""
    return str(getattr(agent, "name", None) or type(agent).__name__)


def own_goal(*agents: object) -> Goal | None:
    """Returns the first agent's own goal; None if no agent has one."""
    goals = (getattr(agent, "goal", None) for agent in agents)
    return next((goal for goal in goals if isinstance(goal, Goal)), None)


def forgotten(agent: object) -> bool:
    """Lets an agent that keeps its plan between calls of `predict` discard it; returns whether it is such an agent.

    The plan is that of the episode before, which may have had the same goal.
    """
    for holder in (agent, getattr(agent, "policy", None)):
        forget = getattr(holder, "forget", None)
        if callable(forget):
            forget()
            return True
    return False


def _answer(agent: Predictor, answer: Any) -> tuple[Any, Any]:
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise ValueError(f"{label(agent)}.predict: expected to return an action and a state, got {answer!r}")
    return answer


def _success(goal: Goal | None, observation: Any, info: dict[str, Any]) -> bool | None:
    """Returns success as the environment, or else the goal, defines it."""
    reported = reported_success(info)
    if reported is None and goal is not None:
        return bool(goal.reached(numbers(observation, "observation")[None])[0])
    return reported


def _distance(goal: Goal | None, env: gym.Env[Any, Any], observation: Any) -> tuple[float | None, np.ndarray | None]:
    """Returns the distance to the environment's goal, or to `goal` where it has none, and the achieved goal."""
    if goal is not None and not isinstance(observation, dict):
        observation = goal.goal_observation(observation)
    if not isinstance(observation, dict) or not {"achieved_goal", "desired_goal"} <= set(observation):
        return None, None
    achieved, desired = (np.asarray(observation[key], np.float64) for key in ("achieved_goal", "desired_goal"))
    own: Any = getattr(env.unwrapped, "goal_distance", None)
    found = np.asarray(own(achieved, desired) if callable(own) else np.nan)
    shared = found.size == 1 and found.dtype.kind in "biuf" and bool(np.isfinite(found).all())
    return float(found.reshape(())) if shared else float(np.linalg.norm(achieved - desired)), achieved.copy()
