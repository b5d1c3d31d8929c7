"""Parts that planners are made of: least squares, noise, syncs; and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from problems import make, noise, point, slide
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
    GradientShooting,
    LiftedNewton,
    Line,
    NoiseSource,
    Portfolio,
    Problem,
    Recombination,
    Relaxation,
    Rollout,
    Tracking,
)
from grasp_agent.planners.candidates import Fold
from grasp_agent.planners.grasp import Sync
from grasp_agent.planners.linalg.least_squares import least_squares

# torch's own forward-mode derivatives still use what torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.mark.parametrize("size", [1, 2, 3])
def test_least_squares_agrees_with_lapack(size: int):
    generator = torch.Generator().manual_seed(size)
    slopes = torch.eye(4, size, dtype=torch.float64) + 0.2 * torch.rand(
        6, 4, size, generator=generator, dtype=torch.float64
    )
    residual = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    expected = torch.linalg.lstsq(slopes, residual[..., None]).solution[..., 0]
    torch.testing.assert_close(least_squares(slopes, residual, 0.0), expected, atol=1e-6, rtol=1e-6)
    normal = slopes.mT @ slopes
    ridge = 0.5 * normal.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * torch.eye(size).double()
    damped = torch.linalg.solve(normal + ridge, (slopes.mT @ residual[..., None]))[..., 0]
    torch.testing.assert_close(least_squares(slopes, residual, 0.5), damped, atol=1e-6, rtol=1e-6)
    assert torch.equal(least_squares(0 * slopes, residual, 0.1), torch.zeros(6, size, dtype=torch.float64))


def test_adam_is_torchs_and_leaves_values_and_memory_as_they_were():
    generator = torch.Generator().manual_seed(0)
    values, *gradients = torch.randn(4, 2, 3, 5, 2, generator=generator).double().unbind()
    expected = torch.nn.Parameter(values.clone())
    reference = torch.optim.Adam([expected], lr=0.3, betas=(0.8, 0.95), foreach=False)
    adam = Adam(lr=0.3, beta1=0.8, beta2=0.95)
    memory = adam.start(values)
    for gradient in gradients:
        expected.grad = gradient.mT.contiguous().mT  # of other strides than the values
        reference.step()
        given = (values, *memory)
        before = [tensor.clone() for tensor in given]
        moved, after = adam.apply(values, expected.grad, memory)
        assert all(torch.equal(now, then) for now, then in zip(given, before, strict=True))
        values, memory = moved, after
        torch.testing.assert_close(values, expected.detach())


@pytest.mark.parametrize(("count", "used"), [(6, 3), (4, 2), (5, 1), (1, 1)])
def test_rows_of_members_hold_their_candidates_in_any_memory_layout(count: int, used: int):
    values = torch.arange(2 * count * 4 * 3.0).view(2, count, 4, 3)
    fold = Fold.of(values, 3)
    rows = fold.rows(values)
    assert rows.shape == (used, 2 * count // used * 4, 3)
    for member in range(used):
        assert torch.equal(rows[member], values[:, member::used].reshape(-1, 3))
    for layout in (rows, rows.mT.contiguous().mT):
        assert torch.equal(fold.back(layout), values)


@pytest.mark.parametrize("beta", [0.0, 2.0, 3.0])
def test_noise_has_variance_one_at_each_step_and_is_smooth_where_it_should_be(beta: float):
    sample = Coloured(beta=beta).sample(noise(), 4000, 12, 2)
    assert sample.shape == (4000, 12, 2)
    torch.testing.assert_close(sample.var((0, 2)), torch.ones(12).double(), atol=0.1, rtol=0)
    torch.testing.assert_close(sample.mean((0, 2)), torch.zeros(12).double(), atol=0.07, rtol=0)
    following = (sample[:, 1:] * sample[:, :-1]).mean().item()
    assert following > 0.7 if beta else abs(following) < 0.03
    assert (sample[..., 0] * sample[..., 1]).mean().abs() < 0.07


class Sabotage:
    """A sync that makes some candidates worse and others meaningless."""

    def refine(self, problem: Problem, given: Candidates, noise: NoiseSource) -> Tensor:
        return torch.cat([-given.actions[:, :4], given.actions[:, 4:] * torch.nan], dim=1)


SYNCS = [
    Tracking(),
    ILQR(candidates=1, iterations=3),
    GradientShooting.sync(),
    CEM(iterations=3, samples=48, elites=6),
    Sabotage(),
]


@pytest.mark.parametrize("sync", SYNCS)
def test_a_sync_never_raises_a_candidates_own_cost(sync: Sync):
    problem = point(4)
    planner = GRASP(candidates=8, initial=Rollout(), sync=sync, sync_every=1, opening=0)
    state = planner.init(problem, None, noise())
    for seed in range(4):
        alone = replace(planner, sync_every=10**6, anneal=False).step(problem, state, noise(seed))
        synced = replace(planner, anneal=False).step(problem, state, noise(seed))
        before, after = (problem.scoring.merit(problem.follow(s.actions)) for s in (alone, synced))
        assert (after <= before + 1e-12).all()
        assert (after == before).all() == isinstance(sync, Sabotage) or (after < before).any()
        state = alone


def test_without_noise_no_random_number_is_drawn():
    class Silent(NoiseSource):
        def normal(self, *shape: int) -> Tensor:
            raise AssertionError("drew a random number")

    planner, problem = GRASP(sigma=0, proposals=None, initial=Line(), opening=0), point()
    state = planner.init(problem, None, noise())
    silent = Silent(0, torch.device("cpu"), torch.float64)
    moved = planner.step(problem, state, silent)
    assert not torch.equal(moved.actions, state.actions)
    with pytest.raises(AssertionError, match="drew"):
        replace(planner, sigma=0.1).step(problem, state, silent)


def test_an_ensemble_needs_no_jacobian_of_its_own():
    problem = point(4)
    plain = replace(problem, action_jacobian=None, action_pullback=None, jacobian=None)
    for planner in (GRASP(), GRASP(candidates=3, proposals=None, initial=Line(), sync=Tracking())):
        expected, plan = planner.plan(problem), planner.plan(plain)
        assert plan.accepted.all()
        torch.testing.assert_close(plan.actions, expected.actions)


CLASS: Any = Rollout
WRONG: Any = "a name"


@pytest.mark.parametrize(
    ("make_it", "words"),
    [
        (lambda: GRASP(candidates=0), "candidates: expected a whole number of at least 1, got 0"),
        (lambda: GRASP(iterations=-1), "iterations: expected a whole number of at least 0, got -1"),
        (lambda: GRASP(verify_every=0), "verify_every: expected a whole number of at least 1, got 0"),
        (lambda: GRASP(budget=0), "budget: expected more than 0, got 0"),
        (lambda: GRASP(sync_every=0), "sync_every: expected a whole number of at least 1, got 0"),
        (lambda: GRASP(sigma=-1), "sigma: expected at least 0, got -1"),
        (lambda: GRASP(pinned=0), "pinned: expected a whole number of at least 1, got 0"),
        (lambda: GRASP(proposed=0), "proposed: expected a whole number of at least 1, got 0"),
        (lambda: GRASP(shortlist=0), "shortlist: expected a whole number of at least 1, got 0"),
        (lambda: GRASP(opening=-1), "opening: expected a whole number of at least 0, got -1"),
        (lambda: GRASP(proposals=CLASS), r"proposals: expected a callable \(an instance, no class\)"),
        (lambda: GRASP(proposals=WRONG), "proposals: expected a callable .* or None, got 'a name'"),
        (lambda: GRASP(initial=WRONG), "initial: expected a callable part, got 'a name'"),
        (lambda: GRASP(update=WRONG), "update: expected a part with the method apply, got 'a name'"),
        (lambda: GRASP(sync=WRONG), "sync: expected a part with the method refine, got 'a name'"),
        (lambda: Relaxation(goal_weight=float("nan")), "goal_weight: expected at least 0, got nan"),
        (lambda: Relaxation(states=WRONG), "states: expected a part with the method apply, got 'a name'"),
        (lambda: Relaxation(actions=WRONG), "actions: expected a part with the method apply, got 'a name'"),
        (lambda: LiftedNewton(hold=0), "hold: expected a whole number of at least 1, got 0"),
        (lambda: LiftedNewton(damping=0), "damping: expected more than 0, got 0"),
        (lambda: LiftedNewton(step_size=-1), "step_size: expected more than 0, got -1"),
        (lambda: ILQR(hold=0), "hold: expected a whole number of at least 1, got 0"),
        (lambda: GradientShooting(hold=0), "hold: expected a whole number of at least 1, got 0"),
        (lambda: CEM(elites=1), "elites: expected a whole number of at least 2, got 1"),
        (lambda: CEM(samples=5, elites=6), r"to the number of samples \(5\), got 6"),
        (lambda: CEM(sigma=0), "sigma: expected more than 0, got 0"),
        (lambda: ICEM(decay=0.5), "decay: expected at least 1, got 0.5"),
        (lambda: ICEM(kept=2), r"kept: expected a fraction in \[0, 1\], got 2"),
        (lambda: ICEM(momentum=-1), r"momentum: expected a fraction in \[0, 1\], got -1"),
        (lambda: MPPI(samples=1), "samples: expected a whole number of at least 2, got 1"),
        (lambda: MPPI(temperature=0), "temperature: expected more than 0, got 0"),
        (lambda: Collocation(hold=0), "hold: expected a whole number of at least 1, got 0"),
        (lambda: Collocation(rounds=0), "rounds: expected a whole number of at least 1, got 0"),
        (lambda: Collocation(slack=0), "slack: expected more than 0, got 0"),
        (lambda: Recombination(share=0), r"share: expected a fraction in \(0, 1\], got 0"),
        (lambda: Portfolio(first=Line(), second=Line(), share=1), r"share: expected a fraction in \(0, 1\), got 1"),
        (lambda: Descent(lr=0), "lr: expected more than 0, got 0"),
        (lambda: Criteria(hold=0), "hold: expected a whole number of at least 1, got 0"),
        (lambda: Criteria(stride=0), "stride: expected a whole number of at least 1, got 0"),
        (lambda: Criteria(excursion=-1), "excursion: expected at least 0, got -1"),
        (lambda: Criteria(running=torch.inf), "running: expected at least 0, got inf"),
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
