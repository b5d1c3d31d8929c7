"""`grasp tune`; trainings are replaced by a formula, but in one test."""

from __future__ import annotations

import builtins
import os
import signal
import sys
from pathlib import Path

import pytest

from grasp_agent import GraspAgent
from grasp_agent.cli.main import main
from grasp_agent.evaluation.config import TrainingConfig
from grasp_agent.evaluation.tuning import study
from grasp_agent.evaluation.tuning.trials import Outcome, Training, train_and_evaluate

COMMAND = ["tune", "grasp/BallNav-v0", "--steps", "150", "--out", "study", "--trials", "5", "--confirm", "1"]


def formula(training: Training) -> Outcome:
    """Best for a horizon of 70 steps."""
    assert training.config.settings.horizon is not None
    return Outcome(1 - abs(training.config.settings.horizon - 70) / 100, 1.0, True)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "train_and_evaluate", formula)


def test_the_best_trials_are_printed_and_the_winner_is_a_configuration(capsys):
    assert main(COMMAND) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = [line.strip() for line in out.splitlines() if line.strip()]
    assert lines[0] == "grasp/BallNav-v0, 150 steps: 5 trials"
    assert lines[1].split("  ")[0] == "trial" and lines[3].split()[1] == "(winner)"
    assert ["0", "(defaults)", "80", "%", "80", "%", "1"] in [line.split() for line in lines]
    assert any(" wins with horizon " in line for line in lines)
    assert lines[-4:] == [
        "study/best.json",
        "study/trials.csv",
        "study/history.png",
        "next: grasp train --config study/best.json --out FILE",
    ]
    best = TrainingConfig.read("study/best.json")
    assert (best.env, best.steps, best.seed) == ("grasp/BallNav-v0", 150, 0) and best.settings.horizon != 50


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_keeps_finished_trials_and_the_same_command_continues(number, status, capsys, monkeypatch):
    calls: list[Training] = []

    def counted(training: Training) -> Outcome:
        calls.append(training)
        if len(calls) == 6:
            os.kill(os.getpid(), number)
        return formula(training)

    before = signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    monkeypatch.setattr(study, "train_and_evaluate", counted)
    assert main(COMMAND) == status
    signal.signal(number, before)
    said = "grasp: 2 finished trials are kept in study: the same command continues from them"
    assert capsys.readouterr().err.splitlines()[0] == said
    assert main(COMMAND) == 0
    assert len(calls) == 1 + 5 * 2 + 4  # only the training that was stopped is repeated
    calls.clear()
    assert main(COMMAND) == 0 and not calls


def test_nothing_is_repeated_and_other_settings_are_refused(capsys):
    assert main(COMMAND) == 0
    capsys.readouterr()
    assert main([*COMMAND, "--episodes", "3"]) == 2
    assert capsys.readouterr().err == "grasp: study/study.log: it holds a study with episodes 5, not 3\n"


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("--trials 0", "--trials: expected at least 1, got 0"),
        ("--confirm 0", "--confirm: expected at least 1, got 0"),
        ("--jobs 0", "--jobs: expected at least 1, got 0"),
        ("--out a.txt", "--out: expected a folder, got the file a.txt"),
        ("--env-kwargs lay=1", "it cannot be made with the options {'lay': 1}"),
        ("--goal-tolerance -1", "goal_tolerance: expected more than 0, got -1"),
        ("--goal 3", "--goal: expected a JSON object"),
        ("--engine dask", "engine: expected"),
    ],
)
def test_a_usage_error_gets_one_line_before_any_training(extra: str, said: str, capsys, monkeypatch):
    monkeypatch.setattr(study, "train_and_evaluate", None)
    Path("a.txt").touch()
    assert main([*COMMAND, *extra.split(" ")]) == 2
    err = capsys.readouterr().err
    assert said in err and err.splitlines()[0].startswith("grasp: ")


def test_without_optuna_one_line_says_what_to_install(capsys, monkeypatch, tmp_path: Path):
    known = builtins.__import__

    def lacking(name, *rest, **named):
        if name.split(".")[0] == "optuna":
            raise ModuleNotFoundError("No module named 'optuna'", name="optuna")
        return known(name, *rest, **named)

    for name in [name for name in sys.modules if name.split(".")[0] == "optuna"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", lacking)
    assert main(COMMAND) == 2
    said = 'grasp: tune: optuna is not installed; it comes with `pip install "grasp-agent[tune]"`\n'
    assert capsys.readouterr().err == said
    assert list(tmp_path.iterdir()) == []


def test_a_study_with_trainings_ends_in_a_configuration_that_can_be_trained(monkeypatch, capsys):
    monkeypatch.setattr(study, "train_and_evaluate", train_and_evaluate)
    options = "--steps 60 --trials 1 --seeds 1 --episodes 1 --confirm 1 --env-kwargs layout=open --out"
    assert main(["tune", "grasp/BallNav-v0", *options.split(" "), "study"]) == 0
    assert "The defaults win" in capsys.readouterr().out
    assert main(["train", "--config", "study/best.json", "--out", "a.zip", "--steps", "10"]) == 0
    assert GraspAgent.load("a.zip", device="cpu").env_kwargs == {"layout": "open"}
