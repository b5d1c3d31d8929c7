"""Goals: named entries of the state that should take given values."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class EntryGoal:
    """Some entries of the state should take given values; the others are free.

    Attributes:
        index: `[G]`, the named entries.
        target: `[B, G]`, their values [state units].
        weights: `[G]`, weights of the squared differences.
        tolerance: distance at which the goal counts as reached, in the units of `sqrt(cost)`.
    """

    index: Tensor
    target: Tensor
    weights: Tensor
    tolerance: float

    def cost(self, states: Tensor) -> Tensor:
        """Weighted squared distance, `[..., B, N, H, S] -> [..., B, N, H]`."""
        difference = states[..., self.index] - self.target[:, None, None]
        return (difference.square() * self.weights).sum(-1)

    def project(self, states: Tensor) -> Tensor:
        """The states with the named entries at their targets, `[..., B, N, H, S] -> [..., B, N, H, S]`."""
        target = self.target[:, None, None].expand(*states.shape[:-1], -1)
        return states.index_copy(-1, self.index, target)
