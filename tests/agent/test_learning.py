"""Learning: Stable-Baselines3's callbacks, logger and counters; the same seed gives the same agent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agents import ENV, tiny
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.monitor import Monitor

import grasp_agent
from grasp_agent import GRASP, ExploreConfig, GraspAgent, TrainConfig
from grasp_agent.evaluation.evaluate import evaluate
from grasp_agent.models import EnsembleMLP
from grasp_agent.models.dynamics.fitting import FitReport, fit
from grasp_agent.replay.episodes import Dataset, Episode


@pytest.fixture
def env() -> Iterator[gym.Env[Any, Any]]:
    env = gym.make(ENV)
    yield env
    env.close()


class Notes(KVWriter):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        self.rows.append({**key_values, "step": step})

    def close(self) -> None:
        pass


def weights(agent: GraspAgent) -> list[torch.Tensor]:
    assert agent.policy.world is not None
    world = agent.policy.world
    return [*world.model.state_dict().values(), *world.index.tensors().values()]


def test_learning_is_the_same_for_the_same_seed():
    agents = [tiny(seed=seed).learn(250) for seed in (3, 3, 4)]
    one, two, other = (weights(agent) for agent in agents)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(one, other, strict=False))
    for first, second in zip(agents[0].trainer.dataset.episodes, agents[1].trainer.dataset.episodes, strict=True):
        np.testing.assert_array_equal(first.states, second.states)


@pytest.mark.parametrize("count", [1, 3])
def test_all_observations_are_learned_from(count: int):
    env = make_vec_env(ENV, n_envs=count, seed=0)
    agent = tiny(env).learn(240)
    env.close()
    assert agent.num_timesteps == 240
    assert len(agent.trainer.dataset) == 240
    assert agent.trainer.report is not None
    assert agent.policy.world is not None
    # An episode's states follow one another: the environment's own physics leads from each to the next.
    lengths = [len(episode.actions) for episode in agent.trainer.dataset.episodes]
    assert max(lengths) <= 100
    for episode in agent.trainer.dataset.episodes:
        assert np.abs(np.diff(episode.states, axis=0)).max() < 0.2
        assert np.abs(episode.actions).max() <= 1


def test_a_callback_that_returns_false_stops_learning_and_keeps_the_experience(env: gym.Env[Any, Any]):
    agent = tiny(env).learn(1000, callback=lambda local, _: local["self"].num_timesteps < 130)
    assert agent.num_timesteps == len(agent.trainer.dataset) == 130
    assert agent.predict(env.reset(seed=0)[0])[0].shape == (2,)


class Watch(BaseCallback):
    """Counts events and keeps the names that it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.shapes: list[tuple[int, ...]] = []

    def _on_training_start(self) -> None:
        self.events.append("start")

    def _on_step(self) -> bool:
        self.events.append("step")
        self.shapes.append(np.shape(self.locals["rewards"]))
        assert {"new_obs", "rewards", "dones", "infos"} <= set(self.locals)
        return True

    def _on_training_end(self) -> None:
        self.events.append("end")


def test_callbacks_see_each_step_once():
    env = make_vec_env(ENV, n_envs=2, seed=0)
    watch = Watch()
    tiny(env).learn(120, callback=watch)
    env.close()
    assert watch.events == ["start", *["step"] * 60, "end"]
    assert set(watch.shapes) == {(2,)}


def test_the_logger_gets_progress_success_and_the_models_error():
    agent, notes = tiny(), Notes()
    agent.set_logger(Logger(None, [notes]))
    agent.learn(300, log_interval=1)
    keys = set().union(*notes.rows)
    assert keys >= {"rollout/ep_rew_mean", "rollout/ep_len_mean", "rollout/success_rate", "time/fps"}
    assert keys >= {"time/total_timesteps", "time/episodes", "model/loss", "model/error_mean", "model/transitions"}
    assert notes.rows[-1]["step"] == 300
    assert [row["model/transitions"] for row in notes.rows if "model/transitions" in row][-1] == 300
    assert [row["time/episodes"] for row in notes.rows][-1] == 3


def test_counting_continues_where_it_is_requested():
    agent = tiny().learn(120)
    assert agent.learn(60, reset_num_timesteps=False).num_timesteps == 180
    assert len(agent.trainer.dataset) == 180
    assert agent.learn(50).num_timesteps == 50
    assert len(agent.trainer.dataset) == 230


def test_negative_steps_are_refused_and_few_steps_need_short_fits():
    with pytest.raises(ValueError, match="total_timesteps: expected at least 0, got -5"):
        tiny().learn(-5)
    began = time.monotonic()
    tiny(train=TrainConfig(gradient_steps=10**6)).learn(10)
    assert time.monotonic() - began < 60


def test_the_planner_is_the_same_after_learning_as_before():
    planner = GRASP(candidates=2, iterations=5, verify_every=2)
    agent = tiny(planner=planner)
    for stop in (150, 1000):
        agent.learn(150, callback=lambda local, _, stop=stop: local["self"].num_timesteps < stop)
        assert agent.planner == planner


def test_the_best_model_of_an_evaluation_is_written_and_loads(tmp_path: Path, env: gym.Env[Any, Any]):
    watched = Monitor(env)
    callback = EvalCallback(
        watched, n_eval_episodes=1, eval_freq=150, best_model_save_path=str(tmp_path), verbose=0, warn=False
    )
    agent = tiny().learn(200, callback=callback)
    assert agent.num_timesteps == 200
    assert callback.n_calls == 200
    best = GraspAgent.load(tmp_path / "best_model", device="cpu")
    assert best.predict(env.reset(seed=0)[0])[0].shape == (2,)


def test_fits_may_be_short():
    agent = tiny(train=TrainConfig(gradient_steps=12, batch_size=32)).learn(150)
    assert agent.trainer.report is not None


def test_a_loaded_agent_continues_learning_and_keeps_its_knowledge(agent_file: Path):
    env = gym.make(ENV)
    train = TrainConfig(gradient_steps=400, batch_size=256)
    agent = GraspAgent.load(agent_file, env=env, device="cpu", train=train)
    old = agent.policy.world
    assert old is not None
    agent.learn(150, reset_num_timesteps=False)
    env.close()
    new = agent.policy.world
    assert new is not None
    assert new is not old
    assert agent.num_timesteps == 950
    # 150 steps cover little of the arena: elsewhere the new model has to predict what the old one predicted.
    raw = np.random.default_rng(0).uniform(-0.9, 0.9, (200, 2)).astype(np.float32).repeat(2, axis=1)[:, [0, 2, 0, 2]]
    actions = np.random.default_rng(1).uniform(-1, 1, (200, 2)).astype(np.float32)
    steps = [world.achieved(world.predict(raw, actions)) - raw[:, :2] for world in (old, new)]
    moved = np.linalg.norm(steps[0], axis=-1).mean()
    assert np.linalg.norm(steps[1] - steps[0], axis=-1).mean() < 0.5 * moved


def test_a_checkpoint_holds_the_agents_own_planner_also_before_the_first_fit(tmp_path: Path):
    agent = tiny(planner=GRASP(candidates=6, iterations=3))
    files = CheckpointCallback(50, str(tmp_path), verbose=0)
    agent.learn(200, callback=[files, EvalCallback(Monitor(gym.make(ENV)), eval_freq=60, n_eval_episodes=1, verbose=0)])
    names = sorted(tmp_path.iterdir(), key=lambda path: int(path.stem.split("_")[-2]))
    assert len(names) == 4
    loaded = [GraspAgent.load(path, device="cpu") for path in names]
    assert [one.policy.world is None for one in loaded] == [True, True, False, False]
    assert all(one.planner == agent.planner for one in loaded)
    assert all(one.criteria == agent.criteria for one in loaded)


@pytest.mark.slow
def test_after_a_few_thousand_steps_the_agent_reaches_its_goals(env: gym.Env[Any, Any]):
    train = replace(TrainConfig(), gradient_steps=2000, batch_size=256)
    agent = GraspAgent("MultiInputPolicy", ENV, train=train, seed=0, device="cpu").learn(4000)
    assert evaluate(agent, env, episodes=20, seed=500).summary()["success_end"] >= 0.9


class Fits:
    """Notes what every fit is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[int] = []
        self.fresh: list[bool] = []
        monkeypatch.setattr("grasp_agent.models.learning.fit", self)

    def __call__(
        self, model: EnsembleMLP, data: Dataset, config: TrainConfig, *, fresh: bool = True, **kept: Any
    ) -> FitReport:
        self.steps.append(config.gradient_steps)
        self.fresh.append(fresh)
        return fit(model, data, config, fresh=fresh, **kept)


def test_a_few_new_steps_need_few_gradient_steps_and_no_fresh_model(
    agent_file: Path, env: gym.Env[Any, Any], monkeypatch: pytest.MonkeyPatch
):
    train = TrainConfig(gradient_steps=50_000, full_at=1600)
    agent, fits = GraspAgent.load(agent_file, env=env, device="cpu", train=train), Fits(monkeypatch)
    assert agent.policy.world is not None
    old = agent.policy.world.model
    before = {name: value.clone() for name, value in old.state_dict().items()}
    agent.learn(16, reset_num_timesteps=False)
    known = len(agent.trainer.dataset) - 16  # generated by the model for states of its experience
    assert known > 1600
    assert fits.steps == [round(50_000 * 16 / (known + 16))] and fits.fresh == [False]
    assert all(torch.equal(value, before[name]) for name, value in old.state_dict().items())
    agent.learn(4, reset_num_timesteps=False)
    assert fits.steps[1:] == [50] and fits.fresh == [False, False]  # the smallest fit


def test_no_intermediate_fit_is_made_for_the_last_few_steps(monkeypatch: pytest.MonkeyPatch):
    fits, explore = Fits(monkeypatch), ExploreConfig(learning_starts=100, refit_growth=1.6)
    tiny(explore=explore).learn(109)
    assert len(fits.steps) == 1
    tiny(explore=explore).learn(110)
    assert len(fits.steps) == 3


def test_a_fit_of_all_gradient_steps_starts_from_scratch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("grasp_agent.models.dynamics.ensemble._STRETCH", 1e9)  # wherever the data lie
    monkeypatch.setattr("grasp_agent.models.dynamics.ensemble._SHIFT", 1e9)
    fits, train = Fits(monkeypatch), TrainConfig(gradient_steps=120, full_at=200)
    tiny(train=train, explore=ExploreConfig(learning_starts=100, refit_growth=1.6)).learn(200)
    assert fits.fresh == [True, False, True]
    assert fits.steps[-1] == 120 > fits.steps[1]


def test_generated_data_are_rehearsed_and_do_not_lower_the_error_until_most_data_are_real(
    agent: GraspAgent, monkeypatch: pytest.MonkeyPatch
):
    world, given = agent.policy.world, list[dict[str, Any]]()
    assert world is not None
    worse = replace(world, error=10 * world.error)

    def heard(*_: Any, **settings: Any) -> tuple[Any, None]:
        given.append(settings)
        return worse, None

    monkeypatch.setattr("grasp_agent.agent.trainer.learn_world", heard)
    trainer, random = agent.trainer, np.random.default_rng(0)
    trainer.begin(agent.policy, 1)
    imagined = [*trainer.dataset.episodes]
    first = trainer.fits.rehearsed
    assert first == len(imagined) == len(trainer.dataset)
    states = random.normal(size=(2 * first + 1, imagined[0].states.shape[1])).astype(np.float32)
    actions = random.uniform(-1, 1, (2 * first, 2)).astype(np.float32)
    for count in (10, first - 10, 2 * first):
        trainer.replace([Episode(states[: count + 1], actions[:count])])
        assert trainer.dataset.episodes[:first] == imagined and len(trainer.dataset) == first + count
        trainer.fit(agent.policy, world.tolerance, last=True, progress_bar=False)
    earlier = [one["previous"] for one in given]
    assert [one.owed for one in earlier] == [one.unseen for one in earlier] == [10, first - 20, first + 10]
    assert [one.least_error for one in earlier] == [world.error, world.error, 0.0]


@pytest.mark.parametrize("moved", [False, True])
def test_intermediate_fits_are_short_and_the_final_one_covers_all_new_data(
    moved: bool, monkeypatch: pytest.MonkeyPatch
):
    """Where the data have moved away from what the model knows, a fresh one owes all."""
    monkeypatch.setattr("grasp_agent.models.dynamics.ensemble._STRETCH", 1.0 if moved else 1e9)
    monkeypatch.setattr("grasp_agent.models.dynamics.ensemble._SHIFT", 0.0 if moved else 1e9)
    monkeypatch.setattr("grasp_agent.models.learning._SMALL_UPDATE", 0.0)
    fits, train = Fits(monkeypatch), TrainConfig(gradient_steps=400, full_at=400)
    agent = tiny(train=train, explore=ExploreConfig(learning_starts=100, refit_growth=1.6)).learn(200)
    full, part = train.for_data(160).gradient_steps, train.for_data(160, 60).gradient_steps
    assert part == 95 < full == 253
    assert fits.steps == [200, full if moved else part, 283]  # the roots of a quarter and of a half
    agent.learn(200, reset_num_timesteps=False)
    assert fits.steps[-1] == (400 if moved else 200)
    assert fits.fresh == [True, *[moved] * (len(fits.fresh) - 1)]


OTHERS = ("reacher-6k", "wall", "point-maze-pixels")


@pytest.mark.parametrize("name", ["point-maze-2k", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_a_loaded_models_predictions_do_not_change_its_static_factors(name: str):
    """Its steps are rehearsed one by one: what has inertia hardly moves in them."""
    agent = grasp_agent.load(name, device="cpu")
    world = agent.policy.world
    assert world is not None
    agent.trainer.begin(agent.policy, 1)
    agent.trainer._train = TrainConfig(gradient_steps=1)
    after = agent.trainer.fit(agent.policy, world.tolerance, last=True, progress_bar=False)
    assert after.model.unchanging == world.model.unchanging
    assert after.error >= world.error
    assert (after.index.roadmap is None) == (world.index.roadmap is None)


def test_without_a_given_kind_both_are_fitted_and_the_better_one_is_kept(monkeypatch: pytest.MonkeyPatch):
    fits = Fits(monkeypatch)
    train = TrainConfig(gradient_steps=240, full_at=300, batch_size=32)
    agent = tiny(model=None, train=train, explore=ExploreConfig(learning_starts=1000)).learn(300)
    assert fits.steps == [60, 60, 180] and fits.fresh == [True, True, False]
    agent.learn(200, reset_num_timesteps=False)  # too few to choose again
    assert len(fits.steps) == 4
