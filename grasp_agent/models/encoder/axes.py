"""The axes of latents: axes that actions move, then principal axes, then axes of static factors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from grasp_agent.models.encoder.regression import cubic, regressed

# All values below are chosen by hand. Fractions are fractions of a variance.
_RIDGE = 1e-5  # of the regressions, relative to the mean square of an input
_LEAST_EXPLAINED = 0.5  # fraction of an action entry's variance that keypoints must explain for it to get an axis
_UNHINDERED, _REFITS = 0.75, 2  # fraction of the samples that count as unhindered by walls, and refits to them
_LEAST_OWN_VARIANCE = 0.1  # fraction of an action axis' variance that the axes before it must not explain
_NEIGHBOUR_SAMPLES = 2000  # samples that are compared with their nearest neighbours
_LEAST_DIFFERENCE = 0.5  # fraction by which a static axis must differ between episodes that other axes call equal
_STATIC_FRACTION = 0.003  # largest fraction of a static axis' variance that lies within episodes


class Axes(nn.Module):
    """A linear map from normalised keypoints to latents.

    Args:
        entries: E, entries of all keypoints together.
        latent: D, number of axes; None for E, before anything is learned.
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
    def keypoints(self) -> int:
        """P, number of keypoints that a latent stands for."""
        return len(self.axes) // 2

    def forward(self, normalised: Tensor) -> Tensor:
        """Returns latents `[..., D]` of normalised keypoints `[..., E]`."""
        return (normalised - self.middle) @ self.axes

    def keypoints_of(self, latents: Tensor) -> Tensor:
        """Returns the normalised keypoints `[..., P, 2]` that latents `[..., D]` stand for."""
        return (latents @ torch.linalg.pinv(self.axes) + self.middle).unflatten(-1, (-1, 2))

    @torch.no_grad()
    def fit(
        self,
        normalised: Tensor,
        least_variance: float,
        episodes: Tensor | None = None,
        changes: Tensor | None = None,
        actions: Tensor | None = None,
    ) -> None:
        """Chooses the axes.

        The first axes are those that actions move. The last axes are static factors: they differ between episodes but
        stay constant within each, such as the position of a door. Between them are the principal axes of what a cubic
        function of the other two kinds does not explain. Where there are static factors, only variation within episodes
        counts for the principal axes.

        Args:
            normalised: `[M, E]`, samples.
            least_variance: axes with less than this fraction of the greatest variance are left out.
            episodes: `[M]`, the episodes of the samples.
            changes: `[N, E]`, changes of samples over some steps; `[N, 2 E]` with the changes in the step before, which
                tell velocities.
            actions: `[N, A]`, sums of the actions over those steps.
        """
        self.middle = normalised.mean(0)
        centred = normalised - self.middle
        covariance = centred.mT.cov()
        variances = torch.linalg.eigvalsh(covariance)
        enough = least_variance * variances[-1]
        driven = static = covariance[:, :0]
        if changes is not None and actions is not None:
            driven = _independent(_action_axes(changes, actions)[: len(covariance)], covariance)
        if driven.shape[1]:
            driven = driven * (variances[-driven.shape[1] :].mean() / (centred @ driven).var(0).mean()).sqrt()
        if episodes is not None:
            static = _static_axes(centred, episodes, covariance, enough)
        others = _principal(centred, driven, static, enough, episodes)
        self.axes = torch.cat([driven, others, static], 1)


def _principal(
    centred: Tensor, driven: Tensor, static: Tensor, enough: float | Tensor, episodes: Tensor | None
) -> Tensor:
    """Returns principal axes `[E, D]` of the values `[M, E]` that the known axes `[E, F]` do not explain.

    Their variance is at least `enough`; without known axes, the first one is taken whatever its variance. With episodes
    `[M]`, only differences to the nearest samples of other episodes count. With static axes, only variation within
    episodes counts.
    """
    known = torch.cat([driven, static], 1)
    remaining, free = centred, torch.eye(len(known), device=known.device)
    if known.shape[1]:
        values = centred @ known
        features = cubic(values / values.std(0))
        remaining = centred - features @ regressed(features, centred, _RIDGE)
        free = free - known @ regressed(values, centred, _RIDGE)
        if episodes is not None:
            if static.shape[1]:
                means, place = _means(remaining, episodes)
                remaining = remaining - means[place]
            remaining = _unexplained(values / values.std(0), remaining, episodes)
    variances, axes = torch.linalg.eigh(remaining.mT.cov())
    kept = variances >= enough
    kept[-1] |= not known.shape[1]
    return _signed(free @ axes[:, kept].flip(1))


def _action_axes(changes: Tensor, actions: Tensor) -> Tensor:
    """Returns axes `[E, A]` along which changes `[N, E]` equal the actions `[N, A]`; `[E, 0]` if none are explained.

    Action entries of which little is explained get no axis. Walls hinder some actions, so the samples with the greatest
    residuals are left out of the refits.
    """
    axes = regressed(changes, actions, _RIDGE)
    residual = actions - changes @ axes
    explained = residual.square().mean(0) < (1 - _LEAST_EXPLAINED) * actions.square().mean(0)
    axes, actions, residual = axes[:, explained], actions[:, explained], residual[:, explained]
    for _ in range(_REFITS if explained.any() else 0):
        error = residual.square().sum(-1)
        free = error <= error.quantile(_UNHINDERED)
        axes = regressed(changes[free], actions[free], _RIDGE)
        residual = actions - changes @ axes
    return axes


def _independent(axes: Tensor, covariance: Tensor) -> Tensor:
    """Returns those of the axes `[E, D]` that the axes before them do not explain, for values of this covariance."""
    shared, kept = axes.mT @ covariance @ axes, list[int]()
    for axis in range(axes.shape[1]):
        before = shared[kept, axis]
        explained_variance = before @ torch.linalg.solve(shared[kept][:, kept], before) if kept else 0.0
        if shared[axis, axis] - explained_variance > _LEAST_OWN_VARIANCE * shared[axis, axis]:
            kept.append(axis)
    return axes[:, kept]


def _unexplained(known: Tensor, remaining: Tensor, episodes: Tensor) -> Tensor:
    """Returns the part of some values `[M, E]` that no function of the known values `[M, F]` explains.

    It is the difference between samples of different episodes whose known values are nearest, scaled to the variance of
    one sample.
    """
    chosen_rows = slice(None, None, max(1, len(remaining) // _NEIGHBOUR_SAMPLES))
    distance = torch.cdist(known[chosen_rows], known)
    distance[episodes[chosen_rows, None] == episodes] = torch.inf
    nearest, nearest_index = distance.min(-1)
    found = nearest.isfinite()
    return (remaining[chosen_rows][found] - remaining[nearest_index[found]]) / 2**0.5 if found.sum() > 1 else remaining


def _means(values: Tensor, episodes: Tensor) -> tuple[Tensor, Tensor]:
    """Returns means `[P, E]` of values `[M, E]` in each of the episodes `[M]`, and each value's row of the means."""
    _, place, counts = episodes.unique(return_inverse=True, return_counts=True)
    sums = values.new_zeros(len(counts), values.shape[1]).index_add(0, place, values)
    return sums / counts[:, None], place


def _within(values: Tensor, episodes: Tensor) -> Tensor:
    """Returns the covariance of values `[M, E]` around their means in each of the episodes `[M]`."""
    means, place = _means(values, episodes)
    deviations = values - means[place]
    return deviations.mT @ deviations / max(1, len(values) - len(means))


def _static_axes(values: Tensor, episodes: Tensor, covariance: Tensor, enough: float | Tensor) -> Tensor:
    """Returns axes `[E, D]` of static factors: the linear discriminants of episodes (Fisher 1936).

    Keypoints are nonlinear in the factors, so several axes may belong to one factor. An axis is left out if it is
    nearly the same wherever the axes before it are.

    Args:
        values: `[M, E]`, samples.
        episodes: `[M]`, their episodes.
        covariance: `[E, E]`, their covariance.
        enough: least variance of keypoints along an axis.
    """
    identity = torch.eye(len(covariance), device=covariance.device)
    ridge = (_RIDGE * covariance.diagonal().mean()).clamp_min(1e-12) * identity
    root = torch.linalg.cholesky(covariance + ridge)
    flat = torch.linalg.solve_triangular(root, _within(values, episodes) + ridge, upper=False)
    fractions, turned = torch.linalg.eigh(torch.linalg.solve_triangular(root, flat.mT, upper=False))
    found = torch.linalg.solve_triangular(root.mT, turned[:, fractions < _STATIC_FRACTION], upper=True)  # of variance 1
    explained_variance = (covariance @ found).square().sum(0)  # of all keypoints
    found = (found * explained_variance.sqrt())[:, explained_variance >= enough]
    if found.shape[1] < 2:
        return _signed(found)
    means = _means(values, episodes)[0] @ found
    means, chosen = means / means.std(0), [0]
    for axis in range(1, found.shape[1]):
        nearest_index = torch.cdist(means[:, chosen], means[:, chosen]).fill_diagonal_(torch.inf).argmin(-1)
        if (means[:, axis] - means[nearest_index, axis]).square().mean() > 2 * _LEAST_DIFFERENCE:
            chosen.append(axis)
    return _signed(found[:, chosen])


def _signed(axes: Tensor) -> Tensor:
    """Returns the axes `[E, D]` with the sign that makes their largest entry positive."""
    return axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
