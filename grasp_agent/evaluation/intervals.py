"""Confidence intervals of evaluations; all of them 95 %.

Proportions: Wilson's score interval (1927, Journal of the American Statistical Association 22, 209-212). Paired
differences of proportions: Tango's score interval (1998, Statistics in Medicine 17, 891-908), with McNemar's exact test
(1947, Psychometrika 12, 153-157). Means, and paired differences of means: bias-corrected and accelerated bootstrap
(Efron 1987, Journal of the American Statistical Association 82, 171-185), with a sign-flip permutation test (Fisher
1935, The Design of Experiments, 21).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, bootstrap, norm, permutation_test


class Interval(NamedTuple):
    """An estimate between its limits."""

    value: float
    """The estimate."""
    low: float
    """Lower limit."""
    high: float
    """Upper limit."""


class Paired(NamedTuple):
    """The difference of two agents on the same episodes."""

    difference: Interval
    """Of the success rates, or of the mean returns."""
    p: float
    """Two-sided p-value: McNemar's exact for proportions, by sign flips for means; 1 where all outcomes agree."""


def proportion(outcomes: Sequence[bool | None]) -> Interval | None:
    """Returns the proportion of True among known outcomes; None where none is known."""
    known = [outcome for outcome in outcomes if outcome is not None]
    if not known:
        return None
    limits = binomtest(sum(known), len(known)).proportion_ci(confidence_level=0.95, method="wilson")
    return Interval(sum(known) / len(known), float(limits.low), float(limits.high))


def paired(first: Sequence[bool | None], second: Sequence[bool | None]) -> Paired | None:
    """Returns the difference of the success rates of the first and the second; None where an outcome is unknown.

    Raises:
        ValueError: if they are not the same number of episodes.
    """
    if len(first) != len(second):
        raise ValueError(f"episodes: expected as many of both, got {len(first)} and {len(second)}")
    if not first or None in first or None in second:
        return None
    one = sum(bool(a) and not b for a, b in zip(first, second, strict=True))
    other = sum(bool(b) and not a for a, b in zip(first, second, strict=True))
    p = float(binomtest(one, one + other).pvalue) if one + other else 1.0
    return Paired(_tango(one, other, len(first)), p)


def _tango(one: int, other: int, count: int) -> Interval:
    """Returns the difference of two proportions, from the numbers of pairs that only `one`, only the `other` solved."""
    z, found = float(norm.ppf(0.975)), (one - other) / count

    def score(difference: float) -> float:
        """Returns the distance of the estimate from a true difference [standard errors]."""
        linear = -one - other + (2 * count - one + other) * difference
        root = math.sqrt(max(0.0, linear**2 + 8 * count * other * difference * (1 - difference)))
        rate = (root - linear) / (4 * count)  # maximum likelihood rate of pairs that only the second solves
        variance = count * (2 * rate + difference * (1 - difference))
        return (one - other - count * difference) / math.sqrt(max(variance, 1e-12))

    edge = 1 - 1e-9
    low = brentq(lambda d: score(d) - z, -edge, found) if found > -edge and score(-edge) > z else -1.0
    high = brentq(lambda d: score(d) + z, found, edge) if found < edge and score(edge) < -z else 1.0
    return Interval(found, float(low), float(high))  # type: ignore[arg-type]


def paired_means(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Returns the difference of the means of the first and the second.

    Raises:
        ValueError: if they are not the same number of episodes.
    """
    if len(first) != len(second):
        raise ValueError(f"episodes: expected as many of both, got {len(first)} and {len(second)}")
    differences = np.subtract(first, second, dtype=np.float64)
    if not np.isfinite(differences).all():
        return Paired(Interval(math.nan, math.nan, math.nan), math.nan)
    if len(differences) < 2 or not differences.any():
        return Paired(mean(differences), 1.0)
    exchanged = permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(0)
    )
    return Paired(mean(differences), float(exchanged.pvalue))


def mean(values: Sequence[float] | np.ndarray) -> Interval:
    """Returns the mean; its limits equal constant values, and are NaN where a value is not finite."""
    array = np.asarray(values, np.float64)
    if not np.isfinite(array).all():
        return Interval(math.nan, math.nan, math.nan)
    if len(array) < 2 or not np.ptp(array):
        return Interval(float(array.mean()), float(array.min()), float(array.max()))
    drawn = bootstrap((array,), np.mean, confidence_level=0.95, n_resamples=2000, rng=np.random.default_rng(0))
    low, high = (float(limit) for limit in drawn.confidence_interval)
    return Interval(float(array.mean()), low, high)
