"""What encoders are trained for besides prediction, the batches that this needs, and signs of a collapse."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from grasp_agent.models.encoder.encoder import PixelEncoder

_NONE = -100  # in place of a window's partner


def scattered(encoder: PixelEncoder, maps: Tensor, points: Tensor) -> Tensor:
    """How far maps `[..., K, cells]` are spread, by how far their points `[..., K, 2]` are apart, `[K]`."""
    apart = points.flatten(0, -3).var(0).sum(-1)
    return encoder.scatter(maps, points).flatten(0, -2).mean(0) / (apart + 1e-5)


def hinge(latents: Tensor) -> Tensor:
    """How far entries vary less than by 1, over the batch at each time: what moves in a window is too little.

    The variance term of VICReg (Bardes, Ponce and LeCun 2022, arXiv 2105.04906, eq. 1).
    """
    return (1 - (latents.var(0) + 1e-4).sqrt()).relu().mean()


def alike(latents: Tensor) -> Tensor:
    """Squared covariances of different entries, per entry: the covariance term of VICReg (eq. 4)."""
    covariance = _covariance(latents)
    return (covariance - covariance.diag().diag()).square().sum() / len(covariance)


class Pairs:
    """Batches in which windows come in pairs of the same episode, and how well these are told from others.

    Args:
        episodes: `[W]`, which windows belong to.
    """

    def __init__(self, episodes: NDArray[np.int64]) -> None:
        self._episodes, self._order = episodes, np.argsort(episodes, kind="stable")
        ordered = episodes[self._order]
        self._first = np.searchsorted(ordered, episodes, "left")
        self._others = np.searchsorted(ordered, episodes, "right") - self._first - 1
        self._rank = np.argsort(self._order) - self._first

    @property
    def several(self) -> bool:
        """Whether there are episodes to be told apart, of two windows or more."""
        return len(np.unique(self._episodes[self._others > 0])) > 1

    def batch(self, chosen: NDArray[np.int64], generator: torch.Generator) -> NDArray[np.int64]:
        """Half of the windows chosen, `[B]`, then, in the same order, another one of each one's episode, by chance.

        A window that is alone in its episode stands beside itself.
        """
        half = chosen[: len(chosen) // 2]
        place = (torch.rand(len(half), generator=generator).numpy() * self._others[half]).astype(np.int64)
        place += (place >= self._rank[half]) & (self._others[half] > 0)
        return np.concatenate([half, self._order[self._first[half] + place]])

    def confused(self, read: Tensor, batch: NDArray[np.int64]) -> Tensor:
        """How hard it is to say which ones belong together, by what was read, `[2 B, R]`, in a batch, `[2 B]`.

        InfoNCE (van den Oord, Li and Vinyals 2018, arXiv 1807.03748, eq. 4), both ways; others of the same episode are
        no rivals.
        """
        one, other = read.chunk(2)
        first, second = np.split(batch, 2)
        same = torch.from_numpy(self._episodes[first, None] == self._episodes[second]).to(read.device)
        near = -(one[:, None] - other).square().sum(-1)
        near = near.masked_fill(same & ~torch.eye(len(one), dtype=torch.bool, device=read.device), -torch.inf)
        found = np.where(first == second, _NONE, np.arange(len(first)))
        partner = torch.from_numpy(found).to(read.device)
        both = sum(cross_entropy(table, partner, ignore_index=_NONE, reduction="sum") for table in (near, near.mT))
        return torch.as_tensor(both) / max(1, 2 * int((first != second).sum()))


def rank_and_spread(latents: Tensor) -> tuple[float, float]:
    """Effective rank of latents `[..., D]`, and the least standard deviation of an entry."""
    covariance = _covariance(latents)
    spectrum = torch.linalg.eigvalsh(covariance).clamp_min(0)
    share = spectrum / spectrum.sum().clamp_min(1e-12)
    return float((-torch.xlogy(share, share).sum()).exp()), float(covariance.diag().clamp_min(0).sqrt().min())


def _covariance(latents: Tensor) -> Tensor:
    return latents.flatten(0, -2).mT.cov()
