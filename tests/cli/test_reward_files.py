"""The command line with agents that plan for rewards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from grasp_agent import GraspAgent
from grasp_agent.cli.main import main
from grasp_agent.models.dynamics.rewarded import RewardModelConfig
from grasp_agent.planners import ICEM


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rewards") / "swing.zip"
    model, planner = RewardModelConfig(members=2, width=16), ICEM(iterations=1, samples=20)
    settings: dict[str, Any] = {
        "model": model,
        "planner": planner,
        "horizon": 4,
        "learning_starts": 50,
        "first_steps": 20,
    }
    GraspAgent("MlpPolicy", "Pendulum-v1", seed=0, device="cpu", **settings).learn(60).save(path)
    return path


def test_its_returns_are_compared(file: Path, tmp_path: Path):
    out = tmp_path / "out"
    asked = [
        "compare",
        "Pendulum-v1",
        "--agents",
        f"{file},random",
        "--episodes",
        "2",
        "--jobs",
        "1",
        "--out",
        str(out),
    ]
    assert main(asked) == 0
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "grasp@60 (ICEM)" in text and "return" in text
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))


def test_it_is_evaluated(file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", str(file), "--episodes", "1"]) == 0
    assert "return, mean" in capsys.readouterr().out


def test_its_search_is_not_shown(file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", str(file)]) == 2
    assert "expected an agent that plans for goals, got one for rewards" in capsys.readouterr().err


def test_a_planner_with_proposals_for_goals_is_refused(file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["compare", "Pendulum-v1", "--agents", f"icem:{file}", "--episodes", "1"]) == 2
    assert "expected one that plans for rewards" in capsys.readouterr().err
