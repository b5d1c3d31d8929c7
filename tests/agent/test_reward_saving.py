"""Files of agents for rewards, and what is refused when they are made or loaded."""

from __future__ import annotations

import copy
import inspect
import io
import json
import zipfile
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch
from rewarding import Wordy, drawn, limited, reloaded, small
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from grasp_agent import GRASP, GraspAgent
from grasp_agent.agent.reward.agent import RewardAgent
from grasp_agent.planners import ICEM


@pytest.fixture
def agent(trained: RewardAgent, tmp_path: Path) -> RewardAgent:
    return reloaded(trained, tmp_path)


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

    @pytest.mark.parametrize("name", ["model", "value"])
    def test_networks_cannot_be_replaced(self, trained: RewardAgent, tmp_path: Path, name: str):
        trained.save(tmp_path / "a.zip")
        with pytest.raises(ValueError, match=f"load: {name}: expected none"):
            GraspAgent.load(tmp_path / "a.zip", **cast(Any, {name: None}))

    def test_parameters_come_from_any_file(self, trained: RewardAgent, tmp_path: Path):
        class Mine(ICEM):
            pass

        given: dict[str, Any] = {"objective": lambda states, actions: states[..., 0], "planner": Mine(iterations=1)}
        with_own, plain = small(seed=9, **given), small()
        with_own.save(tmp_path / "a.zip")
        plain.set_parameters(tmp_path / "a.zip")
        assert all(map(torch.equal, plain.policy.parameters(), with_own.policy.parameters()))

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
            ("value", 3, "value: expected a ValueConfig"),
            ("value", {"type": "ValueConfig", "width": 4096, "depth": 5}, "expected a tensor"),
            ("value", None, "weights: expected"),
            ("prior", "x", r"prior: expected null, \"given\" or \"sac\""),
            ("action_space", {"discrete": 10**9, "start": 0}, "at most 4096 choices"),
            ("action_space", {"discrete": 3, "start": 0}, "expected a tensor"),
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
        ({"value": 3}, "value: expected a ValueConfig"),
        ({"env": "CartPole-v1", "noise": 1.5}, "noise: expected a fraction"),
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
        (Wordy(), r"action space: expected a Box"),
        ("grasp/BallNav-v0", 'expected "MultiInputPolicy" for an environment with goals'),
        (None, "env: expected an environment or its id, got None"),
        (VecNormalize(DummyVecEnv([limited])), "VecNormalize: expected norm_obs=False"),
    ],
    ids=["text", "goals", "none", "normalised"],
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
