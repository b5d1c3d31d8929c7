"""`GraspAgent("MlpPolicy", env)`: learning for rewards, Stable-Baselines3's contract, files, and what is refused."""

from __future__ import annotations

import copy
import inspect
import io
import json
import os
import signal
import zipfile
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from grasp_agent import GRASP, GraspAgent, evaluate
from grasp_agent.agent.reward.agent import RewardAgent
from grasp_agent.agent.reward.experience import recorded
from grasp_agent.models.dynamics.rewarded import RewardModelConfig
from grasp_agent.planners import ICEM

SPOT = np.array([0.6, -0.4])


class Field(gym.Env[Any, Any]):
    """A point that is rewarded near a spot; the episode ends for good where x < -1.2. Actions have odd bounds."""

    def __init__(self, broken: str = "") -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = spaces.Box(np.array([-3.0, 0.0]), np.array([1.0, 4.0]), dtype=np.float64)
        self.broken = broken

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-0.8, 0.8, 2)
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.place = self.place + 0.1 * (np.asarray(action) - [-1.0, 2.0])
        reward = float("nan") if self.broken == "reward" else -float(np.abs(self.place - SPOT).sum())
        return self._seen(), reward, bool(self.place[0] < -1.2), False, {}

    def _seen(self) -> Any:
        return np.array([*self.place, np.nan if self.broken == "observation" else 5.0])


def limited(**options: Any) -> TimeLimit[Any, Any]:
    return TimeLimit(Field(**options), 25)


def small(env: Any = None, **settings: Any) -> RewardAgent:
    given: dict[str, Any] = {
        "planner": ICEM(iterations=2, samples=32, elites=6),
        "model": RewardModelConfig(members=2, width=32),
        "learning_starts": 150,
        "first_steps": 300,
        "buffer_size": 2000,
        "horizon": 6,
        "seed": 3,
        "device": "cpu",
    }
    made: Any = GraspAgent("MlpPolicy", limited() if env is None else env, **{**given, **settings})
    return made


@pytest.fixture(scope="module")
def trained() -> RewardAgent:
    return small().learn(400)


@pytest.fixture
def agent(trained: RewardAgent, tmp_path: Path) -> RewardAgent:
    trained.save(tmp_path / "agent.zip")
    return cast(RewardAgent, GraspAgent.load(tmp_path / "agent.zip", device="cpu"))


def drawn(count: int) -> np.ndarray:
    return np.array([Field().reset(seed=row)[0] for row in range(count)])


class Constant:
    """Takes one action for ever."""

    def __init__(self, action: Any) -> None:
        self._action = np.array(action)

    def predict(self, *_: Any, **__: Any) -> tuple[Any, None]:
        return self._action, None


def returned(agent: Any) -> float:
    return float(np.mean([episode.return_ for episode in evaluate(agent, limited(), 10, 500).episodes]))


class TestLearning:
    @pytest.mark.parametrize("seed", [3, 4])
    def test_it_learns_to_go_where_rewards_are(self, trained: RewardAgent, seed: int):
        learned = trained if seed == 3 else small(seed=seed).learn(400)
        still = returned(Constant([-1.0, 2.0]))  # about -28; the best is about -4
        assert returned(learned) > still / 2.5

    def test_a_reward_of_ones_own_takes_the_place_of_the_learned_one(self):
        def other(states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
            assert actions[..., 1].min() >= 0 and actions[..., 1].max() <= 4  # the environment's units
            return -(states[..., :2] - torch.tensor([-0.5, 0.5])).abs().sum(-1)

        agent = small(objective=other).learn(400)
        env = Field()
        observation, _ = env.reset(seed=1)
        for _ in range(25):
            observation = env.step(agent.predict(observation, deterministic=True)[0])[0]
        assert np.abs(observation[:2] - [-0.5, 0.5]).sum() < 0.25

    def test_equal_seeds_give_equal_agents(self, trained: RewardAgent):
        again = small().learn(400)
        for one, other in zip(trained.policy.parameters(), again.policy.parameters(), strict=True):
            assert torch.equal(one, other)

    def test_a_time_limit_is_no_end(self, trained: RewardAgent):
        assert trained.replay_buffer is not None
        data = recorded(trained.replay_buffer)
        left = data.following[:, 0] < -1.2
        assert 0 < left.sum() < len(left)
        assert torch.equal(data.ended.bool(), left)
        assert trained.replay_buffer.timeouts.sum() > 0

    def test_actions_are_recorded_as_they_were_taken(self, trained: RewardAgent):
        assert trained.replay_buffer is not None
        data = recorded(trained.replay_buffer)
        taken = (data.actions.numpy() + 1) / 2 * [4.0, 4.0] + [-3.0, 0.0]
        moved = (data.following - data.states).numpy()[:, :2]
        np.testing.assert_allclose(moved, 0.1 * (taken - [-1.0, 2.0]), atol=1e-4)

    def test_several_environments_learn_together(self):
        agent = small(make_vec_env(limited, 3)).learn(400)
        assert agent.num_timesteps == 402 and agent._updates > 300
        assert returned(agent) > returned(Constant([-1.0, 2.0])) / 2

    def test_episodes_have_their_own_noise(self, trained: RewardAgent):
        assert trained.replay_buffer is not None
        actions = trained.replay_buffer.actions[200:400, 0]
        first = [np.abs(actions[row] - actions[row + 25]).max() for row in range(150)]
        assert np.mean(np.array(first) < 1e-6) < 0.1

    def test_a_callback_that_plays_does_not_change_what_is_learned(self, trained: RewardAgent):
        class Play(BaseCallback):
            def _on_step(self) -> bool:
                if self.num_timesteps % 20 == 0:
                    self.model.predict(drawn(2), deterministic=True)
                return True

        again = small().learn(400, callback=Play())
        assert all(map(torch.equal, trained.policy.parameters(), again.policy.parameters()))

    def test_a_full_buffer_goes_on_being_learned_from(self):
        agent = small(make_vec_env(limited, 3), buffer_size=100, learning_starts=150).learn(300)
        assert agent._updates > 300
        assert agent._normalised_at > 150

    def test_a_callback_ends_learning_and_a_second_call_goes_on(self):
        class Stop(BaseCallback):
            def _on_step(self) -> bool:
                return self.num_timesteps < 170

        agent = small().learn(400, callback=Stop())
        assert agent.num_timesteps == 170
        agent.learn(30, reset_num_timesteps=False)
        assert agent.num_timesteps == 200

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_signals_stop_it_and_keep_what_was_learned(self, number: signal.Signals):
        class Signal(BaseCallback):
            def _on_step(self) -> bool:
                if self.num_timesteps == 180:
                    os.kill(os.getpid(), number)
                return True

        agent = small()
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                agent.learn(400, callback=Signal())
        finally:
            signal.signal(signal.SIGINT, before)
        assert agent._updates >= 300
        assert Field().action_space.contains(agent.predict(drawn(1)[0])[0])

    @pytest.mark.parametrize("what", ["reward", "observation"])
    def test_numbers_that_are_not_finite_are_refused_with_the_step(self, what: str):
        with pytest.raises(ValueError, match=rf"{what}: expected finite numbers"):
            small(limited(broken=what)).learn(200)

    def test_a_loaded_agent_keeps_its_model_until_it_has_seen_enough(self, agent: RewardAgent):
        agent.set_env(limited())
        before = [parameter.clone() for parameter in agent.policy.parameters()]
        agent.learn(100, reset_num_timesteps=False)
        assert all(map(torch.equal, before, agent.policy.parameters()))
        agent.learn(100, reset_num_timesteps=False)
        assert not all(map(torch.equal, before, agent.policy.parameters()))
        assert agent.num_timesteps == 600


class TestPredict:
    def test_one_observation_gives_one_action(self, agent: RewardAgent):
        action, state = agent.predict(drawn(1)[0])
        assert (action.shape, action.dtype) == ((2,), np.float64)
        assert agent.action_space.contains(action) and state is not None

    @pytest.mark.parametrize("count", [0, 1, 4])
    def test_a_batch_keeps_its_axis(self, agent: RewardAgent, count: int):
        actions, _ = agent.predict(drawn(count).reshape(count, 3), deterministic=True)
        assert actions.shape == (count, 2)
        assert all(agent.action_space.contains(action) for action in actions)

    def test_a_row_of_a_batch_is_the_single_call(self, agent: RewardAgent):
        together, _ = agent.predict(drawn(3), deterministic=True)
        for index, observation in enumerate(drawn(3)):
            agent.policy.forget()
            np.testing.assert_allclose(agent.predict(observation, deterministic=True)[0], together[index], atol=1e-3)

    def test_deterministic_actions_are_the_same_each_time_others_are_not(self, agent: RewardAgent):
        first, _ = agent.predict(drawn(1)[0], deterministic=True)
        again, _ = agent.predict(drawn(1)[0], deterministic=True)
        np.testing.assert_array_equal(again, first)
        noisy = [agent.predict(drawn(1)[0])[0] for _ in range(2)]
        assert not np.array_equal(noisy[0], noisy[1])

    def test_plans_in_the_state_are_those_kept_inside(self, agent: RewardAgent):
        inside, outside, state = [], [], None
        seen = [drawn(2) + shift for shift in (0.0, 0.1, 0.2)]
        for index, batch in enumerate(seen):
            inside.append(agent.predict(batch, episode_start=np.full(2, not index), deterministic=True)[0])
        for index, batch in enumerate(seen):
            action, state = agent.predict(batch, state, np.full(2, not index), deterministic=True)
            outside.append(action)
        np.testing.assert_array_equal(inside, outside)
        assert state is not None and state[2].tolist() == [3, 3]

    def test_an_episode_that_begins_has_no_plan(self, agent: RewardAgent):
        agent.predict(drawn(2), deterministic=True)
        _, state = agent.predict(drawn(2)[::-1].copy(), episode_start=np.array([True, False]), deterministic=True)
        assert state is not None and state[2].tolist() == [1, 2]

    @pytest.mark.parametrize(
        ("observation", "state", "match"),
        [
            (np.full(3, np.nan), None, "observation: expected finite numbers"),
            (np.zeros(4), None, "(?i)observation"),
            (np.zeros(3), (np.zeros((2, 6, 2)),), "state: expected what predict returned"),
        ],
        ids=["nan", "shape", "state"],
    )
    def test_what_does_not_fit_is_refused(self, agent: RewardAgent, observation: Any, state: Any, match: str):
        with pytest.raises(ValueError, match=match):
            agent.predict(observation, state)

    def test_no_global_random_generator_is_touched(self, agent: RewardAgent):
        before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]
        agent.predict(drawn(2))
        assert before == (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]

    def test_stable_baselines_evaluates_it(self, agent: RewardAgent):
        mean, _ = evaluate_policy(agent, DummyVecEnv([limited, limited]), 4, warn=False)
        assert np.mean(mean) > returned(Constant([-1.0, 2.0]))

    def test_another_planner_may_be_set_at_any_time(self, agent: RewardAgent):
        agent.planner = ICEM(iterations=1, samples=20)
        assert agent.planner.iterations == 1
        agent.planner = None
        with pytest.raises(ValueError, match="expected one that plans for rewards"):
            agent.planner = GRASP()


class TestFiles:
    def test_a_loaded_agent_acts_as_before(self, trained: RewardAgent, agent: RewardAgent):
        assert isinstance(agent, RewardAgent)
        trained.policy.forget()
        expected = trained.predict(drawn(3), deterministic=True)[0]
        np.testing.assert_array_equal(agent.predict(drawn(3), deterministic=True)[0], expected)
        assert (agent.num_timesteps, agent.seed, agent.gamma) == (400, 3, 0.99)
        assert agent.planner == trained.planner and agent.learning_starts == 150

    def test_copies_and_parameters(self, agent: RewardAgent):
        expected = agent.predict(drawn(3), deterministic=True)[0]
        copied = copy.deepcopy(agent)
        copied.policy.forget()
        np.testing.assert_array_equal(copied.predict(drawn(3), deterministic=True)[0], expected)
        fresh = small()
        fresh.predict(drawn(3), deterministic=True)  # its answer is kept for the same observation, but not for ever
        fresh.set_parameters(cast(Any, agent.get_parameters()))
        np.testing.assert_array_equal(fresh.predict(drawn(3), deterministic=True)[0], expected)

    def test_settings_may_be_replaced(self, trained: RewardAgent, tmp_path: Path):
        trained.save(tmp_path / "a.zip")
        loaded = RewardAgent.load(tmp_path / "a.zip", horizon=3, planner=ICEM(iterations=1), device="cpu")
        assert (loaded.policy.horizon, loaded.planner.iterations) == (3, 1)

    def test_an_own_reward_has_to_be_given_again(self, tmp_path: Path):
        def own(states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
            return states[..., 0]

        small(objective=own).save(tmp_path / "a.zip")
        with pytest.raises(ValueError, match=r"load\(\.\.\., objective=\)"):
            GraspAgent.load(tmp_path / "a.zip")
        assert cast(Any, GraspAgent.load(tmp_path / "a.zip", objective=own)).policy.step_reward is own

    @pytest.mark.parametrize(
        ("name", "value", "match"),
        [
            ("horizon", 10**9, "horizon"),
            ("env_id", "os:system", "env_id"),
            ("planner", {"type": "GRASP"}, "expected one that plans for rewards"),
            ("model", {"type": "RewardModelConfig", "width": 10**6}, "width"),
            ("gamma", "x", "gamma"),
            ("observation_space", {"discrete": 3, "start": 0}, "observation space"),
            ("first_steps", 10**12, "first_steps"),
            ("model", {"type": "RewardModelConfig", "width": 4096, "depth": 5}, "expected a tensor"),
        ],
    )
    def test_foreign_files_are_refused(self, trained: RewardAgent, name: str, value: Any, match: str):
        stream, forged = io.BytesIO(), io.BytesIO()
        trained.save(stream)
        with zipfile.ZipFile(stream) as source, zipfile.ZipFile(forged, "w") as target:
            for member in source.namelist():
                content = source.read(member)
                if member == "config.json":
                    content = json.dumps({**json.loads(content), name: value}).encode()
                target.writestr(member, content)
        with pytest.raises(ValueError, match=match):
            GraspAgent.load(forged)

    def test_a_goal_agents_file_is_refused(self, agent_file: Path):
        with pytest.raises(ValueError, match="got one that plans for goals"):
            RewardAgent.load(agent_file)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"planner": GRASP()}, "planner: expected one that plans for rewards"),
        ({"horizon": 0}, "horizon: expected a whole number of at least 1"),
        ({"gamma": 1.5}, "gamma: expected a fraction"),
        ({"pessimism": -1}, "pessimism: expected at least 0"),
        ({"objective": 3}, "objective: expected a function"),
        ({"model": 3}, "model: expected a RewardModelConfig"),
        ({"learning_rate": 0}, "learning_rate: expected more than 0"),
        ({"goal": object()}, 'expected "MultiInputPolicy" where a goal is given'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_do_not_fit_are_refused_when_the_agent_is_made(settings: dict[str, Any], match: str):
    with pytest.raises(ValueError, match=match):
        small(**settings)


@pytest.mark.parametrize(
    ("env", "match"),
    [
        ("CartPole-v1", r"action space: expected a Box"),
        ("grasp/BallNav-v0", 'expected "MultiInputPolicy" for an environment with goals'),
        (None, "env: expected an environment or its id, got None"),
        (VecNormalize(DummyVecEnv([limited])), "VecNormalize: expected an environment without it"),
    ],
    ids=["discrete", "goals", "none", "normalised"],
)
def test_environments_that_do_not_fit_are_refused(env: Any, match: str):
    with pytest.raises(ValueError, match=match):
        GraspAgent("MlpPolicy", env)


def test_options_that_no_file_can_hold_are_left_out(tmp_path: Path):
    gym.register("grasp-tests/Field-v0", lambda **_: limited(), kwargs={"scale": np.ones(2)})
    with pytest.warns(UserWarning, match="options that cannot be saved"):
        agent = small(gym.make("grasp-tests/Field-v0", disable_env_checker=True))
    agent.save(tmp_path / "a.zip")
    assert cast(Any, GraspAgent.load(tmp_path / "a.zip")).env_kwargs == {}


def test_a_refused_environment_changes_nothing(agent: RewardAgent):
    with pytest.raises(ValueError, match=r"(?i)observation space"):
        agent.set_env(make_vec_env("Pendulum-v1", 3))
    assert agent.n_envs == 1
    agent.set_env(limited())
    assert agent.learn(20, reset_num_timesteps=False).num_timesteps == 420


def test_settings_that_no_file_can_hold_are_refused_when_the_agent_is_made():
    with pytest.raises(ValueError, match="horizon: expected at most"):
        small(horizon=20_000)


def test_the_signature_is_that_of_the_constructor():
    assert {"planner", "horizon", "goal"} <= set(inspect.signature(GraspAgent).parameters)


def test_unseeded_agents_differ():
    one, other = (small(seed=None).policy.model.weights[0] for _ in range(2))
    assert not torch.equal(one, other)


def test_a_wrong_shape_of_ones_own_rewards_is_named():
    agent = small(objective=lambda states, actions: states)
    with pytest.raises(ValueError, match="objective: expected rewards"):
        agent.predict(drawn(1)[0])
