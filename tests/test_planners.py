"""What every planner promises, on toy problems whose answers are known, and what GRASP promises of itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import problems
import pytest
import torch
from problems import PROBLEMS, Counted, make, point, rows, slide, tensor
from torch import Tensor

from grasp_agent.planners import (
    GRASP,
    ILQR,
    Adam,
    Criteria,
    Descent,
    GaussNewton,
    Gradient,
    Line,
    NoiseSource,
    Plan,
    Planner,
    Portfolio,
    Problem,
    Roadmap,
    Rollout,
    Tracking,
    lifted_loss,
)

# torch's own forward-mode derivatives still use what torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

PAPER = GRASP.paper(iterations=200, sigma=0.02)
LIFTED = GRASP(iterations=20, verify_every=5, sync_every=5, sigma=0.02, goal_weight=0.01)
PLANNERS: dict[str, GRASP] = {
    "default": GRASP(),
    "paper": PAPER,
    "adam, shooting": replace(PAPER, candidates=4, action_update=Gradient(optimiser=Adam(lr=0.05)), sync_every=50),
    "descent, tracking": replace(
        PAPER,
        candidates=4,
        verify_every=20,
        initial=Rollout(),
        state_update=Descent(lr=0.25),
        action_update=Gradient(optimiser=Descent(lr=4.0)),
        goal_weight=0.1,
        sync=Tracking(),
        sync_every=20,
    ),
    "roadmap, tracking": replace(
        LIFTED, candidates=4, initial=Roadmap(otherwise=Line()), sync=Tracking(), action_update=GaussNewton()
    ),
    "portfolio, ilqr": replace(
        LIFTED, candidates=8, initial=Portfolio(first=Roadmap(), second=Line()), sync=ILQR(steps=8)
    ),
}
# Only a roadmap knows the way around a wall; and following straight lines says nothing of velocities.
CANNOT = [(name, "wall") for name in ("paper", "adam, shooting", "descent, tracking")]
MAY_NOT = [(name, "double integrator") for name in ("descent, tracking", "roadmap, tracking")]
NEVER = Criteria(hold=1, accept=-1.0)  # nothing is good enough: every iteration is done

PLAIN = replace(PAPER, iterations=8, verify_every=1, state_update=Adam(lr=0.1))
every_planner = pytest.mark.parametrize("name", PLANNERS)
every_problem = pytest.mark.parametrize("task", PROBLEMS)


def unending(problem: Problem) -> Problem:
    return replace(problem, criteria=NEVER)


def brief(planner: GRASP) -> GRASP:
    """Few iterations, a sync among them."""
    return replace(planner, iterations=8, verify_every=3, sync_every=4)


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
    arrived = problem.distance(state[:, None, None])[:, 0, 0] <= 1
    assert (arrived | ~plan.accepted).all()
    if (name, task) not in MAY_NOT:
        assert plan.accepted.tolist() == [(name, task) not in CANNOT] * problem.size


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
        brief(PLANNERS[name]).plan(problem, seed=seed, on_step=lambda i, s: seen.append(s.states) if i == 8 else None)
        for seed in (3, 3, 4)
    ]
    assert torch.equal(plans[0].actions, plans[1].actions)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


@every_planner
@pytest.mark.parametrize("task", ["point", "four points", "double integrator"])
def test_rows_of_a_batch_do_not_mix(name: str, task: str):
    problem = unending(PROBLEMS[task]())
    planner = brief(PLANNERS[name])
    together = planner.plan(problem)
    order = [3, 0, 4, 2, 1]
    torch.testing.assert_close(planner.plan(rows(problem, order)).actions, together.actions[order])
    for row in range(5):
        alone = planner.plan(rows(problem, [row]))
        torch.testing.assert_close(alone.actions[0], together.actions[row])
        torch.testing.assert_close(alone.cost[0], together.cost[row])


@every_planner
def test_an_accepted_warm_plan_costs_no_iteration_and_a_better_one_is_never_lost(name: str):
    problem = point()
    warm = GRASP().plan(problem).actions
    again = PLANNERS[name].plan(problem, warm=warm, on_step=lambda *_: pytest.fail("planned again"))
    assert again.iterations == 0
    assert torch.equal(again.actions, warm)
    problem = unending(problem)
    perfect = problem.clamp((problems.TARGETS - problems.STARTS)[:, None] / 2).repeat(1, 12, 1)
    perfect[:, 8:] = 0  # eight steps of 1/4 of half the way
    plan = brief(PLANNERS[name]).plan(problem, warm=perfect)
    assert (plan.cost <= problem.score(perfect[:, None]).cost[:, 0]).all()


@every_planner
def test_a_model_without_numbers_gives_a_finite_plan_that_says_so(name: str):
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


class Script(NamedTuple):
    done: int
    actions: Tensor


@dataclass(frozen=True, kw_only=True)
class Scripted(Planner[Script]):
    """Offers given constant actions, one after the other."""

    script: tuple[float, ...]

    def init(self, problem: Problem, warm: Tensor | None, noise: NoiseSource) -> Script:
        return Script(0, self._constant(problem, 0))

    def step(self, problem: Problem, state: Script, noise: NoiseSource) -> Script:
        return Script(state.done + 1, self._constant(problem, state.done + 1))

    def actions(self, problem: Problem, state: Script) -> Tensor:
        return state.actions

    def _constant(self, problem: Problem, count: int) -> Tensor:
        return torch.full((problem.size, 1, problem.horizon, 2), self.script[count], dtype=torch.float64)


def diagonal(criteria: Criteria = NEVER) -> Problem:
    """From the origin to (1, 1) and (9, 9) in 12 steps: actions 1/3 arrive at the first, 1 come nearest the other."""
    return make(slide(), torch.zeros(2, 2).double(), tensor([1.0, 1.0], [9.0, 9.0]), criteria=criteria)


def test_the_driver_keeps_the_best_candidate_of_each_problem_and_clamps():
    plan = Scripted(iterations=4, script=(0.0, 1 / 3, 7.0, torch.nan, -1.0)).plan(diagonal())
    torch.testing.assert_close(plan.actions[:, 0, 0], tensor(1 / 3, 1.0))
    assert plan.iterations == 4


def test_an_accepted_problem_keeps_its_plan_while_others_go_on():
    plan = Scripted(iterations=2, script=(0.0, 0.32, 1 / 3)).plan(diagonal(Criteria(hold=1)))
    assert plan.accepted.tolist() == [True, False]
    assert plan.actions[0, 0, 0] == 0.32


def test_the_last_iteration_is_always_judged_and_every_one_is_shown():
    shown: list[int] = []
    planner = Scripted(iterations=5, verify_every=3, script=(0.0, 0.1, 0.1, 0.1, 0.1, 1 / 3))
    plan = planner.plan(diagonal(), on_step=lambda i, _: shown.append(i))
    torch.testing.assert_close(plan.actions[0, 0, 0], tensor(1 / 3)[0])
    assert shown == [0, 1, 2, 3, 4, 5]


def test_a_time_budget_is_kept():
    problem = unending(make(problems.Slow(slide(), 0.002)))
    plan = GRASP(budget=0.2, iterations=60).plan(problem)
    assert plan.seconds < 1.0  # without a budget: 60 iterations and 20 syncs, more than 2 s of sleep alone
    assert 0 < plan.iterations < 60
    assert plan.cost.isfinite().all()


def test_a_tiny_time_budget_still_gives_a_finite_plan():
    problem = make(problems.Slow(slide(), 0.002))
    for warm in (None, torch.zeros(5, 12, 2, dtype=torch.float64)):
        plan = GRASP(budget=1e-9).plan(problem, warm=warm)
        assert inside(plan, problem)
        assert plan.iterations == 0


@pytest.mark.parametrize("members", [1, 4])
@pytest.mark.parametrize("update", [Gradient(optimiser=Adam(lr=0.1)), GaussNewton()])
@pytest.mark.parametrize("own_jacobian", [True, False])
def test_a_lifted_iteration_is_one_model_call_without_the_derivative_by_the_state(
    members: int, update: Any, own_jacobian: bool
):
    counted = Counted(point(members))
    problem = counted.problem if own_jacobian else replace(counted.problem, action_jacobian=None)
    planner = GRASP(candidates=8, initial=Line(), action_update=update, sync_every=100, opening=0)
    noise = NoiseSource(0, torch.device("cpu"), torch.float64)
    state = planner.init(problem, None, noise)
    counted.calls.clear()
    state = planner.step(problem, state, noise)
    called = "action_jacobian" if own_jacobian and isinstance(update, GaussNewton) else "dynamics"
    assert counted.calls == [(called, 5 * 8 * 12)]
    assert not counted.state_wanted_gradient
    assert not state.states.requires_grad
    assert not state.actions.requires_grad


def test_disagreement_is_the_greatest_distance_from_the_mean_and_costs_what_the_criteria_say():
    problem = point(4)
    actions = torch.ones(5, 2, 12, 2, dtype=torch.float64)
    spread = problem.disagreement(tensor([0.0], [3.0], [0.0])[:, None, None, None])
    assert spread.tolist() == [[[2.0]]]
    dear = replace(problem, criteria=replace(problem.criteria, disagreement=10.0, feedback=False))
    cheap = replace(dear, criteria=replace(dear.criteria, disagreement=0.0))
    extra = 10 * cheap.disagreement(cheap.rollout(actions)).mean(-1)
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


def hand_made() -> tuple[Problem, Tensor, Tensor]:
    problem = make(slide(), tensor([0.0, 0.0]), tensor([1.0, 1.0]), horizon=2)
    states, actions = tensor([1.0, 0.0], [1.0, 1.0]), tensor([1.0, 0.0], [0.0, 1.0])
    return problem, states[None, None], actions[None, None]


def test_the_lifted_loss_is_what_the_paper_says():
    problem, states, actions = hand_made()
    # Predictions (1/4, 0) and (1, 1/4): two residuals of 3/4; distances to the goal 9/16 + 1 and 9/16.
    assert lifted_loss(problem, states, actions, 0.0).item() == pytest.approx(18 / 16)
    assert lifted_loss(problem, states, actions, 0.5).item() == pytest.approx(18 / 16 + 0.5 * 34 / 16)
    assert lifted_loss(problem, problem.follow(actions), actions, 0.0).item() == 0
    assert lifted_loss(problem, problem.follow(actions), actions, 1.0).item() > 0
    leaf = states.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(lifted_loss(problem, leaf, actions, 1.0).sum(), leaf)
    torch.testing.assert_close(gradient[0, 0], 2 * tensor([0.75, 0.0], [0.0, 0.75]))  # none through the model


def test_one_iteration_moves_states_and_actions_as_the_paper_says():
    problem, states, actions = hand_made()
    planner = replace(PAPER, state_update=Descent(lr=0.25), action_update=Gradient(optimiser=Descent(lr=1.0)), sigma=0)
    moved = planner.step(problem, planner._fresh(states, actions, 0), NoiseSource(0, torch.device("cpu"), states.dtype))
    # States go half of the way to their predictions, the last stays at the goal.
    torch.testing.assert_close(moved.states[0, 0], tensor([0.625, 0.0], [1.0, 1.0]))
    # Each action: its value - 2 * STEP * (residual + distance to the goal), clamped.
    torch.testing.assert_close(moved.actions[0, 0], tensor([1.0, 0.5], [0.0, 1.0]))
