"""Agents of Stable-Baselines3 that come with the package, and how such agents are made and kept."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.base_class import BaseAlgorithm

import grasp_agent
from grasp_agent import serialization
from grasp_agent.evaluation.evaluate import evaluate
from grasp_agent.zoo import baselines
from grasp_agent.zoo import rl_zoo as zoo
from grasp_agent.zoo.algorithms import ALGORITHMS, algorithm, untrained

KNOWN = baselines.baselines()
FOLDER = Path(str(baselines.__file__)).parent


@pytest.mark.parametrize("entry", KNOWN, ids=lambda entry: entry.file)
def test_each_is_a_small_file_without_pickles_that_plays(entry: baselines.Baseline):
    path = FOLDER / entry.file
    assert path.stat().st_size < 2**20
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256
    with zipfile.ZipFile(path) as archive:
        assert set(archive.namelist()) == {"config.json", "weights.safetensors"}
    model = grasp_agent.baseline(entry.algorithm, entry.env_id, entry.steps)
    assert type(model) is algorithm(entry.algorithm)
    assert model.num_timesteps >= entry.steps
    env = gym.make(entry.env_id)
    assert env.action_space.contains(model.predict(env.reset(seed=0)[0], deterministic=True)[0])
    env.close()


def test_every_environment_with_a_bundled_model_has_one_of_as_many_steps():
    trained = {(entry.env_id, entry.steps) for entry in KNOWN if entry.algorithm == "sac"}
    assert {(model.env_id, model.steps) for model in grasp_agent.bundled().values() if not model.options} <= trained


def test_one_plays_as_well_as_the_catalog_says():
    entry = baselines.find("sac", "grasp/Wall-v0")
    found = evaluate(grasp_agent.baseline("sac", "grasp/Wall-v0"), "grasp/Wall-v0", 20, 10_000).summary()["success_end"]
    assert found == pytest.approx(entry.score, abs=0.15)


def test_files_and_catalog_fit():
    assert {path.name for path in FOLDER.glob("*.zip")} == {entry.file for entry in KNOWN}


def test_a_missing_baseline_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"no bundled baseline 'ppo' for grasp/Wall-v0 \(choose from sac@"):
        grasp_agent.baseline("ppo", "grasp/Wall-v0")
    with pytest.raises(ValueError, match="'sac@5' for grasp/Wall-v0"):
        grasp_agent.baseline("sac", "grasp/Wall-v0", 5)
    with pytest.raises(ValueError, match=r"for Pendulum-v1 \(choose from the environments grasp/BallNav-v0, "):
        grasp_agent.baseline("sac", "Pendulum-v1")
    known = baselines.find("sac", "grasp/Wall-v0")
    monkeypatch.setattr(baselines, "find", lambda *_: known.__class__(**{**known.__dict__, "sha256": "0"}))
    with pytest.raises(ValueError, match="the bundled file is damaged"):
        grasp_agent.baseline("sac", "grasp/Wall-v0")


@pytest.mark.parametrize("name", ["sac", "td3", "ppo", "tqc"])
@pytest.mark.parametrize("env_id", ["grasp/BallNav-v0", "Pendulum-v1"])
def test_a_saved_model_predicts_the_same_and_may_continue_learning(name: str, env_id: str, tmp_path: Path):
    env, settings = gym.make(env_id), {"policy_kwargs": {"net_arch": [8, 8]}}
    if name == "ppo":
        settings |= {"n_steps": 32, "batch_size": 16}
    model = untrained(name, env, steps=40, seed=0, **settings).learn(20)
    baselines.saved(model, name, env_id, tmp_path / "one.zip", seconds=1.5, settings=settings)
    config, tensors = serialization.read(tmp_path / "one.zip")
    assert config["training_seconds"] == 1.5
    again = baselines.restored(config, tensors)
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        expected, found = (m.predict(observation, deterministic=True)[0] for m in (model, again))
        np.testing.assert_array_equal(found, expected)
    assert again.num_timesteps == model.num_timesteps
    for parameter in again.policy.parameters():
        parameter.data += 1  # not those of the first
    assert not any(
        torch.equal(*pair) for pair in zip(model.policy.parameters(), again.policy.parameters(), strict=True)
    )
    env.close()


def test_a_file_does_not_name_a_module_to_import():
    config = {"algorithm": "sac", "env_id": "os:Nothing-v0", "settings": {}, "num_timesteps": 1}
    with pytest.raises(ValueError, match="must not name a module"):
        baselines.restored(config, {})


def test_off_policy_algorithms_learn_in_hindsight_where_there_are_goals():
    models: list[BaseAlgorithm] = [untrained("sac", gym.make("grasp/BallNav-v0"), steps=10, seed=0) for _ in range(2)]
    assert all(isinstance(m.replay_buffer, HerReplayBuffer) for m in models)  # type: ignore[attr-defined]
    # What one algorithm writes into its settings is not the next one's.
    assert untrained("td3", gym.make("grasp/BallNav-v0"), steps=10, seed=0).policy is not None
    with pytest.raises(ValueError, match="expected one of sac, td3"):
        algorithm("dqn")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(ALGORITHMS, "tqc", "no_such_package.TQC")
    with pytest.raises(ValueError, match="tqc needs the package no_such_package: pip install no_such_package"):
        algorithm("tqc")


@pytest.mark.parametrize(
    ("entry", "settings"),
    [
        (None, None),
        ({"normalize": True, "gamma": 0.9}, None),
        ({"env_wrapper": ["a.b"], "gamma": 0.9}, None),
        ({"learning_rate": "lin_7.3e-4"}, None),
        ({"policy_kwargs": "dict(activation_fn=nn.ReLU)"}, None),
        ({"policy_kwargs": "__import__('os').getcwd()"}, None),
        (
            {
                "n_timesteps": 1e5,
                "policy": "MlpPolicy",
                "n_envs": 4,
                "gamma": 0.9,
                "policy_kwargs": "dict(net_arch=[64, 64])",
            },
            {"n_envs": 4, "gamma": 0.9, "policy_kwargs": {"net_arch": [64, 64]}},
        ),
    ],
)
def test_settings_of_rl_zoo_are_taken_where_they_can_be(entry: Any, settings: Any):
    assert zoo.read(entry) == settings


def test_without_rl_zoo_there_are_no_tuned_settings(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(zoo, "find_spec", lambda _: None)
    assert zoo.tuned("sac", "Pendulum-v1") is None


def test_rl_zoo_where_it_is_installed():
    rl_zoo3 = pytest.importorskip("rl_zoo3")
    assert zoo.tuned("sac", "Pendulum-v1") is not None
    rl_zoo3.ALGOS["grasp"] = grasp_agent.GraspAgent
    assert rl_zoo3.ALGOS["grasp"]("MultiInputPolicy", "grasp/BallNav-v0").predict is not None


def test_the_catalog_is_json_in_order():
    text = (FOLDER / "catalog.json").read_text()
    entries = [(row["env_id"], row["algorithm"], row["steps"]) for row in json.loads(text)]
    assert entries == sorted(entries)
