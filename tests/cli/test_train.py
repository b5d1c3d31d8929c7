"""`grasp train`, with the agent itself."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from grasp_agent import Goal, GraspAgent
from grasp_agent.agent.settings import AgentSettings
from grasp_agent.cli.main import main
from grasp_agent.evaluation.best import BestAgent
from grasp_agent.evaluation.config import TrainingConfig
from grasp_agent.planners import ICEM, MPPI

ENV_ID = "grasp/BallNav-v0"
TINY = {
    "env": ENV_ID,
    "steps": 150,
    "seed": 3,
    "horizon": 12,
    "planner": {"type": "GRASP", "candidates": 2, "iterations": 3},
    "model": {"type": "MLPConfig", "members": 2, "width": 16, "depth": 1},
    "train": {"type": "TrainConfig", "gradient_steps": 60, "batch_size": 32},
    "explore": {"type": "ExploreConfig", "learning_starts": 100},
    "rule": {"type": "ReplanRule", "work": None},
}

RUN = ("train", "--config", "tiny.json", "--out")


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration of a short training, in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(TINY))
    return path


def weights(path: Path) -> dict[str, torch.Tensor]:
    return GraspAgent.load(path, device="cpu").get_parameters()["policy"]


def equal(one: Path, other: Path) -> bool:
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.usefixtures("tiny")
def test_a_run_is_repeated_exactly_from_its_configuration(tmp_path: Path, capsys):
    assert (
        main(
            [
                "train",
                "--config",
                "tiny.json",
                "--out",
                "a",
                "--env-kwargs",
                "layout=open",
                "--planner",
                "icem",
                "--horizon",
                "9",
            ]
        )
        == 0
    )
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{ENV_ID}, layout=open; 150 steps; seed 3; planner ICEM (proposals Roadmap); horizon 9;")
    assert said[-1].startswith("saved a.zip (next: grasp evaluate a.zip)")
    assert main(["train", "--config", "a.config.json", "--out", "b.zip"]) == 0
    assert equal(tmp_path / "a.zip", tmp_path / "b.zip")
    assert TrainingConfig.read("a.config.json") == TrainingConfig.read("b.config.json")
    assert main(["train", "--config", "a.config.json", "--out", "c.zip", "--seed", "4"]) == 0
    assert not equal(tmp_path / "a.zip", tmp_path / "c.zip")


@pytest.mark.usefixtures("tiny")
def test_options_replace_what_the_file_holds():
    options = "--config tiny.json --out a.zip --steps 20 --seed 0 --planner mppi --goal-tolerance 0.4"
    assert main(f"train grasp/BallNavTrap-v0 {options}".split()) == 0
    agent, known = GraspAgent.load("a.zip", device="cpu"), TrainingConfig.read("a.config.json")
    assert (agent.env_id, agent.num_timesteps, agent.seed) == ("grasp/BallNavTrap-v0", 20, 0)
    assert isinstance(agent.planner, MPPI) and agent.goal_tolerance == 0.4
    assert (known.env, known.steps, known.seed, known.settings.horizon) == ("grasp/BallNavTrap-v0", 20, 0, 12)


def test_observations_without_a_goal_are_given_one(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    goal = '{"0": 1.0, "1": 0, "running": true}'
    options = ["--steps", "20", "--out", "a.zip", "--goal-tolerance", "0.2", "--env-kwargs", '{"g": 9}']
    assert main(["train", "Pendulum-v1", "--goal", goal, *options]) == 0
    agent = GraspAgent.load("a.zip", device="cpu")
    assert agent.goal == Goal.at({0: 1.0, 1: 0.0}, tolerance=0.2, running=True)
    assert agent.env_kwargs == {"g": 9}
    assert main(["train", "--config", "a.config.json", "--out", "b.zip"]) == 0
    assert GraspAgent.load("b.zip", device="cpu").goal == agent.goal


@pytest.mark.parametrize(("goal", "tolerance"), [('{"0": -1.0}', 0.2), ('{"0": -1.0, "tolerance": 0.1}', 0.1)])
def test_another_goal_has_the_tolerance_of_the_file_unless_it_has_its_own(
    goal: str, tolerance: float, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings = AgentSettings(goal=Goal.at({0: 1.0}, tolerance=0.2), goal_tolerance=0.2)
    TrainingConfig(env="Pendulum-v1", steps=5, settings=settings).write(Path("a.json"))
    assert main(["train", "--config", "a.json", "--out", "b.zip", "--goal", goal]) == 0
    found = TrainingConfig.read("b.config.json").settings
    assert found.goal == Goal.at({0: -1.0}, tolerance=tolerance) and found.goal_tolerance == tolerance


@pytest.mark.filterwarnings("ignore:.*the training continues with seed 9")
@pytest.mark.usefixtures("tiny")
def test_the_configuration_of_a_finished_training_is_kept(tmp_path: Path, capsys):
    assert main([*RUN, "a.zip", "--steps", "5", "--resume"]) == 0
    written = tmp_path / "a.config.json"
    before = written.read_text()
    assert main([*RUN, "a.zip", "--steps", "4", "--seed", "9", "--resume"]) == 0
    assert "a.zip: already 5 of 4 steps" in capsys.readouterr().out
    assert written.read_text() == before
    assert main([*RUN, "a.zip", "--steps", "6", "--resume"]) == 0
    assert TrainingConfig.read(written).steps == 6


@pytest.mark.usefixtures("tiny")
def test_the_best_agent_on_the_way_is_kept_and_shown_in_tensorboard(tmp_path: Path, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    command = "train --config tiny.json --out a.zip --eval-every 60 --eval-episodes 1 --tensorboard logs"
    assert main(command.split()) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said[1:3]] == ["120 steps", "150 steps"]
    assert said[1].endswith(", the best so far")
    kept = GraspAgent.load("a-best.zip", device="cpu").num_timesteps
    assert said[3].startswith("a-best.zip: ") and said[3].endswith(f" after {kept} steps")
    (run,) = (tmp_path / "logs").iterdir()
    shown = EventAccumulator(str(run))
    shown.Reload()
    assert [event.step for event in shown.Scalars("eval/success_rate")] == [120, 150]
    assert shown.Scalars("model/loss")
    assert main(command.split()) == 2 and main(f"{command} --force".split()) == 0


@pytest.mark.parametrize("taken", ["a.zip", "a.config.json", "a-best.zip"])
@pytest.mark.usefixtures("tiny")
def test_no_file_of_another_training_is_replaced_unasked(taken, tmp_path: Path, capsys):
    (tmp_path / taken).write_text("old")
    assert main(["train", "--config", "tiny.json", "--out", "a.zip", "--eval-every", "60"]) == 2
    assert capsys.readouterr().err == f"grasp: {taken} exists (choose another --out, --resume or --force)\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([taken, "tiny.json"])


@pytest.mark.usefixtures("tiny")
def test_sigterm_keeps_what_was_learned_its_configuration_and_the_best_so_far(tmp_path: Path, capsys, monkeypatch):
    before, check = signal.signal(signal.SIGTERM, signal.SIG_DFL), BestAgent._check

    def checked(self: BestAgent) -> None:
        check(self)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(BestAgent, "_check", checked)
    assert main([*RUN, "a.zip", "--eval-every", "110", "--eval-episodes", "1"]) == 143
    signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "grasp: saved what was learned in 110 steps: a.zip",
        "grasp: terminated",
    ]
    assert GraspAgent.load("a.zip", device="cpu").num_timesteps == 110
    assert GraspAgent.load("a-best.zip", device="cpu").num_timesteps == 110
    assert TrainingConfig.read("a.config.json").steps == 150


@pytest.mark.usefixtures("tiny")
def test_a_missing_tensorboard_is_said_before_the_training(capsys, monkeypatch):
    monkeypatch.setattr("grasp_agent.cli.train.find_spec", lambda name: None)
    assert main(["train", "--config", "tiny.json", "--out", "a.zip", "--tensorboard", "logs"]) == 2
    assert capsys.readouterr().err == "grasp: --tensorboard: no module 'tensorboard' (pip install tensorboard)\n"


def test_a_planner_is_named_as_in_a_comparison():
    from grasp_agent.evaluation.config import planner_from_name
    from grasp_agent.evaluation.participants import PLANNERS, planner_called

    assert {name: planner_from_name(name) for name in PLANNERS} == {name: planner_called(name) for name in PLANNERS}
    assert isinstance(planner_from_name("icem"), ICEM)
