"""Planners that sample, against known answers."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest
import torch
from problems import STEP, Counted, make, noise, point, several, slide, tensor
from torch import Tensor

from grasp_agent.planners import (
    CEM,
    ICEM,
    MPPI,
    Candidates,
    Coloured,
    Criteria,
    NoiseSource,
    Planner,
    Problem,
    Return,
    Rollout,
    cem,
)
from grasp_agent.planners.base import _repair

# torch's own forward-mode derivatives still use what torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


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


def test_for_an_objective_given_plans_are_among_the_first_samples_alone(monkeypatch: pytest.MonkeyPatch):
    bound, scored = tensor(1, 1), []
    problem = Problem(
        dynamics=lambda state, action: state + action, objective=Return(reward=lambda _, __, state: state.sum(-1)),
        start=tensor([0, 0]), low=-bound, high=bound, horizon=5,
    )  # fmt: skip
    given, cost = Rollout()(problem, 3, noise(2)), cem.plan_costs
    monkeypatch.setattr(cem, "plan_costs", lambda *args, **kinds: (scored.append(args[1]), cost(*args, **kinds))[1])
    planner = ICEM(samples=30)
    state = planner.init(problem, given, noise())
    assert state.costs.isinf().all() and not scored
    for _ in range(2):
        state = planner.step(problem, state, noise())
    torch.testing.assert_close(scored[0][:, :, 0], given.actions)
    assert not scored[1].eq(given.actions[:, :, None]).flatten(3).all(-1).any()
    assert len(scored[0].flatten(0, 1)[0].unique(dim=0)) == 30


def test_a_running_plan_that_nothing_beats_is_kept_for_an_objective():
    bound, best = torch.ones(2), torch.full((1, 5, 2), 0.25)
    problem = Problem(
        dynamics=lambda state, action: state,
        objective=Return(reward=lambda _, action, __: -(action - 0.25).abs().sum(-1)),
        start=torch.zeros(1, 2), low=-bound, high=bound, horizon=5,
    )  # fmt: skip
    torch.testing.assert_close(MPPI(iterations=2).plan(problem, warm=best).actions, best)
    torch.testing.assert_close(ICEM(iterations=1, samples=20).plan(problem, warm=best).actions, best)


def test_a_running_plan_is_never_lost_when_the_time_is_up():
    bound, best = tensor(1, 1), tensor([[0.25, 0.25]] * 5)

    def slow(state: Tensor, action: Tensor) -> Tensor:
        time.sleep(0.002)
        return state

    problem = Problem(
        dynamics=slow, objective=Return(reward=lambda _, action, __: -(action - 0.25).abs().sum(-1)),
        start=tensor([0, 0]), low=-bound, high=bound, horizon=5,
    )  # fmt: skip
    poor = Rollout()(problem, 4, noise(2))

    def proposals(problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        return poor

    for budget in (1e-9, 0.01, 0.03, 0.1):
        planner = ICEM(iterations=2, samples=20, budget=budget, proposals=proposals)
        torch.testing.assert_close(planner.plan(problem, warm=best).actions, best)


@pytest.mark.parametrize("planner", [ICEM(iterations=2, verify_every=2), MPPI(iterations=2, verify_every=2)])
def test_a_plan_for_an_objective_takes_three_rollouts(planner: Planner[Any]):
    calls, bound = [], torch.ones(2)
    problem = Problem(
        dynamics=lambda state, action: (calls.append(1), state)[1],
        objective=Return(reward=lambda _, action, __: -action.abs().sum(-1)),
        start=torch.zeros(1, 2), low=-bound, high=bound, horizon=5,
    )  # fmt: skip
    planner.plan(problem, warm=torch.zeros(1, 5, 2))
    assert len(calls) == 3 * 5


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


def test_infinite_costs_stay_infinite_when_a_state_is_repaired():
    sound = CEM().init(point(), None, noise())
    broken = sound._replace(mean=sound.mean * torch.nan, costs=torch.full_like(sound.costs, torch.inf))
    repaired = _repair(broken, sound._replace(costs=torch.zeros_like(sound.costs)), CEM.unbounded)
    assert torch.equal(repaired.mean, sound.mean)
    assert repaired.costs.isinf().all()


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


def test_the_number_of_samples_falls_to_its_least_in_long_searches():
    planner, problem = ICEM(samples=100, decay=1.25), one_step()
    state = planner.init(problem, None, noise())._replace(iteration=4000)
    assert planner.step(problem, state, noise()).iteration == 4001
