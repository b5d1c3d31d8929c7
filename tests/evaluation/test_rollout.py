"""Episodes do not depend on those before them, and end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from grasp_agent import Goal, evaluate
from grasp_agent.evaluation import rollout as module
from grasp_agent.evaluation.rollout import _distance, rollout


class Endless(gym.Env[Any, Any]):
    """Never ends an episode by itself."""

    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), float(action[0]), False, False, {}


class Recurrent:
    """Counts its calls in the state that `predict` returns."""

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
        assert (state is None) == (episode_start is None) and (episode_start is None or not episode_start.any())
        count = 0 if state is None else state[0]
        return np.full(1, count, np.float32), (count + 1,)


class Planner:
    """Counts its calls in its policy until that forgets them."""

    def __init__(self) -> None:
        self.policy = SimpleNamespace(count=0, forget=self.forget)

    def forget(self) -> None:
        self.policy.count = 0

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
        assert state is None
        self.policy.count += 1
        return np.full(1, self.policy.count - 1, np.float32), (self.policy.count,)


@pytest.mark.parametrize("kind", [Recurrent, Planner])
def test_the_state_of_an_agent_lasts_an_episode_and_no_longer(kind: Any):
    env, agent = TimeLimit(Endless(), 4), kind()
    played = [[moment.reward for moment in rollout(agent, env, seed)][1:] for seed in (0, 1, 0)]
    assert played == [[0, 1, 2, 3]] * 3


@pytest.mark.parametrize("limit", [None, 30])
def test_an_episode_without_a_time_limit_is_given_up(limit: int | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LONGEST", 20)
    env = Endless() if limit is None else TimeLimit(Endless(), limit)
    played = rollout(Recurrent(), env, 0)
    if limit is None:
        with pytest.raises(ValueError, match=r"expected an episode to end, got 20 steps.*TimeLimit"):
            list(played)
    else:
        assert len(list(played)) == limit + 1


class Far(gym.Env[Any, Any]):
    """A point that stands still, far from zero."""

    def __init__(self, place: float) -> None:
        self.place = place
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.array([self.place]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.array([self.place]), 0.0, False, True, {}


@pytest.mark.parametrize("place", [0.0, 5.4e6, 1e8, 1.7e9])
def test_success_is_decided_in_the_environments_own_numbers(place: float):
    still = SimpleNamespace(predict=lambda *_, **__: (np.zeros(1, np.float32), None))
    for away, success in ((0.2, False), (0.05, True)):
        goal = Goal.at({0: place + away}, tolerance=0.1)
        result = evaluate(still, Far(place), episodes=np.int64(2), seed=np.int64(3), goal=goal)  # type: ignore[arg-type]
        assert [row.success_end for row in result.episodes] == [success, success]
    whole = Goal.at({0: 0.5}, tolerance=0.1)
    assert not whole.reached(np.array([[0]]))[0]


@pytest.mark.parametrize(
    ("name", "value"), [("episodes", 0), ("episodes", "x"), ("seed", -1), ("seed", 2.5), ("goal", 5)]
)
def test_arguments_of_an_evaluation_are_checked_first(name: str, value: Any):
    still = SimpleNamespace(predict=lambda *_, **__: (np.zeros(1, np.float32), None))
    with pytest.raises(ValueError, match=f"{name}: expected"):
        evaluate(still, Far(0.0), **{"episodes": 1, name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="agent: expected one with predict"):
        evaluate("ball-nav", Far(0.0))  # type: ignore[arg-type]


@pytest.mark.parametrize("own", ["far", lambda *_: [1.0, 2.0], lambda *_: None, lambda *_: float("nan")])
def test_a_distance_of_an_environment_that_is_no_number_is_not_used(own: Any):
    env = Far(0.0)
    env.goal_distance = own  # type: ignore[attr-defined]
    observation = {"achieved_goal": np.array([3.0]), "desired_goal": np.array([0.0])}
    assert _distance(None, env, observation)[0] == 3.0
