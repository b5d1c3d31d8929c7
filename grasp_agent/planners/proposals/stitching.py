"""Proposals along a roadmap of recorded moments: pieces of several trajectories, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from grasp_agent.planners.base import Initial
from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.noise import NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.planners.proposals.retrieval import Retrieval
from grasp_agent.planners.roadmap.recorded import RecordedRoadmap


@dataclass(frozen=True, kw_only=True)
class Stitching:
    """Recorded actions along the routes of a `RecordedRoadmap`, then rest.

    Attributes:
        otherwise: source of candidates without such a roadmap, and where it has no route.
    """

    otherwise: Initial = field(default_factory=Retrieval)

    def __call__(self, problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        """See `Initial`."""
        roadmap = problem.roadmap
        if not isinstance(roadmap, RecordedRoadmap):
            return self.otherwise(problem, count, noise)
        goal = problem.goal.project(problem.start[:, None, None])[:, 0, 0]
        actions, taken, found = roadmap.plans(problem.start, goal, count, problem.horizon)
        actions = torch.where(taken[..., None], actions, problem.rest)
        if not found.all():
            actions = torch.where(found[..., None, None], actions, self.otherwise(problem, count, noise).actions)
        return Candidates(problem.follow(actions), actions)
