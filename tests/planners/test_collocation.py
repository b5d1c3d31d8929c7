"""Collocation against known answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from problems import make, noise, point, slide

from grasp_agent.planners import (
    Collocation,
    Criteria,
)

# torch's own forward-mode derivatives still use what torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def test_a_collocation_step_solves_the_normal_equations():
    planner, (batch, count, horizon, size, action_size) = Collocation(damping=0.01), (2, 3, 5, 3, 2)
    source = noise()
    by_state, by_action = (source.normal(batch, count, horizon, size, n) for n in (size, action_size))
    gaps, slope = (source.normal(batch, count, horizon, size) for _ in range(2))
    bend = source.normal(batch, count, horizon, size, size)
    bend = bend @ bend.mT
    multipliers = source.normal(batch, count, horizon).exp()
    d_states, d_actions = planner._solve(by_state, by_action, gaps, multipliers, slope, bend)
    # All residuals |A_t ds_t + B_t da_t + gap_t - ds_{t+1}| and the goal's quadratic in one dense system.
    states, actions = horizon * size, horizon * action_size
    for b in range(batch):
        for n in range(count):
            jacobian = torch.zeros(states, states + actions, dtype=torch.float64)
            jacobian[:, :states] = -torch.eye(states)
            for t in range(horizon):
                row = slice(t * size, (t + 1) * size)
                if t:
                    jacobian[row, (t - 1) * size : t * size] = by_state[b, n, t]
                jacobian[row, states + t * action_size : states + (t + 1) * action_size] = by_action[b, n, t]
            weighted = jacobian.T * multipliers[b, n].repeat_interleave(size)
            matrix = weighted @ jacobian + 0.01 * torch.eye(states + actions, dtype=torch.float64)
            matrix[:states, :states] += torch.block_diag(*bend[b, n])
            right = -weighted @ gaps[b, n].flatten()
            right[:states] -= slope[b, n].flatten()
            solution = torch.linalg.solve(matrix, right)
            torch.testing.assert_close(d_states[b, n].flatten(), solution[:states])
            torch.testing.assert_close(d_actions[b, n].flatten(), solution[states:])


def test_collocation_closes_the_gaps_where_the_bounds_are_active():
    problem = replace(make(slide()), criteria=Criteria(hold=1, accept=-1.0))
    # Constant multipliers, since they fall again where the gaps are closed; as many solves as bounds come in between.
    planner = Collocation(hold=3, iterations=120, multiplier=100.0, multiplier_rate=0.0, rounds=8)
    missed = {}
    for rounds in (8, 1):
        last: list[Any] = []
        replace(planner, rounds=rounds).plan(problem, on_step=lambda _, state, last=last: last.append(state))
        path = problem.follow(last[-1].actions)
        missed[rounds] = (path - last[-1].states).abs().amax((1, 2, 3))
        assert (last[-1].actions.abs() == 1).any()
        if rounds == 8:
            assert (problem.scoring.distances(path)[..., -1, :] < 0.2).all()
    assert (missed[8] < 0.01).all()
    assert (missed[1] > 0.2).all()  # clamped without another solve, the states run ahead of the actions


def test_collocation_comes_to_every_goal_in_free_space():
    problem = point()
    plan = Collocation(candidates=4).plan(problem)
    assert plan.accepted.all()
    assert (problem.scoring.distances(problem.follow(plan.actions[:, None]))[:, :, -1] < 0.6).all()


def test_actions_that_never_come_near_their_bounds_need_one_solve_a_step(monkeypatch: pytest.MonkeyPatch):
    problem, solves = replace(point(), low=-10 * torch.ones(2).double(), high=10 * torch.ones(2).double()), []
    solve = Collocation._solve

    def counted(*arguments: Any) -> Any:
        solves.append(1)
        return solve(*arguments)

    monkeypatch.setattr(Collocation, "_solve", counted)
    planner = Collocation(candidates=3)
    state = planner.init(problem, None, noise())
    for _ in range(5):
        state = planner.step(problem, state, noise())
        assert (state.actions.abs() < 9).all()
    assert len(solves) == 5


def test_collocation_stands_still_where_its_equations_cannot_be_solved():
    problem = replace(
        point(), jacobian=lambda state, action: (state, torch.full((*state.shape, 4), torch.nan).double())
    )
    planner = Collocation(candidates=2)
    state = planner.init(problem, None, noise())
    moved = planner.step(problem, state, noise())
    assert torch.equal(moved.states, state.states)
    assert torch.equal(moved.actions, state.actions)
