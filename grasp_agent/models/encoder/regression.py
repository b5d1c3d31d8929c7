"""Closed-form regressions for the readouts."""

from __future__ import annotations

from itertools import combinations_with_replacement

import torch
from torch import Tensor


def regressed(inputs: Tensor, outputs: Tensor, ridge: float = 1e-3) -> Tensor:
    """Returns the ridge regression `[E, F]` of outputs `[M, F]` on inputs `[M, E]`.

    The ridge is relative to a mean square of 1 of the inputs.
    """
    weight = ridge * len(inputs) * torch.eye(inputs.shape[1], device=inputs.device)
    return torch.linalg.solve(inputs.mT @ inputs + weight, inputs.mT @ outputs)


def cubic(values: Tensor) -> Tensor:
    """Returns all monomials of degree 0 to 3 in the entries of values `[M, F]`, such as `[M, 10]` for two entries."""
    columns = [values.new_ones(len(values))]
    for degree in (1, 2, 3):
        for chosen in combinations_with_replacement(range(values.shape[1]), degree):
            columns.append(values[:, list(chosen)].prod(1))
    return torch.stack(columns, 1)
