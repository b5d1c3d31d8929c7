"""Roadmaps, the replayed support, and the parts that planners are made of: known answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import problems
import pytest
import torch
from problems import GAP, STEP, double_integrator, grid, make, point, slide, steering, tensor, walled
from torch import Tensor

from grasp_agent.planners import (
    GRASP,
    ILQR,
    Coloured,
    Criteria,
    Line,
    NoiseSource,
    Problem,
    Roadmap,
    RoadmapGraph,
    Rollout,
    ShootingGradient,
    Support,
    Tracking,
    farthest_points,
)
from grasp_agent.planners.grasp import Sync
from grasp_agent.planners.least_squares import least_squares

# torch's own forward-mode derivatives still use what torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def noise(seed: int = 0) -> NoiseSource:
    return NoiseSource(seed, torch.device("cpu"), torch.float64)


def hits_the_wall(before: Tensor, after: Tensor, margin: float = 1e-3) -> Tensor:
    """True where the way between positions `[..., 2]`, each entry as fast as it can, meets the wall, less a margin."""
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
    assert problem.roadmap is not None
    points, times = problem.roadmap.routes(problem.start, lambda s: problem.goal.project(s[..., None, :])[..., 0, :], 3)
    torch.testing.assert_close(points[:, :, 0], problem.start[:, None].expand(-1, 3, -1))
    assert (problem.distance(points[:, :, -1:]) < 1e-9).all()
    assert times.isfinite().all()
    assert (times.diff(dim=-1) >= 0).all()
    assert (times[..., 0] == 0).all()
    assert (times[..., -1] > 4).all()  # straight through the wall it would be 3.2 to 5.2 steps
    pieces = points[:, :, :-1], points[:, :, 1:]
    assert not hits_the_wall(*pieces).any()
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
    states, actions = Roadmap(otherwise=Line())(problem, 3, noise())
    expected = Line()(problem, 3, noise())
    assert torch.equal(states, expected[0])
    assert torch.equal(actions, expected[1])


def test_a_goal_without_a_route_leaves_the_other_problems_theirs():
    start, target = tensor([-0.5, -0.5], [-0.5, -0.5]), tensor([0.5, -0.5], [5.0, 5.0])
    problem = replace(make(walled, start, target, horizon=24), roadmap=problems.wall_roadmap())
    states, actions = Roadmap()(problem, 2, noise())
    assert states.isfinite().all()
    assert actions.isfinite().all()
    assert (problem.score(actions).accepted == torch.tensor([[True], [False]])).all()


@pytest.mark.parametrize("members", [1, 4])
def test_steering_counts_the_steps_of_the_worst_member(members: int):
    problem = point(members)
    # The tolerance is 0.02: at 0.265 the true integrator arrives in one step of 0.25, the slowest member does not.
    targets = tensor([0.1, 0.0], [0.25, 0.1], [-0.6, 0.3], [1.0, 0.0], [0.265, 0.0])
    steps = steering(problem)(torch.zeros(5, 2).double(), lambda _: targets)
    torch.testing.assert_close(steps[:3], tensor(0.4, 1.0, 2.4), atol=0.15, rtol=0)
    assert steps[3].isinf()  # four steps away; its reach is three
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


def test_the_support_is_the_balls_around_its_points():
    support = Support(tensor([0.0, 0.0], [3.0, 4.0]), 1.0)
    states = tensor([0.0, 0.99], [0.0, 1.01], [3.9, 4.0], [2.0, 2.0])
    assert support.off(states).tolist() == [False, True, False, True]
    assert support.off(states.view(2, 1, 2, 2)).tolist() == [[[False, True]], [[False, True]]]


def test_leaving_the_support_costs_what_the_criteria_say():
    problem = make(
        slide(), tensor([0.0, 0.0]), tensor([1.0, 0.0]), horizon=4, criteria=Criteria(hold=1, running=0, off_support=10)
    )
    problem = replace(problem, support=Support(tensor([0.0, 0.0]), 0.6))
    actions = tensor([1.0, 0.0]).expand(1, 1, 4, 2)  # 1/4, 1/2, 3/4, 1; the goal is no stray
    verdict = problem.score(actions)
    assert verdict.cost.item() == pytest.approx(10 / 4)
    assert not verdict.accepted.item()
    assert replace(problem, support=None).score(actions).accepted.item()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_least_squares_agrees_with_lapack(size: int):
    generator = torch.Generator().manual_seed(size)
    slopes = torch.randn(6, 4, size, generator=generator, dtype=torch.float64)
    residual = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    expected = torch.linalg.lstsq(slopes, residual[..., None]).solution[..., 0]
    torch.testing.assert_close(least_squares(slopes, residual, 0.0), expected, atol=1e-6, rtol=1e-6)
    normal = slopes.mT @ slopes
    ridge = 0.5 * normal.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * torch.eye(size).double()
    damped = torch.linalg.solve(normal + ridge, (slopes.mT @ residual[..., None]))[..., 0]
    torch.testing.assert_close(least_squares(slopes, residual, 0.5), damped, atol=1e-6, rtol=1e-6)
    assert torch.equal(least_squares(0 * slopes, residual, 0.1), torch.zeros(6, size, dtype=torch.float64))


@pytest.mark.parametrize("beta", [0.0, 2.0, 3.0])
def test_noise_has_variance_one_at_each_step_and_is_smooth_where_it_should_be(beta: float):
    sample = Coloured(beta=beta).sample(noise(), 4000, 12, 2)
    assert sample.shape == (4000, 12, 2)
    torch.testing.assert_close(sample.var((0, 2)), torch.ones(12).double(), atol=0.1, rtol=0)
    torch.testing.assert_close(sample.mean((0, 2)), torch.zeros(12).double(), atol=0.07, rtol=0)
    following = (sample[:, 1:] * sample[:, :-1]).mean().item()
    assert following > 0.7 if beta else abs(following) < 0.03
    assert (sample[..., 0] * sample[..., 1]).mean().abs() < 0.07


def test_tracking_reproduces_a_path_that_can_be_driven():
    problem = double_integrator()
    actions = 0.9 * torch.tanh(Coloured().sample(noise(), 3, 16, 2)).expand(5, -1, -1, -1)
    path = problem.follow(actions)
    tracked = Tracking(damping=1e-6)(problem, path, torch.zeros_like(actions))
    torch.testing.assert_close(problem.follow(tracked), path, atol=1e-4, rtol=0)


def test_ilqr_finds_the_optimum_of_a_linear_quadratic_problem():
    problem = replace(double_integrator(), low=tensor(-50.0, -50.0), high=tensor(50.0, 50.0))
    ilqr = ILQR(steps=200, damping=1e-6)
    rest = torch.zeros(5, 1, 16, 2, dtype=torch.float64)
    found = ilqr(problem, problem.follow(rest), rest)
    # Positions are linear in the actions: the optimum is one weighted least-squares problem for each axis.
    unit = torch.eye(16, dtype=torch.float64)[:, None, :, None].expand(-1, -1, -1, 2)
    still = replace(problem, start=torch.zeros(16, 4).double())
    response = still.follow(unit)[:, 0, :, 0].T
    weights = torch.full((16,), ilqr.running / 16, dtype=torch.float64)
    weights[-ilqr.hold :] += 1 / ilqr.hold
    matrix = torch.cat([weights.sqrt()[:, None] * response, (ilqr.effort / 16) ** 0.5 * torch.eye(16).double()])
    wanted = 0.7 * problems.TARGETS - problems.STARTS
    right = torch.cat([weights.sqrt()[:, None].expand(-1, 10) * wanted.reshape(1, 10), torch.zeros(16, 10).double()])
    best = torch.linalg.lstsq(matrix, right).solution.T.reshape(5, 2, 16).mT
    torch.testing.assert_close(found[:, 0], best, atol=1e-3, rtol=1e-3)


class Sabotage:
    """A sync that makes some candidates worse and others meaningless."""

    def __call__(self, problem: Problem, states: Tensor, actions: Tensor) -> Tensor:
        return torch.cat([-actions[:, :4], actions[:, 4:] * torch.nan], dim=1)


@pytest.mark.parametrize("sync", [Tracking(), ILQR(), ShootingGradient(), Sabotage()])
def test_a_sync_never_raises_a_candidates_own_cost(sync: Sync):
    problem = point(4)
    planner = GRASP(candidates=8, initial=Rollout(), sync=sync, sync_every=1, opening=0)
    state = planner.init(problem, None, noise())
    for seed in range(4):
        alone = replace(planner, sync_every=10**6, anneal=False).step(problem, state, noise(seed))
        synced = replace(planner, anneal=False).step(problem, state, noise(seed))
        before, after = (problem.own_cost(problem.follow(s.actions)) for s in (alone, synced))
        assert (after <= before + 1e-12).all()
        assert (after == before).all() == isinstance(sync, Sabotage) or (after < before).any()
        state = alone


def test_without_noise_no_random_number_is_drawn():
    class Silent(NoiseSource):
        def normal(self, *shape: int) -> Tensor:
            raise AssertionError("drew a random number")

    planner, problem = GRASP(sigma=0, initial=Line(), opening=0), point()
    state = planner.init(problem, None, noise())
    silent = Silent(0, torch.device("cpu"), torch.float64)
    moved = planner.step(problem, state, silent)
    assert not torch.equal(moved.actions, state.actions)
    with pytest.raises(AssertionError, match="drew"):
        replace(planner, sigma=0.1).step(problem, state, silent)


def test_an_ensemble_needs_no_jacobian_of_its_own():
    problem = point(4)
    plain = replace(problem, action_jacobian=None, jacobian=None)
    for planner in (GRASP(), GRASP(candidates=3, initial=Line(), sync=Tracking())):
        expected, plan = planner.plan(problem), planner.plan(plain)
        assert plan.accepted.all()
        torch.testing.assert_close(plan.actions, expected.actions)


@pytest.mark.parametrize(
    ("make_it", "words"),
    [
        (lambda: GRASP(candidates=0), "candidates: expected a whole number of at least 1, got 0"),
        (lambda: GRASP(iterations=-1), "iterations: expected a whole number of at least 0, got -1"),
        (lambda: GRASP(verify_every=0), "verify_every: expected a whole number of at least 1, got 0"),
        (lambda: GRASP(budget=0), "budget: expected seconds > 0 or None, got 0"),
        (lambda: GRASP(sync_every=0), "sync_every: expected at least 1, got 0"),
        (lambda: GRASP(sigma=-1), "sigma: expected at least 0, got -1"),
        (lambda: GRASP(goal_weight=float("nan")), "goal_weight: expected at least 0, got nan"),
        (lambda: GRASP(warm_share=2), r"warm_share: expected a share in \[0, 1\], got 2"),
        (lambda: replace(point(), start=torch.zeros(2)), r"start: expected shape \[B, S\], got \[2\]"),
        (lambda: replace(point(), low=torch.zeros(3)), r"one shape \[A\], got \[3\] and \[2\]"),
        (lambda: replace(point(), low=torch.ones(2).double()), "finite bounds with low < high"),
        (lambda: replace(point(), high=torch.full((2,), torch.inf)), "finite bounds with low < high"),
        (lambda: make(slide(), horizon=0), "horizon: expected at least 1, got 0"),
    ],
)
def test_wrong_settings_are_named(make_it: Callable[[], object], words: str):
    with pytest.raises(ValueError, match=words):
        make_it()
