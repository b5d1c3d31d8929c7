"""Agents that are trained for a comparison."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from agents import tiny

from grasp_agent import serialization
from grasp_agent.cli.main import main
from grasp_agent.evaluation import training
from grasp_agent.evaluation.participants import participant
from grasp_agent.evaluation.training import TrainingTask, finished, train_agent, train_agents
from grasp_agent.zoo import resumable

ENV = "grasp/BallNav-v0"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few episodes, and a tiny agent."""
    monkeypatch.setattr(training, "_EPISODES", 2)
    monkeypatch.setattr(training, "make_learner", lambda config, **_: tiny(config.env))


def test_an_algorithm_is_saved_after_the_steps_and_ten_times_as_many(tmp_path: Path):
    ticks: list[int] = []
    trained = train_agent(TrainingTask("sac", ENV, 40), tmp_path, on_steps=ticks.append)
    assert [path.name for path in trained.files] == ["sac-40.zip", "sac-400.zip"]
    assert [point.steps for point in trained.curve] == [10, 20, 40, 80, 200, 400]
    assert sum(ticks) == TrainingTask("sac", ENV, 40).total == 400
    for path, steps in zip(trained.files, (40, 400), strict=True):
        who = participant(str(path), ENV)
        assert (who.name, who.steps) == (f"sac@{steps}", steps)
        assert who.seconds is not None and who.seconds >= (0 if steps == 40 else 0.1)
    ticks.clear()
    assert train_agent(TrainingTask("sac", ENV, 40), tmp_path, on_steps=ticks.append) == trained
    assert not ticks


def test_a_grasp_agent_is_saved_after_the_steps_and_resumes_from_its_checkpoint(tmp_path: Path):
    trained = train_agent(TrainingTask("grasp", ENV, 120), tmp_path)
    assert [path.name for path in trained.files] == ["grasp-120.zip"]
    who = participant(str(trained.files[0]), ENV)
    assert (who.name, who.steps) == ("grasp@120", 120)
    trained.files[0].unlink()
    again = train_agent(TrainingTask("grasp", ENV, 120), tmp_path)
    assert again.files == trained.files and again.files[0].exists()
    assert TrainingTask("grasp", ENV, 120).total == 120


@pytest.mark.parametrize("name", ["sac", "grasp"])
def test_a_stopped_training_resumes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resumable, "_EVERY", 0.0)
    monkeypatch.setattr(resumable, "_SLICE", 50)
    taken = 0

    def count(steps: int) -> None:
        nonlocal taken
        taken += 1
        if stop_at and taken == stop_at:
            raise KeyboardInterrupt

    steps, stop_at = (40, 250) if name == "sac" else (200, 150)
    with pytest.raises(KeyboardInterrupt):
        train_agent(TrainingTask(name, ENV, steps), tmp_path, on_steps=count)
    assert not list(tmp_path.glob("*/schooled.json"))
    taken, first, stop_at = 0, taken, 0
    trained = train_agent(TrainingTask(name, ENV, steps), tmp_path, on_steps=count)
    assert (
        0 < taken <= TrainingTask(name, ENV, steps).total - first + 60
    )  # steps after the last checkpoint are repeated
    fractions = (0.25, 0.5, 1, 2, 5, 10) if name == "sac" else (1,)
    assert [point.steps for point in trained.curve] == [fraction * steps for fraction in fractions]
    for file, fraction in zip(trained.files, (1, 10), strict=False):
        assert participant(str(file), ENV).steps == fraction * steps
    seconds = participant(str(trained.files[-1]), ENV).seconds  # kept in tenths: the first file may say 0
    assert seconds is not None and seconds > 0
    left = {path.name for path in trained.files[0].parent.iterdir()} - {"checkpoint.zip"}
    assert left == {*(file.name for file in trained.files), "schooled.json"}


def test_the_curve_of_a_deleted_training_is_not_used_for_another(tmp_path: Path):
    first = train_agent(TrainingTask("sac", ENV, 20), tmp_path)
    folder = first.files[0].parent
    (folder / "schooled.json").unlink()
    (folder / "seen.json").write_text("[[5, 0.5], [10, 0.5], [20, 0.5]]")
    first.files[0].unlink()
    again = train_agent(TrainingTask("sac", ENV, 20), tmp_path)
    assert len(again.curve) == 6 and again.files[0].exists()


def test_settings_of_rl_zoo_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "tuned", lambda *_: {"n_envs": 2, "gamma": 0.5, "policy_kwargs": {"net_arch": [7]}})
    trained = train_agent(TrainingTask("sac", ENV, 40), tmp_path)
    config, tensors = serialization.read(trained.files[0])
    assert config["settings"] == {"gamma": 0.5, "policy_kwargs": {"net_arch": [7]}}
    assert tensors["actor.latent_pi.0.weight"].shape[0] == 7


def test_trainings_do_not_take_each_others_files(tmp_path: Path):
    one = train_agent(TrainingTask("sac", ENV, 20), tmp_path)
    others = [
        train_agent(TrainingTask("sac", "grasp/BallNavTrap-v0", 20), tmp_path),
        train_agent(TrainingTask("sac", ENV, 30), tmp_path),
        train_agent(TrainingTask("sac", ENV, 20, seed=1), tmp_path),
    ]
    files = [file for trained in (one, *others) for file in trained.files]
    assert len(set(files)) == 8
    before = [file.read_bytes() for file in one.files]
    assert (
        train_agent(TrainingTask("sac", ENV, 20), tmp_path) == one
        and [file.read_bytes() for file in one.files] == before
    )


def test_rollouts_of_on_policy_algorithms_are_short_enough(tmp_path: Path):
    trained = train_agent(TrainingTask("ppo", "Pendulum-v1", 100), tmp_path)
    steps = [point.steps for point in trained.curve]
    assert steps == sorted(set(steps))
    assert np.abs(np.subtract(steps, (25, 50, 100, 200, 500, 1000))).max() <= 25


def test_returns_stand_in_where_no_success_is_reported(tmp_path: Path):
    trained = train_agent(TrainingTask("ppo", "Pendulum-v1", 60), tmp_path)
    assert all(point.success < -10 for point in trained.curve)


def test_the_command_trains_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    agents = "sac,random,icem"
    command = ["compare", ENV, "--agents", agents, "--train", "30", "--episodes", "2", "--out", str(tmp_path)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    for name in ("sac@30 ", "sac@300 ", "random ", "icem grasp@30 "):
        assert name in printed
    assert (tmp_path / "curves.png").stat().st_size > 5000
    assert not (tmp_path / "seeds.md").exists()
    assert main([*command[:2], "--train", "0"]) == 2
    assert "--train: expected at least 1" in capsys.readouterr().err


def test_an_executor_sends_trainings_which_are_kept_once(tmp_path: Path):
    tasks = [TrainingTask("sac", ENV, 20, seed, longer=1) for seed in range(2)]
    ticks: list[int] = []
    with ThreadPoolExecutor(1) as executor:
        trained = train_agents(tasks, tmp_path / "there", executor=executor, on_steps=ticks.append)
    assert ticks[1:] == [20, 20]
    here = train_agents(tasks, tmp_path / "here")
    assert list(trained) == list(here) == tasks
    for task in tasks:
        assert trained[task].curve == here[task].curve and len(trained[task].files) == 1
        one, other = (serialization.read(found[task].files[0])[1] for found in (trained, here))
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert train_agents(tasks, tmp_path / "there", executor=None, jobs=2) == trained  # none is made again


def test_a_training_that_fails_elsewhere_leaves_the_others(tmp_path: Path):
    tasks = [TrainingTask("sac", ENV, 20, longer=1), TrainingTask("sac", "MountainCar-v0", 20, longer=1)]
    with ThreadPoolExecutor(1) as executor, pytest.raises((ValueError, AssertionError)):
        train_agents(tasks, tmp_path, executor=executor)
    assert finished(tasks[0], tmp_path) is not None and finished(tasks[1], tmp_path) is None


def test_the_command_reports_over_training_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["compare", ENV, "--agents", "sac,random", "--train", "20", "--train-seeds", "2", "--longer", "1"]
    assert main([*command, "--episodes", "2", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "Over training seeds" in printed
    found = json.loads((tmp_path / "seeds.json").read_text())
    assert [row["trainings"] for row in found["agents"]] == [2, 1]
    assert [len(scores) for scores in found["scores"].values()] == [2, 1]
    assert len(list((tmp_path / "models").iterdir())) == 2
    assert main(["compare", ENV, "--train-seeds", "2"]) == 2
    assert "--train-seeds: expected with --train" in capsys.readouterr().err
    assert (
        main(["compare", ENV, "--agents", "random", "--train", "20", "--train-seeds", "2", "--out", str(tmp_path)]) == 2
    )
    assert capsys.readouterr().err.startswith("grasp: --train: expected an agent that is trained (grasp, ")
