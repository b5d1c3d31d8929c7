"""The command line with agents that plan for rewards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from grasp_agent import GraspAgent
from grasp_agent.agent.reward.agent import RewardAgent
from grasp_agent.cli.main import main
from grasp_agent.evaluation.config import TrainingConfig, make_learner, planner_from_name
from grasp_agent.evaluation.participants import participants
from grasp_agent.evaluation.training import TrainingTask, train_agent
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


def test_a_planner_that_needs_a_goal_is_refused(file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["compare", "Pendulum-v1", "--agents", f"ilqr:{file}", "--episodes", "1"]) == 2
    assert "expected one that plans for rewards" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["icem", "cem", "mppi", "shooting"])
def test_planners_have_no_proposals_for_goals(name: str, file: Path):
    (participant,) = participants([f"{name}:{file}"], "Pendulum-v1")
    player: Any = participant.make(gym.make("Pendulum-v1"), 0)
    assert player.planner.proposals is None
    config = TrainingConfig(env="Pendulum-v1", steps=1001).with_settings(planner=planner_from_name(name))
    assert type(make_learner(config).planner) is type(player.planner)


def test_one_is_trained_where_there_is_no_goal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    asked = ["train", "Pendulum-v1", "--steps", "1001", "--horizon", "3", "--out", "a"]
    assert main([*asked, "--eval-every", "1001", "--eval-episodes", "1"]) == 0
    said = capsys.readouterr()
    assert "for rewards, as there is no goal" in said.out + said.err
    agent = GraspAgent.load("a.zip", device="cpu")
    assert isinstance(agent, RewardAgent) and agent.num_timesteps == 1001 and agent.policy.is_fitted
    assert agent.horizon == 3
    assert GraspAgent.load("a-best.zip", device="cpu").num_timesteps == 1001
    config = TrainingConfig.read("a.config.json")
    assert (config.env, config.settings.horizon) == ("Pendulum-v1", 3)


@pytest.mark.parametrize(("calls", "kept"), [(1, False), (2, True)], ids=["before a fit", "after it"])
def test_ctrl_c_keeps_what_was_learned(
    calls: int, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    done = []

    def train(agent: RewardAgent, **_: Any) -> None:
        done.append(1)
        if len(done) == calls:
            raise KeyboardInterrupt
        assert agent.replay_buffer is not None
        agent._training.normalise(agent.replay_buffer)

    monkeypatch.setattr(RewardAgent, "train", train)
    out = tmp_path / "a.zip"
    assert main(["train", "Pendulum-v1", "--steps", "1100", "--out", str(out)]) == 130
    assert out.exists() == kept
    said = "saved what was learned in" if kept else "nothing was saved: no model had been fitted in"
    assert said in (text := capsys.readouterr().err) and "--resume" not in text


def test_an_agent_for_rewards_has_no_checkpoints():
    with pytest.raises(ValueError, match="checkpoint: expected None"):
        RewardAgent("MlpPolicy", "Pendulum-v1", device="cpu").learn(1, checkpoint="a.zip")


def test_one_is_trained_for_a_comparison(tmp_path: Path):
    task = TrainingTask("grasp", "CartPole-v1", 40)
    trained = train_agent(task, tmp_path)
    assert isinstance(GraspAgent.load(trained.files[0], device="cpu"), RewardAgent)
    assert trained.curve[0].steps == 40
    assert train_agent(task, tmp_path) == trained


def test_planners_that_need_a_goal_are_refused_before_they_are_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    asked = ["compare", "Pendulum-v1", "--agents", "grasp,ilqr", "--train", "10000000", "--out", str(tmp_path / "out")]
    assert main(asked) == 2
    assert "planner: expected one that plans for rewards, without a goal, got ILQR" in capsys.readouterr().err
