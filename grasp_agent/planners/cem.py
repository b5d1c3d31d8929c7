"""The cross-entropy method, as published and as iCEM, with coloured noise, kept elites and a shifted mean.

CEM: Rubinstein and Kroese 2004; for planning with learned models Chua et al. 2018 (arXiv 1805.12114). iCEM: Pinneri et
al. 2020 (arXiv 2008.06389).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from grasp_agent.planners.base import Planner
from grasp_agent.planners.blocks import gather_parts
from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.noise import Coloured, NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.validation import at_least, fraction, more_than, whole

_FEWEST = 100  # logarithm of a factor by which any number of samples falls to its least; chosen by hand


class CEMState(NamedTuple):
    """Normal distributions over plans, and the best samples so far."""

    mean: Tensor
    """`[B, N, H, A]`."""
    std: Tensor
    """`[B, N, H, A]`."""
    elites: Tensor
    """`[B, N, E, H, A]`, the best first."""
    costs: Tensor
    """`[B, N, E, G]`, their costs, for each part in a factored search (else G is 1)."""
    iteration: int


@dataclass(frozen=True, kw_only=True)
class CEM(Planner[CEMState]):
    """Samples plans from a normal distribution, and fits the next one to the best of them.

    Attributes:
        candidates: number of distributions in parallel.
        samples: plans drawn from each in an iteration.
        elites: number of best plans to which the next distribution is fitted.
        sigma: initial standard deviation, in units of `Problem.spread`.
        noise: the samples' noise along time; white as published.
    """

    unbounded: ClassVar[tuple[str, ...]] = ("costs",)

    iterations: int = 30
    samples: int = 300
    elites: int = 30
    sigma: float = 1.0
    noise: Coloured = Coloured(beta=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.samples, self.elites, self.sigma)

    def init(self, problem: Problem, given: Candidates | None, noise: NoiseSource) -> CEMState:
        """See `Planner.init`."""
        return initial_distributions(problem, given, self.candidates, self.elites, self.sigma, factored=False)

    def step(self, problem: Problem, state: CEMState, noise: NoiseSource) -> CEMState:
        """See `Planner.step`."""
        samples = sample_plans(problem, state, self.noise, self.samples, noise)
        elites, costs = select_elites(problem, samples, plan_costs(problem, samples, factored=False), self.elites)
        return CEMState(elites.mean(2), elites.std(2), elites, costs, state.iteration + 1)

    def actions(self, problem: Problem, state: CEMState) -> Tensor:
        """See `Planner.actions`: the means, then the best samples, `[B, 2 N, H, A]`."""
        return torch.cat([state.mean, state.elites[:, :, 0]], 1)


@dataclass(frozen=True, kw_only=True)
class ICEM(Planner[CEMState]):
    """The improved cross-entropy method; defaults are the published values if the paper gives one for all tasks.

    Attributes:
        candidates: number of distributions in parallel.
        samples: plans drawn from each in the first iteration.
        decay: the number of samples falls by this factor in each iteration, down to twice the elites.
        elites: number of best plans to which the next distribution is fitted.
        kept: fraction of the elites that are kept for the next iteration.
        momentum: fraction of the old mean and standard deviation in the next ones.
        sigma: initial standard deviation, in units of `Problem.spread`.
        noise: the samples' noise along time.
        factored: True selects elites for each block of the problem separately: the fair comparison, on factored
            problems, with planners that know the blocks.
    """

    unbounded: ClassVar[tuple[str, ...]] = ("costs",)

    iterations: int = 10
    samples: int = 256
    decay: float = 1.25
    elites: int = 10
    kept: float = 0.3
    momentum: float = 0.1
    sigma: float = 0.5
    noise: Coloured = Coloured(beta=3.0)
    factored: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.samples, self.elites, self.sigma)
        at_least(1, decay=self.decay)
        fraction(kept=self.kept, momentum=self.momentum)

    def init(self, problem: Problem, given: Candidates | None, noise: NoiseSource) -> CEMState:
        """See `Planner.init`."""
        return initial_distributions(problem, given, self.candidates, self.elites, self.sigma, factored=self.factored)

    def step(self, problem: Problem, state: CEMState, noise: NoiseSource) -> CEMState:
        """See `Planner.step`."""
        shrunk = state.iteration * math.log(self.decay) > _FEWEST
        count = 2 * self.elites if shrunk else max(2 * self.elites, int(self.samples / self.decay**state.iteration))
        samples = sample_plans(problem, state, self.noise, count, noise)
        if not state.iteration and problem.objective is not None:
            samples = torch.cat([state.mean[:, :, None], samples[:, :, 1:]], 2)
        costs = plan_costs(problem, samples, factored=self.factored)
        kept = round(self.kept * self.elites)
        samples = torch.cat([state.elites[:, :, :kept], samples], 2)
        costs = torch.cat([state.costs[:, :, :kept].expand(*costs.shape[:2], -1, costs.shape[-1]), costs], 2)
        elites, costs = select_elites(problem, samples, costs, self.elites)
        mean = torch.lerp(elites.mean(2), state.mean, self.momentum)
        std = torch.lerp(elites.std(2), state.std, self.momentum)
        return CEMState(mean, std, elites, costs, state.iteration + 1)

    def actions(self, problem: Problem, state: CEMState) -> Tensor:
        """See `Planner.actions`: the best samples, then the means, `[B, 2 N, H, A]`."""
        return torch.cat([state.elites[:, :, 0], state.mean], 1)


def initial_distributions(
    problem: Problem, given: Candidates | None, count: int, elites: int, sigma: float, *, factored: bool
) -> CEMState:
    """Returns distributions around given plans, or around rest; given plans are the first elites."""
    means = problem.resting(max(count, 1) if given is None else max(count, given.size)).clone()
    if given is not None:
        means[:, : given.size] = given.actions
    std = (sigma * problem.spread).expand_as(means)
    parts = len(problem.independent) if factored else 1
    costs = means.new_full((*means.shape[:2], elites, parts), torch.inf)
    if given is not None and problem.objective is None:  # for an objective, iCEM's first iteration scores them
        costs[:, : given.size, 0] = plan_costs(problem, given.actions[:, None], factored=factored)[:, 0]
    return CEMState(means, std, means[:, :, None].expand(-1, -1, elites, -1, -1), costs, 0)


def sample_plans(problem: Problem, state: CEMState, noise: Coloured, count: int, source: NoiseSource) -> Tensor:
    """Draws at least `count` plans of each distribution in the bounds, `[B, N, P, H, A]`, equally many per member."""
    sides, horizon, size = state.mean.shape[1:]
    count = problem.shared(count)
    draw = noise.sample(source, sides * count, horizon, size).unflatten(0, (sides, count))
    return problem.clamp(state.mean[:, :, None] + state.std[:, :, None] * draw)


def plan_costs(problem: Problem, samples: Tensor, *, factored: bool) -> Tensor:
    """Returns costs `[B, N, P, G]` of plans `[B, N, P, H, A]`, of each part, or their sum with G = 1."""
    costs = problem.part_merits(samples.flatten(1, 2)).unflatten(1, samples.shape[1:3])
    return costs if factored else costs.sum(-1, keepdim=True)


def select_elites(problem: Problem, samples: Tensor, costs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns the best plans `[B, N, count, H, A]`, with each block's actions selected by its cost, and the costs."""
    lowest = costs.topk(count, dim=2, largest=False)
    return gather_parts(problem, samples, lowest.indices), lowest.values


def _check(samples: int, elites: int, sigma: float) -> None:
    whole(2, samples=samples, elites=elites)
    if elites > samples:
        raise ValueError(f"elites: expected from 2 to the number of samples ({samples}), got {elites}")
    more_than(0, sigma=sigma)
