"""Closed-form regressions that readouts are found with."""

from __future__ import annotations

from itertools import combinations_with_replacement

import torch
from torch import Tensor


def regressed(inputs: Tensor, outputs: Tensor, ridge: float = 1e-3) -> Tensor:
    """Ridge regression `[E, F]` of `[M, F]` on `[M, E]`; the ridge is a mean square of inputs."""
    weight = ridge * len(inputs) * torch.eye(inputs.shape[1], device=inputs.device)
    return torch.linalg.solve(inputs.mT @ inputs + weight, inputs.mT @ outputs)


def cubic(values: Tensor) -> Tensor:
    """Products of up to three entries of values `[M, F]`, and 1; 10 of them for two entries."""
    columns = [values.new_ones(len(values))]
    for degree in (1, 2, 3):
        for chosen in combinations_with_replacement(range(values.shape[1]), degree):
            columns.append(values[:, list(chosen)].prod(1))
    return torch.stack(columns, 1)
