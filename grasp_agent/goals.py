"""Goals: named entries of the state that should take given values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class EntryGoal:
    """Some entries of the state should take given values; the others are free.

    Attributes:
        index: `[E]`, the named entries.
        target: `[B, E]`, their values [state units].
        weights: `[E]`, weights of the squared differences.
        tolerance: distance at which a part counts as reached, in the units of `sqrt(parts)`.
        part: `[E]`, the part, from 0 to G - 1, that an entry belongs to; None for a single part.
    """

    index: Tensor
    target: Tensor
    weights: Tensor
    tolerance: float
    part: Tensor | None = None

    def parts(self, states: Tensor) -> Tensor:
        """See `Goal.parts`: weighted squared distances."""
        return self._difference(states).square() @ self._weights_of_parts

    def cost(self, states: Tensor) -> Tensor:
        """See `Goal.cost`."""
        return self._difference(states).square() @ self.weights

    def gradient(self, states: Tensor) -> Tensor:
        """See `Goal.gradient`."""
        slope = 2 * self.weights * self._difference(states)
        return torch.zeros_like(states).index_copy_(-1, self.index, slope)

    def curvature(self, states: Tensor) -> Tensor:
        """See `Goal.curvature`: the same everywhere."""
        diagonal = states.new_zeros(states.shape[-1]).index_copy(-1, self.index, 2 * self.weights)
        return torch.diag(diagonal).expand(*states.shape, -1)

    def project(self, states: Tensor) -> Tensor:
        """See `Goal.project`: the named entries at their targets."""
        target = self.target[:, None, None].expand(*states.shape[:-1], -1)
        return states.index_copy(-1, self.index, target)

    def _difference(self, states: Tensor) -> Tensor:
        return states[..., self.index] - self.target[:, None, None]

    @cached_property
    def _weights_of_parts(self) -> Tensor:
        if self.part is None:
            return self.weights[:, None]
        return self.weights[:, None] * torch.nn.functional.one_hot(self.part).to(self.weights)
