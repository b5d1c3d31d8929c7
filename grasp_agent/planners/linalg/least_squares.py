"""Batched solvers of small symmetric systems and damped least-squares problems."""

from __future__ import annotations

import torch
from torch import Tensor


def least_squares(slopes: Tensor, residual: Tensor, damping: float) -> Tensor:
    """Returns the damped solution x of `slopes x = residual`: `[..., S, A], [..., S] -> [..., A]`."""
    size = slopes.shape[-1]
    products = slopes.mT @ torch.cat([slopes, residual[..., None]], -1)
    if size == 2:  # closed form: many tiny calls would take most of the time of a serial rollout
        a, b, x, _, d, y = products.flatten(-2).unbind(-1)
        ridge = (damping / 2) * (a + d) + 1e-8
        a, d = a + ridge, d + ridge
        return torch.stack([d * x - b * y, a * y - b * x], -1) / (a * d - b * b)[..., None]
    normal = products[..., :-1]
    diagonal = normal.diagonal(dim1=-2, dim2=-1)
    # The mean keeps actions without effect still; the floor keeps a zero matrix solvable.
    ridge = damping * diagonal.mean(-1, keepdim=True) + 1e-8
    return solve_symmetric(normal + torch.diag_embed(ridge.expand_as(diagonal)), products[..., -1:])[..., 0]


def solve_symmetric(matrix: Tensor, right: Tensor) -> Tensor:
    """Returns the solution of symmetric systems: `[..., A, A], [..., A, R] -> [..., A, R]`; closed form for A <= 2."""
    size = matrix.shape[-1]
    if size == 1:
        return right / matrix
    if size == 2:
        a, b, d = matrix[..., :1, :1], matrix[..., :1, 1:], matrix[..., 1:, 1:]
        x, y = right[..., :1, :], right[..., 1:, :]
        return torch.cat([d * x - b * y, a * y - b * x], -2) / (a * d - b * b)
    return torch.linalg.solve_ex(matrix, right)[0]
