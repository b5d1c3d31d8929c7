"""Intervals for what evaluations find; all of them 95 %.

Shares: Wilson's score interval (1927, Journal of the American Statistical Association 22, 209-212). Paired differences:
McNemar's exact test (1947, Psychometrika 12, 153-157), which looks at the episodes that only one of two agents solved,
and the interval that belongs to it. Means: bias-corrected and accelerated bootstrap (Efron 1987, ibid. 82, 171-185).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, bootstrap


class Interval(NamedTuple):
    """An estimate between its limits."""

    value: float
    """The estimate."""
    low: float
    """Lower limit."""
    high: float
    """Upper limit."""


class Paired(NamedTuple):
    """How much more often one agent succeeds than another on the same episodes."""

    difference: Interval
    """Of the shares of success."""
    p: float
    """McNemar's exact, two-sided; 1 where both succeed in the same episodes."""


def share(outcomes: Sequence[bool | None]) -> Interval | None:
    """The share of True, None where nothing is known."""
    known = [outcome for outcome in outcomes if outcome is not None]
    if not known:
        return None
    limits = binomtest(sum(known), len(known)).proportion_ci(confidence_level=0.95, method="wilson")
    return Interval(sum(known) / len(known), float(limits.low), float(limits.high))


def paired(first: Sequence[bool | None], second: Sequence[bool | None]) -> Paired | None:
    """How much more often the first succeeds than the second; None where something is not known.

    The limits are those of Clopper and Pearson (1934) for the first's share of the episodes that only one of them
    solved, times how many those are: they leave zero out exactly where the test's p is below 5 %.

    Raises:
        ValueError: if they are not the same number of episodes.
    """
    if len(first) != len(second):
        raise ValueError(f"episodes: expected as many of both, got {len(first)} and {len(second)}")
    if not first or None in first or None in second:
        return None
    only_first = sum(bool(a) and not b for a, b in zip(first, second, strict=True))
    only_second = sum(bool(b) and not a for a, b in zip(first, second, strict=True))
    odd, count = only_first + only_second, len(first)
    if not odd:
        return Paired(Interval(0.0, 0.0, 0.0), 1.0)
    test = binomtest(only_first, odd)
    limits = test.proportion_ci(confidence_level=0.95, method="exact")
    low, high = ((2 * limit - 1) * odd / count for limit in (limits.low, limits.high))
    return Paired(Interval((only_first - only_second) / count, float(low), float(high)), float(test.pvalue))


def mean(values: Sequence[float]) -> Interval:
    """The mean; its limits are those of the values where these do not vary."""
    array = np.asarray(values, np.float64)
    if len(array) < 2 or not np.ptp(array):
        return Interval(float(array.mean()), float(array.min()), float(array.max()))
    drawn = bootstrap((array,), np.mean, confidence_level=0.95, n_resamples=2000, rng=np.random.default_rng(0))
    low, high = (float(limit) for limit in drawn.confidence_interval)
    return Interval(float(array.mean()), low, high)
