"""Goals that contact leads to, and recorded contacts that are carried over."""

from __future__ import annotations

import pytest
import torch

from grasp_agent.planners import Approach, Problem, ReplayWindows
from grasp_agent.planners.goal import EntryGoal
from grasp_agent.planners.noise import NoiseSource
from grasp_agent.planners.proposals.contact import ContactReplay

HAND, BLOCK = [0, 1], [2, 3]
STEP = 0.1  # greatest step of the hand
RADIUS = 0.05  # of the block, in which the hand takes it along


def approach(target: torch.Tensor, reach: float = RADIUS) -> Approach:
    """Returns the goal that the block is at targets `[B, 2]`; hand and block have different scales and means."""
    size = len(HAND + BLOCK)
    goal = EntryGoal(
        size=size, index=torch.tensor(BLOCK), target=target, weights=torch.ones(2).to(target), tolerance=0.05
    )
    return Approach(
        size=size,
        goal=goal,
        mover=torch.tensor(HAND),
        object=torch.tensor(BLOCK),
        scale=torch.tensor([[2.0, 2.0], [1.0, 1.0]]).to(target),
        offset=torch.tensor([0.1, 0.0]).to(target),
        reach=reach,
    )


@pytest.fixture
def states() -> torch.Tensor:
    """Returns some states `[3, 5, 7, 4]`."""
    return torch.randn(3, 5, 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def goal() -> Approach:
    """Returns goals of three problems."""
    return approach(torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64))


def test_gradient_is_that_of_the_cost_where_the_goal_is_far(goal: Approach, states: torch.Tensor) -> None:
    """The fading is constant there, so autograd agrees."""
    far = goal.goal.cost(states).sqrt() > 2 * goal.tolerance
    assert far.float().mean() > 0.5
    leaf = states.clone().requires_grad_()
    (slope,) = torch.autograd.grad(goal.cost(leaf).sum(), leaf)
    torch.testing.assert_close(goal.gradient(states)[far], slope[far])


def test_cost_is_the_sum_of_its_parts(goal: Approach, states: torch.Tensor) -> None:
    """Planners use either."""
    torch.testing.assert_close(goal.parts(states).sum(-1), goal.cost(states))


def test_curvature_is_symmetric_and_not_negative(goal: Approach, states: torch.Tensor) -> None:
    """Newton steps need that."""
    curvature = goal.curvature(states)
    torch.testing.assert_close(curvature, curvature.mT)
    assert torch.linalg.eigvalsh(curvature).min() > -1e-9


def test_a_nearer_hand_is_better_until_the_block_is_in_reach(goal: Approach) -> None:
    """The block stays where it is, away from its goal."""
    block = goal.goal.project(torch.zeros(3, 1, 1, 4, dtype=torch.float64))[..., BLOCK] + 0.5
    costs = []
    for distance in (1.0, 0.5, 0.1, RADIUS, RADIUS / 2):
        hand = (block + torch.tensor([distance - 0.1, 0.0])) / 2  # see the scales and the offset
        costs.append(goal.cost(torch.cat([hand, block], -1)))
    assert (costs[0] > costs[1]).all() and (costs[1] > costs[2]).all() and (costs[2] > costs[3]).all()
    torch.testing.assert_close(costs[3], costs[4])


def test_where_the_goal_is_reached_the_hand_may_be_anywhere(goal: Approach, states: torch.Tensor) -> None:
    """Acceptance depends on the object alone."""
    torch.testing.assert_close(goal.cost(goal.project(states)), torch.zeros(3, 5, 7, dtype=torch.float64))


def carried(state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """Returns the next state of a hand that takes a block along where it is on it."""
    hand, block = state[..., :2], state[..., 2:]
    step = STEP * action
    held = ((hand - block).norm(dim=-1, keepdim=True) < RADIUS).to(step)
    return torch.cat([hand + step, block + held * step], -1)


def recorded() -> ReplayWindows:
    """Returns one window: the hand comes to the block from the left, and takes it upwards; and one without contact."""
    actions = torch.tensor([[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 5)
    windows = []
    for block in (0.5, 5.0):
        states = [torch.tensor([0.0, 0.0, block, 0.0])]
        for action in actions:
            states.append(carried(states[-1], action))
        windows.append(torch.stack(states))
    return ReplayWindows(torch.stack(windows), actions.expand(2, -1, -1))


@pytest.mark.parametrize("place", [(0.5, 0.0), (0.4, 0.2)])
def test_a_recorded_contact_is_carried_over_to_the_block_and_its_goal(place: tuple[float, float]) -> None:
    """The block lies elsewhere, and has to go in another direction; a hand that stands still moves nothing."""
    start = torch.tensor([[0.0, 0.0, *place]])
    target = start[:, 2:] + torch.tensor([[0.1, 0.3]])
    goal = approach(target)
    same = torch.ones(2, 2)
    goal = Approach(
        size=4, goal=goal.goal, mover=goal.mover, object=goal.object, scale=same, offset=same[0] * 0, reach=RADIUS
    )
    problem = Problem(
        dynamics=carried, goal=goal, start=start, low=-torch.ones(2), high=torch.ones(2), horizon=20, replay=recorded()
    )
    found = ContactReplay()(problem, 2, NoiseSource(0, start.device, start.dtype))
    last = problem.follow(found.actions)[0, 0, -1, BLOCK]
    assert (last - target[0]).norm() < 0.05
    assert (start[0, BLOCK] - target[0]).norm() > 0.3
