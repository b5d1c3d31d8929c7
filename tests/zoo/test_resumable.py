"""Trainings of Stable-Baselines3's algorithms that go on where they were stopped."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from benchmarks.fault_injection import largest_file
from grasp_agent import serialization
from grasp_agent.zoo.resumable import ResumableTraining

SETTINGS = {
    ("sac", "grasp/BallNav-v0"): {"learning_starts": 110},
    ("td3", "Pendulum-v1"): {"learning_starts": 60},
    ("ppo", "Pendulum-v1"): {"n_steps": 40, "batch_size": 20},
}


def begun(name: str, env_id: str, checkpoint: Path, seed: int = 3) -> ResumableTraining:
    return ResumableTraining(
        name, gym.make(env_id), steps=500, seed=seed, checkpoint=checkpoint, **SETTINGS[name, env_id]
    )


@pytest.mark.parametrize(("name", "env_id"), SETTINGS)
def test_parameters_and_experience_are_restored(name: str, env_id: str, tmp_path: Path):
    one = begun(name, env_id, tmp_path / "run")
    one.run(130)
    two = begun(name, env_id, tmp_path / "run")
    assert two.model.num_timesteps == one.model.num_timesteps >= 130
    assert two.seconds == one.seconds > 0
    first, second = (course.model.get_parameters() for course in (one, two))
    assert first.keys() == second.keys() and any("optimizer" in key for key in first)
    torch.testing.assert_close(flat(first), flat(second), rtol=0, atol=0)
    if name == "sac":
        assert two.model.log_ent_coef.item() == one.model.log_ent_coef.item() != 0  # type: ignore[attr-defined]
    if name != "ppo":
        buffers = [course.model.replay_buffer for course in (one, two)]  # type: ignore[attr-defined]
        assert buffers[0].pos == buffers[1].pos == 130
        for key in ("actions", "rewards", "observations", "next_observations"):
            one_values, two_values = (getattr(buffer, key) for buffer in buffers)
            pairs = (
                zip(one_values.values(), two_values.values(), strict=True)
                if isinstance(one_values, dict)
                else [(one_values, two_values)]
            )
            for first_values, second_values in pairs:
                np.testing.assert_array_equal(first_values, second_values)
                assert first_values.any()
        if name == "sac":
            assert buffers[1].dones[129, 0] and buffers[1].ep_length[129, 0] == 130 % 100  # cut where it was stopped
    again = begun(name, env_id, tmp_path / "run")
    draws = [course.model.action_space.sample() for course in (two, again)]
    assert (draws[0] == draws[1]).all()  # a seed of its own, which is not that of the beginning
    fresh = begun(name, env_id, tmp_path / "none")
    assert (fresh.model.action_space.sample() != draws[0]).any()
    two.run(200)
    assert two.model.num_timesteps >= 200 and two.seconds > one.seconds
    two.end()
    assert not list(tmp_path.iterdir())


def flat(parameters: Any) -> list[torch.Tensor]:
    """All tensors, in order."""
    if isinstance(parameters, torch.Tensor):
        return [parameters]
    parts = parameters.values() if isinstance(parameters, dict) else parameters
    return [tensor for part in parts if isinstance(part, (dict, list, torch.Tensor)) for tensor in flat(part)]


def test_another_training_is_not_resumed(tmp_path: Path):
    begun("ppo", "Pendulum-v1", tmp_path / "run").run(10)
    with pytest.raises(
        ValueError, match=r"expected the training ppo in Pendulum-v1 .* seed 4, .*, got ppo in .* seed 3, .*remove it"
    ):
        begun("ppo", "Pendulum-v1", tmp_path / "run", seed=4)


@pytest.mark.parametrize("name", ["ppo", "td3"])
def test_a_state_of_an_optimiser_that_does_not_fit_is_refused_when_it_is_read(name: str, tmp_path: Path):
    begun(name, "Pendulum-v1", tmp_path / "run").run(130)
    config, tensors = serialization.read(tmp_path / "run")
    key = next(key for key, value in tensors.items() if key.endswith(".exp_avg") and value.ndim == 2)
    serialization.write(tmp_path / "run.zip", config, {**tensors, key: tensors[key][:, :1].clone()})
    with pytest.raises(ValueError, match=r"no checkpoint of a training .*optimizer: exp_avg: expected \["):
        begun(name, "Pendulum-v1", tmp_path / "run.zip")


class Evil:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("content", [b"", b"no", pickle.dumps({"about": Evil()})])
def test_a_file_that_is_not_a_checkpoint_is_refused_and_runs_no_code(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").write_bytes(content)
    with pytest.raises(ValueError, match="no checkpoint of a training"):
        begun("ppo", "Pendulum-v1", tmp_path / "run")
    assert not (tmp_path / "ran").exists()


def test_without_a_checkpoint_no_file_is_written_and_a_seed_determines_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    runs = []
    for _ in range(2):
        runs.append(ResumableTraining("ppo", gym.make("Pendulum-v1"), steps=80, seed=1, n_steps=40, batch_size=20))
        runs[-1].run(80)
    torch.testing.assert_close(*(flat(run.model.get_parameters()) for run in runs), rtol=0, atol=0)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named_and_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "run"
    path.write_bytes(b"old")
    training = ResumableTraining("sac", gym.make("Pendulum-v1"), steps=20, seed=0)
    training._checkpoint = path
    with (
        largest_file(20_000),
        pytest.raises(OSError, match="run: cannot be written: the file is larger than the limit"),
    ):
        training._write()
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("run", b"old")]
