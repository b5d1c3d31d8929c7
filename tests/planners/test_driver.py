"""The loop that all planners share, with a planner whose iterations are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from problems import NEVER, make, slide, tensor
from torch import Tensor

from grasp_agent.planners import (
    Candidates,
    Criteria,
    NoiseSource,
    Planner,
    Problem,
)

# torch's own forward-mode derivatives still use what torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


class Script(NamedTuple):
    done: int
    actions: Tensor


@dataclass(frozen=True, kw_only=True)
class Scripted(Planner[Script]):
    """Offers given constant actions, one after the other."""

    script: tuple[float, ...]

    def init(self, problem: Problem, given: Candidates | None, noise: NoiseSource) -> Script:
        return Script(0, self._constant(problem, 0))

    def step(self, problem: Problem, state: Script, noise: NoiseSource) -> Script:
        return Script(state.done + 1, self._constant(problem, state.done + 1))

    def actions(self, problem: Problem, state: Script) -> Tensor:
        return state.actions

    def _constant(self, problem: Problem, count: int) -> Tensor:
        return torch.full((problem.size, 1, problem.horizon, 2), self.script[count], dtype=torch.float64)


def diagonal(criteria: Criteria = NEVER) -> Problem:
    """From the origin to (1, 1) and (9, 9) in 12 steps: actions 1/3 arrive at the first, 1 come nearest the other."""
    return make(slide(), torch.zeros(2, 2).double(), tensor([1.0, 1.0], [9.0, 9.0]), criteria=criteria)


def test_the_driver_keeps_the_best_candidate_of_each_problem_and_clamps():
    plan = Scripted(iterations=4, script=(0.0, 1 / 3, 7.0, torch.nan, -1.0)).plan(diagonal())
    torch.testing.assert_close(plan.actions[:, 0, 0], tensor(1 / 3, 1.0))
    assert plan.iterations == 4


def test_an_accepted_problem_keeps_its_plan_while_others_go_on():
    plan = Scripted(iterations=2, script=(0.0, 0.32, 1 / 3)).plan(diagonal(Criteria(hold=1)))
    assert plan.accepted.tolist() == [True, False]
    assert plan.actions[0, 0, 0] == 0.32


def test_the_last_iteration_is_always_scored_and_every_one_is_reported():
    shown: list[int] = []
    planner = Scripted(iterations=5, verify_every=3, script=(0.0, 0.1, 0.1, 0.1, 0.1, 1 / 3))
    plan = planner.plan(diagonal(), on_step=lambda i, _: shown.append(i))
    torch.testing.assert_close(plan.actions[0, 0, 0], tensor(1 / 3)[0])
    assert shown == [0, 1, 2, 3, 4, 5]
