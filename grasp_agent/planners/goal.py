"""Goals as target values of some entries of the state."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class EntryGoal:
    """Target values of some entries of the state; the others are free.

    Attributes:
        size: S, the length of a state.
        index: `[E]`, the named entries.
        target: `[B, E]`, their target values [state units].
        weights: `[E]`, weights of the squared differences.
        tolerance: distance at which a part counts as reached, in the units of `sqrt(parts)`.
        part: `[E]`, the part, from 0 to G - 1, that an entry belongs to; None for a single part.
    """

    size: int
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
        return (states - self._targets) * self._slopes

    def curvature(self, states: Tensor) -> Tensor:
        """See `Goal.curvature`: a constant."""
        return torch.diag(self._slopes).expand(*states.shape, -1)

    def project(self, states: Tensor) -> Tensor:
        """See `Goal.project`: the named entries at their targets."""
        return torch.where(self._named, self._targets, states)

    def _difference(self, states: Tensor) -> Tensor:
        return states.index_select(-1, self.index) - self.target[:, None, None]

    @cached_property
    def _targets(self) -> Tensor:
        """`[B, 1, 1, S]`, the targets at their entries; 0 elsewhere."""
        targets = self.target.new_zeros(len(self.target), self.size).index_copy_(-1, self.index, self.target)
        return targets[:, None, None]

    @cached_property
    def _slopes(self) -> Tensor:
        """`[S]`, twice the weights at their entries; 0 elsewhere."""
        return self.weights.new_zeros(self.size).index_copy_(0, self.index, 2 * self.weights)

    @cached_property
    def _named(self) -> Tensor:
        """`[S]`, True for the named entries."""
        return torch.zeros_like(self._slopes, dtype=torch.bool).index_fill_(0, self.index, True)

    @cached_property
    def _weights_of_parts(self) -> Tensor:
        if self.part is None:
            return self.weights[:, None]
        return self.weights[:, None] * torch.nn.functional.one_hot(self.part).to(self.weights)
