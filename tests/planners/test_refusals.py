"""Refused steps, and plans and routes that avoid them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from problems import grid, make, slide, steering, tensor
from torch import Tensor

from grasp_agent.planners import Criteria, Refusals, RoadmapGraph
from grasp_agent.planners.refusals import refused

START, TARGET = tensor([-0.8, 0.0]), tensor([0.8, 0.0])


def wall(*heights: float, width: float = 0.1) -> Refusals:
    """Steps to the right that were refused at x = 0, at some heights."""
    reached = tensor(*([-0.05, height] for height in heights))[None]
    return Refusals(reached, reached + tensor(0.1, 0.0), width)


@pytest.mark.parametrize(
    ("reached", "least", "expected"),
    [
        ([0.0, 0.0], 0.05, True),  # nothing was made
        ([0.04, 0.0], 0.05, True),
        ([0.06, 0.0], 0.05, False),  # most of it was made
        ([0.0, 0.0], 0.2, False),  # not much was predicted
        ([0.0, 0.08], 0.05, True),  # it slid along an obstacle
        ([-0.5, 0.3], 0.05, False),  # something else has happened, such as a new episode
    ],
)
def test_a_refused_step_misses_most_of_the_predicted_change(reached: list[float], least: float, expected: bool):
    found = refused(tensor([0.0, 0.0]), tensor([0.1, 0.0]), tensor(reached), least)
    assert found.tolist() == [expected]


def test_a_step_the_same_way_nearby_meets_the_obstacle():
    start = tensor([-0.1, 0.0], [-0.1, 0.1], [-0.1, 0.5], [0.1, 0.0], [0.01, 0.0], [-0.1, 0.0])[None]
    end = tensor([0.1, 0.0], [0.1, 0.1], [0.1, 0.5], [-0.1, 0.0], [0.2, 0.0], [-0.01, 0.0])[None]
    found = wall(0.0).crossed(start, end)[0]
    expected = tensor(1.0, torch.exp(tensor(-0.5)).item(), 0.0, 0.0, 0.0, 0.0)  # aside, far, back, behind, before
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    doubled = wall(0.0, 0.0).crossed(start, end)[0]
    torch.testing.assert_close(doubled, 2 * found)


def test_refusals_belong_to_their_problems_and_blocks():
    reached = tensor([[-0.05, 0.0]], [[-0.05, 5.0]])
    both = Refusals(reached, reached + tensor(0.1, 0.0), 0.1)
    start, end = tensor([[-0.1, 0.0]], [[-0.1, 0.0]]), tensor([[0.1, 0.0]], [[0.1, 0.0]])
    assert both.crossed(start, end).round().tolist() == [[1.0], [0.0]]
    assert both.of_problem(1).crossed(start[1:], end[1:]).round().tolist() == [[0.0]]
    assert both.of_block([0]).any and not both.of_block([1]).any
    none = Refusals(reached, reached, 0.1)
    assert not none.any and none.crossed(start, end).tolist() == [[0.0], [0.0]]


def graph() -> RoadmapGraph:
    found = RoadmapGraph.build(grid(), steering(make(slide(), START, TARGET)))
    assert found is not None
    return found


def height_at_wall(points: Tensor) -> Tensor:
    """Returns the heights at which routes `[R, W, 2]` cross x = 0."""
    before, after = points[:, :-1], points[:, 1:]
    crosses = (before[..., 0] <= 0) & (after[..., 0] > 0)
    assert (crosses.sum(-1) == 1).all()
    span = before[..., 0] / (before[..., 0] - after[..., 0])
    return torch.lerp(before[..., 1], after[..., 1], span)[crosses]


def test_routes_avoid_where_steps_were_refused():
    free, _ = graph().routes(START, TARGET.expand_as, 3)
    assert height_at_wall(free[0]).abs().max() < 0.2
    blocked = wall(*torch.linspace(-1, 0.4, 15).tolist())
    around, times = graph().routes(START, TARGET.expand_as, 3, blocked)
    assert (height_at_wall(around[0]) > 0.45).all() and times[..., -1].isfinite().all()
    back, _ = graph().routes(TARGET, START.expand_as, 3, blocked)  # nobody knows whether it is passable from there
    torch.testing.assert_close(back, graph().routes(TARGET, START.expand_as, 3)[0])


def test_a_route_through_the_obstacle_is_better_than_none_and_takes_its_own_time():
    everywhere = wall(*torch.linspace(-1.2, 1.2, 25).tolist())
    _, free = graph().routes(START, TARGET.expand_as, 1)
    _, times = graph().routes(START, TARGET.expand_as, 1, everywhere)
    assert times[0, 0, -1].isfinite() and times[0, 0, -1] < 2 * free[0, 0, -1]


def test_no_edge_of_a_roadmap_leads_where_the_data_show_refused_steps():
    everywhere = wall(*torch.linspace(-1.2, 1.2, 25).tolist())
    driver = steering(make(slide(), START, TARGET))
    found = RoadmapGraph.build(grid(), driver, refusals=everywhere)
    assert found is None or found.connected < 0.8
    one_way = (
        graph().steps.isfinite() & (graph().nodes[:, None, 0] < 0) & (graph().nodes[graph().neighbours][..., 0] > 0)
    )
    assert one_way.any() and found is not None
    assert found.steps[one_way].isinf().all() and found.steps[~one_way].isfinite().any()


def test_the_state_ahead_is_on_the_route_where_the_goal_is_too_far():
    start, goals = torch.cat([START, START]), tensor([0.8, 0.0], [-0.7, 0.0])

    def aim(states: Tensor) -> Tensor:
        return goals[:, None].expand_as(states)

    states, far = graph().ahead(start, aim, 3, 1.1)
    assert far.tolist() == [True, False]
    assert -0.7 < states[0, 0] < 0.3 and abs(float(states[0, 1])) < 0.3
    torch.testing.assert_close(states[1], goals[1])
    path = graph().paths(start, aim, 1, 3, 1.1)
    torch.testing.assert_close(states[0], path[0, 0, -1])


def test_plans_through_refused_steps_are_costly_and_not_accepted():
    problem = make(slide(), START, TARGET, horizon=24)
    line = torch.linspace(0, 1, 26, dtype=START.dtype)[1:-1, None]
    straight = torch.lerp(START, TARGET, line)[None, None]
    free = replace(problem, criteria=Criteria(hold=1))
    actions = torch.diff(torch.cat([START[None, None], straight], 2), dim=2)
    plain = free.score(actions / actions.abs().max())
    for stop in (False, True):
        known = replace(problem, criteria=Criteria(hold=1, stop=stop), refusals=wall(0.0))
        ignored = replace(known, criteria=replace(known.criteria, refused=0.0))
        chosen = actions / actions.abs().max()
        assert known.merit(chosen) > ignored.merit(chosen) + (0.0 if stop else 0.9)
    assert replace(free, refusals=wall(0.0)).score(chosen).cost > plain.cost + 0.9
    assert not replace(free, refusals=wall(0.0)).score(chosen).accepted.any()
