"""Objectives in place of goals: returns, pessimism over members, and the planners that can use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from problems import STARTS, slide, tensor
from torch import Tensor

from grasp_agent.planners import CEM, GRASP, ICEM, ILQR, MPPI, Collocation, Criteria, GradientShooting, Problem, Return
from grasp_agent.planners.requirements import check_objective

BOUND = torch.ones(2, dtype=torch.float64)
SPOT = tensor([0.5, -0.5])[0]


def near(_: Tensor, actions: Tensor, following: Tensor) -> Tensor:
    return -(following - SPOT).square().sum(-1)


def problem(objective: Any, *, horizon: int = 8, members: int = 1, dynamics: Any = None) -> Problem:
    return Problem(
        dynamics=dynamics or slide(members),
        objective=objective,
        start=STARTS[:3],
        low=-BOUND,
        high=BOUND,
        horizon=horizon,
        members=members,
        criteria=Criteria(feedback=False),
    )


def counted(kind: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda state, action, following: kind(following[..., 0])


def test_the_return_is_discounted_ends_and_adds_the_last_value():
    rollouts = torch.arange(1.0, 4.0).view(1, 1, 1, 3, 1)  # states 1, 2, 3 after 0
    start, actions = torch.zeros(1, 1), torch.zeros(1, 1, 3, 1)
    chance = {1.0: 0.0, 2.0: 0.25, 3.0: 0.5}
    ends = counted(lambda x: torch.tensor([chance[float(v)] for v in x.flatten()]).view(x.shape))
    known = Return(reward=counted(lambda x: 10 * x), ends=ends, value=lambda s: 100 * s[..., 0], discount=0.5)
    # 10 + .5 * 20 + .25 * .75 * 30 (alive after two steps: 1 * .75) + .125 * .75 * .5 * 300
    expected = 10 + 10 + 0.25 * 0.75 * 30 + 0.125 * 0.75 * 0.5 * 300
    assert known.returns(start, rollouts, actions).item() == pytest.approx(expected)
    assert known.cost(start, rollouts, actions).item() == pytest.approx(-expected)


def test_every_state_of_a_plan_may_be_its_end():
    rollouts = torch.arange(1.0, 4.0).view(1, 1, 1, 3, 1)  # states 1, 2, 3 after 0
    start, actions = torch.zeros(1, 1), torch.zeros(1, 1, 3, 1)
    ends = counted(lambda x: torch.where(x == 2, 0.25, 0.0))
    # after each step: rewards so far, and the value there if the episode has not ended
    totals = [10 + 0.5 * 100, 10 + 10 + 0.25 * 0.75 * 200, 10 + 10 + 0.25 * 0.75 * 30 + 0.125 * 0.75 * 300]
    for decay, shares in ((0.0, (1, 0, 0)), (0.6, (0.4, 0.24, 0.36)), (1.0, (0, 0, 1))):
        known = Return(
            reward=counted(lambda x: 10 * x), ends=ends, value=lambda s: 100 * s[..., 0], discount=0.5, decay=decay
        )
        expected = sum(share * total for share, total in zip(shares, totals, strict=True))
        assert known.returns(start, rollouts, actions).item() == pytest.approx(expected)


def test_the_cost_is_pessimistic_over_members():
    rollouts = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1, 1)
    start, actions = torch.zeros(1, 1), torch.zeros(1, 1, 1, 1)
    reward = counted(lambda x: x)
    for weight, expected in ((0.0, -2.0), (1.0, -1.0)):  # mean 2, deviation 1
        assert Return(reward=reward, pessimism=weight).cost(start, rollouts, actions).item() == expected


def test_rewards_know_the_state_before_and_the_action():
    rollouts, actions = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2, 1), torch.tensor([5.0, 7.0]).view(1, 1, 2, 1)
    known = Return(reward=lambda s, a, n: (n - s)[..., 0] * a[..., 0], discount=1.0)
    assert known.returns(torch.zeros(1, 1), rollouts, actions).item() == 1 * 5 + 2 * 7


@pytest.mark.parametrize("settings", [{"discount": 1.5}, {"decay": -0.1}, {"pessimism": -1.0}], ids=str)
def test_numbers_out_of_range_are_refused(settings: dict[str, Any]):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Return(reward=near, **settings)


@pytest.mark.parametrize(
    "planner",
    [CEM(iterations=10), ICEM(), MPPI(), GradientShooting(iterations=60)],
    ids=lambda planner: type(planner).__name__,
)
@pytest.mark.parametrize("members", [1, 3])
def test_planners_find_plans_of_high_return(planner: Any, members: int):
    given = problem(Return(reward=near, discount=1.0), members=members)
    plan = planner.plan(given, seed=1)
    rest = given.score(given.resting(1)).cost[:, 0]
    straight = (SPOT - STARTS[:3]) / 0.25 / 5  # in five steps, if the bounds permit
    ways = torch.zeros(3, 1, 8, 2, dtype=torch.float64)
    ways[:, 0, :5] = straight.clamp(-1, 1)[:, None]
    there = given.score(ways).cost[:, 0]
    assert (plan.cost < rest - 0.8 * (rest - there)).all()
    assert not plan.accepted.any()
    assert (plan.actions.abs() <= 1).all()


def test_a_plan_is_never_worse_than_the_running_one():
    given = problem(Return(reward=near, discount=1.0))
    warm = ICEM().plan(given, seed=1)
    again = ICEM(iterations=1, samples=20).plan(given, warm=warm.actions, seed=2)
    assert (again.cost <= warm.cost).all()


def test_candidates_are_compared_under_all_members():
    """Of two equal means, the plan on which members agree is the better one, whichever member steps it."""

    def split(state: Tensor, action: Tensor) -> Tensor:
        sides = torch.tensor([1.0, -1.0], dtype=state.dtype)[: len(state), None]
        return torch.stack([action[..., 0], sides * action[..., 1]], -1)

    given = problem(Return(reward=lambda _, __, n: n.sum(-1), pessimism=1.0), horizon=1, members=2, dynamics=split)
    sure, bold = tensor([0.5, 0.0])[0], tensor([0.5, 1.0])[0]
    actions = torch.stack([sure, bold])[None, :, None].expand(3, -1, -1, -1)
    costs = given.merit(actions)
    torch.testing.assert_close(costs, given.score(actions).cost)
    assert (costs[:, 0] < costs[:, 1] - 0.5).all()


def test_predictions_that_are_not_finite_cost_infinitely():
    def broken(state: Tensor, action: Tensor) -> Tensor:
        return torch.where(action > 0.9, torch.nan, state)

    given = problem(Return(reward=near), dynamics=broken)
    actions = torch.zeros(3, 2, 8, 2, dtype=torch.float64)
    actions[:, 1, 3] = 1.0
    cost = given.score(actions).cost
    assert cost[:, 0].isfinite().all() and cost[:, 1].isinf().all()
    assert ICEM().plan(given, seed=0).actions.isfinite().all()


@pytest.mark.parametrize(
    "planner", [GRASP(), ILQR(), Collocation(), GRASP.paper(iterations=3)], ids=lambda p: type(p).__name__
)
def test_planners_that_need_a_goal_are_refused(planner: Any):
    with pytest.raises(ValueError, match=r"expected one that plans for rewards, without a goal, got .*ICEM, MPPI"):
        check_objective(planner)
    with pytest.raises(ValueError, match="as there is no goal"):
        planner.plan(problem(Return(reward=near)))


def test_a_problem_has_a_goal_or_an_objective():
    with pytest.raises(ValueError, match="expected a goal or an objective"):
        problem(None)


def test_gradients_pass_through_returns_under_all_members():
    given = problem(Return(reward=near, discount=1.0, pessimism=0.5), members=3)
    actions = torch.zeros(3, 1, 8, 2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(given.loss(actions, 1, 0.0), actions)
    step = torch.zeros_like(actions)
    step[0, 0, 2, 1] = 1e-6
    with torch.no_grad():
        change = given.loss(actions + step, 1, 0.0) - given.loss(actions - step, 1, 0.0)
    assert slope[0, 0, 2, 1].item() == pytest.approx(change.item() / 2e-6, rel=1e-4)
