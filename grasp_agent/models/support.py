"""The region of states that a model was trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from grasp_agent.models.dynamics.base import WorldModel
from grasp_agent.models.dynamics.body_frame import FramedMLP
from grasp_agent.planners.regions import Support

_SAMPLED = 1000  # states, about, whose distances are computed; chosen by hand


def novelty(states: Tensor, episodes: Tensor) -> float:
    """Returns the 95 % quantile of distances from states to those of other episodes: how far a new episode strays."""
    sample = slice(None, None, max(1, len(states) // _SAMPLED))
    distance = torch.cdist(states[sample], states)
    distance[episodes[sample, None] == episodes] = torch.inf
    nearest = distance.amin(-1)
    nearest = nearest[nearest.isfinite()]
    return float(nearest.quantile(0.95)) if len(nearest) else 0.0


class FramedSupport(Support):
    """The region of states that are, in the frame of their body, near to training states.

    Args:
        points: `[P, S]` states whose invariants cover the region.
        radius: a state whose invariants are farther than this from all of theirs is off the support.
        model: the model of the body's frame.
    """

    def __init__(self, points: Tensor, radius: float, model: FramedMLP) -> None:
        super().__init__(points, radius)
        self._model, self._covered = model, Support(model.invariants(points), radius)

    def off(self, states: Tensor) -> Tensor:
        """See `Region.off`."""
        return self._covered.off(self._model.invariants(states))

    def nearest(self, states: Tensor) -> Tensor:
        """See `Region.nearest`: the body keeps its position and heading."""
        return self._model.from_invariants(self._covered.nearest(self._model.invariants(states)), states)


def make_support(model: WorldModel, points: Tensor, radius: float) -> Support:
    """Returns the region around points `[P, S]`; in the body's frame, for a model of one."""
    return FramedSupport(points, radius, model) if isinstance(model, FramedMLP) else Support(points, radius)
