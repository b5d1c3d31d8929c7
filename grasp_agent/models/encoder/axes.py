"""Latents as places on axes: those along which actions push, then principal ones, then those of what nothing moves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from grasp_agent.models.encoder.regression import cubic, regressed

_RIDGE = 1e-5
_SEEN = 0.5  # share of the pushes' variance that must be seen for axes of their own
_FREE, _ROUNDS = 0.75, 2  # share of the pushes that are not hindered, and how often these are sought
_OTHER = 0.1  # share of its variance that an axis must have of its own, beside other pushes
_COMPARED = 2000  # samples that are compared with those most alike
_NEW = 0.5  # share of its variance by which an axis must differ between episodes that the clearer ones hold for alike
_STILL = 0.003  # share of its variance that what nothing moves may have within an episode


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
    def turn(
        self,
        normalised: Tensor,
        share: float,
        episodes: Tensor | None = None,
        changes: Tensor | None = None,
        pushes: Tensor | None = None,
    ) -> None:
        """Chooses the axes.

        First those that are what actions push, last those of what differs between episodes but stays within each, such
        as where a door is. Between them the principal axes of what a cubic of these does not say, free of both; what
        stays is told by its own axes, so that only what varies within episodes counts there.

        Args:
            normalised: `[M, E]`, samples.
            share: axes that say less than this share of the greatest variance are left out.
            episodes: `[M]`, the episodes that they belong to.
            changes: `[N, E]`, how samples changed over some steps; `[N, 2 E]` with how they did in the step before,
                which tells what moves by itself.
            pushes: `[N, A]`, sums of the actions meanwhile.
        """
        self.middle = normalised.mean(0)
        centred = normalised - self.middle
        whole = centred.mT.cov()
        variances = torch.linalg.eigvalsh(whole)
        enough = share * variances[-1]
        driven = still = whole[:, :0]
        if changes is not None and pushes is not None:
            driven = _independent(_driven(changes, pushes)[: len(whole)], whole)
        if driven.shape[1]:
            driven = driven * (variances[-driven.shape[1] :].mean() / (centred @ driven).var(0).mean()).sqrt()
        if episodes is not None:
            still = _still(centred, episodes, whole, enough)
        others = _principal(centred, driven, still, enough, episodes)
        self.axes = torch.cat([driven, others, still], 1)


def _principal(
    centred: Tensor, driven: Tensor, still: Tensor, enough: float | Tensor, episodes: Tensor | None
) -> Tensor:
    """Axes `[E, D]` of at least this variance in what values `[M, E]` have besides the axes known, `[E, F]` together.

    Where nothing is known, the first of them counts whatever its variance. Where episodes `[M]` are given, only what
    differs from other episodes at their most alike counts, and where something stays, only what does not.
    """
    known = torch.cat([driven, still], 1)
    left, free = centred, torch.eye(len(known), device=known.device)
    if known.shape[1]:
        values = centred @ known
        features = cubic(values / values.std(0))
        left = centred - features @ regressed(features, centred, _RIDGE)
        free = free - known @ regressed(values, centred, _RIDGE)
        if episodes is not None:
            if still.shape[1]:
                means, place = _means(left, episodes)
                left = left - means[place]
            left = _apart(values / values.std(0), left, episodes)
    variances, axes = torch.linalg.eigh(left.mT.cov())
    kept = variances >= enough
    kept[-1] |= not known.shape[1]
    return _signed(free @ axes[:, kept].flip(1))


def _driven(changes: Tensor, pushes: Tensor) -> Tensor:
    """Axes `[E, A]` along which changes `[N, E]` are what pushes `[N, A]` were; none, `[E, 0]`, where none are seen.

    Pushes of which little is seen get none. Some are hindered, by walls: those that are seen worst do not count.
    """
    axes = regressed(changes, pushes, _RIDGE)
    missed = pushes - changes @ axes
    seen = missed.square().mean(0) < (1 - _SEEN) * pushes.square().mean(0)
    axes, pushes, missed = axes[:, seen], pushes[:, seen], missed[:, seen]
    for _ in range(_ROUNDS if seen.any() else 0):
        error = missed.square().sum(-1)
        free = error <= error.quantile(_FREE)
        axes = regressed(changes[free], pushes[free], _RIDGE)
        missed = pushes - changes @ axes
    return axes


def _independent(axes: Tensor, whole: Tensor) -> Tensor:
    """Those of the axes `[E, D]` that are no mixture of the ones before them, where values have this covariance."""
    shared, kept = axes.mT @ whole @ axes, list[int]()
    for axis in range(axes.shape[1]):
        before = shared[kept, axis]
        told = before @ torch.linalg.solve(shared[kept][:, kept], before) if kept else 0.0
        if shared[axis, axis] - told > _OTHER * shared[axis, axis]:
            kept.append(axis)
    return axes[:, kept]


def _apart(known: Tensor, left: Tensor, episodes: Tensor) -> Tensor:
    """What values `[M, E]` are that known ones `[M, F]` do not tell, whatever the function, of some samples.

    Half of the variance between samples whose known values are most alike, in different episodes.
    """
    some = slice(None, None, max(1, len(left) // _COMPARED))
    distance = torch.cdist(known[some], known)
    distance[episodes[some, None] == episodes] = torch.inf
    nearest, beside = distance.min(-1)
    found = nearest.isfinite()
    return (left[some][found] - left[beside[found]]) / 2**0.5 if found.sum() > 1 else left


def _means(values: Tensor, episodes: Tensor) -> tuple[Tensor, Tensor]:
    """Means `[P, E]` of values `[M, E]` in each of the episodes `[M]`, and which of these each value belongs to."""
    _, place, counts = episodes.unique(return_inverse=True, return_counts=True)
    sums = values.new_zeros(len(counts), values.shape[1]).index_add(0, place, values)
    return sums / counts[:, None], place


def _within(values: Tensor, episodes: Tensor) -> Tensor:
    """Covariance of values `[M, E]` around their means in each of the episodes `[M]`."""
    means, place = _means(values, episodes)
    apart = values - means[place]
    return apart.mT @ apart / max(1, len(values) - len(means))


def _still(values: Tensor, episodes: Tensor, whole: Tensor, enough: float | Tensor) -> Tensor:
    """Axes `[E, D]` of what hardly varies within an episode: linear discriminants (Fisher 1936) of episodes.

    What is seen bends, so that several axes may tell of one thing: those are left out that are nearly the same wherever
    the clearer ones are.

    Args:
        values: `[M, E]`, samples.
        episodes: `[M]`, which they belong to.
        whole: `[E, E]`, their covariance.
        enough: variance that the places along an axis must have.
    """
    ridge = (_RIDGE * whole.diagonal().mean()).clamp_min(1e-12) * torch.eye(len(whole), device=whole.device)
    root = torch.linalg.cholesky(whole + ridge)
    flat = torch.linalg.solve_triangular(root, _within(values, episodes) + ridge, upper=False)
    shares, turned = torch.linalg.eigh(torch.linalg.solve_triangular(root, flat.mT, upper=False))
    found = torch.linalg.solve_triangular(root.mT, turned[:, shares < _STILL], upper=True)  # of variance 1
    told = (whole @ found).square().sum(0)  # variance of all places that is told by it
    found = (found * told.sqrt())[:, told >= enough]
    if found.shape[1] < 2:
        return _signed(found)
    means = _means(values, episodes)[0] @ found
    means, chosen = means / means.std(0), [0]
    for axis in range(1, found.shape[1]):
        beside = torch.cdist(means[:, chosen], means[:, chosen]).fill_diagonal_(torch.inf).argmin(-1)
        if (means[:, axis] - means[beside, axis]).square().mean() > 2 * _NEW:
            chosen.append(axis)
    return _signed(found[:, chosen])


def _signed(axes: Tensor) -> Tensor:
    """The same axes `[E, D]` whatever a solver's choice of sign."""
    return axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
