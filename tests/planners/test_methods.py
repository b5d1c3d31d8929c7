"""One step of each method, GRASP's updates and the other planners, against known answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import problems
import pytest
import torch
from problems import STEP, Counted, double_integrator, make, noise, point, slide, tensor
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
    Criteria,
    Descent,
    GaussNewton,
    Gradient,
    GradientShooting,
    LiftedNewton,
    Line,
    Planner,
    Problem,
    Relaxation,
    Roadmap,
    Rollout,
    Tracking,
    lifted_loss,
)

# torch's own forward-mode derivatives still use what torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

UPDATES = {
    "action_pullback": Relaxation(actions=Gradient(optimiser=Adam(lr=0.1))),
    "action_jacobian": Relaxation(actions=GaussNewton()),
    "action_jacobian, newton": LiftedNewton(),
}


def stepped(planner: Planner[Any], problem: Problem, counted: Counted) -> Any:
    """The state after one step, whose model calls are counted."""
    state = planner.init(problem, None, noise())
    counted.calls.clear()
    return planner.step(problem, state, noise())


@pytest.mark.parametrize("members", [1, 4])
@pytest.mark.parametrize("kind", UPDATES)
@pytest.mark.parametrize("own", [True, False])
def test_a_lifted_iteration_is_one_model_call_without_the_derivative_by_the_state(members: int, kind: str, own: bool):
    counted = Counted(point(members))
    problem = counted.problem if own else replace(counted.problem, action_jacobian=None, action_pullback=None)
    state = stepped(GRASP(candidates=8, update=UPDATES[kind], sync_every=100, opening=0), problem, counted)
    assert counted.calls == [(kind.split(",")[0] if own else "dynamics", 5 * 8 * 12)]
    assert not counted.state_wanted_gradient
    assert not state.states.requires_grad
    assert not state.actions.requires_grad


def grasp(update: Any) -> GRASP:
    return GRASP(candidates=4, update=update, sync_every=100, opening=0)


GROWTH = {
    "relaxation": (grasp(Relaxation()), lambda h: 1),
    "gradient": (grasp(UPDATES["action_pullback"]), lambda h: 1),
    "newton": (grasp(LiftedNewton()), lambda h: 1),
    "collocation": (Collocation(candidates=4), lambda h: 1),
    "gradient shooting": (GradientShooting(candidates=4), lambda h: h),
    "ilqr": (ILQR(candidates=4), lambda h: h + 1),
    "cem": (CEM(samples=8, elites=2), lambda h: h),
    "mppi": (MPPI(samples=8), lambda h: h),
}


@pytest.mark.parametrize("name", GROWTH)
def test_the_model_calls_of_an_iteration_grow_with_the_horizon_only_where_the_rollout_is_serial(name: str):
    planner, expected = GROWTH[name]
    for horizon in (5, 10, 40):
        counted = Counted(replace(point(), horizon=horizon))
        stepped(planner, counted.problem, counted)
        assert len(counted.calls) == expected(horizon)


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
    descent = Relaxation(states=Descent(lr=0.25), actions=Gradient(optimiser=Descent(lr=1.0)), goal_weight=1.0)
    planner = replace(GRASP.paper(), update=descent, sigma=0.0)
    moved = planner.step(problem, planner._fresh(Candidates(states, actions), 0), noise())
    # States move halfway to their predictions, the last stays at the goal.
    torch.testing.assert_close(moved.states[0, 0], tensor([0.625, 0.0], [1.0, 1.0]))
    # Each action: its value - 2 * STEP * (residual + distance to the goal), clamped.
    torch.testing.assert_close(moved.actions[0, 0], tensor([1.0, 0.5], [0.0, 1.0]))


@pytest.mark.parametrize("goal_weight", [0.0, 0.3])
@pytest.mark.parametrize("own", [True, False])
def test_the_published_step_follows_the_gradient_of_the_lifted_loss(goal_weight: float, own: bool):
    counted = Counted(double_integrator())
    problem = counted.problem if own else replace(counted.problem, action_pullback=None)
    candidates = Line(sigma=0.5)(problem, 3, noise())
    states, actions = (values.clone().requires_grad_() for values in candidates.pair)
    loss = lifted_loss(problem, states, actions, goal_weight).sum()
    by_states, by_actions = torch.autograd.grad(loss, (states, actions))
    update = Relaxation(states=Descent(lr=0.1), actions=Gradient(optimiser=Descent(lr=0.5)), goal_weight=goal_weight)
    moved, _ = update.apply(problem, candidates, update.start(candidates), 1.0)
    torch.testing.assert_close(moved.states, candidates.states - 0.1 * by_states)
    torch.testing.assert_close(moved.actions, candidates.actions - 0.5 * by_actions)


@pytest.mark.parametrize("pinned", [1, 4, 50])
def test_the_last_virtual_states_are_moved_to_the_goal(pinned: int):
    problem = point()
    planner = GRASP(candidates=3, opening=0, pinned=pinned, sync_every=2)
    state = planner.init(problem, None, noise())
    for _ in range(3):  # the first, after an iteration, after a sync
        at_goal = problem.scoring.distances(state.states)[..., 0] == 0
        assert at_goal[:, :, -pinned:].all()
        assert not at_goal[:, :, :-pinned].any()
        state = planner.step(problem, state, noise())


def linear_quadratic() -> tuple[Problem, Tensor]:
    """A double integrator with bounds that never matter, and the actions `[B, H, A]` that ILQR's cost is lowest for."""
    problem = replace(double_integrator(), low=tensor(-50.0, -50.0), high=tensor(50.0, 50.0))
    rule = ILQR()
    # Positions are linear in the actions: the optimum is one weighted least-squares problem for each axis.
    unit = torch.eye(16, dtype=torch.float64)[:, None, :, None].expand(-1, -1, -1, 2)
    still = replace(problem, start=torch.zeros(16, 4).double())
    response = still.follow(unit)[:, 0, :, 0].T
    weights = torch.full((16,), rule.running / 16, dtype=torch.float64)
    weights[-rule.hold :] += 1 / rule.hold
    matrix = torch.cat([weights.sqrt()[:, None] * response, (rule.effort / 16) ** 0.5 * torch.eye(16).double()])
    wanted = 0.7 * problems.TARGETS - problems.STARTS
    right = torch.cat([weights.sqrt()[:, None].expand(-1, 10) * wanted.reshape(1, 10), torch.zeros(16, 10).double()])
    return problem, torch.linalg.lstsq(matrix, right).solution.T.reshape(5, 2, 16).mT


def test_ilqr_finds_the_optimum_of_a_linear_quadratic_problem():
    problem, best = linear_quadratic()
    rest = problem.resting(1)
    found = ILQR(iterations=200, damping=1e-6).refine(problem, Candidates(problem.follow(rest), rest), noise())
    torch.testing.assert_close(found[:, 0], best, atol=1e-3, rtol=1e-3)


def test_a_sweep_of_ilqr_never_raises_a_candidates_cost_and_shortens_what_failed():
    # Where the slope of the sine is small a full step goes much too far.
    problem = make(lambda state, action: state + STEP * torch.sin(4 * action))
    planner = ILQR(candidates=8, damping=1e-6)
    state = first = planner.init(problem, None, noise())
    failed = torch.zeros_like(first.cost, dtype=torch.bool)
    for _ in range(6):
        following = planner.step(problem, state, noise())
        assert (following.cost <= state.cost).all()
        torch.testing.assert_close(following.states, problem.follow(following.actions))
        same = following.cost == state.cost
        assert torch.equal(following.scale, torch.where(same, state.scale / 4, (2 * state.scale).clamp_max(1)))
        state, failed = following, failed | same
    assert failed.any()
    assert (state.cost < 0.5 * first.cost).any()


@pytest.mark.parametrize("start", ["rollout", "gaps"])
def test_one_lifted_newton_step_solves_a_linear_quadratic_problem(start: str):
    problem, best = linear_quadratic()
    given = Rollout()(problem, 3, noise(1))
    if start == "gaps":
        given = Candidates(noise(2).normal(*given.states.shape), given.actions)
    moved, _ = LiftedNewton(damping=1e-13).apply(problem, given, None, 1.0)
    torch.testing.assert_close(moved.actions, best[:, None].expand_as(moved.actions), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(moved.states, problem.follow(moved.actions))  # the gaps are closed
    half, _ = LiftedNewton(damping=1e-13, step_size=0.5).apply(problem, given, None, 1.0)
    for values, old, new in zip(half.pair, given.pair, moved.pair, strict=True):
        torch.testing.assert_close(values, (old + new) / 2)


def test_a_lifted_newton_step_stays_in_bounds_and_its_states_follow_the_clamped_actions():
    problem = double_integrator()
    moved, _ = LiftedNewton(damping=1e-9).apply(problem, Rollout()(problem, 3, noise(1)), None, 1.0)
    assert (moved.actions == problem.clamp(moved.actions)).all()
    assert (moved.actions.abs() == 1).any()
    torch.testing.assert_close(moved.states, problem.follow(moved.actions))


def test_gradient_shooting_steps_along_the_gradient_of_the_rollout():
    problem = point()
    planner = GradientShooting.sync(lr=0.2)
    state = planner.init(problem, None, noise())
    missed = (problem.follow(state.actions)[:, :, -1] - problems.TARGETS[:, None])[:, :, None]
    moved = planner.step(problem, state, noise())
    torch.testing.assert_close(moved.actions, problem.clamp(state.actions - 0.2 * 2 * STEP * missed))


@pytest.mark.parametrize("planner", [GradientShooting.paper(iterations=100), Collocation.paper()])
def test_the_published_baselines_reach_goals_in_free_space(planner: Planner[Any]):
    problem = replace(point(), low=tensor(-9.0, -9.0), high=tensor(9.0, 9.0))
    assert planner.plan(problem).accepted.all()


@pytest.mark.parametrize(
    ("make_it", "words"),
    [
        (lambda: CEM(samples=300.0), "samples: expected a whole number"),  # type: ignore[arg-type]
        (lambda: ILQR(damping=-1), "damping: expected at least 0"),
        (lambda: ILQR(effort=float("nan")), "effort: expected at least 0"),
        (lambda: Tracking(damping=-1), "damping: expected at least 0"),
        (lambda: Adam(lr=0.1, beta1=2), "beta1: expected a fraction"),
        (lambda: Coloured(beta=-3), "beta: expected at least 0"),
        (lambda: Criteria(hold=2.5), "hold: expected a whole number"),  # type: ignore[arg-type]
        (lambda: Criteria(accept=float("nan")), "accept: expected"),
        (lambda: Criteria(unused=True), "unused: expected a whole number"),
        (lambda: GRASP(sigma=float("inf")), "sigma: expected at least 0"),
        (lambda: GRASP(sync_every=2.5), "sync_every: expected a whole number"),  # type: ignore[arg-type]
        (lambda: GradientShooting(running=float("nan")), "running: expected at least 0"),
        (lambda: Roadmap(stretch=0), "stretch: expected more than 0"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(make_it: Callable[[], object], words: str):
    with pytest.raises(ValueError, match=words):
        make_it()


def test_the_error_for_a_model_without_derivatives_says_what_to_do():
    problem = make(slide(3), members=3)
    plain = replace(problem, dynamics=torch.no_grad()(problem.dynamics))
    with pytest.raises(ValueError, match="expected a derivative by the action, got none"):
        ICEM().plan(plain)
    blind = replace(plain, criteria=Criteria(hold=1, feedback=False))
    assert ICEM().plan(blind).accepted.any()
