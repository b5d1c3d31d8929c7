"""Conformance to Stable-Baselines3's interface, continued: `learn`, callbacks, environments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import kinds
import numpy as np
import pytest
import torch
from agents import tiny
from kinds import Kind, Observation, sac, short
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize


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

    def test_the_same_seed_learns_the_same(self, kind: Kind):
        batch = kinds.observations(20)
        actions = [kind.make(short(), seed=seed).learn(120).predict(batch, deterministic=True)[0] for seed in (1, 1, 2)]
        np.testing.assert_array_equal(actions[0], actions[1])
        assert not np.array_equal(actions[0], actions[2])

    def test_set_random_seed_seeds_everything(self, kind: Kind, obs: Observation):
        def flat(new: Any) -> Any:
            return new["observation"].copy() if isinstance(new, dict) else new.copy()

        def learned(seed: int) -> Any:
            model = kind.make(short(), seed=None)
            seen: list[Any] = []
            model.set_random_seed(seed)
            model.learn(15, lambda local, _: seen.append(flat(local["new_obs"])))
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
        if name == "SubprocVecEnv" and kind.make not in (tiny, sac):
            pytest.skip("each process takes seconds to start; its pipe is tested with one environment")
        env = VECTORS[name]()
        model = kind.make(env).learn(40)
        assert model.num_timesteps == 40
        vec = model.get_env()
        observation = vec.reset()
        for _ in range(2):
            actions, _ = model.predict(observation)
            assert actions.shape == (vec.num_envs, *kind.shape)
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
            model.set_env(gym.make(kind.foreign))
        with pytest.raises(ValueError, match=r"[Ss]paces do not match"):
            kind.load(env=gym.make(kind.foreign))

    def test_one_without_an_environment_predicts_but_does_not_learn(self, kind: Kind, model: Any, obs: Observation):
        assert model.get_env() is None
        assert model.predict(obs)[0].shape == kind.shape
        with pytest.raises((ValueError, AssertionError, AttributeError)):
            model.learn(10)
