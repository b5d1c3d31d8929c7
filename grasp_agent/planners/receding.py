"""Long plans made piece by piece, as a closed loop would, in the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from grasp_agent.planners.base import Planner
from grasp_agent.planners.checks import whole
from grasp_agent.planners.noise import NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.planners.rows import Candidates


class Pieces(NamedTuple):
    """The plan that was put together last."""

    actions: Tensor
    """`[B, 1, H, A]`."""


@dataclass(frozen=True, kw_only=True)
class Receding(Planner[Pieces]):
    """Puts a plan together from short ones, each made where the last has led, again and again until one is accepted.

    Long plans with contacts are hard to find at once, and easy to find piece by piece. The pieces follow the members'
    mean; how far the members part on the way is seen when the whole is judged, and differs much from plan to plan.

    Attributes:
        pieces: makes them.
        length: steps of a piece.
        commit: steps of it that are taken before the next is made.
    """

    pieces: Planner[Any]
    iterations: int = 8
    length: int = 20
    commit: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(1, length=self.length, commit=self.commit)

    def init(self, problem: Problem, given: Candidates | None, noise: NoiseSource) -> Pieces:
        """See `Planner.init`: what is given is judged, but not improved."""
        return Pieces(problem.resting(1))

    def step(self, problem: Problem, state: Pieces, noise: NoiseSource) -> Pieces:
        """One whole plan."""
        here, taken = problem.start, []
        running: Tensor | None = None
        rows, rest = (problem.members, -1, -1), problem.rest.expand(problem.size, self.commit, -1)
        while len(taken) < problem.horizon:
            piece = replace(problem, start=here, horizon=self.length)
            running = self.pieces.plan(piece, warm=running, seed=noise.seed()).actions
            for action in running[:, : self.commit].unbind(1):
                here = problem.dynamics(here.expand(*rows), action.expand(*rows)).mean(0)
                taken.append(action)
            running = torch.cat([running, rest], 1)[:, self.commit : self.commit + self.length]
        return Pieces(torch.stack(taken[: problem.horizon], 1)[:, None])

    def actions(self, problem: Problem, state: Pieces) -> Tensor:
        """See `Planner.actions`."""
        return state.actions
