"""Routes over recorded moments of several trajectories, and the plans stitched from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from grasp_agent.planners import CEM, DistanceGoal, NoiseSource, Problem, RecordedRoadmap, Recording, Rollout, Stitching
from grasp_agent.planners.roadmap import recorded


class Steps:
    """The Euclidean distance as a metric in steps of length 1."""

    def embedded(self, states: Tensor) -> Tensor:
        return states

    def pairwise(self, embedded: Tensor, targets: Tensor) -> Tensor:
        return torch.cdist(embedded, targets)


def record(*trajectories: list[tuple[float, float]], stride: int = 1) -> Recording:
    """Trajectories whose actions are numbered: 10 for each trajectory, 1 for each row."""
    states = [torch.tensor(points) for points in trajectories]
    actions = [10.0 * number + torch.arange(len(part), dtype=torch.float32) for number, part in enumerate(states)]
    left = [torch.arange(len(part) - 1, -1, -1) // stride for part in states]
    return Recording(torch.cat(states), torch.cat(actions)[:, None], torch.cat(left), stride)


EAST = [(float(x), 0.0) for x in range(6)]
NORTH = [(3.1, float(y)) for y in range(6)]
CROSSING = record(EAST, NORTH)
START, GOAL = torch.tensor([[0.1, 0.0]]), torch.tensor([[3.0, 4.9]])


def problem(start: Tensor, goal: Tensor, roadmap: RecordedRoadmap | None, horizon: int = 10) -> Problem:
    return Problem(
        dynamics=lambda state, action: state + 0 * action,
        goal=DistanceGoal(target=goal, tolerance=1.0),
        start=start,
        low=-100 * torch.ones(1),
        high=100 * torch.ones(1),
        horizon=horizon,
        roadmap=roadmap,
        recording=CROSSING,
    )


def test_a_plan_changes_from_one_trajectory_to_another():
    actions, taken, found = RecordedRoadmap(CROSSING, Steps()).plans(START, GOAL, 1, 10)
    assert found.all()
    assert taken[0, 0].tolist() == [True] * 8 + [False] * 2
    assert actions[0, 0, taken[0, 0], 0].tolist() == [0, 1, 2, 10, 11, 12, 13, 14]


def test_a_plan_longer_than_the_horizon_is_cut():
    actions, taken, _ = RecordedRoadmap(CROSSING, Steps()).plans(START, GOAL, 1, 4)
    assert taken.all()
    assert actions[0, 0, :, 0].tolist() == [0, 1, 2, 10]


def test_no_way_back():
    _, taken, found = RecordedRoadmap(CROSSING, Steps()).plans(GOAL, START, 2, 10)
    assert not found.any() and not taken.any()


@pytest.mark.parametrize(("horizon", "state"), [(3, EAST[3]), (4, NORTH[1]), (5, NORTH[2]), (6, None), (8, None)])
def test_the_state_ahead_of_goals_beyond_the_horizon(horizon: int, state: tuple[float, float] | None):
    """The goal is 8 steps away: less than half as far again as a horizon of 6."""
    roadmap = RecordedRoadmap(CROSSING, Steps())
    goals = torch.cat([GOAL, START])
    found, far = roadmap.ahead(torch.cat([START, GOAL]), lambda _: goals[:, None], horizon)
    assert far.tolist() == [state is not None, False]
    torch.testing.assert_close(found[0], GOAL[0] if state is None else torch.tensor(state))
    assert torch.equal(found[1], START[0])  # no route


def test_nothing_is_done_at_the_goal():
    _, taken, found = RecordedRoadmap(CROSSING, Steps()).plans(START, START, 1, 5)
    assert found.all() and not taken.any()


def test_the_nearest_node_leads_on_even_from_afar():
    """No node is within a change of the start, and a dead end is nearer than the trajectory that leads to the goal."""
    roadmap = RecordedRoadmap(record(EAST, NORTH, [(-2.0, -2.0), (-3.0, -3.0)]), Steps())
    actions, taken, found = roadmap.plans(torch.tensor([[-1.5, -1.5]]), GOAL, 1, 10)
    assert found.all() and taken.sum() == 8
    assert actions[0, 0, :3, 0].tolist() == [0, 1, 2]


def test_a_route_stops_beside_a_goal_that_its_trajectory_passes():
    roadmap = RecordedRoadmap(record(EAST), Steps())
    actions, taken, _ = roadmap.plans(START, torch.tensor([[3.0, 0.3]]), 1, 10)
    assert actions[0, 0, taken[0, 0], 0].tolist() == [0, 1, 2]


def test_routes_of_equal_length_are_different_ones():
    actions, _, _ = RecordedRoadmap(record(EAST, EAST, NORTH), Steps()).plans(START, GOAL, 2, 10)
    assert sorted(actions[0, :, 0, 0].tolist()) == [0, 10]


def test_paths_pass_the_recorded_states():
    roadmap = RecordedRoadmap(CROSSING, Steps())
    path = roadmap.paths(START, lambda states: GOAL.expand_as(states), 1, 8, 1.0)
    torch.testing.assert_close(path[0, 0], torch.tensor([*EAST[1:4], *NORTH[1:6]]))
    lost = roadmap.paths(GOAL, lambda states: START.expand_as(states), 1, 8, 1.0)
    assert lost.isnan().all()


def test_several_routes_begin_on_different_trajectories():
    beside = [(x, 0.2) for x, _ in EAST]
    roadmap = RecordedRoadmap(record(EAST, beside, NORTH), Steps())
    actions, _, found = roadmap.plans(START, GOAL, 4, 10)
    assert found.all()
    assert {float(first) for first in actions[0, :, 0, 0]} == {0.0, 10.0}


def test_several_problems_at_a_time():
    starts, goals = torch.cat([START, GOAL, START]), torch.cat([GOAL, START, START])
    roadmap = RecordedRoadmap(CROSSING, Steps())
    together = roadmap.plans(starts, goals, 1, 10)
    for row in range(3):
        for part, alone in zip(together, roadmap.plans(starts[[row]], goals[[row]], 1, 10), strict=True):
            assert torch.equal(part[[row]], alone)


@pytest.mark.parametrize("stride", [1, 3])
def test_routes_are_shortest(stride: int):
    """Steps and changes of the routes found cost what Dijkstra's algorithm finds for the same graph."""
    generator = torch.Generator().manual_seed(stride)
    walks = [
        (torch.rand(2, generator=generator) * 3 + (torch.randn(31, 2, generator=generator) * 0.4).cumsum(0)).tolist()
        for _ in range(8)
    ]
    data = record(*walks, stride=stride)
    roadmap = RecordedRoadmap(data, Steps())
    nodes = roadmap.nodes
    assert len(nodes) == sum(len(walk[::stride]) for walk in walks)
    count = len(nodes)
    costs = np.full((count + 1, count + 1), np.inf)
    distance = torch.cdist(nodes, nodes).numpy()
    number = np.concatenate([[i] * len(walk[::stride]) for i, walk in enumerate(walks)])
    for row in range(count):
        if row + 1 < count and number[row + 1] == number[row]:
            costs[row, row + 1] = 1
        others = np.where(number != number[row], distance[row], np.inf)
        for near in np.argsort(others)[: recorded._JUMPS]:
            if others[near] <= recorded._RADIUS:
                costs[row, near] = recorded._DRIFT * others[near] + recorded._PENALTY
    goal = nodes[-1:]
    last = distance[-1]
    costs[:-1, -1] = np.where(last <= recorded._RADIUS, recorded._DRIFT * last + recorded._PENALTY, np.inf)
    wanted = dijkstra(csr_matrix(np.where(np.isfinite(costs), costs, 0)).T, indices=[count])[0][:-1]
    found = roadmap.times_to_go(goal)[0].numpy()
    assert np.isfinite(found).sum() > count / 4
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_too_many_moments_are_thinned(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recorded, "_NODES", 30)
    roadmap = RecordedRoadmap(record(*[EAST] * 20), Steps())
    assert roadmap.nodes.tolist() == [[float(x), 0.0] for _ in range(5) for x in range(6)]
    assert roadmap.connected > 0.5  # whole trajectories


def test_a_long_trajectory_is_thinned_too_and_routes_may_jump_within_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recorded, "_NODES", 30)
    monkeypatch.setattr(recorded, "_PIECE", 10)
    there = [(float(x), 0.0) for x in range(100)]
    assert len(RecordedRoadmap(record(there), Steps()).nodes) == 30
    monkeypatch.setattr(recorded, "_NODES", 300)
    circle = [(float(x), 0.0) for x in range(20)] + [(float(19 - x), 0.1) for x in range(20)] + NORTH
    _, taken, found = RecordedRoadmap(record(circle), Steps()).plans(START, torch.tensor([[1.0, 0.1]]), 1, 100)
    assert found.all() and taken.sum() <= 2


def test_connected_is_the_share_of_pairs_with_a_route():
    apart = record(EAST, [(x, 50.0) for x, _ in EAST])
    assert 0.2 < RecordedRoadmap(apart, Steps()).connected < 0.5  # half of those on the same trajectory
    assert RecordedRoadmap(record(EAST, EAST[::-1]), Steps()).connected > 0.9


def test_proposals_rest_after_the_route():
    roadmap = RecordedRoadmap(CROSSING, Steps())
    found = Stitching()(problem(START, GOAL, roadmap), 2, NoiseSource(0, torch.device("cpu"), torch.float32))
    assert found.actions[0, 0, :, 0].tolist() == [0, 1, 2, 10, 11, 12, 13, 14, 0, 0]


def test_proposals_without_a_route_come_from_elsewhere():
    roadmap, noise = RecordedRoadmap(CROSSING, Steps()), torch.device("cpu")
    starts, goals = torch.cat([START, GOAL]), torch.cat([GOAL, START])
    proposals = Stitching(otherwise=Rollout())
    found = proposals(problem(starts, goals, roadmap), 2, NoiseSource(0, noise, torch.float32)).actions
    other = Rollout()(problem(starts, goals, None), 2, NoiseSource(0, noise, torch.float32)).actions
    assert torch.equal(found[1], other[1])
    assert found[0, 0, :3, 0].tolist() == [0, 1, 2]
    alone = proposals(problem(starts, goals, None), 2, NoiseSource(0, noise, torch.float32)).actions
    assert torch.equal(alone, other)


def test_a_planner_takes_them():
    roadmap = RecordedRoadmap(CROSSING, Steps())
    planner = CEM(iterations=0, proposals=Stitching(), proposed=2, samples=4, elites=2)
    assert planner.plan(problem(START, GOAL, roadmap)).actions.shape == (1, 10, 1)
