"""The best agent of a training is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from agents import tiny

from grasp_agent import GraspAgent
from grasp_agent.evaluation import best
from grasp_agent.evaluation.best import BestAgent, Checked
from grasp_agent.evaluation.evaluate import evaluate


def learned(path: Path, **settings) -> tuple[GraspAgent, list[Checked]]:
    found: list[Checked] = []
    callback = BestAgent(path, every=60, episodes=1, on_checked=found.append, **settings)
    return tiny().learn(200, callback), found


def test_the_best_agent_is_saved_as_it_was_evaluated(tmp_path: Path):
    path = tmp_path / "new" / "best.zip"
    _, found = learned(path)
    assert [checked.steps for checked in found] == [120, 180, 200]  # after 60 steps there is no model yet
    kept = [checked for checked in found if checked.best][-1]
    assert kept.score == max(checked.score for checked in found)
    agent = GraspAgent.load(path, device="cpu")
    assert agent.num_timesteps == kept.steps
    assert evaluate(agent, "grasp/BallNav-v0", 1, best.SEED).score == kept.score


@pytest.mark.parametrize(
    ("scores", "kept"),
    [((0.5, 0.2, 0.1), 120), ((0.1, 0.5, 0.2), 180), ((0.5, 0.5, 0.5), 200)],
)
def test_the_highest_score_is_kept_and_the_later_of_equal_ones(scores, kept, monkeypatch, tmp_path: Path):
    left = list(scores)

    class Scored:
        score = property(lambda self: self.given)

        def __init__(self) -> None:
            self.given = left.pop(0)

        def summary(self):
            return {"success_end": None, "return_mean": self.given}

    monkeypatch.setattr(best, "evaluate", lambda *_: Scored())
    _, found = learned(tmp_path / "best.zip")
    assert [checked.score for checked in found] == list(scores)
    assert GraspAgent.load(tmp_path / "best.zip", device="cpu").num_timesteps == kept


def test_evaluation_does_not_change_what_is_learned(tmp_path: Path):
    watched, found = learned(tmp_path / "best.zip")
    alone = tiny().learn(200).get_parameters()["policy"]
    assert found
    for name, tensor in watched.get_parameters()["policy"].items():
        assert torch.equal(tensor, alone[name]), name


class Falling:
    """Figures that are the worse, the more steps an agent has learned from."""

    def __init__(self, steps: int) -> None:
        self.score = 1 / steps

    def summary(self):
        return {"success_end": self.score, "return_mean": 0.0}


def test_a_resumed_training_knows_the_best_of_its_first_part(monkeypatch, tmp_path: Path):
    path = tmp_path / "best.zip"
    tiny().learn(110).save(path)
    before = path.read_bytes()
    monkeypatch.setattr(BestAgent, "_evaluated", lambda self, agent: Falling(agent.num_timesteps))
    _, found = learned(path, resume=True)
    assert not any(checked.best for checked in found) and path.read_bytes() == before
    _, found = learned(path)
    assert found[0].best and path.read_bytes() != before
