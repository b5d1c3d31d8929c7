"""Small damped least-squares problems, solved in a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def least_squares(slopes: Tensor, residual: Tensor, damping: float) -> Tensor:
    """Damped solution x of `slopes x = residual`: `[..., S, A], [..., S] -> [..., A]`."""
    size = slopes.shape[-1]
    transposed = slopes.mT
    normal = transposed @ slopes
    diagonal = normal.diagonal(dim1=-2, dim2=-1)
    # The mean keeps actions without effect still; the floor keeps a zero matrix solvable.
    ridge = damping * diagonal.mean(-1, keepdim=True) + 1e-8
    normal = normal + torch.diag_embed(ridge.expand_as(diagonal))
    right = (transposed @ residual[..., None])[..., 0]
    if size == 1:
        return right / normal[..., 0]
    if size == 2:
        a, b, d = normal[..., 0, 0], normal[..., 0, 1], normal[..., 1, 1]
        x, y = right.unbind(-1)
        return torch.stack([d * x - b * y, a * y - b * x], -1) / (a * d - b * b)[..., None]
    return torch.linalg.solve_ex(normal, right)[0]
