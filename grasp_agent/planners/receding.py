"""Long plans made piece by piece, as a closed loop would, in the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from grasp_agent.planners.base import Planner
from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.noise import NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.validation import instance, whole


class RecedingState(NamedTuple):
    """The plans of now."""

    actions: Tensor
    """`[B, N, H, A]`."""


@dataclass(frozen=True, kw_only=True)
class Receding(Planner[RecedingState]):
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
        if self.commit > self.length:
            raise ValueError(f"commit: expected at most the length of a piece, {self.length}, got {self.commit}")
        instance(Planner, pieces=self.pieces)

    def init(self, problem: Problem, given: Candidates | None, noise: NoiseSource) -> RecedingState:
        """See `Planner.init`."""
        return RecedingState(problem.resting(1) if given is None else given.actions)

    def step(self, problem: Problem, state: RecedingState, noise: NoiseSource) -> RecedingState:
        """One whole plan more, in the place of the worst one, where it is better."""
        offered = torch.cat([state.actions, self._whole(problem, noise)[:, None]], 1)
        verdict = problem.score(offered)
        spared = verdict.accepted & ~verdict.accepted.all(1, keepdim=True)  # one that is accepted comes first
        worst = verdict.cost.masked_fill(spared, -torch.inf).argmax(1)
        last = offered.shape[1] - 1
        places = torch.arange(last, device=worst.device).expand(len(worst), -1)
        chosen = torch.where(places == worst[:, None], last, places)
        return RecedingState(offered.take_along_dim(chosen[..., None, None], 1))

    def actions(self, problem: Problem, state: RecedingState) -> Tensor:
        """See `Planner.actions`."""
        return state.actions

    def _whole(self, problem: Problem, noise: NoiseSource) -> Tensor:
        """A plan `[B, H, A]`, put together."""
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
        return torch.stack(taken[: problem.horizon], 1)
