"""Proposals from recorded trajectories: the actions between two states that are near the start and the goal."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from grasp_agent.planners.base import Initial
from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.chunks import chunked
from grasp_agent.planners.distance_goal import DistanceGoal
from grasp_agent.planners.noise import NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.planners.proposals.initial import Rollout
from grasp_agent.planners.protocols import Goal, Recording
from grasp_agent.validation import whole


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Recorded actions that led from a state near the start to one near the goal, then rest.

    Unlike `Replay` it only compares the two ends of a segment, and takes its actions as they are: for latents in which
    a line between two states has no meaning.

    Attributes:
        apart: segments of a trajectory that begin fewer rows than this apart count as the same; the best is taken.
        otherwise: source of candidates without a recording.
    """

    apart: int = 5
    otherwise: Initial = field(default_factory=Rollout)

    def __post_init__(self) -> None:
        whole(1, apart=self.apart)

    def __call__(self, problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        """See `Initial`."""
        record = problem.recording
        if record is None:
            return self.otherwise(problem, count, noise)
        goal = problem.goal
        near_start = DistanceGoal(
            target=problem.start, tolerance=goal.tolerance, distance=getattr(goal, "distance", None)
        )
        begin, end = (_distances(known, record.states, problem.size) for known in (near_start, goal))
        actions = torch.stack([self._segments(problem, record, *row, count) for row in zip(begin, end, strict=True)])
        return Candidates(problem.follow(actions), actions)

    def _segments(self, problem: Problem, record: Recording, begin: Tensor, end: Tensor, count: int) -> Tensor:
        """Returns the actions of the best segments for one problem, `[count, H, A]`.

        Args:
            problem: of which bounds and horizon count.
            record: the trajectories.
            begin: `[M]`, distances of the recorded states to the start.
            end: `[M]`, those to the goal.
            count: number of segments; with fewer, some are repeated.
        """
        moments = torch.arange(len(end), device=end.device)[:, None]
        steps = torch.arange(problem.horizon + 1, device=end.device)
        ends = end[(moments + steps * record.stride).clamp_max(len(end) - 1)]
        nearest = torch.where(steps <= record.left[:, None], ends, torch.inf).min(1)
        chosen = self._distinct(begin + nearest.values, count)
        rows = (moments[chosen] + steps[:-1] * record.stride).clamp_max(len(end) - 1)
        taken = steps[:-1] < nearest.indices[chosen][:, None]
        return torch.where(taken[..., None], record.actions[rows], problem.rest)

    def _distinct(self, cost: Tensor, count: int) -> Tensor:
        """Returns the indices `[count]` of the lowest costs that are `apart` from each other."""
        chosen: list[int] = []
        for index in cost.argsort()[: 2 * count * self.apart].tolist():
            if all(abs(index - other) >= self.apart for other in chosen):
                chosen.append(index)
        return torch.tensor([chosen[i % len(chosen)] for i in range(count)], device=cost.device)


def _distances(goal: Goal, states: Tensor, size: int) -> Tensor:
    """Returns distances of states `[M, S]` to the goals of B problems, `[B, M]` [tolerances]."""

    def squared(rows: Tensor) -> Tensor:
        return goal.parts(rows.expand(size, 1, -1, -1))[:, 0].sum(-1).T

    return chunked(squared, states, width=size * states.shape[1]).T.clamp_min(0).sqrt() / goal.tolerance
