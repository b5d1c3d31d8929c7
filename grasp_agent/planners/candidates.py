"""The layout of candidates: as plans, and as rows of an ensemble's members."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

_MANY = 2  # times as many entries of the state as of the action, from which forward mode is cheaper


class Candidates(NamedTuple):
    """Plans, as virtual states and actions."""

    states: Tensor
    """`[B, N, H, S]`, s_1 .. s_H; of a running plan under an objective, whose planners take actions alone, s_0."""
    actions: Tensor
    """`[B, N, H, A]`, a_0 .. a_{H-1}."""
    rollouts: Tensor | None = None
    """`[K, B, N, H, S]`, rollouts under all members with feedback towards the states, if known; these are scored."""

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """States and actions."""
        return self.states, self.actions

    @property
    def size(self) -> int:
        """N."""
        return self.actions.shape[1]

    def first(self, count: int) -> Candidates:
        """Returns the first candidates."""
        return Candidates(self.states[:, :count], self.actions[:, :count])

    def join(self, other: Candidates | None) -> Candidates:
        """Returns these candidates, then the others."""
        if other is None:
            return self
        return Candidates(torch.cat([self.states, other.states], 1), torch.cat([self.actions, other.actions], 1))


class Fold(NamedTuple):
    """The layout of candidates `[B, N, ...]` as rows `[k, M]` of an ensemble's first k members."""

    shape: tuple[int, ...]
    members: int

    @staticmethod
    def of(states: Tensor, members: int) -> Fold:
        """Returns the layout of candidates `[B, N, ..., S]`; k is the largest divisor of N up to `members`."""
        return Fold(tuple(states.shape[:-1]), _largest_divisor(states.shape[1], members))

    def rows(self, values: Tensor) -> Tensor:
        """Returns values `[B, N, ..., V]` as rows `[k, M, V]`."""
        if self.members == 1:
            return values.reshape(1, -1, values.shape[-1])
        groups = values.reshape(-1, self.members, self._inner * values.shape[-1])
        return groups.transpose(0, 1).reshape(self.members, -1, values.shape[-1])

    def back(self, rows: Tensor) -> Tensor:
        """Returns rows `[k, M, ...]` as values `[B, N, ..., ...]`."""
        rest = rows.shape[2:]
        if self.members == 1:
            return rows.view(*self.shape, *rest)
        groups = rows.view(self.members, -1, *self.shape[2:], *rest)
        return groups.transpose(0, 1).reshape(*self.shape, *rest)

    @property
    def _inner(self) -> int:
        return prod(self.shape[2:])


@cache
def _largest_divisor(count: int, limit: int) -> int:
    return next(k for k in range(limit, 0, -1) if count % k == 0)


def derivative(function: Callable[[Tensor], Tensor], inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Returns values `[..., S]` and derivative `[..., S, I]` of a function of `[..., I]` that treats rows apart.

    By forward-mode differentiation in I batched products where S is much greater than I and the function permits it,
    else by reverse mode in S products.

    Raises:
        ValueError: if the values do not depend on the inputs.
    """
    leaf = inputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        values = function(leaf)
    if not values.requires_grad:
        raise ValueError(
            "dynamics: expected a derivative by the action, got none; pass action_jacobian=, or take a planner "
            "without derivatives and Criteria(feedback=False)"
        )
    if values.shape[-1] > _MANY * inputs.shape[-1]:
        try:
            return values.detach(), _forward_slopes(function, inputs.detach())
        except RuntimeError:  # an operation without forward mode, or one that cannot be batched
            pass
    (slopes,) = torch.autograd.grad(values, leaf, _basis(values), is_grads_batched=True)
    return values.detach(), slopes.movedim(0, -2)


def _forward_slopes(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    def product(tangents: Tensor) -> Tensor:
        return torch.func.jvp(function, (inputs,), (tangents,))[1]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, when it loads its rules of forward mode
        return torch.func.vmap(product)(_basis(inputs)).movedim(0, -1)


def _basis(rows: Tensor) -> Tensor:
    """Returns the unit vectors of rows `[..., I]`, each for all rows: `[I, ..., I]`."""
    basis = torch.eye(rows.shape[-1], dtype=rows.dtype, device=rows.device)
    return basis.view(-1, *[1] * (rows.ndim - 1), rows.shape[-1]).expand(-1, *rows.shape)
