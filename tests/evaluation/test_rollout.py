"""Episodes do not depend on those before them, and end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from grasp_agent.evaluation import rollout as module
from grasp_agent.evaluation.rollout import rollout


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
