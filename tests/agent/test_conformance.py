"""Conformance to Stable-Baselines3: the same cases run on `GraspAgent` and on SAC.

Intended differences are tested at the end.
"""

from __future__ import annotations

import copy
import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agents import ENV, tiny, tiny_seer
from kinds import Kind, Observation, each, observations, row, sac, short
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from grasp_agent import GRASP, GraspAgent


class TestPredict:
    def test_one_observation_gives_one_action(self, kind: Kind, model: Any, obs: Observation):
        action, _ = model.predict(obs)
        assert (type(action), action.shape, action.dtype) == (np.ndarray, kind.shape, kind.dtype)
        assert model.action_space.contains(action)

    @pytest.mark.parametrize("count", [0, 1, 4])
    def test_a_batch_keeps_its_axis(self, kind: Kind, model: Any, count: int):
        actions, _ = model.predict(observations(count), deterministic=True)
        assert (actions.shape, actions.dtype) == ((count, *kind.shape), kind.dtype)
        assert all(model.action_space.contains(action) for action in actions)

    @pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")  # torch's, in SAC
    @pytest.mark.parametrize("form", [np.float32, np.float64, list, torch.tensor], ids=lambda f: f.__name__)
    @pytest.mark.parametrize("count", [None, 3])
    def test_observations_come_in_several_forms(self, kind: Kind, form: Any, count: int | None):
        plain = observations(1, single=True) if count is None else observations(count)
        other = each(plain, lambda value: value.tolist() if form is list else form(value))
        expected, found = (kind.load().predict(o, deterministic=True)[0] for o in (plain, other))
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_arguments_may_be_given_by_position_in_this_order(self, model: Any, obs: Observation):
        by_name, _ = model.predict(observation=obs, state=None, episode_start=None, deterministic=True)
        by_place, _ = model.predict(obs, None, None, True)
        np.testing.assert_array_equal(by_place, by_name)

    def test_the_returned_state_may_be_passed_on(self, kind: Kind, model: Any):
        batch = observations(2)
        _, state = model.predict(batch, deterministic=True)
        starts = np.array([True, False])
        actions, _ = model.predict(batch, state=state, episode_start=starts, deterministic=True)
        assert actions.shape == (2, *kind.shape) and starts.tolist() == [True, False]
        for given in (np.ones(2, bool), [True, True], np.zeros(2, bool)):
            assert model.predict(batch, state=None, episode_start=given)[0].shape == (2, *kind.shape)

    def test_a_row_of_a_batch_is_the_single_call(self, kind: Kind):
        batch = observations(3)
        # The default for images ranks samples: after a rounding error another one may be the best.
        how = {"planner": GRASP()} if kind.make in (tiny, tiny_seer) else {}
        together, _ = kind.load(**how).predict(batch, deterministic=True)
        for index in range(3):
            alone, _ = kind.load(**how).predict(row(batch, index), deterministic=True)
            np.testing.assert_allclose(alone, together[index], atol=1e-3)

    def test_deterministic_actions_are_the_same_each_time(self, model: Any, obs: Observation):
        first, _ = model.predict(obs, deterministic=True)
        model.predict(observations(2), deterministic=False)
        second, _ = model.predict(obs, deterministic=True)
        np.testing.assert_array_equal(first, second)

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
    def test_any_grad_mode_will_do_and_is_kept(self, model: Any, obs: Observation, mode: Any):
        expected, _ = model.predict(obs, deterministic=True)
        gradients = [None if p.grad is None else p.grad.clone() for p in model.policy.parameters()]
        with mode():
            enabled = torch.is_grad_enabled()
            found, _ = model.predict(obs, deterministic=True)
            assert torch.is_grad_enabled() == enabled
        np.testing.assert_array_equal(found, expected)
        for parameter, before in zip(model.policy.parameters(), gradients, strict=True):
            assert (parameter.grad is None) == (before is None)
            assert before is None or torch.equal(parameter.grad, before)

    def test_no_global_random_generator_is_touched(self, model: Any, obs: Observation):
        def states() -> list[Any]:
            return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # type: ignore[index,union-attr]

        before = states()
        model.predict(obs, deterministic=True)
        assert states() == before

    def test_the_input_is_neither_changed_nor_returned(self, model: Any, obs: Observation):
        given, kept = copy.deepcopy(obs), copy.deepcopy(obs)
        action, _ = model.predict(given, deterministic=True)
        action[...] = 9
        parts = given.values() if isinstance(given, dict) else [given]
        for value, before in zip(parts, kept.values() if isinstance(kept, dict) else [kept], strict=True):
            np.testing.assert_array_equal(value, before)
            assert not np.shares_memory(value, action)

    def test_a_pair_of_observation_and_info_is_refused(self, model: Any, obs: Observation):
        with pytest.raises(ValueError, match="mixing Gym API with SB3 VecEnv API"):
            model.predict((obs, {}))

    @pytest.mark.parametrize("key", ["observation", "achieved_goal", "desired_goal"])
    def test_a_wrong_shape_is_refused(self, model: Any, obs: Observation, key: str):
        if not isinstance(obs, dict):
            with pytest.raises(ValueError, match="Unexpected observation shape"):
                model.predict(np.zeros(5, np.float32))
            return
        if key not in obs:
            pytest.skip("goals as images have no vectors")
        with pytest.raises(ValueError, match="Unexpected observation shape"):
            model.predict({**obs, key: np.zeros(5, np.float32)})

    @pytest.mark.parametrize("key", ["observation", "achieved_goal", "desired_goal"])
    def test_a_missing_key_is_named(self, model: Any, obs: Observation, key: str):
        if not isinstance(obs, dict) or key not in obs:
            pytest.skip("goals as images have no vectors, and a Box has no keys")
        with pytest.raises((KeyError, ValueError), match=key):
            model.predict({name: value for name, value in obs.items() if name != key})

    @pytest.mark.parametrize("count", [1, 3])
    def test_gymnasiums_vector_environments_are_supported(self, kind: Kind, model: Any, count: int):
        env = gym.make_vec(ENV, num_envs=count, vectorization_mode="sync")
        observation, _ = env.reset(seed=0)
        for _ in range(3):
            actions, _ = model.predict(observation)
            assert actions.shape == (count, *kind.shape)
            observation, *_ = env.step(actions)
        env.close()

    @pytest.mark.parametrize("count", [1, 3])
    def test_evaluate_policy(self, model: Any, count: int):
        env = make_vec_env(ENV, n_envs=count, seed=0, env_kwargs={"max_episode_steps": 12})
        rewards, lengths = evaluate_policy(model, env, n_eval_episodes=4, return_episode_rewards=True)
        env.close()
        assert isinstance(lengths, list) and isinstance(rewards, list)
        assert lengths == [12] * 4 and all(-12 <= reward <= 0 for reward in rewards)


class TestSaving:
    @pytest.mark.parametrize("form", ["Path", "str", "without suffix", "file object", "open file"])
    def test_a_saved_model_predicts_the_same(self, kind: Kind, tmp_path: Path, form: str):
        model, path = kind.load(), tmp_path / "model.zip"
        batch = observations(3)
        expected, _ = model.predict(batch, deterministic=True)
        target: Any = {"str": str(path), "without suffix": str(tmp_path / "model"), "file object": io.BytesIO()}.get(
            form, path
        )
        if form == "open file":
            with open(path, "wb") as file:
                model.save(file)
            with open(path, "rb") as file:
                loaded = kind.algorithm.load(file, device="cpu")  # type: ignore[arg-type]
        else:
            model.save(target)
            if form == "file object":
                target.seek(0)
            loaded = kind.algorithm.load(target, device="cpu")
        found, _ = loaded.predict(batch, deterministic=True)
        np.testing.assert_array_equal(found, expected)
        assert loaded.num_timesteps == model.num_timesteps

    def test_parameters_are_set_and_returned(self, kind: Kind, tmp_path: Path):
        batch, taught = observations(3), kind.load()
        expected, _ = taught.predict(batch, deterministic=True)
        other = kind.load(env=short()).learn(40)
        further = copy.deepcopy(other.get_parameters())
        answers, _ = other.predict(batch, deterministic=True)
        parameters = taught.get_parameters()
        one, two = (given["policy"] for given in (parameters, further))
        assert any(one[key].shape != two[key].shape or not torch.equal(one[key], two[key]) for key in one)
        for given, then in ((parameters, expected), (further, answers), (str(kind.file), expected)):
            other.set_parameters(given)
            np.testing.assert_array_equal(other.predict(batch, deterministic=True)[0], then)

    def test_wrong_parameters_are_refused(self, model: Any):
        with pytest.raises((ValueError, RuntimeError)):
            model.set_parameters({})
        with pytest.raises((ValueError, RuntimeError)):
            model.set_parameters({**model.get_parameters(), "nothing": {}})
        with pytest.raises((ValueError, RuntimeError)):
            model.set_parameters({name: {"strange": torch.zeros(1)} for name in model.get_parameters()})

    def test_settings_may_be_replaced_when_loading(self, kind: Kind):
        (name, value), *_ = kind.other.items()
        assert getattr(kind.load(**kind.other), name) == value


class TestIntendedDifferences:
    """On purpose, and why."""

    def test_files_hold_no_pickle(self, agent_file: Path, soft: Path):
        """Pickles run code when they are read."""

        def pickled(path: Path) -> bool:
            with zipfile.ZipFile(path) as archive:
                return any(b":serialized:" in archive.read(name) or ".pth" in name for name in archive.namelist())

        with zipfile.ZipFile(agent_file) as archive:
            assert set(archive.namelist()) == {"config.json", "weights.safetensors"}
            json.loads(archive.read("config.json"))
        assert not pickled(agent_file) and pickled(soft)

    def test_normalised_observations_are_refused(self):
        """Achieved and desired goals would be scaled differently; the world model normalises by itself."""
        env = VecNormalize(DummyVecEnv([short]))
        with pytest.raises(ValueError, match="expected norm_obs=False"):
            tiny(env)
        sac(env)

    def test_a_misspelt_setting_is_refused(self, agent_file: Path, soft: Path):
        with pytest.raises(ValueError, match="unknown setting 'horizen'"):
            GraspAgent.load(agent_file, horizen=3)
        SAC.load(soft, horizen=3)

    def test_an_agent_alone_in_a_loop_follows_its_plan(self, agent_file: Path, soft: Path):
        """Earlier calls matter where neither `state` nor `episode_start` is given."""
        obs = observations(1, first=1, single=True)
        agent = GraspAgent.load(agent_file, device="cpu")
        assert agent.last_plan is None
        agent.predict(obs)
        assert agent.last_plan is not None
        _, state = agent.predict(obs, deterministic=True)
        assert isinstance(state, tuple) and SAC.load(soft, device="cpu").predict(obs)[1] is None

    def test_seeding_leaves_global_generators_alone(self, agent_file: Path, soft: Path):
        def drawn(model: BaseAlgorithm) -> float:
            random.seed(1)
            model.set_random_seed(77)
            return random.random()

        untouched = random.Random(1).random()
        assert drawn(GraspAgent.load(agent_file, device="cpu")) == untouched
        assert drawn(SAC.load(soft, device="cpu")) != untouched

    def test_a_seed_is_the_planners_too(self, agent_file: Path):
        def plans(seed: int) -> list[float]:
            agent = GraspAgent.load(agent_file, device="cpu")
            agent.set_random_seed(seed)
            agent.planner = GRASP(proposals=None, candidates=2, iterations=2, sync_every=1)  # noise decides
            return agent.predict(observations(3), episode_start=np.ones(3, bool))[0].ravel().tolist()

        assert plans(4) == plans(4) != plans(5)
