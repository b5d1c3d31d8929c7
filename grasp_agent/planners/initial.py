"""Where virtual states start: on a line, on the rollout of smooth random actions, on routes through replayed states."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from grasp_agent.planners.noise import Coloured, NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.planners.tracking import Tracking


class Initial(Protocol):
    """Makes first virtual states and actions."""

    def __call__(self, problem: Problem, count: int, noise: NoiseSource) -> tuple[Tensor, Tensor]:
        """Virtual states `[B, count, H, S]` and actions `[B, count, H, A]`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Line:
    """The straight line from start to goal with a little noise, actions at rest: the published initialisation.

    Attributes:
        sigma: standard deviation of the noise [state units].
        shape: the noise along time.
    """

    sigma: float = 0.01
    shape: Coloured = Coloured(beta=0.0)

    def __call__(self, problem: Problem, count: int, noise: NoiseSource) -> tuple[Tensor, Tensor]:
        """See `Initial`."""
        size = problem.start.shape[-1]
        first = problem.start[:, None, None].expand(-1, count, 1, -1)
        last = problem.goal.project(first)
        share = torch.arange(1, problem.horizon + 1, device=first.device, dtype=first.dtype) / problem.horizon
        states = torch.lerp(first, last, share[:, None])
        if self.sigma:
            states = states + self.sigma * self.shape.sample(noise, count, problem.horizon, size)
        return states, problem.rest.expand(problem.size, count, problem.horizon, -1)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The model's own rollout of smooth random actions.

    Attributes:
        sigma: standard deviation of the actions, as a share of half their range.
        shape: the noise along time.
    """

    sigma: float = 0.3
    shape: Coloured = Coloured(beta=3.0)

    def __call__(self, problem: Problem, count: int, noise: NoiseSource) -> tuple[Tensor, Tensor]:
        """See `Initial`."""
        half = (problem.high - problem.low) / 2
        draw = self.shape.sample(noise, count, problem.horizon, half.shape[0])
        actions = problem.clamp(problem.rest + self.sigma * half * draw).expand(problem.size, -1, -1, -1)
        return problem.follow(actions), actions


@dataclass(frozen=True, kw_only=True)
class Roadmap:
    """Shortest routes through replayed states, tracked; where the model has no roadmap, `otherwise`.

    Attributes:
        stretch: the route is driven this much slower than the graph says, so that tracking can keep up.
        tracking: turns the route into actions.
        otherwise: what to start from without a roadmap.
    """

    stretch: float = 1.1
    tracking: Tracking = field(default_factory=Tracking)
    otherwise: Initial = field(default_factory=Rollout)

    def __call__(self, problem: Problem, count: int, noise: NoiseSource) -> tuple[Tensor, Tensor]:
        """See `Initial`."""
        if problem.roadmap is None:
            return self.otherwise(problem, count, noise)

        def aim(states: Tensor) -> Tensor:
            return problem.goal.project(states[..., None, :])[..., 0, :]

        points, times = problem.roadmap.routes(problem.start, aim, count)
        states = _interpolate(points, times * self.stretch, problem.horizon)
        unreachable = ~times[..., -1].isfinite()
        if unreachable.any():
            spare, _ = Line(sigma=0.0)(problem, count, noise)
            states = torch.where(unreachable[..., None, None], spare, states)
        actions = problem.rest.expand(problem.size, count, problem.horizon, -1)
        return states, self.tracking(problem, states, actions)


@dataclass(frozen=True, kw_only=True)
class Portfolio:
    """Candidates from several starts: the first `share` of them from `first`, the others from `second`.

    Attributes:
        first: one kind of start.
        second: the other.
        share: share of the candidates that start from `first`, in (0, 1).
    """

    first: Initial
    second: Initial
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share: expected a share in (0, 1), got {self.share}")

    def __call__(self, problem: Problem, count: int, noise: NoiseSource) -> tuple[Tensor, Tensor]:
        """See `Initial`."""
        unit = problem.members if count % problem.members == 0 else 1
        cut = unit * max(1, round(self.share * count / unit))
        if cut >= count:
            return self.first(problem, count, noise)
        pairs = self.first(problem, cut, noise), self.second(problem, count - cut, noise)
        return torch.cat([pairs[0][0], pairs[1][0]], 1), torch.cat([pairs[0][1], pairs[1][1]], 1)


def _interpolate(points: Tensor, times: Tensor, horizon: int) -> Tensor:
    """States at steps 1..H on a path of way points `[B, R, W, S]` passed at `times` `[B, R, W]`; holds the last."""
    steps = torch.arange(1, horizon + 1, device=points.device, dtype=points.dtype)
    steps = steps.expand(*times.shape[:2], -1).contiguous()
    upper = torch.searchsorted(times.contiguous(), steps).clamp(1, times.shape[-1] - 1)
    before, after = times.gather(2, upper - 1), times.gather(2, upper)
    share = ((steps - before) / (after - before).clamp_min(1e-6)).clamp(0, 1)[..., None]
    wide = upper[..., None].expand(-1, -1, -1, points.shape[-1])
    return torch.lerp(points.gather(2, wide - 1), points.gather(2, wide), share)
