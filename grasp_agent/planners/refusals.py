"""Steps that an environment refused: obstacles that a model does not know."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_MISSING = 0.5  # part of a predicted change that a refused step misses; chosen by hand


def refused(before: Tensor, predicted: Tensor, reached: Tensor, least: float) -> Tensor:
    """Returns whether most of the predicted change of a step is missing, `[...]`.

    Args:
        before: `[..., S]`, states in which steps were taken.
        predicted: `[..., S]`, the states that were predicted after them.
        reached: `[..., S]`, the states that were reached; more change than predicted is another thing.
        least: predicted changes that are smaller do not count [state units].
    """
    change = (predicted - before).norm(dim=-1)
    made, missing = (reached - before).norm(dim=-1), (predicted - reached).norm(dim=-1)
    return (change > least) & (made < change) & (missing > _MISSING * change)


class Refusals:
    """Steps that were not made as predicted: whoever steps the same way nearby meets the same obstacle.

    Each refusal is the difference that the environment left: from the state that was reached to the predicted one. It
    stands for an obstacle across its middle, whose weight falls with the distance from it along the obstacle.

    Args:
        reached: `[B, R, S]`, states that were reached.
        predicted: `[B, R, S]`, predicted ones; rows that equal `reached` stand for no refusal.
        width: standard deviation of the weight along the obstacle [state units].
    """

    def __init__(self, reached: Tensor, predicted: Tensor, width: float) -> None:
        used = (reached != predicted).any(-1).any(0)  # of some problem
        self._reached, self._predicted, self._width = reached[:, used], predicted[:, used], width
        difference = self._predicted - self._reached
        self._length = difference.norm(dim=-1, keepdim=True)  # [B, R, 1]
        self._normal = difference / self._length.clamp_min(1e-12)
        self._middle = (self._reached + self._predicted) / 2

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return self._length.numel() > 0

    def of_block(self, entries: Sequence[int]) -> Refusals:
        """Returns those of a block's entries: the others refused no step of that block."""
        reached, predicted = self._reached[..., list(entries)], self._predicted[..., list(entries)]
        own = (predicted - reached).norm(dim=-1, keepdim=True) > 0.5 * self._length
        return Refusals(reached, torch.where(own, predicted, reached), self._width)

    def of_problem(self, row: int) -> Refusals:
        """Returns those of one problem."""
        return Refusals(self._reached[row : row + 1], self._predicted[row : row + 1], self._width)

    def crossed(self, start: Tensor, end: Tensor) -> Tensor:
        """Returns the weight of obstacles between states `[B, ..., S]`, `[B, ...]`; 1 for one that is met centrally."""
        shape = start.shape[:-1]
        before, after = (states.reshape(len(states), -1, states.shape[-1]) for states in (start, end))  # [B, M, S]
        level = (self._middle * self._normal).sum(-1)[:, :, None]
        low, high = (self._normal @ states.mT - level for states in (before, after))  # [B, R, M]
        passes = (low <= 0) & (high > 0) & (self._length > 0)
        found = torch.zeros_like(low)
        batch, refusal, row = passes.nonzero(as_tuple=True)
        if len(batch):
            span = low[passes] / (low[passes] - high[passes])
            hit = torch.lerp(before[batch, row], after[batch, row], span[:, None])
            across = (hit - self._middle[batch, refusal]).norm(dim=-1)
            found[passes] = torch.exp(-0.5 * (across / self._width).square())
        return found.sum(1).view(shape)
