"""Normalisation of vectors, fitted to data and saved with the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalizer(nn.Module):
    """Shifts and scales vectors to mean 0 and standard deviation 1, entry by entry or group by group.

    Args:
        size: length of the vectors.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def fit(self, values: Tensor, unit_groups: Sequence[Sequence[int]] = ()) -> None:
        """Fits mean and standard deviation to `[M, size]`; entries that never change keep scale 1.

        Args:
            values: the vectors.
            unit_groups: groups of entries in the same unit: all get the greatest standard deviation of the group.
        """
        self.mean.copy_(values.mean(0))
        std = values.std(0, correction=min(1, len(values) - 1))
        for group in map(list, unit_groups):
            std[group] = std[group].max()
        self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def forward(self, values: Tensor) -> Tensor:
        """Returns normalised values, `[..., size]`."""
        return (values - self.mean) / self.std

    def inverse(self, values: Tensor) -> Tensor:
        """Returns the original values of normalised ones, `[..., size]`."""
        return values * self.std + self.mean
