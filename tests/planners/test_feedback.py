"""Feedback along plans, computed when they are made."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from problems import point

from grasp_agent.planners import Criteria, Problem, Tracking
from grasp_agent.planners.feedback import feedback


def planned(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a rollout of the mean model, `[B, H, S]`, and its actions."""
    generator = torch.Generator().manual_seed(1)
    actions = torch.rand(problem.size, problem.horizon, len(problem.low), generator=generator).to(problem.start) - 0.5
    state, states = problem.start, []
    for action in actions.unbind(1):
        rows = (problem.members, -1, -1)
        state = problem.dynamics(state.expand(*rows), action.expand(*rows)).mean(0)
        states.append(state)
    return torch.stack(states, 1), actions


@pytest.mark.parametrize("members", [1, 4])
def test_without_a_deviation_a_plan_of_the_mean_model_is_kept(members: int):
    problem = point(members)
    states, actions = planned(problem)
    torch.testing.assert_close(feedback(problem, states, actions).actions, actions, atol=1e-5, rtol=0)


@pytest.mark.parametrize("members", [1, 4])
def test_it_is_the_tracking_step_linearised(members: int):
    problem = point(members)
    states, actions = planned(problem)
    along = feedback(problem, states, actions)
    tracking = Tracking(damping=problem.criteria.damping)
    generator = torch.Generator().manual_seed(2)
    step = 3
    for _ in range(5):
        deviation = 1e-3 * torch.randn(problem.start.shape, generator=generator).to(problem.start)
        exact = tracking.correct_together(problem, states[:, step - 1] + deviation, states[:, step], actions[:, step])
        found = along.actions[:, step] + (along.gains[:, step] @ deviation[..., None])[..., 0]
        torch.testing.assert_close(found, exact, atol=2e-4, rtol=0)
        assert (exact - actions[:, step]).abs().max() > 1e-3


def test_actions_stay_inside_their_bounds_and_finite():
    problem = replace(point(), criteria=Criteria(damping=0.0))
    states, actions = planned(problem)
    far = feedback(problem, states + 100, actions)
    assert ((far.actions >= problem.low) & (far.actions <= problem.high)).all()
    broken = feedback(replace(problem, dynamics=lambda s, a: s * torch.nan + 0 * a.sum()), states, actions)
    assert broken.actions.isfinite().all()
    assert broken.gains.isfinite().all()
