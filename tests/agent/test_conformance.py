"""One list of cases, run on our agent and on Stable-Baselines3's SAC: what holds for the one holds for the other.

What we do otherwise on purpose stands at the end, and nowhere else.
"""

from __future__ import annotations

import copy
import io
import json
import random
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch
from agents import ENV, PIXELS, tiny, tiny_seer
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize

from grasp_agent import GRASP, GraspAgent

Observation = dict[str, Any]


class Kind(NamedTuple):
    """An algorithm as a user meets it."""

    algorithm: type[BaseAlgorithm]
    make: Callable[..., Any]
    """From an environment and settings to a model that has learned nothing."""
    file: Path
    """One that has learned a little, saved."""

    def load(self, **how: Any) -> Any:
        """The one that has learned."""
        return self.algorithm.load(self.file, device="cpu", **how)


def sac(env: Any = ENV, **settings: Any) -> SAC:
    """As small as `tiny`."""
    given: dict[str, Any] = {
        "policy_kwargs": {"net_arch": [16]},
        "learning_starts": 20,
        "batch_size": 16,
        "buffer_size": 1000,
        "seed": 3,
        "device": "cpu",
    }
    return SAC("MultiInputPolicy", env, **{**given, **settings})


@pytest.fixture(scope="module")
def soft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sac") / "sac.zip"
    sac().learn(60).save(path)
    return path


@pytest.fixture(scope="module")
def sharp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pixels") / "tiny.zip"
    tiny_seer().learn(150).save(path)
    return path


@pytest.fixture(params=["grasp", "grasp from pixels", "sac"])
def kind(
    request: pytest.FixtureRequest, agent_file: Path, soft: Path, sharp: Path, monkeypatch: pytest.MonkeyPatch
) -> Kind:
    if request.param == "grasp from pixels":
        monkeypatch.setattr(sys.modules[__name__], "ENV", PIXELS)  # what all helpers here make
    return {
        "grasp": Kind(GraspAgent, tiny, agent_file),
        "grasp from pixels": Kind(GraspAgent, tiny_seer, sharp),
        "sac": Kind(SAC, sac, soft),
    }[request.param]


@pytest.fixture
def model(kind: Kind) -> Any:
    return kind.load()


@pytest.fixture
def obs(kind: Kind) -> Observation:
    assert kind.file.exists()
    return observations(1, first=1, single=True)


def observations(count: int, first: int = 0, *, single: bool = False) -> Observation:
    """Those of different episodes' starts, as a batch; or one alone."""
    env = gym.make(ENV)
    drawn = [env.reset(seed=first + row)[0] for row in range(count)]
    space = env.observation_space
    env.close()
    assert isinstance(space, gym.spaces.Dict)
    if single:
        return drawn[0]
    return {k: np.array([o[k] for o in drawn], b.dtype).reshape(-1, *(b.shape or ())) for k, b in space.items()}


def row(batch: Observation, index: int) -> Observation:
    return {key: value[index] for key, value in batch.items()}


class TestPredict:
    def test_one_observation_gives_one_action(self, model: Any, obs: Observation):
        action, _ = model.predict(obs)
        assert (type(action), action.shape, action.dtype) == (np.ndarray, (2,), np.float32)
        assert model.action_space.contains(action)

    @pytest.mark.parametrize("count", [0, 1, 4])
    def test_a_batch_keeps_its_axis(self, model: Any, count: int):
        actions, _ = model.predict(observations(count), deterministic=True)
        assert (actions.shape, actions.dtype) == ((count, 2), np.float32)
        assert all(model.action_space.contains(action) for action in actions)

    @pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")  # torch's, in SAC
    @pytest.mark.parametrize("form", [np.float32, np.float64, list, torch.tensor], ids=lambda f: f.__name__)
    @pytest.mark.parametrize("count", [None, 3])
    def test_observations_come_in_several_forms(self, kind: Kind, form: Any, count: int | None):
        plain = observations(1, single=True) if count is None else observations(count)
        other = {key: value.tolist() if form is list else form(value) for key, value in plain.items()}
        expected, found = (kind.load().predict(o, deterministic=True)[0] for o in (plain, other))
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_arguments_may_be_given_by_position_in_this_order(self, model: Any, obs: Observation):
        by_name, _ = model.predict(observation=obs, state=None, episode_start=None, deterministic=True)
        by_place, _ = model.predict(obs, None, None, True)
        np.testing.assert_array_equal(by_place, by_name)

    def test_the_returned_state_may_be_passed_on(self, model: Any):
        batch = observations(2)
        _, state = model.predict(batch, deterministic=True)
        starts = np.array([True, False])
        actions, _ = model.predict(batch, state=state, episode_start=starts, deterministic=True)
        assert actions.shape == (2, 2) and starts.tolist() == [True, False]
        for given in (np.ones(2, bool), [True, True], np.zeros(2, bool)):
            assert model.predict(batch, state=None, episode_start=given)[0].shape == (2, 2)

    def test_a_row_of_a_batch_is_the_single_call(self, kind: Kind):
        batch = observations(3)
        together, _ = kind.load().predict(batch, deterministic=True)
        for index in range(3):
            alone, _ = kind.load().predict(row(batch, index), deterministic=True)
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
        kept = {key: value.copy() for key, value in obs.items()}
        action, _ = model.predict(obs, deterministic=True)
        action[:] = 9
        for key, value in obs.items():
            np.testing.assert_array_equal(value, kept[key])
            assert not np.shares_memory(value, action)

    def test_a_pair_of_observation_and_info_is_refused(self, model: Any, obs: Observation):
        with pytest.raises(ValueError, match="mixing Gym API with SB3 VecEnv API"):
            model.predict((obs, {}))

    @pytest.mark.parametrize("key", ["observation", "achieved_goal", "desired_goal"])
    def test_a_wrong_shape_is_refused(self, model: Any, obs: Observation, key: str):
        if key not in obs:
            pytest.skip("images of goals have no vectors beside them")
        with pytest.raises(ValueError, match="Unexpected observation shape"):
            model.predict({**obs, key: np.zeros(5, np.float32)})

    @pytest.mark.parametrize("key", ["observation", "achieved_goal", "desired_goal"])
    def test_a_missing_key_is_named(self, model: Any, obs: Observation, key: str):
        if key not in obs:
            pytest.skip("images of goals have no vectors beside them")
        with pytest.raises((KeyError, ValueError), match=key):
            model.predict({name: value for name, value in obs.items() if name != key})

    @pytest.mark.parametrize("count", [1, 3])
    def test_gymnasiums_vector_environments_are_supported(self, model: Any, count: int):
        env = gym.make_vec(ENV, num_envs=count, vectorization_mode="sync")
        observation, _ = env.reset(seed=0)
        for _ in range(3):
            actions, _ = model.predict(observation)
            assert actions.shape == (count, 2)
            observation, *_ = env.step(actions)
        env.close()

    @pytest.mark.parametrize("count", [1, 3])
    def test_evaluate_policy(self, model: Any, count: int):
        env = make_vec_env(ENV, n_envs=count, seed=0, env_kwargs={"max_episode_steps": 12})
        rewards, lengths = evaluate_policy(model, env, n_eval_episodes=4, return_episode_rewards=True)
        env.close()
        assert isinstance(lengths, list) and isinstance(rewards, list)
        assert lengths == [12] * 4 and all(-12 <= reward <= 0 for reward in rewards)


class Notes(BaseCallback):
    """Writes down what it is called for."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def _on_training_start(self) -> None:
        self.events.append("training starts")
        assert self.model is not None and self.logger is self.model.logger

    def _on_rollout_start(self) -> None:
        self.events.append("rollout starts")

    def _on_step(self) -> bool:
        assert {"self", "new_obs", "rewards", "dones", "infos"} <= set(self.locals)
        self.events.append("step")
        return True

    def _on_rollout_end(self) -> None:
        self.events.append("rollout ends")

    def _on_training_end(self) -> None:
        self.events.append("training ends")


class Until(BaseCallback):
    """Stops after so many steps, with an answer of some type."""

    def __init__(self, steps: int, answer: Callable[[bool], Any]) -> None:
        super().__init__()
        self.steps, self.answer = steps, answer

    def _on_step(self) -> bool:
        return self.answer(self.num_timesteps < self.steps)


def short(**options: Any) -> gym.Env[Any, Any]:
    return gym.make(ENV, max_episode_steps=20, **options)


class TestLearn:
    def test_a_callback_is_called_for_everything(self, kind: Kind):
        notes = Notes()
        model = kind.make(short()).learn(60, callback=notes)
        assert model.num_timesteps == 60 and notes.events.count("step") == 60
        assert notes.events[:2] == ["training starts", "rollout starts"]
        assert notes.events[-2:] == ["rollout ends", "training ends"]
        assert notes.events.count("rollout starts") == notes.events.count("rollout ends")

    @pytest.mark.parametrize("form", ["function", "list", "CallbackList", "none"])
    def test_callbacks_come_in_several_forms(self, kind: Kind, form: str):
        calls: list[int] = []

        def count(local: dict[str, Any], _: dict[str, Any]) -> bool:
            calls.append(local["self"].num_timesteps)
            return True

        notes = Notes()
        given = {"function": count, "list": [notes, Notes()], "CallbackList": CallbackList([notes]), "none": None}[form]
        assert kind.make(short()).learn(30, callback=given).num_timesteps == 30
        assert form in ("list", "CallbackList") or not notes.events
        assert (len(calls) == 30) == (form == "function")

    @pytest.mark.parametrize("answer", [bool, np.bool_, torch.tensor], ids=["bool", "np.bool_", "tensor"])
    def test_a_callback_stops_learning(self, kind: Kind, answer: Any):
        notes = Notes()
        model = kind.make(short()).learn(60, callback=[Until(33, answer), notes])
        assert model.num_timesteps == 33
        assert notes.events[-1] == "training ends"
        assert kind.make(short()).learn(60, lambda *_: answer(False)).num_timesteps == 1

    @pytest.mark.filterwarnings("ignore:Training and eval env are not of the same type")  # of images, they never are
    def test_stable_baselines_own_callbacks(self, kind: Kind, tmp_path: Path):
        notes = Notes()
        model = kind.make(short())
        model.learn(
            60,
            callback=[
                EvalCallback(
                    Monitor(short()), eval_freq=30, n_eval_episodes=1, best_model_save_path=str(tmp_path), verbose=0
                ),
                CheckpointCallback(25, str(tmp_path), verbose=0),
                EveryNTimesteps(20, notes),
            ],
        )
        assert notes.events.count("step") == 3
        assert {path.name for path in tmp_path.glob("*.zip")} >= {
            "best_model.zip",
            "rl_model_25_steps.zip",
            "rl_model_50_steps.zip",
        }
        assert kind.algorithm.load(tmp_path / "best_model", device="cpu").num_timesteps in (30, 60)
        model = kind.make(make_vec_env(short, n_envs=2)).learn(400, StopTrainingOnMaxEpisodes(1))
        assert model.num_timesteps == 40  # an episode in each of two environments

    def test_counting_continues_or_restarts(self, kind: Kind):
        model = kind.make(short()).learn(30)
        assert model.learn(20, reset_num_timesteps=False).num_timesteps == 50
        assert model.learn(25).num_timesteps == 25

    def test_arguments_may_be_given_by_position(self, kind: Kind):
        assert kind.make(short()).learn(20, None, 4, "run", True, False).num_timesteps == 20

    def test_tensorboard_gets_a_folder_by_the_runs_name(self, kind: Kind, tmp_path: Path):
        pytest.importorskip("tensorboard")
        model = kind.make(short(), tensorboard_log=str(tmp_path))
        model.learn(60, tb_log_name="mine", log_interval=1)
        model.learn(60, tb_log_name="mine", log_interval=1)
        model.learn(40, tb_log_name="mine", log_interval=1, reset_num_timesteps=False)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["mine_1", "mine_2"]
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path / "mine_2"))
        events.Reload()
        assert {"rollout/ep_len_mean", "rollout/ep_rew_mean", "rollout/success_rate", "time/fps"} <= set(
            events.Tags()["scalars"]
        )
        assert events.Scalars("rollout/ep_len_mean")[-1].value == 20
        assert [event.step for event in events.Scalars("time/fps")] == sorted(
            event.step for event in events.Scalars("time/fps")
        )

    def test_a_custom_logger_is_used(self, kind: Kind, tmp_path: Path):
        model = kind.make(short())
        model.set_logger(configure(str(tmp_path), ["csv"]))
        model.learn(60, log_interval=1)
        model.logger.close()
        assert "rollout/success_rate" in (tmp_path / "progress.csv").read_text().splitlines()[0]

    def test_the_same_seed_learns_the_same(self, kind: Kind, obs: Observation):
        actions = [kind.make(short(), seed=seed).learn(120).predict(obs, deterministic=True)[0] for seed in (1, 1, 2)]
        np.testing.assert_array_equal(actions[0], actions[1])
        assert not np.array_equal(actions[0], actions[2])

    def test_set_random_seed_seeds_everything(self, kind: Kind, obs: Observation):
        def learned(seed: int) -> Any:
            model = kind.make(short(), seed=None)
            seen: list[Any] = []
            model.set_random_seed(seed)
            model.learn(15, lambda local, _: seen.append(local["new_obs"]["observation"].copy()))
            return np.concatenate(seen)

        np.testing.assert_array_equal(learned(5), learned(5))
        assert not np.array_equal(learned(5), learned(6))


VECTORS: dict[str, Callable[[], Any]] = {
    "DummyVecEnv": lambda: DummyVecEnv([short, short]),
    "SubprocVecEnv": lambda: SubprocVecEnv([short, short]),
    "VecNormalize": lambda: VecNormalize(DummyVecEnv([short]), norm_obs=False),
    "VecFrameStack": lambda: VecFrameStack(DummyVecEnv([short]), 2),
    "Monitor": lambda: Monitor(short()),
}


class TestEnvironments:
    @pytest.mark.parametrize("name", VECTORS)
    def test_an_agent_learns_in_vector_environments(self, kind: Kind, name: str):
        if name == "SubprocVecEnv" and kind.make is tiny_seer:
            pytest.skip("each process takes seconds to start; its pipe is tested with vectors")
        env = VECTORS[name]()
        model = kind.make(env).learn(40)
        assert model.num_timesteps == 40
        vec = model.get_env()
        observation = vec.reset()
        for _ in range(2):
            actions, _ = model.predict(observation)
            assert actions.shape == (vec.num_envs, 2)
            observation, *_ = vec.step(actions)
        env.close()

    def test_normalising_wrappers_raise_a_warning(self, kind: Kind):
        env = VECTORS["VecNormalize"]()
        assert kind.make(env).get_vec_normalize_env() is env
        assert kind.make(short()).get_vec_normalize_env() is None

    def test_another_environment_may_be_set(self, kind: Kind):
        model = kind.make(short()).learn(20)
        other = short()
        model.set_env(other)
        assert model.get_env().envs[0].unwrapped is other.unwrapped
        assert model.learn(20, reset_num_timesteps=False).num_timesteps == 40

    def test_a_loaded_model_takes_another_number_of_environments(self, kind: Kind):
        env = make_vec_env(short, n_envs=3)
        model = kind.load(env=env)
        assert (model.n_envs, model.get_env().num_envs) == (3, 3)
        before = model.num_timesteps
        assert model.learn(30, reset_num_timesteps=False).num_timesteps == before + 30

    def test_an_environment_with_other_spaces_is_refused(self, kind: Kind, model: Any):
        with pytest.raises(ValueError, match=r"[Ss]paces do not match"):
            model.set_env(gym.make("grasp/Reacher-v0"))
        with pytest.raises(ValueError, match=r"[Ss]paces do not match"):
            kind.load(env=gym.make("grasp/Reacher-v0"))

    def test_one_without_an_environment_predicts_but_does_not_learn(self, model: Any, obs: Observation):
        assert model.get_env() is None
        assert model.predict(obs)[0].shape == (2,)
        with pytest.raises((ValueError, AssertionError, AttributeError)):
            model.learn(10)


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
        settings = {"horizon": 7} if kind.algorithm is GraspAgent else {"gamma": 0.5}
        (name, value), *_ = settings.items()
        assert getattr(kind.load(**settings), name) == value


class TestWhatWeDoOtherwise:
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
        """Achieved and desired goals would be scaled apart; the world model normalises by itself."""
        env = VecNormalize(DummyVecEnv([short]))
        with pytest.raises(ValueError, match="expected norm_obs=False"):
            tiny(env)
        sac(env)

    def test_a_misspelt_setting_is_refused(self, agent_file: Path, soft: Path):
        with pytest.raises(ValueError, match="unknown setting 'horizen'"):
            GraspAgent.load(agent_file, horizen=3)
        SAC.load(soft, horizen=3)

    def test_an_agent_alone_in_a_loop_follows_its_plan(self, agent_file: Path, soft: Path):
        """What was asked before counts where neither `state` nor `episode_start` is given."""
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
