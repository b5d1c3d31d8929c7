"""One step of each method, GRASP's updates and the other planners, against known answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import problems
import pytest
import torch
from problems import STEP, Counted, double_integrator, make, noise, point, several, slide, tensor
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
from grasp_agent.planners.base import _repair
from grasp_agent.planners.noise import NoiseSource

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


def test_a_collocation_step_solves_the_normal_equations():
    planner, (batch, count, horizon, size, action_size) = Collocation(damping=0.01), (2, 3, 5, 3, 2)
    source = noise()
    by_state, by_action = (source.normal(batch, count, horizon, size, n) for n in (size, action_size))
    gaps, slope = (source.normal(batch, count, horizon, size) for _ in range(2))
    bend = source.normal(batch, count, horizon, size, size)
    bend = bend @ bend.mT
    multipliers = source.normal(batch, count, horizon).exp()
    d_states, d_actions = planner._solve(by_state, by_action, gaps, multipliers, slope, bend)
    # All residuals |A_t ds_t + B_t da_t + gap_t - ds_{t+1}| and the goal's quadratic in one dense system.
    states, actions = horizon * size, horizon * action_size
    for b in range(batch):
        for n in range(count):
            jacobian = torch.zeros(states, states + actions, dtype=torch.float64)
            jacobian[:, :states] = -torch.eye(states)
            for t in range(horizon):
                row = slice(t * size, (t + 1) * size)
                if t:
                    jacobian[row, (t - 1) * size : t * size] = by_state[b, n, t]
                jacobian[row, states + t * action_size : states + (t + 1) * action_size] = by_action[b, n, t]
            weighted = jacobian.T * multipliers[b, n].repeat_interleave(size)
            matrix = weighted @ jacobian + 0.01 * torch.eye(states + actions, dtype=torch.float64)
            matrix[:states, :states] += torch.block_diag(*bend[b, n])
            right = -weighted @ gaps[b, n].flatten()
            right[:states] -= slope[b, n].flatten()
            solution = torch.linalg.solve(matrix, right)
            torch.testing.assert_close(d_states[b, n].flatten(), solution[:states])
            torch.testing.assert_close(d_actions[b, n].flatten(), solution[states:])


def test_collocation_closes_the_gaps_where_the_bounds_are_active():
    problem = replace(make(slide()), criteria=Criteria(hold=1, accept=-1.0))
    # Constant multipliers, since they fall again where the gaps are closed; as many solves as bounds come in between.
    planner = Collocation(hold=3, iterations=120, multiplier=100.0, multiplier_rate=0.0, rounds=8)
    missed = {}
    for rounds in (8, 1):
        last: list[Any] = []
        replace(planner, rounds=rounds).plan(problem, on_step=lambda _, state, last=last: last.append(state))
        path = problem.follow(last[-1].actions)
        missed[rounds] = (path - last[-1].states).abs().amax((1, 2, 3))
        assert (last[-1].actions.abs() == 1).any()
        if rounds == 8:
            assert (problem.scoring.distances(path)[..., -1, :] < 0.2).all()
    assert (missed[8] < 0.01).all()
    assert (missed[1] > 0.2).all()  # clamped without another solve, the states run ahead of the actions


def test_collocation_comes_to_every_goal_in_free_space():
    problem = point()
    plan = Collocation(candidates=4).plan(problem)
    assert plan.accepted.all()
    assert (problem.scoring.distances(problem.follow(plan.actions[:, None]))[:, :, -1] < 0.6).all()


def test_gradient_shooting_steps_along_the_gradient_of_the_rollout():
    problem = point()
    planner = GradientShooting.sync(lr=0.2)
    state = planner.init(problem, None, noise())
    missed = (problem.follow(state.actions)[:, :, -1] - problems.TARGETS[:, None])[:, :, None]
    moved = planner.step(problem, state, noise())
    torch.testing.assert_close(moved.actions, problem.clamp(state.actions - 0.2 * 2 * STEP * missed))


def one_step() -> Problem:
    """One action brings a point to its goal: (0.4, -0.6) is the only best."""
    return make(slide(), tensor([0.0, 0.0]), STEP * tensor([0.4, -0.6]), horizon=1)


@pytest.mark.parametrize("planner", [CEM(samples=100, elites=10), ICEM(samples=100), MPPI(samples=300)])
def test_sampling_moves_the_mean_to_the_optimum(planner: Planner[Any]):
    problem, best = one_step(), tensor(0.4, -0.6)
    state: Any = planner.init(problem, None, noise())
    source, missed = noise(), [(state.mean - best).norm().item()]
    for _ in range(8):
        state = planner.step(problem, state, source)
        missed.append((state.mean - best).norm().item())
    assert missed[1] < 0.7 * missed[0]
    assert missed[-1] < 0.1 * missed[0]
    if not isinstance(planner, MPPI):
        assert (state.std < 0.1 * planner.init(problem, None, noise()).std).all()
        assert (state.costs.diff(dim=2) >= 0).all()
        assert (state.elites[:, :, 0] - best).norm() < 0.05


@pytest.mark.parametrize("planner", [GradientShooting.paper(iterations=100), Collocation.paper()])
def test_the_published_baselines_reach_goals_in_free_space(planner: Planner[Any]):
    problem = replace(point(), low=tensor(-9.0, -9.0), high=tensor(9.0, 9.0))
    assert planner.plan(problem).accepted.all()


def test_actions_that_never_come_near_their_bounds_need_one_solve_a_step(monkeypatch: pytest.MonkeyPatch):
    problem, solves = replace(point(), low=-10 * torch.ones(2).double(), high=10 * torch.ones(2).double()), []
    solve = Collocation._solve

    def counted(*arguments: Any) -> Any:
        solves.append(1)
        return solve(*arguments)

    monkeypatch.setattr(Collocation, "_solve", counted)
    planner = Collocation(candidates=3)
    state = planner.init(problem, None, noise())
    for _ in range(5):
        state = planner.step(problem, state, noise())
        assert (state.actions.abs() < 9).all()
    assert len(solves) == 5


@pytest.mark.parametrize("planner", [CEM(samples=201, elites=10), ICEM(samples=203), MPPI(samples=77)])
def test_samples_are_distributed_among_all_members(planner: Planner[Any]):
    counted = Counted(replace(point(4), criteria=Criteria(hold=1, accept=-1.0, feedback=False, unused=1)))
    state = planner.init(counted.problem, None, noise())
    for _ in range(6):
        used: list[int] = []
        dynamics = counted.problem.dynamics

        def watched(state: Tensor, action: Tensor, used: list[int] = used, step: Any = dynamics) -> Tensor:
            used.append(len(state))
            return step(state, action)

        state = planner.step(replace(counted.problem, dynamics=watched), state, noise())
        assert set(used) == {3}


def test_given_plans_keep_the_cost_of_each_of_their_parts():
    problem = several()
    given = Rollout()(problem, 3, noise(2))
    state = ICEM(factored=True).init(problem, given, noise())
    torch.testing.assert_close(state.costs[:, :, 0], problem.scoring.part_merits(problem.follow(given.actions)))


def test_samples_that_diverge_do_not_blind_mppi():
    problem = point()

    def fragile(state: Tensor, action: Tensor) -> Tensor:
        following = problem.dynamics(state, action)
        return torch.where((action[..., :1] < -0.9), torch.inf, following)

    ends = []
    for dynamics in (problem.dynamics, fragile):
        world = replace(problem, dynamics=dynamics, criteria=Criteria(hold=1, accept=-1.0))
        ends.append(MPPI(samples=200, iterations=12, noise=Coloured(beta=2.0)).plan(world, seed=3).cost)
    reachable = ends[0] < 2
    assert reachable.sum() >= 3
    assert (ends[1][reachable] < 3).sum() >= reachable.sum() - 1


def test_where_every_sample_diverges_the_mean_of_mppi_stays():
    problem = replace(point(), dynamics=lambda state, _: state * torch.inf)
    planner = MPPI(samples=20)
    state = planner.init(problem, None, noise())
    assert torch.equal(planner.step(problem, state, noise()).mean, state.mean)


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


def test_infinite_costs_stay_infinite_when_a_state_is_repaired():
    sound = CEM().init(point(), None, noise())
    broken = sound._replace(mean=sound.mean * torch.nan, costs=torch.full_like(sound.costs, torch.inf))
    repaired = _repair(broken, sound._replace(costs=torch.zeros_like(sound.costs)), CEM.unbounded)
    assert torch.equal(repaired.mean, sound.mean)
    assert repaired.costs.isinf().all()


def test_collocation_stands_still_where_its_equations_cannot_be_solved():
    problem = replace(
        point(), jacobian=lambda state, action: (state, torch.full((*state.shape, 4), torch.nan).double())
    )
    planner = Collocation(candidates=2)
    state = planner.init(problem, None, noise())
    moved = planner.step(problem, state, noise())
    assert torch.equal(moved.states, state.states)
    assert torch.equal(moved.actions, state.actions)


@pytest.mark.parametrize("unbounded", [(), ("worst",)])
def test_fields_that_may_be_infinite_are_those_that_a_planner_names(unbounded: tuple[str, ...]):
    class Walk(NamedTuple):
        plans: torch.Tensor
        worst: torch.Tensor

    seen: list[Walk] = []

    @dataclass(frozen=True, kw_only=True)
    class Standing(Planner[Walk]):
        def init(self, problem: Problem, given: Candidates | None, noise: NoiseSource) -> Walk:
            return Walk(problem.resting(1), problem.start.new_zeros(problem.size))

        def step(self, problem: Problem, state: Walk, noise: NoiseSource) -> Walk:
            seen.append(state)
            return Walk(state.plans * torch.nan, state.worst + torch.inf)

        def actions(self, problem: Problem, state: Walk) -> torch.Tensor:
            return state.plans

    Standing.unbounded = unbounded
    Standing(iterations=2).plan(replace(point(), criteria=Criteria(accept=-1.0)))
    assert torch.equal(seen[1].plans, seen[0].plans)
    assert bool(seen[1].worst.isinf().all()) == bool(unbounded)
