"""Initial candidates of planners: a line, or the rollout of smooth random actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from grasp_agent.planners.base import Initial
from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.noise import Coloured, NoiseSource
from grasp_agent.planners.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Line:
    """The straight line from start to goal with a little noise and actions at rest: the published initialisation.

    Attributes:
        sigma: standard deviation of the noise [state units].
        shape: the noise along time.
    """

    needs_goal: ClassVar[bool] = True

    sigma: float = 0.01
    shape: Coloured = Coloured(beta=0.0)

    def __call__(self, problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        """See `Initial`."""
        size = problem.start.shape[-1]
        first = problem.start[:, None, None].expand(-1, count, 1, -1)
        last = problem.goal.project(first)
        fraction = torch.arange(1, problem.horizon + 1, device=first.device, dtype=first.dtype) / problem.horizon
        states = torch.lerp(first, last, fraction[:, None])
        if self.sigma:
            draw = self.shape.sample(noise, count, problem.horizon, size)
            if self.shape.beta:  # smooth noise is 0 at both ends
                draw = draw - torch.lerp(draw[:, :1], draw[:, -1:], fraction[:, None])
            states = states + self.sigma * draw
        return Candidates(states, problem.resting(count))


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The model's rollout of smooth random actions.

    Attributes:
        sigma: standard deviation of the actions, in units of `Problem.spread`.
        shape: the noise along time.
    """

    sigma: float = 0.3
    shape: Coloured = Coloured(beta=3.0)

    def __call__(self, problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        """See `Initial`."""
        draw = self.shape.sample(noise, count, problem.horizon, len(problem.low))
        actions = problem.clamp(problem.rest + self.sigma * problem.spread * draw).expand(problem.size, -1, -1, -1)
        return Candidates(problem.follow(actions), actions)


@dataclass(frozen=True, kw_only=True)
class Portfolio:
    """Candidates from two sources.

    Attributes:
        first: source of the first candidates.
        second: source of the others.
        share: fraction of the candidates from `first`, in (0, 1).
    """

    first: Initial
    second: Initial
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share: expected a fraction in (0, 1), got {self.share}")

    def __call__(self, problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        """See `Initial`."""
        cut = max(1, round(self.share * count))
        if cut >= count:
            return self.first(problem, count, noise)
        return self.first(problem, cut, noise).join(self.second(problem, count - cut, noise))


def filled(problem: Problem, given: Candidates | None, count: int, initial: Initial, noise: NoiseSource) -> Candidates:
    """Returns the given candidates, and further ones from `initial` up to `count`."""
    missing = count - (given.size if given is not None else 0)
    if missing <= 0 and given is not None:
        return given
    own = initial(problem, missing, noise)
    return own if given is None else given.join(own)
