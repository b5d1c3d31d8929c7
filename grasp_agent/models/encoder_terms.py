"""What encoders are trained for, besides that one step is predictable: terms of their loss; see `encoder_training`."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from grasp_agent.models.encoder import PixelEncoder


def scattered(encoder: PixelEncoder, maps: Tensor, points: Tensor) -> Tensor:
    """How far maps `[..., K, cells]` are spread, by how far their points `[..., K, 2]` are apart, `[K]`."""
    apart = points.flatten(0, -3).var(0).sum(-1)
    return encoder.scatter(maps, points).flatten(0, -2).mean(0) / (apart + 1e-5)


def confused(read: Tensor, episodes: NDArray[np.int64]) -> Tensor:
    """How hard it is to say which of the second half of what was read, `[2 B, R]`, is of the same episode (InfoNCE)."""
    one, other = read.chunk(2)
    near = -(one[:, None] - other).square().sum(-1)
    own = torch.arange(len(one), device=read.device)
    also = torch.from_numpy(episodes[: len(one), None] == episodes[len(one) :]).to(read.device)
    near = near.masked_fill(also & (own[:, None] != own), -torch.inf)
    return (nn.functional.cross_entropy(near, own) + nn.functional.cross_entropy(near.mT, own)) / 2


def _covariance(latents: Tensor) -> Tensor:
    return latents.flatten(0, -2).mT.cov()


def hinge(latents: Tensor) -> Tensor:
    """How far entries vary less than by 1, over the batch at each time: what moves in a window is too little."""
    return (1 - (latents.var(0) + 1e-4).sqrt()).relu().mean()


def alike(latents: Tensor) -> Tensor:
    """Squared covariances of different entries, per entry."""
    covariance = _covariance(latents)
    return (covariance - covariance.diag().diag()).square().sum() / len(covariance)


def shape(latents: Tensor) -> tuple[float, float]:
    """Effective rank and least spread."""
    covariance = _covariance(latents)
    spectrum = torch.linalg.eigvalsh(covariance).clamp_min(0)
    share = spectrum / spectrum.sum().clamp_min(1e-12)
    return float((-torch.xlogy(share, share).sum()).exp()), float(covariance.diag().clamp_min(0).sqrt().min())


class Pairs:
    """Batches of windows in which each has another one of its episode.

    Args:
        episodes: `[W]`, which windows belong to.
    """

    def __init__(self, episodes: NDArray[np.int64]) -> None:
        self.episodes, self._order = episodes, np.argsort(episodes, kind="stable")
        self._sorted = episodes[self._order]

    def batch(self, chosen: NDArray[np.int64], generator: torch.Generator) -> NDArray[np.int64]:
        """Half of the windows chosen, `[B]`, then, in the same order, one of each one's episode, by chance."""
        half = chosen[: -(-len(chosen) // 2)]
        first, last = (np.searchsorted(self._sorted, self.episodes[half], side) for side in ("left", "right"))
        place = torch.rand(len(half), generator=generator).numpy() * (last - first)
        return np.concatenate([half, self._order[first + place.astype(np.int64)]])
