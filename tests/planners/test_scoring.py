"""Scores of candidates: support, disagreement, and the excursion after a plan has reached the goal."""

from __future__ import annotations

from dataclasses import replace

import problems
import pytest
import torch
from problems import make, noise, point, several, slide, tensor
from torch import Tensor

from grasp_agent.planners import Criteria, Line, Problem, Support, Tracking


def test_the_support_is_the_balls_around_its_points():
    support = Support(tensor([0.0, 0.0], [3.0, 4.0]), 1.0)
    states = tensor([0.0, 0.99], [0.0, 1.01], [3.9, 4.0], [2.0, 2.0])
    assert support.off(states).tolist() == [[False], [True], [False], [True]]
    assert support.off(states.view(2, 1, 2, 2))[..., 0].tolist() == [[[False, True]], [[False, True]]]
    nearest = tensor([0.0, 0.0], [0.0, 0.0], [3.0, 4.0], [3.0, 4.0])
    assert torch.equal(support.nearest(states.view(2, 2, 2)).view(4, 2), nearest)


def quarters(horizon: int, radius: float, criteria: Criteria) -> tuple[Problem, Tensor]:
    """Returns a path of four steps, 1/4, 1/2, 3/4, 1, to the goal, which is held; the support is near the start."""
    problem = make(slide(), tensor([0.0, 0.0]), tensor([1.0, 0.0]), horizon=horizon, criteria=criteria)
    actions = torch.zeros(1, 1, horizon, 2, dtype=torch.float64)
    actions[:, :, :4, 0] = 1
    return replace(problem, support=Support(tensor([0.0, 0.0]), radius)), actions


@pytest.mark.parametrize("horizon", [4, 8, 40])
@pytest.mark.parametrize(("radius", "strays"), [(0.8, 0), (0.6, 1), (0.3, 2), (0.1, 3)])
def test_each_step_off_the_support_costs_what_the_criteria_say_however_long_the_plan(
    horizon: int, radius: float, strays: int
):
    problem, actions = quarters(horizon, radius, Criteria(hold=1, running=0.0, off_support=10.0, stride=1))
    verdict = problem.score(actions)  # the goal is off the support, too, but costs nothing
    assert verdict.cost.item() == pytest.approx(10 * strays)
    assert verdict.accepted.item() == (strays == 0)
    assert problem.scoring.merit(problem.follow(actions)).item() == pytest.approx(10 * strays)
    assert replace(problem, support=None).score(actions).accepted.item()
    blind = replace(problem, criteria=replace(problem.criteria, off_support=0.0))
    assert blind.score(actions).cost.item() == pytest.approx(0)


@pytest.mark.parametrize("horizon", [4, 40])
@pytest.mark.parametrize(("radius", "accepted"), [(0.3, True), (0.1, False)])
def test_three_steps_off_the_support_are_too_many(horizon: int, radius: float, accepted: bool):
    problem, actions = quarters(horizon, radius, Criteria(hold=1))
    assert problem.score(actions).accepted.item() == accepted


def at_distances(distances: list[list[float]], start: float = 9.0, **rule: float) -> tuple[Problem, Tensor]:
    """A problem and one rollout for each member, at these distances [tolerances] from its goal."""
    criteria = Criteria(hold=1, running=0.0, **rule)  # type: ignore[arg-type]
    problem = make(
        slide(), tensor([0.1 * start, 0.0]), tensor([0.0, 0.0]), horizon=len(distances[0]), criteria=criteria
    )
    positions = 0.1 * torch.tensor(distances, dtype=torch.float64)
    return problem, torch.stack([positions, 0 * positions], -1)[:, None, None]


@pytest.mark.parametrize(
    ("distances", "accepted"),
    [
        ([5.0, 0.5, 0.9, 0.5], True),
        ([5.0, 0.5, 1.1, 0.5], False),  # had come to the goal, and left it
        ([5.0, 0.7, 1.1, 0.5], True),  # had not come there yet
        ([0.5, 0.5, 5.0, 0.5], False),
        ([5.0, 0.5, 0.5, 0.7], False),  # does not end there
    ],
)
def test_a_plan_that_has_come_to_the_goal_must_not_leave_it_again(distances: list[float], accepted: bool):
    problem, rollouts = at_distances([distances])
    verdict = problem.scoring.evaluate(rollouts)
    assert verdict.accepted.tolist() == [[accepted]]
    assert verdict.cost.item() == pytest.approx(distances[-1])
    wide, _ = at_distances([distances], excursion=9.0)
    assert wide.scoring.evaluate(rollouts).accepted.item() == (distances[-1] <= 0.6)
    assert (
        wide.scoring.evaluate(rollouts).cost.item() == verdict.cost.item()
    )  # an excursion refuses a plan; it has no price


@pytest.mark.parametrize(("start", "accepted"), [(0.5, False), (0.7, True)])
def test_a_start_at_the_goal_counts_as_having_come_there(start: float, accepted: bool):
    problem, rollouts = at_distances([[1.1, 0.5, 0.5]], start)
    assert problem.scoring.evaluate(rollouts).accepted.item() == accepted


def test_one_member_that_leaves_the_goal_is_enough_to_refuse():
    stays, leaves, later = [5.0, 0.5, 0.9, 0.5], [5.0, 0.5, 1.1, 0.5], [5.0, 5.0, 1.1, 0.5]
    for members, accepted in (([stays, stays], True), ([stays, leaves], False), ([stays, later], True)):
        problem, rollouts = at_distances(members)
        assert problem.scoring.evaluate(rollouts).accepted.item() == accepted


def test_a_plan_of_blocks_has_come_to_the_goal_when_the_last_block_has():
    problem = several(2, horizon=3, criteria=Criteria(hold=1, running=0.0))
    target = problem.goal.project(problem.start[:, None, None]).expand(-1, 1, 3, -1)
    away = torch.zeros_like(target)
    away[:, :, 1, 0] = 0.15
    together = target + away
    away[:, :, 0, 2] = 0.07  # at the first step the second block is not there yet
    accepted = torch.cat([problem.scoring.evaluate(path[None]).accepted for path in (together, target + away)], 1)
    assert accepted.tolist() == [[False, True]] * 5


@pytest.mark.parametrize("feedback", [True, False])
def test_a_score_is_that_of_the_rollouts(feedback: bool):
    problem = point(4)
    problem = replace(problem, criteria=replace(problem.criteria, feedback=feedback))
    actions = torch.ones(5, 2, 12, 2, dtype=torch.float64)
    for one, other in zip(problem.score(actions), problem.scoring.evaluate(problem.rollout(actions)), strict=True):
        assert torch.equal(one, other)


def test_disagreement_is_the_greatest_distance_from_the_mean_and_costs_what_the_criteria_say():
    problem = point(4)
    actions = torch.ones(5, 2, 12, 2, dtype=torch.float64)
    spread = problem.scoring.disagreement(tensor([0.0], [3.0], [0.0])[:, None, None, None])
    assert spread.tolist() == [[[2.0]]]
    dear = replace(problem, criteria=replace(problem.criteria, disagreement=10.0, feedback=False))
    cheap = replace(dear, criteria=replace(dear.criteria, disagreement=0.0))
    extra = 10 * cheap.scoring.disagreement(cheap.rollout(actions)).mean(-1)
    assert (extra > 0).all()
    torch.testing.assert_close(dear.score(actions).cost, cheap.score(actions).cost + extra)


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_a_state_entry_that_is_not_finite_costs_everything_even_if_the_goal_does_not_name_it(bad: float):
    problem = problems.double_integrator()

    def dynamics(state: Tensor, action: Tensor) -> Tensor:
        return torch.cat([problem.dynamics(state, action)[..., :-1], 0 * action[..., :1] + bad], -1)

    broken = replace(problem, dynamics=dynamics)
    verdict = broken.score(torch.zeros(5, 2, problem.horizon, 2, dtype=torch.float64))
    assert (verdict.cost == torch.inf).all()
    assert not verdict.accepted.any()


def test_unused_members_step_no_candidate_and_alone_score_them():
    problem = make(
        slide(4), tensor([0.0, 0.0]), tensor([1.0, 0.0]), members=4, criteria=Criteria(hold=1, feedback=False, unused=1)
    )
    actions = torch.zeros(1, 8, 6, 2, dtype=torch.float64)
    actions[:, :, :4, 0] = 1
    paths, rollouts = problem.follow(actions), problem.rollout(actions)
    for candidate in range(8):  # eight candidates in equal parts: by two of the three members in use
        torch.testing.assert_close(paths[0, candidate], rollouts[candidate % 2, 0, candidate])
    broken = rollouts.clone()
    broken[:3] = torch.nan
    assert bool(problem.scoring.evaluate(broken).cost.isfinite().all())
    assert torch.equal(problem.scoring.evaluate(broken).states, rollouts[3])
    broken = rollouts.clone()
    broken[3] = torch.nan
    assert not bool(problem.scoring.evaluate(broken).cost.isfinite().any())


def test_at_least_one_member_must_be_in_use():
    with pytest.raises(ValueError, match="fewer than 4 members, got 4"):
        make(slide(4), members=4, criteria=Criteria(unused=4))


def test_a_member_that_only_scores_has_no_part_in_proposals():
    problem = point(4)
    dynamics, jacobian = problem.dynamics, problem.action_jacobian
    assert jacobian is not None

    def broken(values: Tensor) -> Tensor:
        return torch.cat([values[:3], values[3:] * torch.nan])

    def step(state: Tensor, action: Tensor) -> Tensor:
        return broken(dynamics(state, action))

    def linearised(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        following, slopes = jacobian(state, action)
        return broken(following), broken(slopes)

    aware = replace(problem, dynamics=step, action_jacobian=linearised, criteria=Criteria(hold=1, unused=1))
    lines = Line(sigma=0.0)(problem, 2, noise())
    tracked = Tracking(together=True).propose(aware, *lines.pair)
    assert tracked.actions.isfinite().all()
    whole = Tracking(together=True).propose(replace(aware, criteria=Criteria(hold=1)), *lines.pair)
    assert not whole.actions.isfinite().all()
