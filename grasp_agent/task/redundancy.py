"""Redundant entries of observations: smooth functions of other entries, found by Gaussian process regression."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Array = NDArray[np.floating[Any]]

# All values below are chosen by hand.
_SAMPLED = 1000  # states, about, of the regression
_FOLDS = 5  # parts of the episodes, each of which is predicted from the others
_FEWEST = 4  # episodes that are needed
_LENGTH = 2.0  # length scale of the kernel [standard deviations]
_NOISE = 1e-6  # variance of the noise, of the kernel's
_KNOWN = 3e-5  # greatest variance of a prediction that counts, of the kernel's: others extrapolate
_COVERED = 0.5  # fraction of the predictions of a part that must count
_RESIDUAL = 0.05  # greatest error of any prediction that counts [standard deviations]
_LEAST_SPREAD = 1e-6  # standard deviation of an entry that counts as constant [the environment's units]


def determines(inputs: Array, outputs: Array, episodes: NDArray[np.int64]) -> bool:
    """Returns whether entries are smooth functions of others, in every episode the same.

    Each part of the episodes is predicted from the others, so that a static factor, which is the same in neighbouring
    states of an episode, is no function of them. Constant entries are no functions, either: they may still change.

    Args:
        inputs: `[M, I]`, entries of M states.
        outputs: `[M, J]`, the entries that may be functions of them.
        episodes: `[M]`, the episode of each state.
    """
    chosen = slice(None, None, max(1, len(inputs) // _SAMPLED))
    part = np.unique(episodes[chosen], return_inverse=True)[1]
    spreads = [values.std(0, dtype=np.float64) for values in (inputs, outputs)]
    if part.max() + 1 < _FEWEST or any((spread < _LEAST_SPREAD).any() for spread in spreads):
        return False
    x, y = (
        (values[chosen] - values.mean(0, dtype=np.float64)) / spread
        for values, spread in zip((inputs, outputs), spreads, strict=True)
    )
    return all(_predicted(x, y, part % _FOLDS == fold) for fold in range(min(_FOLDS, part.max() + 1)))


def _predicted(inputs: Array, outputs: Array, held: NDArray[np.bool_]) -> bool:
    """Returns whether outputs `[M, J]` where `held` `[M]` are predicted from the others (Rasmussen, Williams 2006)."""
    factor = cho_factor(_kernel(inputs[~held], inputs[~held]) + _NOISE * np.eye(int((~held).sum())))
    across = _kernel(inputs[held], inputs[~held])
    variance = 1 - np.einsum("hm,mh->h", across, cho_solve(factor, across.T))
    errors = np.abs(across @ cho_solve(factor, outputs[~held]) - outputs[held]).max(-1)
    counts = variance < _KNOWN
    return bool(counts.mean() >= _COVERED and errors[counts].max() < _RESIDUAL)


def _kernel(one: Array, other: Array) -> Array:
    """Returns the squared exponential kernel `[M, N]` of inputs `[M, I]` and `[N, I]`."""
    squared = (one**2).sum(-1)[:, None] + (other**2).sum(-1) - 2 * one @ other.T
    return np.exp(-squared / (2 * _LENGTH**2))
