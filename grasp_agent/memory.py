"""What an agent remembers of its experience: the replayed support and the roadmap through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from grasp_agent.models import WorldModel
from grasp_agent.planners import RoadmapGraph, Steering, Support, farthest_points

_POOL = 20_000  # states among which covering points are sought
_POINTS = 1000
_NODES = 500


@dataclass(frozen=True)
class Memory:
    """Support and roadmap of one model.

    Attributes:
        support: region of states that the model has seen.
        roadmap: routes through them; None where the model cannot drive from state to state in a few steps.
    """

    support: Support
    roadmap: RoadmapGraph | None

    @classmethod
    def build(cls, model: WorldModel, states: Tensor, episodes: Tensor, seed: int = 0) -> Memory:
        """Builds both from replayed states.

        Args:
            model: the model, already fitted.
            states: `[M, S]` [model units].
            episodes: `[M]`, the episode that each state belongs to.
            seed: of the choice of states where there are many.
        """
        order = torch.randperm(len(states), generator=torch.Generator().manual_seed(seed))[:_POOL]
        pool, origin = states[order.to(states.device)], episodes[order].to(states.device)
        index, radius = farthest_points(pool, _POINTS)
        points = pool[index]
        support = Support(points, max(radius, _novelty(pool, origin)))
        return cls(support, RoadmapGraph.build(points[:_NODES], _steering(model, points)))

    def tensors(self) -> dict[str, Tensor]:
        """What has to be saved."""
        radius = torch.tensor(self.support.radius)
        saved = {"support.points": self.support.points, "support.radius": radius}
        if self.roadmap is not None:
            # The nodes are the first of the support's points.
            saved["roadmap.neighbours"] = self.roadmap.neighbours.to(torch.int16)
            saved["roadmap.steps"] = self.roadmap.steps.to(torch.float16)
        return saved

    @classmethod
    def restore(cls, model: WorldModel, tensors: Mapping[str, Tensor]) -> Memory:
        """The inverse of `tensors`."""
        points = tensors["support.points"]
        if points.ndim != 2 or points.shape[1] != model.state_size:
            raise ValueError(f"support: expected points [P, {model.state_size}], got {list(points.shape)}")
        roadmap = None
        if "roadmap.steps" in tensors:
            steps = tensors["roadmap.steps"].to(points.dtype)
            neighbours = tensors["roadmap.neighbours"].long()
            if steps.shape != neighbours.shape or len(steps) > len(points) or neighbours.max() >= len(steps):
                raise ValueError(
                    f"roadmap: steps {list(steps.shape)} and neighbours {list(neighbours.shape)} do not fit"
                )
            roadmap = RoadmapGraph(points[: len(steps)], neighbours, steps, _steering(model, points))
        return cls(Support(points, float(tensors["support.radius"])), roadmap)


def _novelty(states: Tensor, episodes: Tensor) -> float:
    """How far a new episode strays from the old ones: 95 % quantile of the distance to other episodes' states."""
    sample = slice(None, None, max(1, len(states) // _POINTS))
    distance = torch.cdist(states[sample], states)
    distance[episodes[sample, None] == episodes] = torch.inf
    nearest = distance.amin(-1)
    nearest = nearest[nearest.isfinite()]
    return float(nearest.quantile(0.95)) if len(nearest) else 0.0


def _steering(model: WorldModel, points: Tensor) -> Steering:
    ones = points.new_ones(model.action_size)
    return Steering(action_jacobian=model.action_jacobian, members=model.members, low=-ones, high=ones)
