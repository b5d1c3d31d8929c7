"""What every planner promises, on toy problems whose answers are known: each test runs over all of `PLANNERS`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import problems
import pytest
import torch
from problems import NEVER, PROBLEMS, make, moved, noise, point, rows, slide, tensor
from torch import Tensor

from grasp_agent.planners import (
    CEM,
    GRASP,
    ICEM,
    ILQR,
    MPPI,
    Adam,
    Candidates,
    Collocation,
    Coloured,
    Descent,
    Gradient,
    GradientShooting,
    LiftedNewton,
    Line,
    NoiseSource,
    Plan,
    Planner,
    Portfolio,
    Problem,
    Receding,
    Recombination,
    Relaxation,
    Roadmap,
    Rollout,
    Tracking,
)

# torch's own forward-mode derivatives still use what torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

PAPER = GRASP.paper(iterations=200, sigma=0.02)
FAST = Relaxation(states=Adam(lr=0.1), actions=Gradient(optimiser=Adam(lr=0.05)), goal_weight=1.0)
PLAIN_DESCENT = Relaxation(actions=Gradient(optimiser=Descent(lr=4.0)), goal_weight=0.1)
LIFTED = GRASP(candidates=8, iterations=20, verify_every=5, opening=0, sync_every=5, sigma=0.02)
PORTFOLIO = Portfolio(first=Roadmap(), second=Line())
PLANNERS: dict[str, Planner[Any]] = {
    "default": GRASP(),
    "paper": PAPER,
    "adam, shooting": replace(PAPER, candidates=8, update=FAST, sync_every=50),
    "descent, tracking": replace(
        PAPER,
        candidates=4,
        verify_every=20,
        initial=Rollout(),
        update=PLAIN_DESCENT,
        sync=Tracking(),
        sync_every=20,
    ),
    "roadmap, tracking": replace(LIFTED, candidates=4, proposals=Roadmap(otherwise=Line()), sync=Tracking()),
    "portfolio, ilqr": replace(LIFTED, proposals=None, initial=PORTFOLIO, sync=ILQR(candidates=1, iterations=8)),
    "newton, tracking": replace(LIFTED, update=LiftedNewton(), sync=Tracking()),
    "recombination": replace(LIFTED, recombination=Recombination()),
    "cem as sync": replace(LIFTED, sync=CEM(iterations=6, samples=48, elites=6)),
    "gradient shooting": GradientShooting(candidates=4),
    "ilqr": ILQR(candidates=4),
    "cem": CEM(samples=200, elites=20),
    "icem": ICEM(),
    "icem, factored": ICEM(samples=128, factored=True),
    "mppi": MPPI(samples=200, noise=Coloured(beta=2.0)),
    "collocation": Collocation(candidates=4, hold=1, running=0.0),
    "receding": Receding(pieces=ICEM(iterations=3, samples=64), length=6, commit=3),
}
# Only a roadmap has routes around a wall; samples may find one. Straight lines do not determine velocities.
MAY_NOT = [(name, "wall") for name in ("paper", "adam, shooting", "descent, tracking")]
MAY_NOT += [(name, "double integrator") for name in ("descent, tracking", "roadmap, tracking")]
MAY_NOT += [(name, "wall") for name, planner in PLANNERS.items() if not isinstance(planner, GRASP)]

PLAIN = replace(PAPER, iterations=8, verify_every=1)
every_planner = pytest.mark.parametrize("name", PLANNERS)
every_problem = pytest.mark.parametrize("task", PROBLEMS)


def unending(problem: Problem) -> Problem:
    return replace(problem, criteria=NEVER)


def brief(planner: Planner[Any], iterations: int = 8) -> Planner[Any]:
    """Few iterations, a sync among them."""
    planner = replace(planner, iterations=iterations, verify_every=3)
    return replace(planner, sync_every=4) if isinstance(planner, GRASP) else planner


def tensors(state: Any) -> Iterator[Tensor]:
    """All tensors in a planner's state."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, tuple):
        for part in state:
            yield from tensors(part)


def perfect(problem: Problem) -> Tensor:
    """Returns actions `[B, H, A]` that bring `point` to its targets: eight steps of 1/4 of half the path, then rest."""
    actions = problem.clamp((problems.TARGETS - problems.STARTS)[:, None] / 2).repeat(1, problem.horizon, 1)
    actions[:, 8:] = 0
    return actions


def inside(plan: Plan, problem: Problem) -> bool:
    """Whether a plan is finite and within its bounds."""
    bounded = ((plan.actions >= problem.low) & (plan.actions <= problem.high)).all()
    return bool(bounded & plan.actions.isfinite().all() & plan.states.isfinite().all())


@every_planner
@every_problem
def test_a_planner_solves_what_it_should_inside_the_bounds(name: str, task: str):
    problem = PROBLEMS[task]()
    plan = PLANNERS[name].plan(problem)
    assert inside(plan, problem)
    state = problem.start
    for t in range(problem.horizon):  # with members that differ by 3 %, one alone ends a little elsewhere
        state = problem.dynamics(
            state.expand(problem.members, -1, -1), plan.actions[:, t].expand(problem.members, -1, -1)
        )
        state = state.mean(0)
    arrived = problem.scoring.distances(state[:, None, None])[:, 0, 0].amax(-1) <= 1
    assert (arrived | ~plan.accepted).all()
    if (name, task) not in MAY_NOT:
        assert plan.accepted.all()


@every_planner
@every_problem
def test_the_states_of_a_plan_are_the_rollout_of_its_actions(name: str, task: str):
    problem = unending(PROBLEMS[task]())
    plan = brief(PLANNERS[name]).plan(problem)
    expected = problem.rollout(plan.actions[:, None]).mean(0)[:, 0]
    torch.testing.assert_close(plan.states, expected)
    if problem.members == 1:
        state, path = problem.start, []
        for action in plan.actions.unbind(1):
            state = problem.dynamics(state[None], action[None])[0]
            path.append(state)
        torch.testing.assert_close(plan.states, torch.stack(path, 1))


@every_planner
def test_the_same_seed_gives_the_same_plan_and_another_seed_other_noise(name: str):
    problem, seen = unending(point(4)), []
    plans = [
        brief(PLANNERS[name]).plan(problem, seed=seed, on_step=lambda i, s: seen.append(s) if i == 8 else None)
        for seed in (3, 3, 4)
    ]
    assert torch.equal(plans[0].actions, plans[1].actions)
    first, same, other = (list(tensors(state)) for state in seen)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@every_planner
@pytest.mark.parametrize(
    ("task", "running"),
    [
        ("four points", True),
        ("double integrator", False),
        ("wall", False),
        ("blocks", False),
        ("blocks", True),
    ],
)
def test_rows_of_a_batch_do_not_mix(name: str, task: str, running: bool):
    problem = unending(problems.several() if task == "blocks" else PROBLEMS[task]())
    planner = brief(PLANNERS[name], 4)
    warm = 0.3 * noise(7).normal(problem.size, problem.horizon, problem.low.shape[0]) if running else None
    together = planner.plan(problem, warm=warm)
    order = torch.arange(problem.size).roll(2)

    def part(chosen: Tensor) -> Plan:
        return planner.plan(rows(problem, chosen.tolist()), warm=None if warm is None else warm[chosen])

    torch.testing.assert_close(part(order).actions, together.actions[order])
    for row in {0, problem.size - 1}:
        alone = part(torch.tensor([row]))
        torch.testing.assert_close(alone.actions[0], together.actions[row])
        torch.testing.assert_close(alone.cost[0], together.cost[row])


@every_planner
@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"))],
)
def test_what_products_use_works_in_single_precision_and_on_a_gpu(name: str, device: str):
    problem = unending(moved(problems.wall(), torch.float32, torch.device(device)))
    plan = brief(PLANNERS[name]).plan(problem)
    assert inside(plan, problem)
    assert plan.actions.dtype == torch.float32
    assert plan.actions.device.type == device
    assert plan.cost.isfinite().all()


@every_planner
def test_an_accepted_warm_plan_costs_no_iteration_and_a_better_one_is_never_lost(name: str):
    problem = point()
    warm = GRASP().plan(problem).actions
    again = PLANNERS[name].plan(problem, warm=warm, on_step=lambda *_: pytest.fail("planned again"))
    assert again.iterations == 0
    assert torch.equal(again.actions, warm)
    problem = unending(problem)
    best = perfect(problem)
    plan = brief(PLANNERS[name]).plan(problem, warm=best)
    assert (plan.cost <= problem.score(best[:, None]).cost[:, 0]).all()


@every_planner
def test_proposals_are_scored_first_and_a_good_one_costs_no_iteration(name: str):
    problem, asked = point(), []

    def known(problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        asked.append(count)
        actions = perfect(problem)[:, None].expand(-1, count, -1, -1)
        return Candidates(problem.follow(actions), actions)

    planner = replace(PLANNERS[name], proposals=known, proposed=3)
    plan = planner.plan(problem, on_step=lambda *_: pytest.fail("planned although a proposal was good"))
    assert (plan.iterations, asked) == (0, [3])
    assert plan.accepted.all()
    assert torch.equal(plan.actions, perfect(problem))
    never = unending(problem)
    plan = replace(brief(PLANNERS[name]), proposals=known).plan(never)
    assert plan.iterations == 8
    assert (plan.cost <= never.score(perfect(never)[:, None]).cost[:, 0]).all()


@every_planner
@pytest.mark.parametrize("task", ["point", "four points"])
def test_given_candidates_keep_their_indices_stay_in_bounds_and_improve(name: str, task: str):
    problem = PROBLEMS[task]()
    given = Rollout()(problem, 12, noise(1))
    assert torch.equal(brief(PLANNERS[name], 0).refine(problem, given, noise()), given.actions)
    refined = brief(PLANNERS[name]).refine(problem, given, noise())
    assert refined.shape == given.actions.shape
    assert (refined == problem.clamp(refined)).all()
    before, after = (problem.scoring.merit(problem.follow(actions)) for actions in (given.actions, refined))
    assert (after.mean(1) < before.mean(1)).all()


@every_planner
def test_a_model_that_is_not_finite_gives_a_finite_plan_of_infinite_cost(name: str):
    problem = make(problems.nowhere)
    plan = PLANNERS[name].plan(problem, warm=torch.full((5, 12, 2), torch.nan, dtype=torch.float64))
    assert inside(plan, problem)
    assert plan.cost.isinf().all()
    assert not plan.accepted.any()


@every_planner
def test_where_a_model_is_not_a_number_other_problems_are_still_solved(name: str):
    start, target = tensor([-1.5, -0.7], [-0.2, 0.4], [0.8, 0.0]), tensor([-1.3, 0.2], [0.9, 0.4], [0.7, 0.0])
    problem = make(problems.nowhere_right, start, target)
    plan = PLANNERS[name].plan(problem)
    assert inside(plan, problem)
    assert plan.accepted.tolist() == [True, False, False]
    assert plan.cost.isinf().tolist() == [False, False, True]


def test_a_number_lost_once_does_not_end_the_search():
    calls: list[int] = []

    def once_nothing(state: Tensor, action: Tensor) -> Tensor:
        calls.append(0)
        return slide()(state, action) * (torch.nan if len(calls) == 13 else 1)  # the call after the first rollout

    problem, seen = unending(make(once_nothing)), []
    PLAIN.plan(problem, on_step=lambda _, state: seen.append(state.actions))
    assert seen[-1].isfinite().all()


@every_planner
def test_a_time_budget_is_kept(name: str):
    problem = unending(make(problems.Slow(slide(), 0.001)))
    plan = replace(brief(PLANNERS[name], 1000), budget=0.2).plan(problem)
    assert plan.seconds < 1.0  # without a budget: 1000 model calls at least, and more than 1 s of sleep alone
    assert 0 < plan.iterations < 1000
    assert plan.cost.isfinite().all()


@every_planner
def test_a_tiny_time_budget_still_gives_a_finite_plan(name: str):
    problem = make(problems.Slow(slide(), 0.002))
    for warm in (None, torch.zeros(5, 12, 2, dtype=torch.float64)):
        plan = replace(PLANNERS[name], budget=1e-9).plan(problem, warm=warm)
        assert inside(plan, problem)
        assert plan.iterations == 0
