"""The region of states that a model was trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from grasp_agent.models.dynamics.base import WorldModel
from grasp_agent.models.dynamics.body_frame import FramedMLP
from grasp_agent.planners import farthest_points
from grasp_agent.planners.chunks import chunked
from grasp_agent.planners.regions import Support, TerminalStates

# All values below are chosen by hand.
_SAMPLED = 1000  # states, about, whose distances are computed
_ENDS = 300  # terminal states that are kept
_NEIGHBOURS = 8  # states next to each of them that are kept
_LARGEST_RATIO = 3.0  # greatest ratio of a `TerminalStates`
_APART = 1.5  # least distance of the median terminal state to others, in multiples of the distance between those


def novelty(states: Tensor, episodes: Tensor) -> float:
    """Returns the 95 % quantile of distances from states to those of other episodes: how far a new episode strays."""
    nearest = _to_other_episodes(states, episodes)
    return float(nearest.quantile(0.95)) if len(nearest) else 0.0


def _to_other_episodes(states: Tensor, episodes: Tensor) -> Tensor:
    """Returns distances of a sample of states `[M, S]` to the nearest one of another episode `[M]`."""
    sample = slice(None, None, max(1, len(states) // _SAMPLED))

    def nearest_other(some: Tensor, own: Tensor) -> Tensor:
        return torch.cdist(some, states).masked_fill_(own[:, None] == episodes, torch.inf).amin(-1)

    nearest = chunked(nearest_other, states[sample], episodes[sample], width=len(states))
    return nearest[nearest.isfinite()]


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


def terminal_states(states: Tensor, episodes: Tensor, ends: Tensor, points: Tensor) -> TerminalStates | None:
    """Returns the region of terminal states; None where the state does not predict the end of an episode.

    Args:
        states: `[M, S]` from which steps were seen.
        episodes: `[M]`, the episode of each.
        ends: `[E, S]`, recorded terminal states.
        points: `[P, S]`, some of the states, which cover their region.
    """
    spacing = _to_other_episodes(states, episodes)
    ends = ends[farthest_points(ends, _ENDS)[0]]
    if not len(spacing) or len(ends) < 2:
        return None
    near, index = torch.cdist(ends, states).topk(min(_NEIGHBOURS, len(states)), largest=False)
    if not near[:, 0].median() > _APART * spacing.median():
        return None
    apart = torch.cdist(ends, ends).fill_diagonal_(torch.inf).amin(-1)
    ratio = min(max(1.0, float(apart.median() / spacing.median())), _LARGEST_RATIO)
    starts = torch.cat([points, states[index.flatten().unique()]])
    return TerminalStates(half_precision(ends), half_precision(starts), ratio)


def half_precision(values: Tensor) -> Tensor:
    """Returns values rounded to half precision, as they are after saving and loading."""
    return values.to(torch.float16).to(values.dtype)
