"""Model predictive path integral control (Williams et al. 2017, arXiv 1707.02342)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from grasp_agent.planners.base import Planner
from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.noise import Coloured, NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.validation import more_than, whole


class MPPIState(NamedTuple):
    """MPPI between two iterations."""

    mean: Tensor
    """`[B, N, H, A]`."""
    best: Tensor
    """`[B, N, H, A]`, the best sample so far."""
    cost: Tensor
    """`[B, N]`, its cost."""


@dataclass(frozen=True, kw_only=True)
class MPPI(Planner[MPPIState]):
    """Moves a mean to the average of samples around it, weighted by the exponential of their negative cost.

    Attributes:
        candidates: number of means in parallel.
        samples: plans drawn around each mean in an iteration.
        sigma: their standard deviation, in units of `Problem.spread`.
        temperature: lambda, in units of the samples' mean excess over the best cost, so that it does not depend on the
            scale of the cost.
        noise: the samples' noise along time; white as published.
    """

    unbounded: ClassVar[tuple[str, ...]] = ("cost",)

    iterations: int = 20
    samples: int = 500
    sigma: float = 0.5
    temperature: float = 0.1
    noise: Coloured = Coloured(beta=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(2, samples=self.samples)
        more_than(0, sigma=self.sigma, temperature=self.temperature)

    def init(self, problem: Problem, given: Candidates | None, noise: NoiseSource) -> MPPIState:
        """See `Planner.init`."""
        mean = problem.resting(self.candidates if given is None else max(self.candidates, given.size)).clone()
        if given is not None:
            mean[:, : given.size] = given.actions
        return MPPIState(mean, mean, mean.new_full(mean.shape[:2], torch.inf))

    def step(self, problem: Problem, state: MPPIState, noise: NoiseSource) -> MPPIState:
        """See `Planner.step`."""
        sides, horizon, size = state.mean.shape[1:]
        draw = self.noise.sample(noise, sides * problem.shared(self.samples), horizon, size).unflatten(0, (sides, -1))
        draw = draw.index_fill(1, torch.zeros(1, dtype=torch.long, device=draw.device), 0)  # the mean is a sample, too
        samples = problem.clamp(state.mean[:, :, None] + self.sigma * problem.spread * draw)
        cost = problem.merit(samples.flatten(1, 2)).unflatten(1, samples.shape[1:3])
        lowest = cost.min(-1, keepdim=True)
        excess = (cost - lowest.values).nan_to_num(posinf=torch.inf, nan=torch.inf)
        known = excess.isfinite()  # a sample that diverged has no weight, and does not affect the scale
        scale = excess.masked_fill(~known, 0).sum(-1, keepdim=True) / known.sum(-1, keepdim=True).clamp_min(1)
        # If all samples diverged, the mean stays.
        excess[..., 0].masked_fill_(~known.any(-1), 0)
        weights = torch.softmax(-excess / (self.temperature * scale + 1e-9), -1)
        mean = problem.clamp((weights[..., None, None] * samples).sum(2))
        cheapest = samples.take_along_dim(lowest.indices[..., None, None], 2)[:, :, 0]
        better = lowest.values[..., 0] < state.cost
        best = torch.where(better[..., None, None], cheapest, state.best)
        return MPPIState(mean, best, torch.where(better, lowest.values[..., 0], state.cost))

    def actions(self, problem: Problem, state: MPPIState) -> Tensor:
        """See `Planner.actions`: the means, then the best samples, `[B, 2 N, H, A]`."""
        return torch.cat([state.mean, state.best], 1)
