"""States of observations: duplicates, entries far from zero, and functions of the goal's entries."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from agents import tiny
from gymnasium import spaces

import grasp_agent
from grasp_agent import GRASP, Goal, GraspAgent, ReplanRule, TrainConfig
from grasp_agent.planners import Steering
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
    settings = {"planner": GRASP(), "train": TrainConfig(gradient_steps=400), "horizon": 20, "model": None}
    agent = tiny(env, goal=goal, rule=ReplanRule(work=None, deviation=20.0), **settings).learn(300)
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


def walks(count: int = 16, seed: int = 0) -> list[Any]:
    """Returns episodes `[41, 2]` of points that wander in [-1, 1]^2."""
    random = np.random.default_rng(seed)
    starts, steps = random.uniform(-1, 1, (count, 1, 2)), random.uniform(-0.15, 0.15, (count, 40, 2))
    paths = np.concatenate([starts, starts + steps.cumsum(1)], 1)
    return [*(np.abs((paths + 1) % 4 - 2) - 1)]  # reflected at the walls


def observed(points: list[Any], *more: Any) -> tuple[StateMap, list[Any]]:
    """Returns the map of observations `[x, y, ...]` that goals [x, y] are in, and their raw vectors."""
    episodes = [np.concatenate([p, *(f(p, e) for f in more), p], -1) for e, p in enumerate(points)]
    return StateMap.discover(np.concatenate(episodes), 2), episodes


def velocity(point: Any, _: int) -> Any:
    return np.diff(point, axis=0, prepend=point[:1])


FUNCTIONS: dict[str, Any] = {
    "squares": lambda p, _: p**2,
    "waves": lambda p, _: np.sin(2 * p),
    "a product": lambda p, _: p[:, :1] * p[:, 1:] + 3,
    "a copy in another unit": lambda p, _: 1000 * p,
}
OTHERS: dict[str, Any] = {
    "velocities": velocity,
    "a factor of the episode": lambda p, e: np.full_like(p[:, :1], [0.3, -0.7, 0.5, 0.1, -0.2, 0.6, -0.4, 0.2][e % 8]),
    "a side of the episode": lambda p, e: np.sqrt(4 - p[:, :1] ** 2) * (-1) ** e,
    "a constant": lambda p, _: np.ones_like(p),
    "noise on a square": lambda p, e: p**2 + np.random.default_rng(e).normal(0, 0.1, p.shape),
    "time": lambda p, _: np.arange(len(p))[:, None] / 40,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("offset", [0.0, 5e5])
def test_functions_of_the_goals_entries_are_left_out(name: str, offset: float):
    known, episodes = observed([p + offset for p in walks()], lambda p, e: FUNCTIONS[name](p - offset, e))
    reduced = known.reduced(episodes)
    assert not known.all_named and reduced.all_named
    assert reduced.columns == reduced.goal_index == (0, 1)
    raw, size = episodes[3], episodes[3].shape[1] - 2
    states = reduced.select(raw)
    assert states.shape == (41, 2)
    assert np.abs(reduced.achieved(states) - raw[:, -2:]).max() < 1e-3
    again = reduced.restore(states, size)
    assert again.shape == raw.shape and not again[:, 2:size].any()
    assert np.array_equal(reduced.select(again), states)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("next_to_a_function", [False, True])
def test_what_the_goals_entries_do_not_determine_is_kept(name: str, next_to_a_function: bool):
    functions = [FUNCTIONS["squares"]] if next_to_a_function else []
    known, episodes = observed(walks(), *functions, OTHERS[name])
    assert known.reduced(episodes) is known


def test_few_or_distant_episodes_do_not_show_a_function():
    known, episodes = observed(walks(3), FUNCTIONS["squares"])
    assert known.reduced(episodes) is known
    apart = [0.01 * p + 9 * e for e, p in enumerate(walks())]
    known, episodes = observed(apart, lambda p, e: (p - 9 * e) ** 2)
    assert known.reduced(episodes) is known


def test_an_angle_that_leaps_keeps_its_sine_and_cosine():
    for span, kept in ((1.0, False), (9.0, True)):
        angles = [(span * p + np.pi) % (2 * np.pi) - np.pi for p in walks(40)]
        known, episodes = observed(angles, lambda p, _: np.concatenate([np.cos(p), np.sin(p)], -1))
        assert (known.reduced(episodes) is known) is kept


def test_goals_that_are_not_in_the_observation_leave_it_as_it_is():
    episodes = [np.concatenate([p**3, p], -1) for p in walks()]
    known = StateMap.discover(np.concatenate(episodes), 2)
    assert known.columns == (0, 1, 2, 3) and known.reduced(episodes) is known


class Squares(Rover):
    """A point whose observation ends with its squares, which flip their sign in every episode from `turn` on."""

    def __init__(self, turn: int = 10**6) -> None:
        super().__init__((0.0, 0.0))
        self.turn, self.episode = turn, 0
        point = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space: Any = spaces.Dict(
            observation=spaces.Box(-np.inf, np.inf, (4,), np.float64), achieved_goal=point, desired_goal=point
        )

    def seen(self) -> dict[str, Any]:
        sign = -1 if self.episode > self.turn and self.episode % 2 else 1
        observation = np.concatenate([self.place, sign * self.place**2])
        return {"observation": observation, "achieved_goal": self.place.copy(), "desired_goal": np.zeros(2)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode += 1
        return self.seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        _, reward, terminated, truncated, info = super().step(action)
        return self.seen(), reward, terminated, truncated, info


def test_an_agent_leaves_redundant_entries_out_and_keeps_that_in_its_file(tmp_path: Any):
    agent = tiny(Squares(), goal_tolerance=0.1, model=None, train=TrainConfig(gradient_steps=200)).learn(400)
    world = agent.policy.world
    assert world is not None and world.state_map.columns == (0, 1)
    assert isinstance(world.index.roadmaps[0].driver, Steering)
    agent.save(tmp_path / "squares")
    again = GraspAgent.load(tmp_path / "squares", env=Squares(), device="cpu").learn(60, reset_num_timesteps=False)
    assert again.policy.world is not None and again.policy.world.state_map == world.state_map
    assert again.trainer.fits.rehearsed and again.trainer.dataset.states.shape[1] == 6


def test_an_entry_that_turns_out_to_carry_information_comes_back():
    agent = tiny(Squares(turn=10), goal_tolerance=0.1).learn(250)
    first = agent.policy.world
    assert first is not None and first.state_map.columns == (0, 1)
    agent.learn(500, reset_num_timesteps=False)
    assert agent.policy.world is not None and agent.policy.world.state_map.columns == (0, 1, 2, 3)
    assert agent.policy.world.model.state_size == 4
