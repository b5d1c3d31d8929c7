"""The region of states that a model has seen."""

from __future__ import annotations

import torch
from torch import Tensor

from grasp_agent.models.dynamics.base import WorldModel
from grasp_agent.models.dynamics.body_frame import FramedMLP
from grasp_agent.planners.regions import Support

_SAMPLED = 1000  # states, about, whose distances are looked at


def novelty(states: Tensor, episodes: Tensor) -> float:
    """How far a new episode strays from the old ones: 95 % quantile of the distance to other episodes' states."""
    sample = slice(None, None, max(1, len(states) // _SAMPLED))
    distance = torch.cdist(states[sample], states)
    distance[episodes[sample, None] == episodes] = torch.inf
    nearest = distance.amin(-1)
    nearest = nearest[nearest.isfinite()]
    return float(nearest.quantile(0.95)) if len(nearest) else 0.0


class FramedSupport(Support):
    """The region of states that look, from their body, like some that a model has seen.

    Args:
        points: `[P, S]` states whose looks cover the region.
        radius: a state that looks farther than this from all of them is off the support.
        model: knows the body.
    """

    def __init__(self, points: Tensor, radius: float, model: FramedMLP) -> None:
        super().__init__(points, radius)
        self._model, self._looks = model, Support(model.apart(points), radius)

    def off(self, states: Tensor) -> Tensor:
        """See `Region.off`."""
        return self._looks.off(self._model.apart(states))

    def nearest(self, states: Tensor) -> Tensor:
        """See `Region.nearest`: the body stays where it is."""
        return self._model.placed(self._looks.nearest(self._model.apart(states)), states)


def support_of(model: WorldModel, points: Tensor, radius: float) -> Support:
    """The region around points `[P, S]`; as a body sees it, for a model of one."""
    return FramedSupport(points, radius, model) if isinstance(model, FramedMLP) else Support(points, radius)
