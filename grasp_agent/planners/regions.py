"""Regions of states that a model was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from grasp_agent.planners.protocols import Block

_ON_LINE = 8  # states on a line between two that are checked; chosen by hand
_ROWS = 4096  # states whose distances are computed at once, which limits memory; chosen by hand


class Support:
    """The region of states that a model was trained on: balls around points that cover the replayed states.

    Args:
        points: `[P, S]` covering points.
        radius: a state farther than this from every point is off the support.
    """

    def __init__(self, points: Tensor, radius: float) -> None:
        self.points = points
        self.radius = radius
        self._squares = points.square().sum(-1)

    def off(self, states: Tensor) -> Tensor:
        """See `Region.off`."""
        return (self.squared_distance(self._flat(states)) > self.radius**2).view(*states.shape[:-1], 1)

    def squared_distance(self, flat: Tensor) -> Tensor:
        """Returns squared distances `[M]` of states `[M, S]` to the nearest point; rounding may make them negative."""
        return self._partial(flat).amin(-1) + flat.square().sum(-1)

    def nearest(self, states: Tensor) -> Tensor:
        """See `Region.nearest`."""
        index = self._partial(self._flat(states)).argmin(-1)
        return self.points[index].view(states.shape)

    @staticmethod
    def _flat(states: Tensor) -> Tensor:
        """Returns `[M, S]`; S may be 0, for a body without other entries."""
        return states.reshape(math.prod(states.shape[:-1]), states.shape[-1])

    def _partial(self, flat: Tensor) -> Tensor:
        """Returns squared distances `[M, P]` of states to the points, minus the squared norm of the states."""
        return torch.addmm(self._squares, flat, self.points.T, alpha=-2)


class TerminalStates:
    """States at which episodes ended for good: near to recorded ones, relative to states from which steps were seen.

    Args:
        ends: `[E, S]`, recorded terminal states.
        starts: `[P, S]`, states from which steps were seen, those next to the terminal ones among them.
        ratio: a state is terminal if its distance to the nearest of `ends` is less than its distance to the nearest of
            `starts`, times this.
    """

    def __init__(self, ends: Tensor, starts: Tensor, ratio: float) -> None:
        self.ends, self.starts, self.ratio = ends, starts, ratio
        self._near = Support(ends, 0.0), Support(starts, 0.0)

    def contains(self, states: Tensor) -> Tensor:
        """Returns whether states `[..., S]` are terminal, `[...]`."""
        flat = states.reshape(-1, states.shape[-1])
        return torch.cat([self._contains(rows) for rows in flat.split(_ROWS)]).view(states.shape[:-1])

    def _contains(self, rows: Tensor) -> Tensor:
        end, start = (near.squared_distance(rows).clamp_min(0) for near in self._near)
        return end < self.ratio**2 * start

    def crossed(self, start: Tensor, end: Tensor) -> Tensor:
        """Returns whether lines between states `[..., S]` lead through a terminal one before their end, `[...]`."""
        fractions = torch.linspace(0, 1, _ON_LINE, device=start.device, dtype=start.dtype)[:-1, None]
        return self.contains(torch.lerp(start[..., None, :], end[..., None, :], fractions)).any(-1)


class BlockSupport:
    """A region for each block.

    Args:
        supports: the blocks' regions, each of the block's entries only.
        blocks: the blocks.
    """

    def __init__(self, supports: Sequence[Support], blocks: Sequence[Block]) -> None:
        self.supports, self._blocks = tuple(supports), tuple(blocks)

    def off(self, states: Tensor) -> Tensor:
        """See `Region.off`."""
        parts = [s.off(states[..., list(b.states)]) for s, b in zip(self.supports, self._blocks, strict=True)]
        return torch.cat(parts, -1)

    def nearest(self, states: Tensor) -> Tensor:
        """See `Region.nearest`."""
        states = states.clone()
        for support, block in zip(self.supports, self._blocks, strict=True):
            entries = list(block.states)
            states[..., entries] = support.nearest(states[..., entries])
        return states
