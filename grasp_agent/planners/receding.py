"""Long plans from short segments, by a receding horizon in the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from grasp_agent.planners.base import Planner
from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.noise import NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.validation import instance, whole


class RecedingState(NamedTuple):
    """The best plans so far."""

    actions: Tensor
    """`[B, N, H, A]`."""


@dataclass(frozen=True, kw_only=True)
class Receding(Planner[RecedingState]):
    """Builds a plan from short segments, each from the end of the last, and repeats this until a plan is accepted.

    Long plans with contacts are hard to find at once, and easy to find segment by segment. The segments follow the mean
    of the members. How far the members diverge shows when the whole plan is scored, and differs much between plans.

    Attributes:
        pieces: the planner of the segments.
        length: steps of a segment.
        commit: steps of it that are taken before the next one is planned.
    """

    needs_small_states: ClassVar[bool] = True
    needs_goal: ClassVar[bool] = True

    pieces: Planner[Any]
    iterations: int = 8
    length: int = 20
    commit: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(1, length=self.length, commit=self.commit)
        if self.commit > self.length:
            raise ValueError(f"commit: expected at most the length of a segment, {self.length}, got {self.commit}")
        instance(Planner, pieces=self.pieces)

    def init(self, problem: Problem, given: Candidates | None, noise: NoiseSource) -> RecedingState:
        """See `Planner.init`."""
        return RecedingState(problem.resting(1) if given is None else given.actions)

    def step(self, problem: Problem, state: RecedingState, noise: NoiseSource) -> RecedingState:
        """See `Planner.step`: one more plan, which replaces the worst one if it is better."""
        offered = torch.cat([state.actions, self._whole(problem, noise)[:, None]], 1)
        verdict = problem.score(offered)
        spared = verdict.accepted & ~verdict.accepted.all(1, keepdim=True)  # accepted plans are replaced last
        worst = verdict.cost.masked_fill(spared, -torch.inf).argmax(1)
        last = offered.shape[1] - 1
        indices = torch.arange(last, device=worst.device).expand(len(worst), -1)
        chosen = torch.where(indices == worst[:, None], last, indices)
        return RecedingState(offered.take_along_dim(chosen[..., None, None], 1))

    def actions(self, problem: Problem, state: RecedingState) -> Tensor:
        """See `Planner.actions`."""
        return state.actions

    def _whole(self, problem: Problem, noise: NoiseSource) -> Tensor:
        """Returns a whole plan `[B, H, A]`."""
        here, taken = problem.start, []
        running: Tensor | None = None
        rows, rest = (problem.members, -1, -1), problem.rest.expand(problem.size, self.commit, -1)
        while len(taken) < problem.horizon:
            segment = replace(problem, start=here, horizon=self.length)
            running = self.pieces.plan(segment, warm=running, seed=noise.seed()).actions
            for action in running[:, : self.commit].unbind(1):
                here = problem.dynamics(here.expand(*rows), action.expand(*rows)).mean(0)
                taken.append(action)
            running = torch.cat([running, rest], 1)[:, self.commit : self.commit + self.length]
        return torch.stack(taken[: problem.horizon], 1)
