"""Proposals: recorded windows, warped and snapped candidates, and the order in which planners take them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest
import torch
from problems import (
    STARTS,
    STEP,
    TARGETS,
    Counted,
    double_integrator,
    make,
    noise,
    point,
    several,
    slide,
    steering,
    tensor,
)
from test_planners import PLANNERS, every_planner, perfect
from torch import Tensor

from grasp_agent.planners import (
    GRASP,
    BlockSupport,
    Candidates,
    Coloured,
    Criteria,
    Initial,
    Line,
    NoiseSource,
    Planner,
    Portfolio,
    Problem,
    Replay,
    ReplayWindows,
    Roadmap,
    Rollout,
    Snap,
    Support,
    Tracking,
    Warp,
)
from grasp_agent.planners.proposals.initial import filled
from grasp_agent.planners.proposals.replayed import warped

# torch's own forward-mode derivatives still use what torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

EXACT = Tracking(damping=1e-9)
STRAIGHT = Line(sigma=0.0)


def recorded(problem: Problem, *, steps: int = 12, astray: float = 0.05) -> ReplayWindows:
    """Returns for each problem a window from near its start that passes near its goal after 8 steps; and others."""
    actions = perfect(replace(problem, horizon=steps))
    actions[:, 8:] = -0.5  # after the goal it goes elsewhere
    other = 0.2 * Coloured().sample(noise(5), 20, steps, 2)
    actions = torch.cat([other[:10], actions, other[10:]])
    start = torch.cat([noise(6).normal(10, 2) + 9, STARTS + astray, noise(7).normal(10, 2) - 9])
    moved = start[:, None] + STEP * actions.cumsum(1)
    return ReplayWindows(torch.cat([start[:, None], moved], 1), actions)


def test_replay_retrieves_the_nearest_window_and_warps_it_to_start_and_goal():
    problem = point()
    problem = replace(problem, replay=recorded(problem))
    states, actions = Replay(tracking=EXACT)(problem, 3, noise()).pair
    assert states.shape == actions.shape == (5, 3, 12, 2)
    assert (
        problem.scoring.distances(states[:, :1, 7:]) < 1e-9
    ).all()  # cut where it passes the goal, which is then held
    # The window is straight: shifted to the start and warped to the goal, it is the straight line in eight steps.
    share = (torch.arange(8).double() + 1)[:, None] / 8
    straight = torch.lerp(STARTS[:, None], TARGETS[:, None], share)
    torch.testing.assert_close(states[:, 0, :7], straight[:, :7])
    torch.testing.assert_close(problem.follow(actions)[:, 0], states[:, 0], atol=1e-6, rtol=0)
    assert problem.score(actions).accepted[:, 0].all()
    assert (problem.scoring.distances(states[:, :, -1:]) < 1e-9).all()  # other windows are cut elsewhere
    assert (states[:, 0] != states[:, 1]).flatten(1).any(1).all()


def test_replay_of_windows_shorter_than_the_horizon_and_fewer_than_candidates():
    problem = replace(point(), horizon=20)
    pieces = recorded(problem, steps=9)
    problem = replace(problem, replay=ReplayWindows(pieces.states[10:12], pieces.actions[10:12]))
    states, actions = Replay(tracking=EXACT)(problem, 5, noise()).pair
    assert states.shape == (5, 5, 20, 2)
    assert torch.equal(states[:, 0], states[:, 2])
    assert (problem.scoring.distances(states[:, :, 9:]) < 1e-9).all()
    assert (actions[:2, 0, 9:].abs() < 1e-6).all()
    assert (actions == problem.clamp(actions)).all()


def test_replay_prefers_the_recorded_actions_where_an_action_has_no_effect():
    problem = make(lambda s, a: s + STEP * a * tensor(1.0, 0.0), tensor([0.0, 0.0]), tensor([0.5, 0.0]), horizon=4)
    actions = tensor([0.5, 0.7]).expand(4, 2)[None]
    states = torch.cat([torch.zeros(1, 1, 2).double(), STEP * (actions * tensor(1.0, 0.0)).cumsum(1)], 1)
    found = Replay(tracking=EXACT)(replace(problem, replay=ReplayWindows(states, actions)), 1, noise()).actions
    torch.testing.assert_close(found[0, 0], actions[0], atol=1e-6, rtol=0)


def test_states_are_warped_linearly_in_time_from_start_to_goal():
    problem = make(slide(), tensor([0.0, 0.0]), tensor([2.0, 2.0]), horizon=4)
    states = torch.zeros(1, 2, 4, 2).double()
    last = torch.tensor([[3, 1]])
    bent = warped(problem, states, tensor([[4.0, 0.0], [0.0, 0.0]]), last)
    # From 4 to the right, three quarters of that are left after a quarter of the steps, and so on.
    torch.testing.assert_close(bent[0, 0], tensor([3.5, 0.5], [3.0, 1.0], [2.5, 1.5], [2.0, 2.0]))
    torch.testing.assert_close(bent[0, 1], tensor([1.0, 1.0], [2.0, 2.0], [2.0, 2.0], [2.0, 2.0]))


def test_only_entries_that_the_goal_names_are_warped():
    problem = double_integrator()
    source = Rollout()
    states, actions = source(problem, 3, noise()).pair
    bent = Warp(source=source)(problem, 3, noise())
    assert (problem.scoring.distances(bent.states[:, :, -1:]) < 1e-9).all()
    assert torch.equal(bent.states[..., 2:], states[..., 2:])
    assert not torch.equal(bent.actions, actions)
    assert (bent.actions == problem.clamp(bent.actions)).all()


def test_a_warped_rollout_of_points_is_tracked_to_the_goal():
    problem = point(4)
    source = Rollout(sigma=0.1)
    found = Warp(source=source, tracking=EXACT)(problem, 4, noise())
    torch.testing.assert_close(problem.follow(found.actions), found.states, atol=1e-6, rtol=0)
    before = problem.scoring.merit(problem.follow(source(problem, 4, noise()).actions))
    assert (problem.scoring.merit(problem.follow(found.actions)) < before).all()


def test_snapped_states_are_the_nearest_of_the_support():
    problem, points = point(), noise(3).normal(30, 2)
    source = STRAIGHT(problem, 2, noise())
    found = Snap(source=STRAIGHT)(replace(problem, support=Support(points, 1.0)), 2, noise())
    distance = torch.cdist(source.states.flatten(0, 2), points)
    assert torch.equal(found.states.flatten(0, 2), points[distance.argmin(1)])
    assert (found.actions == problem.clamp(found.actions)).all()
    tracked = Tracking().refine(problem, Candidates(found.states, source.actions))
    assert torch.equal(found.actions, tracked)


def test_states_of_blocks_are_snapped_block_by_block():
    problem = several(2)
    supports = [Support(noise(seed).normal(30, 2), 1.0) for seed in (1, 2)]
    region = BlockSupport(supports, problem.blocks)
    states = Snap(source=STRAIGHT)(replace(problem, support=region), 1, noise()).states
    for block, support in zip(problem.blocks, supports, strict=True):
        own = states[..., list(block.states)].flatten(0, 2)
        assert (own[:, None] == support.points).all(-1).any(-1).all()


WITHOUT: list[tuple[Initial, Initial]] = [
    (Roadmap(otherwise=STRAIGHT), STRAIGHT),
    (Replay(otherwise=STRAIGHT), STRAIGHT),
    (Snap(source=STRAIGHT), STRAIGHT),
    (Replay(), Rollout()),
]


@pytest.mark.parametrize(("proposal", "instead"), WITHOUT)
def test_without_replay_or_roadmap_another_source_is_used(proposal: Initial, instead: Initial):
    found, expected = proposal(point(), 3, noise()), instead(point(), 3, noise())
    assert torch.equal(found.states, expected.states)
    assert torch.equal(found.actions, expected.actions)


@pytest.mark.parametrize("start", [STRAIGHT, Line(), Line(shape=Coloured()), Rollout(), Warp(), Snap(), Replay()])
@pytest.mark.parametrize("task", [point, double_integrator, lambda: several(2)])
def test_every_start_has_the_shape_it_should_inside_the_bounds(start: Initial, task: Any):
    problem: Problem = task()
    found = start(problem, 3, noise())
    assert found.states.shape == (5, 3, problem.horizon, problem.start.shape[1])
    assert found.actions.shape == (5, 3, problem.horizon, len(problem.low))
    assert (found.actions == problem.clamp(found.actions)).all()
    assert found.states.isfinite().all()


@pytest.mark.parametrize(("count", "from_first"), [(4, 2), (5, 2), (1, 1), (2, 1)])
def test_a_portfolio_begins_with_its_first_part(count: int, from_first: int):
    problem = point()
    found = Portfolio(first=STRAIGHT, second=Rollout())(problem, count, noise())
    straight = STRAIGHT(problem, count, noise()).states
    assert found.size == count
    same = (found.states == straight).flatten(2).all(-1)
    assert same.tolist() == [[n < from_first for n in range(count)]] * 5


def test_given_candidates_come_first_and_others_fill_up():
    problem = point()
    given = Rollout()(problem, 3, noise(9))
    for count in (2, 3, 5):
        found = filled(problem, given, count, STRAIGHT, noise())
        assert found.size == max(count, 3)
        assert torch.equal(found.first(3).actions, given.actions)
        assert torch.equal(found.actions[:, 3:], problem.resting(max(count - 3, 0)))
    assert filled(problem, None, 5, STRAIGHT, noise()).size == 5


@every_planner
def test_a_planner_takes_all_that_is_given_and_fills_up_with_its_own(name: str):
    problem, planner = point(), PLANNERS[name]
    for count in (1, planner.candidates, planner.candidates + 3):
        given = Rollout()(problem, count, noise(9))
        state = planner.init(problem, given, noise())
        offered = planner.actions(problem, state)
        assert offered.shape[1] in (sides := max(count, planner.candidates), 2 * sides)  # with the best, the means
        assert torch.equal(offered[:, :count], given.actions)


class PixelObservation(NamedTuple):
    actions: Tensor


@dataclass(frozen=True, kw_only=True)
class Watching(Planner[PixelObservation]):
    """Writes down what it is given, and offers that."""

    given: list[Candidates | None]

    def init(self, problem: Problem, given: Candidates | None, noise: NoiseSource) -> PixelObservation:
        self.given.append(given)
        return PixelObservation(problem.resting(1) if given is None else given.actions)

    def step(self, problem: Problem, state: PixelObservation, noise: NoiseSource) -> PixelObservation:
        return state

    def actions(self, problem: Problem, state: PixelObservation) -> Tensor:
        return state.actions


@pytest.mark.parametrize("proposes", [True, False])
@pytest.mark.parametrize("runs", [True, False])
def test_proposals_are_given_first_and_then_the_running_plan(proposes: bool, runs: bool):
    problem = replace(point(), criteria=Criteria(hold=1, accept=-1.0))
    start = Rollout() if proposes else None
    planner = Watching(iterations=1, candidates=4, proposals=start, proposed=3, given=[])
    warm = 3 * torch.ones(5, 12, 2).double()  # beyond the bounds
    planner.plan(problem, warm=warm if runs else None, seed=4)
    (given,) = planner.given
    expected = [Rollout()(problem, 3, noise(4)).actions] if proposes else []
    expected += [torch.ones(5, 1, 12, 2).double()] if runs else []
    if not expected:
        assert given is None
        return
    assert given is not None
    assert torch.equal(given.actions, torch.cat(expected, 1))
    torch.testing.assert_close(given.states, problem.follow(given.actions))


def test_of_more_given_plans_than_a_planner_improves_the_best_are_given():
    problem = replace(point(), criteria=Criteria(hold=1, accept=-1.0))
    planner = Watching(iterations=1, candidates=2, proposals=Rollout(), proposed=5, given=[])
    planner.plan(problem, warm=torch.zeros(5, 12, 2).double(), seed=4)
    (given,) = planner.given
    assert given is not None
    everything = torch.cat([Rollout()(problem, 5, noise(4)).actions, torch.zeros(5, 1, 12, 2).double()], 1)
    merits = problem.scoring.merit(problem.follow(everything))
    best = problem.scoring.merit(problem.follow(given.actions))
    torch.testing.assert_close(best.sort(1).values, merits.sort(1).values[:, :2])


@every_planner
def test_proposals_that_are_not_finite_or_out_of_bounds_do_no_harm(name: str):
    problem, planner = point(), PLANNERS[name]

    def wild(problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        states, actions = Rollout()(problem, count, noise).pair
        wild = 5.6 * torch.ones_like(actions)
        wild[:, ::2] = torch.nan
        return Candidates(states.masked_fill(wild.isnan().any(-1, keepdim=True), torch.nan), wild)

    alone = replace(planner, proposals=None).plan(problem, seed=1)
    plan = replace(planner, proposals=wild).plan(problem, seed=1)
    assert (plan.actions == problem.clamp(plan.actions)).all()
    assert plan.accepted.all() or not alone.accepted.all()
    assert plan.cost.isfinite().all()


def test_slow_proposals_leave_the_rest_of_the_budget_to_the_iterations():
    def slow(problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        time.sleep(0.3)
        return Rollout()(problem, count, noise)

    problem = replace(point(), criteria=Criteria(hold=1, accept=-1.0))
    plan = Watching(iterations=10**6, proposals=slow, budget=0.5, given=[]).plan(problem)
    assert plan.iterations > 0
    assert plan.seconds > 0.4


@pytest.mark.parametrize("shortlist", [4, 9])
def test_of_many_candidates_only_the_best_under_their_own_members_are_scored_by_all(shortlist: int):
    counted = Counted(replace(point(4), criteria=Criteria(hold=1, accept=-1.0, feedback=False)))
    problem = counted.problem
    offers = Rollout()(problem, 20, noise(3))
    best = problem.scoring.merit(problem.follow(offers.actions)).topk(shortlist, largest=False).indices[..., None, None]
    expected = problem.score(offers.actions.take_along_dim(best, 1)).cost.amin(1)

    def known(problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        return offers

    counted.calls.clear()
    plan = Watching(iterations=0, proposals=known, proposed=20, shortlist=shortlist, given=[]).plan(problem)
    torch.testing.assert_close(plan.cost, expected)
    assert counted.calls[:24] == [("dynamics", 5 * 20)] * 12 + [("dynamics", 4 * 5 * shortlist)] * 12


def test_states_on_a_path_are_interpolated_and_the_last_is_held():
    points, times = tensor([0.0], [2.0], [2.0], [8.0])[None, None], tensor([0.0, 2.0, 2.0, 5.0])[None]
    states = steering(make(slide(1), tensor([0.0, 0.0]), tensor([1.0, 0.0]))).trace(points, times, 7)
    assert states[0, 0, :, 0].tolist() == pytest.approx([1, 2, 4, 6, 8, 8, 8])


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda problem: None, "them to return Candidates, got NoneType"),
        (lambda problem: problem.resting(2), "them to return Candidates, got Tensor"),
        (
            lambda problem: Candidates(problem.resting(2)[:, :, :1], problem.resting(2)),
            r"states \[1, N, 4, 2\]",
        ),
        (
            lambda problem: Candidates(problem.resting(2), problem.resting(2)[..., :1]),
            r"actions \[1, N, 4, 2\]",
        ),
    ],
)
def test_proposals_of_another_shape_are_named(returned: Any, words: str):
    problem = make(slide(), tensor([0.0, 0.0]), tensor([0.5, 0.0]), horizon=4)
    with pytest.raises(ValueError, match=f"proposals: expected {words}"):
        GRASP(proposals=lambda problem, count, noise: returned(problem)).plan(problem)
