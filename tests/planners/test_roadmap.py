"""Roadmaps, the replayed support, and the parts that planners are made of: known answers."""

from __future__ import annotations

from dataclasses import replace

import problems
import pytest
import torch
from problems import GAP, STEP, grid, make, noise, point, rows, slide, steering, tensor, wall_with_clearance, walled
from torch import Tensor

from grasp_agent.planners import (
    Line,
    Roadmap,
    RoadmapGraph,
    farthest_points,
)

# torch's own forward-mode derivatives still use what torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def hits_the_wall(before: Tensor, after: Tensor, margin: float = 1e-3) -> Tensor:
    """Returns whether the path between positions `[..., 2]`, entries at full speed, meets the wall minus a margin."""
    hit = torch.zeros(before.shape[:-1], dtype=torch.bool)
    for _ in range(3):
        following = before + (after - before).clamp(-STEP, STEP)
        crossing = before[..., 0] * following[..., 0] < 0
        share = -before[..., 0] / (following[..., 0] - before[..., 0]).masked_fill(~crossing, 1)
        height = before[..., 1] + share * (following[..., 1] - before[..., 1])
        hit |= crossing & ((height < GAP[0] - margin) | (height > GAP[1] + margin))
        before = following
    return hit


def test_no_edge_of_a_roadmap_crosses_a_wall():
    graph = problems.wall_roadmap()
    assert graph is not None
    ends = graph.nodes[graph.neighbours]
    starts = graph.nodes[:, None].expand_as(ends)
    drivable, short = graph.steps.isfinite(), (ends - starts).abs().amax(-1) <= STEP
    assert (graph.steps[hits_the_wall(starts, ends)] > 1).all()
    straight = short & ~hits_the_wall(starts, ends, -1e-3)
    assert drivable[straight].all()
    assert (~drivable[short]).any()
    state = starts
    for _ in range(3):  # longer ones may slide along the wall until they pass
        state = walled(state, ((ends - state) / STEP).clamp(-1, 1))
    assert ((state - ends).norm(dim=-1)[drivable] < 0.02).all()
    # An edge takes as many steps as its longer side needs.
    needed = (ends - starts).abs().amax(-1) / STEP
    torch.testing.assert_close(graph.steps[straight], needed[straight], atol=0.1, rtol=0)


def test_routes_lead_through_the_gap_and_their_times_never_fall():
    problem = problems.wall()
    graph = problems.wall_roadmap()
    assert graph is not None
    points, times = graph.routes(problem.start, lambda s: problem.goal.project(s[..., None, :])[..., 0, :], 3)
    torch.testing.assert_close(points[:, :, 0], problem.start[:, None].expand(-1, 3, -1))
    assert (problem.scoring.distances(points[:, :, -1:]) < 1e-9).all()
    assert times.isfinite().all()
    assert (times.diff(dim=-1) >= 0).all()
    assert (times[..., 0] == 0).all()
    assert (times[..., -1] > 4).all()  # straight through the wall it would be 3.2 to 5.2 steps
    pieces = state, ends = points[:, :, :-1], points[:, :, 1:]
    for _ in range(4):  # what slides along the wall passes it in the end
        state = walled(state, ((ends - state) / STEP).clamp(-1, 1))
    assert ((state - ends).norm(dim=-1) < 0.02).all()
    assert ((pieces[0][..., 0] * pieces[1][..., 0] < 0).sum(-1) == 1).all()


def test_a_straight_route_takes_the_time_of_the_straight_line():
    problem = make(slide(), tensor([-0.9, 0.0]), tensor([0.9, 0.0]))
    graph = RoadmapGraph.build(grid(), steering(problem))
    assert graph is not None
    _, times = graph.routes(problem.start, lambda s: problem.goal.project(s[..., None, :])[..., 0, :], 1)
    assert times[0, 0, -1].item() == pytest.approx(1.8 / STEP, abs=0.1)


def test_states_that_cannot_be_joined_give_no_roadmap_and_planning_starts_elsewhere():
    far_apart = 9 * grid(4)
    assert RoadmapGraph.build(far_apart, steering(make(slide()))) is None
    assert RoadmapGraph.build(far_apart[:1], steering(make(slide()))) is None
    problem = point()
    found, expected = Roadmap(otherwise=Line())(problem, 3, noise()), Line()(problem, 3, noise())
    assert torch.equal(found.states, expected.states)
    assert torch.equal(found.actions, expected.actions)
    assert found.rollouts is None


def test_a_goal_without_a_route_leaves_the_other_problems_theirs():
    start, target = tensor([-0.5, -0.5], [-0.5, -0.5]), tensor([0.5, -0.5], [50.0, 50.0])
    problem = replace(make(walled, start, target, horizon=24), roadmap=problems.wall_roadmap())
    states, actions = Roadmap()(problem, 3, noise()).pair
    assert states.isfinite().all()
    assert actions.isfinite().all()
    # The first candidate heads straight for its goal and stays at the wall. Ways round are there for the near goal
    # only, the other is farther than any drive: they lead to the node that is nearest to it.
    assert problem.score(actions).accepted.tolist() == [[False, True, True], [False, False, False]]
    nearest = problems.wall_roadmap().nodes  # type: ignore[union-attr]
    nearest = nearest[(nearest - target[1]).norm(dim=-1).argmin()]
    assert ((states[1, 1:] - nearest).norm(dim=-1).amin(-1) < 0.2).all()


def test_routes_lead_to_goals_and_from_starts_off_the_support():
    seen = grid()[(grid() >= -0.3).all(-1)]  # neither the start's corner nor the goal's, which the wall separates
    inside, outside = [-0.2, 0.0], [0.5, -0.8]
    start, target = tensor(inside, [-0.8, -0.8], [-0.8, -0.8]), tensor(outside, [0.2, 0.0], outside)
    problem = make(walled, start, target, horizon=24)
    graph = RoadmapGraph.build(seen, steering(make(wall_with_clearance)))
    assert graph is not None
    problem = replace(problem, roadmap=graph)
    points, times = graph.routes(start, lambda s: problem.goal.project(s[..., None, :])[..., 0, :], 2)
    assert times[..., -1].isfinite().all()
    torch.testing.assert_close(points[:, 0, -1], target)
    assert problem.score(Roadmap()(problem, 3, noise()).actions).accepted.any(-1).all()
    straight = Line(sigma=0.0)(problem, 1, noise())
    assert not problem.score(straight.actions).accepted.any()


def test_routes_do_not_depend_on_the_other_problems():
    seen = grid()[(grid() >= -0.3).all(-1)]
    start = tensor([-0.2, 0.0], [-0.8, -0.8], [-0.8, -0.8], [0.3, 0.3], [0.3, 0.3])
    target = tensor([0.5, -0.8], [0.2, 0.0], [0.5, -0.8], [0.6, 0.6], [50.0, 50.0])  # out, in, both, none, never
    problem = make(walled, start, target, horizon=24)
    graph = RoadmapGraph.build(seen, steering(problem))
    assert graph is not None

    def arrival(chosen: list[int]) -> Tensor:
        some = rows(problem, chosen)
        return graph.routes(some.start, lambda s: some.goal.project(s[..., None, :])[..., 0, :], 4)[1][..., -1]

    together = arrival(list(range(5)))
    torch.testing.assert_close(together, torch.cat([arrival([row]) for row in range(5)]))
    assert together.isfinite().all()  # also to the last one, as far as nodes lead


def test_a_goal_on_an_island_is_reached_from_the_mainland():
    # Replayed: a broad patch where the start is, and a small one at the goal, too far away for an edge.
    island = tensor([0.85, 0.85], [0.9, 0.85], [0.85, 0.9], [0.9, 0.9])
    seen = torch.cat([grid()[(grid() < -0.05).all(-1)], island])
    free = make(slide(), tensor([-0.8, -0.8]), tensor([0.88, 0.88]), horizon=24)
    graph = RoadmapGraph.build(seen, steering(free))
    assert graph is not None
    assert graph.connected < 1
    points, times = graph.routes(free.start, lambda s: free.goal.project(s[..., None, :])[..., 0, :], 2)
    assert times[..., -1].isfinite().all()
    torch.testing.assert_close(points[0, 0, -1], tensor(0.88, 0.88))


@pytest.mark.parametrize("count", [1, 4])
def test_the_first_candidate_heads_straight_for_the_goal_and_the_others_take_routes(count: int):
    problem = problems.wall()
    assert problem.roadmap is not None
    found = Roadmap(stretch=1.5)(problem, count, noise())
    assert found.size == count
    assert (problem.scoring.distances(found.states[:, :1]) < 1e-9).all()
    if count > 1:
        ways = problem.roadmap.paths(
            problem.start, lambda s: problem.goal.project(s[..., None, :])[..., 0, :], count - 1, 24, 1.5
        )
        assert torch.equal(found.states[:, 1:], ways)
    free = point()
    straight = Roadmap()(replace(free, roadmap=RoadmapGraph.build(grid(), steering(free))), 1, noise())
    arrived = free.scoring.distances(free.follow(straight.actions))[:, 0, :, 0] < 0.5
    # No axis needs longer than it must: one step at full speed covers a quarter.
    least = ((problems.TARGETS - problems.STARTS).abs().amax(-1) / STEP).ceil().long()
    assert (arrived.long().argmax(-1) + 1 <= least).all()
    assert (arrived.cummax(-1).values == arrived).all()


@pytest.mark.parametrize("members", [1, 4])
def test_steering_counts_the_steps_of_the_worst_member(members: int):
    problem = point(members)
    # The tolerance is 0.02: at 0.265 the true integrator arrives in one step of 0.25, the slowest member does not.
    targets = tensor([0.1, 0.0], [0.25, 0.1], [-0.6, 0.3], [1.0, 0.0], [0.265, 0.0])
    steps = steering(problem)(torch.zeros(5, 2).double(), lambda _: targets)
    torch.testing.assert_close(steps[:3], tensor(0.4, 1.0, 2.4), atol=0.15, rtol=0)
    assert steps[3].isinf()  # four steps away; its reach is three
    far = tensor([1.0, 0.0], [6.0, 0.0], [100.0, 0.0])
    steps_far = steering(problem)(torch.zeros(3, 2).double(), lambda _: far, far=True)
    assert 3.9 <= steps_far[0] <= 5
    assert 23.9 <= steps_far[1] <= 30
    assert steps_far[2].isinf()
    assert (steps[4] > 1) == (members > 1)


def test_farthest_points_cover_the_states():
    states = torch.rand(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    index, radius = farthest_points(states, 40)
    distance = torch.cdist(states, states[index]).amin(1)
    assert len(set(index.tolist())) == 40
    assert distance.max().item() == pytest.approx(radius)
    between = torch.cdist(states[index], states[index]).fill_diagonal_(torch.inf)
    assert between.min() >= radius  # no two are nearer than the radius: the choice is within 2 of the best
    order = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    again, _ = farthest_points(states[order], 40)
    torch.testing.assert_close(states[order][again], states[index])
    twice, radius = farthest_points(states[:4].repeat(3, 1), 9)
    assert (len(twice), radius) == (4, 0.0)


def test_several_targets_of_one_start_are_driven_to_as_from_as_many_starts():
    drive = steering(make(walled, members=1), 0.05)
    starts, targets = (
        grid(6),
        grid(6).roll(1, 0).repeat_interleave(3, 0) + tensor([0.0, 0.0], [0.1, 0.0], [0.3, 0.2]).repeat(36, 1),
    )
    together = drive(starts, lambda _: targets, each=3)
    assert torch.equal(together, drive(starts.repeat_interleave(3, 0), lambda _: targets))
    assert together.isfinite().any() and together.isinf().any()
