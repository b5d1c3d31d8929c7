"""The agent behaves as a Stable-Baselines3 model does, and as a planner should."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import grasp_agent
from grasp_agent import GRASP, Goal, GraspAgent, ReplanRule
from grasp_agent.agent.policy import WorldModelPolicy
from grasp_agent.planners.cem import ICEM
from grasp_agent.planners.scoring import Criteria

ENV = "grasp/BallNav-v0"
KEYS = ("observation", "achieved_goal", "desired_goal")


@pytest.fixture
def env() -> Iterator[gym.Env[Any, Any]]:
    env = gym.make(ENV)
    yield env
    env.close()


@pytest.fixture
def obs(env: gym.Env[Any, Any]) -> dict[str, Any]:
    return env.reset(seed=1)[0]


def batch(count: int) -> dict[str, Any]:
    """Observations of different episodes."""
    env = gym.make(ENV)
    singles = [env.reset(seed=seed)[0] for seed in range(count)]
    env.close()
    space = env.observation_space
    assert isinstance(space, spaces.Dict)
    return {key: np.array([o[key] for o in singles], np.float32).reshape(-1, *(space[key].shape or ())) for key in KEYS}


def placed(env: gym.Env[Any, Any], state: tuple[float, float], goal: tuple[float, float]) -> dict[str, Any]:
    return env.reset(seed=0, options={"state": list(state), "goal": list(goal)})[0]


def plan_of(agent: GraspAgent):
    assert agent.last_plan is not None
    return agent.last_plan


def test_one_observation_gives_one_action_of_the_space(agent: GraspAgent, obs: dict[str, Any]):
    action, _ = agent.predict(obs)
    assert action.shape == (2,)
    assert action.dtype == np.float32
    assert agent.action_space.contains(action)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_batch_keeps_its_axis_whatever_its_size(agent: GraspAgent, count: int):
    actions, state = agent.predict(batch(count), deterministic=True)
    assert actions.shape == (count, 2)
    assert actions.dtype == np.float32
    assert all(agent.action_space.contains(action) for action in actions)
    assert all(len(array) == count for array in state)


def test_a_row_of_a_batch_is_the_single_call(agent_file, agent: GraspAgent):
    observations = batch(4)
    together, _ = agent.predict(observations, deterministic=True)
    for row in range(4):
        alone = GraspAgent.load(agent_file, device="cpu")
        action, _ = alone.predict({k: v[row] for k, v in observations.items()}, deterministic=True)
        np.testing.assert_allclose(action, together[row], atol=1e-3)


@pytest.mark.parametrize("kind", [np.float64, list, torch.tensor])
def test_observations_may_be_float64_lists_or_tensors(agent: GraspAgent, obs: dict[str, Any], kind: Any):
    expected, _ = agent.predict(obs, episode_start=np.array([True]), deterministic=True)
    other = {key: value.tolist() if kind is list else kind(value) for key, value in obs.items()}
    action, _ = agent.predict(other, episode_start=np.array([True]), deterministic=True)
    np.testing.assert_array_equal(action, expected)


def test_wrong_observations_are_refused_in_stable_baselines_words(agent: GraspAgent, obs: dict[str, Any]):
    wrong = {**obs, "achieved_goal": np.zeros(3, np.float32)}
    mixed = {**obs, "achieved_goal": obs["achieved_goal"][None].repeat(2, 0)}
    for observation, words in (
        (wrong, "Unexpected observation shape"),
        (mixed, "Unexpected observation shape"),
        ((obs, {}), "mixing Gym API"),
        ({k: v for k, v in obs.items() if k != "desired_goal"}, "desired_goal"),
        (obs["observation"], "expected a dict"),
        ({**obs, "observation": obs["observation"] * np.nan}, "'observation' holds values that are not finite"),
    ):
        with pytest.raises(ValueError, match=words):
            agent.predict(observation)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("planner", [GRASP(), GRASP.paper(iterations=3)])
def test_predict_works_in_any_grad_mode_without_side_effects(agent: GraspAgent, obs, mode: Any, planner: GRASP):
    agent.planner = planner
    random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index,union-attr]
    kept = {key: value.copy() for key, value in obs.items()}
    with mode():
        enabled = torch.is_grad_enabled()
        action, _ = agent.predict(obs)
        agent.predict(obs, deterministic=True)
        assert torch.is_grad_enabled() == enabled
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index,union-attr]
    assert before == after
    assert agent.policy.model is not None
    assert all(parameter.grad is None for parameter in agent.policy.model.parameters())
    for key, value in obs.items():
        np.testing.assert_array_equal(value, kept[key])
        assert not np.shares_memory(action, value)


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_same_arguments_give_the_same_action_whatever_was_called_between(
    agent: GraspAgent, obs, deterministic: bool
):
    other = {key: value[0] for key, value in batch(1).items()}
    first, state = agent.predict(obs, deterministic=deterministic)
    expected = first.copy()
    first[:] = 9  # what the caller does with an answer does not change the next one
    for array in state:
        array[:] = 0
    if deterministic:
        agent.predict(other, deterministic=True)
        agent.predict(batch(3), deterministic=True)
    second, _ = agent.predict(obs, deterministic=deterministic)
    np.testing.assert_array_equal(second, expected)


def test_actions_do_not_depend_on_earlier_calls(agent_file, agent: GraspAgent, obs: dict[str, Any]):
    for row in range(3):
        agent.predict({key: value[row] for key, value in batch(3).items()}, deterministic=True)
    late, _ = agent.predict(obs, deterministic=True)
    early, _ = GraspAgent.load(agent_file, device="cpu").predict(obs, deterministic=True)
    np.testing.assert_array_equal(late, early)


def test_only_passed_states_matter(agent: GraspAgent):
    observations = batch(3)
    start = np.array([False, True, False])
    fresh, state = agent.predict(observations, episode_start=np.ones(3, bool), deterministic=True)
    kept = [array.copy() for array in state]
    agent.predict(batch(2))
    first, after = agent.predict(observations, state, start, deterministic=True)
    second, _ = agent.predict(observations, state, start, deterministic=True)
    np.testing.assert_array_equal(first, second)
    for array, copy in zip(state, kept, strict=True):
        np.testing.assert_array_equal(array, copy)
    # The row that begins an episode is planned from scratch; the plans of the others had been one step on.
    np.testing.assert_allclose(first[1], fresh[1], atol=1e-3)
    assert after[4][1] == 1


def test_a_plan_is_kept_without_disturbances(env: gym.Env[Any, Any]):
    agent = grasp_agent.load("ball-nav", device="cpu")  # one whose model is exact
    agent.rule = ReplanRule(work=None)
    observation, shown = placed(env, (-0.5, 0.1), (-0.4, 0.6)), []
    for _ in range(8):
        action, _ = agent.predict(observation)
        shown.append(plan_of(agent))
        observation = env.step(action)[0]
        np.testing.assert_allclose(observation["achieved_goal"], shown[-1].path[shown[-1].step + 1], atol=0.02)
    assert all(plan.accepted for plan in shown)
    assert [(plan.step, plan.fresh) for plan in shown] == [(step, step == 0) for step in range(8)]


def test_moving_the_ball_or_the_goal_by_hand_makes_a_new_plan(agent: GraspAgent, env: gym.Env[Any, Any]):
    agent.predict(placed(env, (-0.5, 0.1), (-0.4, 0.35)))
    assert agent.predict(placed(env, (-0.5, 0.1), (-0.4, 0.35))) is not None
    shown = plan_of(agent)
    agent.predict(placed(env, (-0.3, 0.2), (-0.4, 0.35)))
    moved = plan_of(agent)
    assert moved.fresh
    np.testing.assert_allclose(moved.path[0], [-0.3, 0.2], atol=1e-5)
    np.testing.assert_allclose(shown.path[0], [-0.5, 0.1], atol=1e-5)
    agent.predict(placed(env, (-0.3, 0.2), (-0.6, 0.2)))
    assert plan_of(agent).fresh
    new, old = (np.linalg.norm(plan_of(agent).path[-1] - goal) for goal in ([-0.6, 0.2], [-0.4, 0.35]))
    assert new < old / 2


@pytest.mark.parametrize(("count", "episodes"), [(1, 2), (4, 4)])
def test_stable_baselines_evaluates_the_agent(agent: GraspAgent, count: int, episodes: int):
    env = make_vec_env(ENV, n_envs=count, seed=2, env_kwargs={"max_episode_steps": 30})
    rewards, lengths = evaluate_policy(agent, env, episodes, return_episode_rewards=True)  # type: ignore[arg-type]
    env.close()
    assert isinstance(rewards, list)
    assert lengths == [30] * episodes
    assert all(-30 <= reward <= 0 for reward in rewards)


class Odd(gym.Env[Any, Any]):
    """An environment with given spaces."""

    def __init__(self, observation: Any, action: Any) -> None:
        self.observation_space, self.action_space = observation, action

    def reset(self, *, seed: int | None = None, options: Any = None):
        return self.observation_space.sample(), {}

    def step(self, action: Any):
        return self.observation_space.sample(), 0.0, False, False, {}


BOX = spaces.Box(-1, 1, (2,))
GOALS = spaces.Dict(dict.fromkeys(KEYS, BOX))


@pytest.mark.parametrize(
    ("observation", "action", "words"),
    [
        (BOX, BOX, "expected a Dict with the keys observation, achieved_goal, desired_goal"),
        (spaces.Dict({"observation": BOX}), BOX, "expected a Dict with the keys"),
        (spaces.Dict({**GOALS.spaces, "observation": spaces.Box(0, 1, (3, 3))}), BOX, "a vector under 'observation'"),
        (GOALS, spaces.Discrete(3), "Box"),
        (GOALS, spaces.Box(-1, 1, (2, 2)), "bounded Box with one axis"),
        (GOALS, spaces.Box(-np.inf, np.inf, (2,)), "bounded Box with one axis"),
    ],
)
def test_spaces_that_cannot_be_planned_in_are_refused(observation: Any, action: Any, words: str):
    with pytest.raises(ValueError, match=words):
        GraspAgent("MultiInputPolicy", Odd(observation, action))


def test_another_environment_must_have_the_same_spaces(agent: GraspAgent, env: gym.Env[Any, Any], obs):
    agent.predict(obs)
    agent.set_env(env)
    assert agent.last_plan is None
    with pytest.raises(ValueError, match=r"[Ss]pace"):
        agent.set_env(Odd(GOALS, spaces.Box(-2, 2, (2,))))


def test_an_untrained_agent_acts_at_random_and_can_be_saved(env: gym.Env[Any, Any], obs: dict[str, Any], tmp_path):
    agent = GraspAgent("MultiInputPolicy", env, seed=1)
    actions = np.stack([agent.predict(obs)[0] for _ in range(50)])
    assert all(action in agent.action_space for action in actions)
    assert (actions.std(0) > 0.3).all()
    assert agent.predict(obs, deterministic=True)[0].tolist() == [0, 0]
    agent.save(tmp_path / "empty.zip")
    assert GraspAgent.load(tmp_path / "empty.zip", env=env).policy.world is None


def test_the_same_observation_for_long_counts_as_a_failed_plan(agent: GraspAgent, obs: dict[str, Any]):
    world = agent.policy.world
    assert world is not None
    agent.policy.learned(replace(world, error=1e-5))  # a model that would notice
    agent.predict(obs)
    fresh = [agent.predict(obs) and agent.last_plan.fresh for _ in range(12)]  # type: ignore[union-attr]
    assert fresh[:8] == [False] * 8
    assert True in fresh[8:]


def test_an_unknown_policy_is_refused_with_the_valid_choice(env: gym.Env[Any, Any]):
    with pytest.raises(ValueError, match=r"expected one of MultiInputPolicy, CnnPolicy, MlpPolicy, got 'Mlp'"):
        GraspAgent("Mlp", env)


def test_actions_fill_the_bounds_of_their_space_and_never_leave_them():
    space = spaces.Box(np.array([-3.0, 0.1], np.float32), np.array([1.0, 0.7], np.float32))
    policy = WorldModelPolicy(GOALS, space)
    corners = policy.to_space(np.array([[-1, -1], [1, 1], [0, 0], [1 + 1e-6, -1 - 1e-6]], np.float32))
    np.testing.assert_allclose(corners[:3], [[-3, 0.1], [1, 0.7], [-1, 0.4]], atol=1e-6)
    assert all(space.contains(action) for action in corners)


def test_observations_normalised_separately_are_refused(env: gym.Env[Any, Any], agent: GraspAgent):
    normalised = VecNormalize(DummyVecEnv([lambda: env]), norm_reward=False)
    for make_it in (lambda: GraspAgent("MultiInputPolicy", normalised), lambda: agent.set_env(normalised)):
        with pytest.raises(ValueError, match="expected norm_obs=False"):
            make_it()


def test_planner_horizon_and_criteria_may_be_changed_at_any_time(agent: GraspAgent, env: gym.Env[Any, Any]):
    before, observation = agent.settings, env.reset(seed=1)[0]
    _, state = agent.predict(observation, episode_start=np.ones(1, bool))
    agent.horizon = before.horizon + 5 if before.horizon else 5
    agent.predict(observation, state)  # the old plan has another length
    assert agent.last_plan is not None and len(agent.last_plan.path) == agent.horizon + 1
    agent.planner, agent.criteria = ICEM(iterations=1, samples=16), Criteria(hold=2)
    assert (agent.settings.planner, agent.settings.criteria) == (agent.planner, Criteria(hold=2))
    agent.planner, agent.horizon, agent.criteria = None, None, None  # type: ignore[assignment]
    assert (agent.planner, agent.horizon, agent.criteria) == (GRASP(), before.horizon, agent.settings.usual_criteria)
    agent.planner = before.planner  # type: ignore[assignment]
    for wrong in ({"planner": "icem"}, {"horizon": 0}, {"criteria": 1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
            setattr(agent, *next(iter(wrong.items())))
    with pytest.raises(AttributeError, match=r"expected policy\.controller\.planner"):
        agent.policy.planner = ICEM()


@pytest.mark.parametrize(("limit", "horizon"), [(60, 30), (12, 10), (400, 50), (None, 50)])
def test_the_default_horizon_is_half_the_time_limit_with_or_without_a_spec(limit: int | None, horizon: int):
    env = gym.make("Pendulum-v1").unwrapped
    env.spec = None
    limited = env if limit is None else gym.wrappers.TimeLimit(env, limit)
    goal = Goal.at({0: 1.0}, tolerance=0.1)
    assert GraspAgent("MultiInputPolicy", limited, goal=goal).horizon == horizon
