"""Aggregates over training seeds, with 95 % intervals.

Agarwal, Schwarzer, Castro, Courville and Bellemare 2021, "Deep Reinforcement Learning at the Edge of the Statistical
Precipice" (arXiv 2108.13264): interquartile mean, stratified bootstrap, performance profile, probability of
improvement, as in their library rliable. The number of seeds follows Colas, Sigaud and Oudeyer 2018 (arXiv 1806.08295).

Scores are `[R, M]`: one number, such as a success rate, for each of R training seeds in each of M environments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import nct, t, trim_mean

from grasp_agent.evaluation.intervals import Interval

Scores = NDArray[np.float64]

RESAMPLES = 2000
"""Resamples of a bootstrap; chosen by hand."""
_POWER, _LEVEL, _MOST = 0.8, 0.05, 1000


class Improvement(NamedTuple):
    """How one agent's trainings compare with another's."""

    difference: Interval
    """Interquartile mean of the first minus that of the second."""
    probability: Interval
    """Probability that a training of the first has a higher score than one of the second in the same environment; ties
    count half."""
    seeds: int | None
    """Training seeds of each with which a difference of means as large as this one is found in four of five
    comparisons (Welch's test, two-sided, 5 %); None where no difference was seen, the trainings are fewer than two, or
    more than 1,000 seeds would be needed."""


def scores_of(values: ArrayLike) -> Scores:
    """Returns scores as `[R, M]`; one environment may be given as `[R]`.

    Raises:
        ValueError: if there is none, or one is not finite.
    """
    scores = np.asarray(values, np.float64)
    scores = scores[:, None] if scores.ndim == 1 else scores
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"scores: expected [R, M], R trainings in M environments, got the shape {list(scores.shape)}")
    if not np.isfinite(scores).all():
        raise ValueError(f"scores: expected finite ones, got {np.count_nonzero(~np.isfinite(scores))} others")
    return scores


def iqm(scores: Scores) -> Scores:
    """Returns the interquartile mean: that of the middle half of all trainings in all environments, `[...]`."""
    return np.asarray(trim_mean(scores.reshape(*scores.shape[:-2], -1), 0.25, axis=-1))


def interval(statistic: Callable[..., Scores], *scores: Scores, seed: int = 0) -> Interval:
    """Returns a statistic of several agents' scores with percentiles of its stratified bootstrap.

    Trainings are drawn with replacement, for each agent and in each environment on its own.

    Args:
        statistic: of as many arrays `[..., R, M]`, to `[...]`.
        scores: the agents' scores.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)

    def drawn(values: Scores) -> Scores:
        rows = random.integers(len(values), size=(RESAMPLES, *values.shape))
        return np.take_along_axis(values[None], rows, 1)

    low, high = np.percentile(statistic(*map(drawn, scores)), (2.5, 97.5))
    return Interval(float(statistic(*scores)), float(low), float(high))


def probability_of_improvement(first: Scores, second: Scores) -> Scores:
    """Returns the mean over environments of the probability that a training of the first has the higher score."""
    pairs = np.sign(first[..., :, None, :] - second[..., None, :, :])
    return (pairs.mean((-3, -2, -1)) + 1) / 2


def profile(scores: Scores, thresholds: Sequence[float]) -> NDArray[np.float64]:
    """Returns the performance profile: for each threshold the fraction of trainings with a higher score, `[K]`.

    The mean over environments of the fractions in each.
    """
    return (scores[..., None] > np.asarray(thresholds)).mean((0, 1))


def differ(first: Scores, second: Scores) -> bool:
    """Returns whether the means of two agents' scores differ by more than rounding."""
    return not np.isclose(first.mean(), second.mean(), rtol=0, atol=1e-9)


def seeds_needed(first: Scores, second: Scores) -> int | None:
    """Returns `Improvement.seeds`: means over environments are compared."""
    one, other = first.mean(1), second.mean(1)
    if min(len(one), len(other)) < 2 or not differ(first, second):
        return None
    variances = np.array([one.var(ddof=1), other.var(ddof=1)])
    spread, effect = float(variances.sum()), abs(float(one.mean() - other.mean()))
    pooled = (
        spread**2 / float((variances**2).sum()) if spread else 2.0
    )  # 1 to 2: Welch-Satterthwaite, per trainings - 1
    for count in range(2, _MOST + 1):
        freedom = pooled * (count - 1)
        limit = t.ppf(1 - _LEVEL / 2, freedom)
        distance = effect / max(np.sqrt(spread / count), 1e-12 * effect)
        if distance > 1e3 or nct.sf(limit, freedom, distance) >= _POWER:
            return count
    return None


def improvement(first: ArrayLike, second: ArrayLike) -> Improvement:
    """Compares the trainings of two agents in the same environments.

    Args:
        first: scores `[R, M]` or `[R]`.
        second: scores `[R', M]` or `[R']`.

    Raises:
        ValueError: if scores are not finite, or of different numbers of environments.
    """
    one, other = scores_of(first), scores_of(second)
    if one.shape[1] != other.shape[1]:
        raise ValueError(f"scores: expected as many environments of both, got {one.shape[1]} and {other.shape[1]}")
    return Improvement(
        interval(lambda a, b: iqm(a) - iqm(b), one, other),
        interval(probability_of_improvement, one, other),
        seeds_needed(one, other),
    )
