"""States of observations: duplicates, and entries far from zero."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from agents import tiny
from gymnasium import spaces

import grasp_agent
from grasp_agent import GRASP, Goal, TrainConfig
from grasp_agent.task.observation import numbers
from grasp_agent.task.state_map import StateMap

FAR = [(4.5e5, 5.4e6), (1.7e9, -1.7e9), (0.0, 2.0e12)]


def samples(offset: tuple[float, float], copies: bool = True) -> Any:
    """Returns raw vectors `[500, 4]` of a point and its achieved goal, float64."""
    point = np.random.default_rng(0).uniform(-1, 1, (500, 2))
    return np.concatenate([point, point if copies else point**2], -1) + np.tile(offset, 2)


@pytest.mark.parametrize("offset", FAR)
def test_offsets_are_subtracted_before_digits_are_lost(offset: tuple[float, float]):
    raw = samples(offset)
    known = StateMap.discover(raw, 2)
    assert known.columns == (0, 1) and known.goal_index == (0, 1)
    states = known.select(raw)
    assert states.dtype == np.float32
    assert np.abs(states - (raw[:, :2] - np.array(known.origin))).max() < 1e-6
    digits = np.spacing(max(map(abs, offset)))
    near = samples((0, 0))[:, :2]
    assert np.abs(states - states.mean(0) - (near - near.mean(0))).max() < 1e-3 + digits
    assert np.abs(known.restore(states, 2) - raw).max() < 1e-6 + digits
    assert np.abs(known.achieved(states) - raw[:, 2:]).max() < 1e-6 + digits
    assert np.abs(known.relative(raw[:, 2:]) - states).max() < 1e-6


@pytest.mark.parametrize("offset", [(0.0, 0.0), (50.0, -300.0), (900.0, 0.5)])
def test_near_zero_nothing_is_subtracted(offset: tuple[float, float]):
    known = StateMap.discover(samples(offset), 2)
    assert known.origin == () and known.columns == (0, 1)
    assert np.array_equal(known.select(samples(offset)), samples(offset)[:, :2].astype(np.float32))


def test_entries_that_differ_by_less_than_single_precision_are_no_duplicates():
    raw = samples((5.4e6, 5.4e6), copies=False)
    assert np.ptp(raw.astype(np.float32), axis=0).max() < 3
    assert StateMap.discover(raw, 2).columns == (0, 1, 2, 3)


@pytest.mark.parametrize("origin", [(1.0,), (1.0, np.nan), (1.0, np.inf)])
def test_an_origin_of_another_size_or_that_is_not_finite_is_refused(origin: tuple[float, ...]):
    with pytest.raises(ValueError, match="origin: expected 2 finite values"):
        StateMap(columns=(0, 1), goal_index=(0,), origin=origin)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.array([1], np.float16), np.float32),
        (np.array([1], np.int16), np.float32),
        ([1, 2], np.float64),
        (np.array([1], np.float32), np.float32),
        (np.array([2**40]), np.float64),
        (np.array([1], np.longdouble), np.float64),
    ],
)
def test_numbers_keep_their_digits(value: Any, dtype: Any):
    found = numbers(value, "x")
    assert found.dtype == dtype and found.tolist() == np.asarray(value).tolist()


class Rover(gym.Env[Any, Any]):
    """A point in map coordinates that moves by tenths."""

    def __init__(self, offset: tuple[float, float]) -> None:
        self.offset = np.array(offset)
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.steps = self.np_random.uniform(-0.5, 0.5, 2), 0
        return self.place + self.offset, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place, self.steps = np.clip(self.place + 0.1 * action, -1, 1), self.steps + 1
        return self.place + self.offset, 0.0, False, self.steps >= 25, {}


@pytest.mark.parametrize("offset", [(0.0, 0.0), *FAR[:2]])
def test_an_agent_far_from_zero_behaves_as_one_near_it(offset: tuple[float, float], tmp_path: Any):
    env, goal = Rover(offset), Goal.at({0: offset[0] + 0.01, 1: offset[1]}, tolerance=0.1)
    settings = {"planner": GRASP(), "train": TrainConfig(gradient_steps=150), "horizon": 20, "model": None}
    agent = tiny(env, goal=goal, **settings).learn(300)
    result = grasp_agent.evaluate(agent, env, episodes=3, seed=50)
    assert all(row.success_end for row in result.episodes)
    assert np.linalg.norm(env.place) < 0.12
    assert agent.policy.last_plan is not None
    assert np.abs(agent.policy.last_plan.path - offset).max() < 2
    observation, _ = env.reset(seed=2)
    for fresh in (True, False):  # the goal has more digits than float32, and is recognised
        action, _ = agent.predict(observation, deterministic=True)
        assert agent.policy.last_plan.fresh == fresh
        observation = env.step(action)[0]
    agent.save(tmp_path / "rover")
    observation, _ = env.reset(seed=1)
    known = grasp_agent.load(tmp_path / "rover", device="cpu")
    expected = agent.predict(observation, deterministic=True, episode_start=np.ones(1, bool))[0]
    assert np.array_equal(known.predict(observation, deterministic=True, episode_start=np.ones(1, bool))[0], expected)
