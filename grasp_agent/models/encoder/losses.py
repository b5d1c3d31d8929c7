"""Regularisation losses of encoders, batches for the contrastive one, and measures of collapse."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from grasp_agent.models.encoder.encoder import PixelEncoder

_NO_PARTNER = -100  # class index that cross entropy ignores


def relative_spread(encoder: PixelEncoder, maps: Tensor, points: Tensor) -> Tensor:
    """Returns `[K]`, the spread of maps `[..., K, cells]` relative to the variance of their centres `[..., K, 2]`."""
    variance = points.flatten(0, -3).var(0).sum(-1)
    return encoder.scatter(maps, points).flatten(0, -2).mean(0) / (variance + 1e-5)


def variance_hinge(latents: Tensor) -> Tensor:
    """Returns how far the standard deviations of entries fall below 1: the variance term of VICReg.

    They are taken over the batch at each time, as motion within a window is small (Bardes, Ponce and LeCun 2022, arXiv
    2105.04906, eq. 1).
    """
    return (1 - (latents.var(0) + 1e-4).sqrt()).relu().mean()


def covariance_penalty(latents: Tensor) -> Tensor:
    """Returns the squared covariances of different entries, per entry: the covariance term of VICReg (eq. 4)."""
    covariance = _covariance(latents)
    return (covariance - covariance.diag().diag()).square().sum() / len(covariance)


class EpisodePairs:
    """Batches of window pairs of the same episode, and their contrastive loss.

    Args:
        episodes: `[W]`, the episodes of the windows.
    """

    def __init__(self, episodes: NDArray[np.int64]) -> None:
        self._episodes, self._order = episodes, np.argsort(episodes, kind="stable")
        ordered = episodes[self._order]
        self._first = np.searchsorted(ordered, episodes, "left")
        self._others = np.searchsorted(ordered, episodes, "right") - self._first - 1
        self._rank = np.argsort(self._order) - self._first

    @property
    def has_several_episodes(self) -> bool:
        """Whether at least two episodes have two windows or more."""
        return len(np.unique(self._episodes[self._others > 0])) > 1

    def batch(self, chosen: NDArray[np.int64], generator: torch.Generator) -> NDArray[np.int64]:
        """Returns the first half of the chosen windows `[B]`, then a random partner of each, of the same episode.

        A window that is alone in its episode is its own partner.
        """
        half = chosen[: len(chosen) // 2]
        place = (torch.rand(len(half), generator=generator).numpy() * self._others[half]).astype(np.int64)
        place += (place >= self._rank[half]) & (self._others[half] > 0)
        return np.concatenate([half, self._order[self._first[half] + place]])

    def contrastive_loss(self, projections: Tensor, batch: NDArray[np.int64]) -> Tensor:
        """Returns the contrastive loss of projections `[2 B, R]` of a batch `[2 B]`: partners should be nearest.

        It is InfoNCE (van den Oord, Li and Vinyals 2018, arXiv 1807.03748, eq. 4) in both directions; other windows of
        the same episode are no negatives.
        """
        one, other = projections.chunk(2)
        first, second = np.split(batch, 2)
        same = torch.from_numpy(self._episodes[first, None] == self._episodes[second]).to(projections.device)
        near = -(one[:, None] - other).square().sum(-1)
        near = near.masked_fill(same & ~torch.eye(len(one), dtype=torch.bool, device=projections.device), -torch.inf)
        found = np.where(first == second, _NO_PARTNER, np.arange(len(first)))
        partner = torch.from_numpy(found).to(projections.device)
        both = sum(
            cross_entropy(table, partner, ignore_index=_NO_PARTNER, reduction="sum") for table in (near, near.mT)
        )
        return torch.as_tensor(both) / max(1, 2 * int((first != second).sum()))


def rank_and_spread(latents: Tensor) -> tuple[float, float]:
    """Returns the effective rank of latents `[..., D]`, and the least standard deviation of an entry."""
    covariance = _covariance(latents)
    spectrum = torch.linalg.eigvalsh(covariance).clamp_min(0)
    fractions = spectrum / spectrum.sum().clamp_min(1e-12)
    return float((-torch.xlogy(fractions, fractions).sum()).exp()), float(covariance.diag().clamp_min(0).sqrt().min())


def _covariance(latents: Tensor) -> Tensor:
    return latents.flatten(0, -2).mT.cov()
