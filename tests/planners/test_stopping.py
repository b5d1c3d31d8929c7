"""Plans that may stop, for tasks whose state stays without actions; and long plans from segments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from problems import STEP, make, noise, point, several, slide, tensor
from test_planners import PLANNERS
from torch import Tensor

from grasp_agent.planners import ICEM, Criteria, Plan, Problem, Receding, Support
from grasp_agent.planners.receding import RecedingState

STOP = Criteria(stop=True, running=0.1, off_support=0.0)


def passing(rule: Criteria = STOP, horizon: int = 8) -> tuple[Problem, Tensor]:
    """Returns a point that passes its goal, three steps away, at full speed; and the plan to do so."""
    problem = make(slide(), tensor([0.0, 0.0]), tensor([3 * STEP, 0.0]), horizon=horizon, criteria=rule)
    actions = torch.zeros(1, 1, horizon, 2, dtype=torch.float64)
    actions[..., 0] = 1
    return problem, actions


def test_a_plan_is_cut_where_it_is_nearest_and_rests_from_there():
    problem, actions = passing()
    cut = problem.cut(actions)
    assert torch.equal(cut[0, 0, :3], actions[0, 0, :3]) and not cut[0, 0, 3:].any()
    assert problem.score(cut).accepted.item() and not problem.score(actions).accepted.item()


def test_the_merit_that_planners_minimise_is_the_cost_of_the_cut_plan():
    problem, actions = passing()
    merit = problem.scoring.merit(problem.follow(actions))
    torch.testing.assert_close(merit, problem.score(problem.cut(actions)).cost)
    # Two steps before it, at two tolerances and at one from the goal.
    tolerance = problem.goal.tolerance
    torch.testing.assert_close(merit, tensor([0.1 * (2 + 1) * STEP / tolerance / 8]))


def test_the_sooner_of_two_moments_at_the_goal_is_taken():
    problem, actions = passing(horizon=12)
    actions[:, :, 5:7, 0] = -1  # comes back to the goal after seven steps, and passes once more
    actions[:, :, 7:, 0] = 1
    assert problem.cut(actions)[0, 0].any(-1).sum() == 3
    late = replace(problem, criteria=replace(STOP, running=0.0))
    assert late.cut(actions)[0, 0].any(-1).sum() == 3


def test_steps_off_the_support_count_as_far_as_the_plan_goes():
    rule = replace(STOP, running=0.0, off_support=0.25, stride=1)
    problem, actions = passing(rule)
    known = replace(problem, support=Support(tensor([0.0, 0.0], [3 * STEP, 0.0]), 0.6 * STEP))
    # Steps 1 and 2 stray; what comes after the stop at 3 does not matter.
    assert known.scoring.merit(known.follow(actions)).item() == pytest.approx(2 * 0.25)


def test_what_is_not_finite_is_never_reached():
    problem, actions = passing()
    states = problem.follow(actions)
    states[:, :, 2:] = torch.nan
    assert problem.scoring.merit(states).isfinite().all()
    states[:, :, :] = torch.nan
    assert not problem.scoring.merit(states).isfinite().any()


def test_the_weights_of_a_plan_are_its_costs_weights():
    problem, actions = passing(replace(STOP, running=0.2))
    states = problem.follow(actions)
    weights = problem.scoring.goal_weights(states, hold=6, running=0.2)
    assert weights.shape == (1, 1, 8) and weights.argmax() == 2
    assert weights.sum().item() == pytest.approx(1 + 0.2)
    assert (weights[..., 3:] == 0.025).all()
    held = replace(problem, criteria=Criteria()).scoring.goal_weights(states, hold=2, running=0.2)
    torch.testing.assert_close(held, tensor([0.025] * 6 + [0.525] * 2)[0])


def test_blocks_stop_together():
    problem = several(2, criteria=STOP)
    actions = torch.rand(5, 3, 12, 4, generator=torch.Generator().manual_seed(0)).double()
    cut = problem.cut(actions)
    moving = cut.any(-1).sum(-1)
    assert moving.min() >= 1 and moving.max() <= 12
    assert torch.equal(cut[..., :2].any(-1), cut[..., 2:].any(-1))
    torch.testing.assert_close(
        problem.scoring.merit(problem.follow(actions)), problem.scoring.merit(problem.follow(cut))
    )


@pytest.mark.parametrize("name", ["default", "icem", "ilqr", "gradient shooting", "mppi", "receding"])
def test_every_kind_of_planner_arrives_and_rests(name: str):
    problem = replace(point(), horizon=30, criteria=STOP)
    plan = PLANNERS[name].plan(problem)
    assert plan.accepted.all()
    assert (problem.scoring.distances(plan.states[:, None])[:, 0, -1, 0] <= 0.6).all()
    assert torch.equal(plan.actions, problem.cut(plan.actions[:, None])[:, 0])


def disputed(criteria: Criteria = STOP) -> tuple[Problem, Tensor]:
    """A plan that is good under both members as a whole; the first one would stop too soon for the second."""
    speeds = tensor(1.0, 0.8)[:, None, None]
    problem = make(
        lambda state, action: state + STEP * speeds[: len(state)] * action,
        tensor([0.0, 0.0]),
        tensor([2 * STEP, 0.0]),
        members=2,
        horizon=4,
        tolerance=0.35 * STEP,
        criteria=replace(criteria, accept=1.0, feedback=False),
    )
    return problem, tensor([[1.0, 0.0], [1.0, 0.0], [0.3, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize("name", ["default", "icem", "ilqr"])
def test_the_running_plan_is_scored_without_a_cut(name: str):
    problem, warm = disputed()
    assert problem.score(warm[:, None]).accepted.all() and not problem.score(problem.cut(warm[:, None])).accepted.any()
    plan = PLANNERS[name].plan(problem, warm=warm, on_step=lambda *_: pytest.fail("planned again"))
    assert torch.equal(plan.actions, warm)


@pytest.mark.parametrize("name", ["default", "icem", "ilqr"])
def test_a_start_at_the_goal_rests(name: str):
    problem = make(slide(), tensor([0.0, 0.0]), tensor([0.01, 0.0]), horizon=8, criteria=STOP)
    plan = PLANNERS[name].plan(problem, on_step=lambda *_: pytest.fail("planned although nothing is to do"))
    assert plan.accepted.all() and not plan.actions.any()


SEGMENTS = Receding(pieces=ICEM(iterations=3, samples=64), length=6, commit=3)


@pytest.mark.parametrize("horizon", [1, 7, 30])
def test_segments_make_a_plan_that_differs_each_time(horizon: int):
    problem = replace(point(4), horizon=horizon, criteria=STOP)
    source = noise()
    first, second = (SEGMENTS.step(problem, SEGMENTS.init(problem, None, source), source).actions for _ in range(2))
    assert first.shape == (5, 1, horizon, 2) and not torch.equal(first, second)


def test_the_worst_plan_is_replaced_even_if_all_are_accepted():
    problem = point(4)
    goal = replace(problem.goal, tolerance=100.0)  # type: ignore[type-var]
    problem = replace(problem, horizon=12, goal=goal, criteria=replace(STOP, accept=100.0))
    good = SEGMENTS.step(problem, RecedingState(problem.resting(1)), noise()).actions
    kept = torch.cat([good, -torch.ones_like(good)], 1)
    verdict = problem.score(kept)
    assert verdict.accepted.all()
    better = torch.cat([kept, SEGMENTS.step(problem, RecedingState(kept[:, :1]), noise()).actions], 1)
    after = SEGMENTS.step(problem, RecedingState(kept), noise()).actions
    worst = problem.score(better).cost.argmax(1)
    assert (worst == 1).any()
    for row in (worst == 1).nonzero()[:, 0]:
        assert torch.equal(after[row, 0], kept[row, 0]) and not torch.equal(after[row, 1], kept[row, 1])


def test_each_segment_begins_at_the_members_mean_state():
    problem, starts = replace(point(4), horizon=9, criteria=STOP), list[Tensor]()

    class Watched(ICEM):
        def plan(self, problem: Problem, **how: Any) -> Plan:
            starts.append(problem.start)
            return super().plan(problem, **how)

    planner = replace(SEGMENTS, pieces=Watched(iterations=2, samples=64))
    whole = planner.step(problem, RecedingState(problem.resting(1)), noise()).actions[:, 0]
    state = problem.start
    for step, action in enumerate(whole.unbind(1)):
        if step % 3 == 0:
            torch.testing.assert_close(starts[step // 3], state)
        state = problem.dynamics(state.expand(4, -1, -1), action.expand(4, -1, -1)).mean(0)
    assert len(starts) == 3


def test_a_trajectory_longer_than_a_segment_is_found_segment_by_segment():
    problem = make(slide(), tensor([0.0, 0.0]), tensor([20 * STEP, 0.0]), horizon=40, criteria=STOP)
    plan = SEGMENTS.plan(problem)
    assert plan.accepted.all() and plan.iterations < SEGMENTS.iterations
    assert torch.equal(plan.actions, SEGMENTS.plan(problem).actions)
    alone = SEGMENTS.pieces.plan(replace(problem, horizon=SEGMENTS.length))
    assert not alone.accepted.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "length: expected a whole number of at least 1, got 0"),
        ({"commit": 2.5}, "commit: expected a whole number"),
        ({"commit": 7, "length": 6}, "commit: expected at most the length of a segment, 6, got 7"),
        ({"pieces": ICEM}, "pieces: expected a Planner, got <class"),
        ({"pieces": "ICEM"}, "pieces: expected a Planner, got 'ICEM'"),
    ],
)
def test_wrong_segment_planners_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Receding(**{"pieces": ICEM(), **settings})
