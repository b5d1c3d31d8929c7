"""Latents as places on their principal axes, with axes of their own for what nothing moves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_STILL = 0.01  # share of its variance that what nothing changes may have within an episode


class Axes(nn.Module):
    """Turns normalised places onto axes.

    Args:
        entries: E, of all places together.
        latent: D, number of axes; None for E, as long as nothing is learned.
    """

    middle: Tensor
    axes: Tensor

    def __init__(self, entries: int, latent: int | None = None) -> None:
        super().__init__()
        self.register_buffer("middle", torch.zeros(entries))
        self.register_buffer("axes", torch.eye(entries)[:, : entries if latent is None else latent].clone())

    @property
    def size(self) -> int:
        """D, entries of a latent."""
        return self.axes.shape[1]

    @property
    def spots(self) -> int:
        """P, number of places that a latent stands for."""
        return len(self.axes) // 2

    def forward(self, normalised: Tensor) -> Tensor:
        """Latents `[..., D]` of normalised places `[..., E]`."""
        return (normalised - self.middle) @ self.axes

    def spotted(self, latents: Tensor) -> Tensor:
        """The normalised places `[..., P, 2]` that latents `[..., D]` stand for."""
        return (latents @ torch.linalg.pinv(self.axes) + self.middle).unflatten(-1, (-1, 2))

    @torch.no_grad()
    def turn(self, normalised: Tensor, share: float, episodes: Tensor | None = None) -> None:
        """Chooses the axes: those along which what was seen varies.

        What differs between episodes but stays within each, such as where a door is, gets axes of its own, and all else
        is free of it.

        Args:
            normalised: `[M, E]`, samples.
            share: axes with less than this share of the greatest variance are left out.
            episodes: `[M]`, the episodes that they belong to.
        """
        self.middle = normalised.mean(0)
        whole = normalised.mT.cov()
        variances, axes = torch.linalg.eigh(whole)
        kept = variances >= share * variances[-1]
        kept[-1] = True
        axes = axes[:, kept].flip(1)
        if episodes is not None:
            axes = _still_apart(axes, whole, _within(normalised, episodes))
        largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
        self.axes = axes * largest.sign()  # the same whatever the solver's choice of sign


def _within(values: Tensor, episodes: Tensor) -> Tensor:
    """Covariance of values `[M, E]` around their means in each of the episodes `[M]`."""
    _, place, counts = episodes.unique(return_inverse=True, return_counts=True)
    sums = values.new_zeros(len(counts), values.shape[1]).index_add(0, place, values)
    apart = values - (sums / counts[:, None])[place]
    return apart.mT @ apart / max(1, len(values) - len(counts))


def _still_apart(axes: Tensor, whole: Tensor, within: Tensor) -> Tensor:
    """Axes `[E, D]`, orthogonal, turned so that what hardly varies within an episode stands last, by itself."""
    whole, within = axes.mT @ whole @ axes, axes.mT @ within @ axes
    root = torch.linalg.cholesky(whole)
    flat = torch.linalg.solve_triangular(root, within, upper=False)
    shares, turned = torch.linalg.eigh(torch.linalg.solve_triangular(root, flat.mT, upper=False))
    still = shares < _STILL
    if not still.any() or still.all():
        return axes
    found = torch.linalg.solve_triangular(root.mT, turned, upper=True)  # uncorrelated, of variance 1
    told, other = found[:, still], found[:, ~still]
    # What the others say in the units of before: their part of the whole, on its principal axes.
    back = whole @ other
    _, main = torch.linalg.eigh(back @ back.mT)
    main = main[:, -other.shape[1] :].flip(1)
    moving = other @ (other.mT @ whole @ main)
    told = told * (told.mT @ whole @ whole @ told).diagonal().sqrt()
    return axes @ torch.cat([moving, told], 1)
