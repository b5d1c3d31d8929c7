"""Choices as actions: projection to mixtures, rounding, and planners that find sequences of choices."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from grasp_agent.planners import CEM, ICEM, MPPI, GradientShooting, Planner, Problem, Return
from grasp_agent.planners.choices import relaxed, rounded

DIRECTIONS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
SPOT = torch.tensor([0.6, -0.4])


def moved(state: Tensor, action: Tensor) -> Tensor:
    """A mixture of directions, in steps of 0.2."""
    return state + 0.2 * (action + 1) / 2 @ DIRECTIONS.to(state)


def near(_: Tensor, __: Tensor, following: Tensor) -> Tensor:
    return -(following - SPOT.to(following)).abs().sum(-1)


def walk(horizon: int = 5, **settings: Any) -> Problem:
    bound = torch.ones(5)
    given: dict[str, Any] = {
        "start": torch.zeros(2, 2),
        "low": -bound,
        "high": bound,
        "horizon": horizon,
        "choices": (5,),
        "objective": Return(reward=near),
    }
    return Problem(dynamics=moved, **{**given, **settings})


@pytest.mark.parametrize("choices", [(3,), (2, 2), (2, 4, 3)])
def test_mixtures_are_the_nearest_ones(choices: tuple[int, ...]):
    generator = torch.Generator().manual_seed(0)
    given = 2 * torch.randn(200, sum(choices), generator=generator)
    found = relaxed(given, choices)
    others = torch.cat([2 * torch.rand(200, n, generator=generator).log_softmax(-1).exp() - 1 for n in choices], -1)
    for part, other, before in zip(*(x.split(choices, -1) for x in (found, others, given)), strict=True):
        weights = (part + 1) / 2
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(200))
        inward = ((before - part) * (other - part)).sum(-1)  # no mixture lies closer: a convex set's projection
        assert inward.max() < 1e-4
    torch.testing.assert_close(relaxed(found, choices), found)


@pytest.mark.parametrize("choices", [(3,), (2, 2), (2, 4, 3)])
def test_rounded_actions_are_choices(choices: tuple[int, ...]):
    given = torch.randn(50, sum(choices), generator=torch.Generator().manual_seed(1))
    found = rounded(given, choices)
    for part, before in zip(found.split(choices, -1), given.split(choices, -1), strict=True):
        assert torch.equal(part.argmax(-1), before.argmax(-1)) and ((part == 1).sum(-1) == 1).all()
    assert torch.equal(rounded(relaxed(given, choices), choices), found)


@pytest.mark.parametrize(
    "planner",
    [
        ICEM(iterations=10, samples=200, elites=10),
        CEM(iterations=15, samples=300, elites=20),
        MPPI(iterations=20, samples=300),
        GradientShooting(iterations=100, candidates=16),
    ],
    ids=lambda planner: type(planner).__name__,
)
def test_planners_find_the_best_choices(planner: Planner[Any]):
    problem = walk(start=torch.tensor([[0.0, 0.0], [1.2, -0.9]]))
    found = planner.plan(problem, seed=0)
    assert torch.equal(rounded(found.actions, (5,)), found.actions)
    every = torch.tensor(list(product(range(5), repeat=5)))
    costs = problem.score((2 * torch.nn.functional.one_hot(every, 5).float() - 1).expand(2, -1, -1, -1)).cost
    assert (found.cost <= costs.amin(1) + 0.11).all()  # in steps of 0.2: that of one choice in the wrong order


def test_candidates_are_scored_by_what_is_executed():
    problem, mixed = walk(1), torch.tensor([[0.0, 0.1, -1.0, -1.0, 0.05]]).expand(2, 1, 1, 5)
    verdict = problem.score(mixed)
    torch.testing.assert_close(verdict.states[:, 0, 0], torch.tensor([[0.2, 0.0]] * 2))


def test_actions_are_projected_to_mixtures_and_noise_has_twice_the_scale():
    problem, given = walk(1), torch.randn(2, 3, 1, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(problem.clamp(given), relaxed(given, (5,))) and not torch.equal(problem.clamp(given), given)
    assert problem.spread.tolist() == [2.0] * 5
    free = Problem(
        dynamics=moved,
        objective=problem.objective,
        start=problem.start,
        low=-torch.ones(5),
        high=torch.ones(5),
        horizon=1,
    )
    assert free.spread.tolist() == [1.0] * 5


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"choices": (4,)}, "choices: expected numbers from 1, 5 in sum"),
        ({"choices": (0, 5)}, "choices: expected numbers from 1"),
        ({"choices": (6, -1)}, "choices: expected numbers from 1"),
        ({"objective": None, "goal": object()}, "and an objective"),
        ({"low": torch.zeros(5)}, "choices: expected bounds -1 and 1"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], match: str):
    with pytest.raises(ValueError, match=match):
        walk(**changes)
