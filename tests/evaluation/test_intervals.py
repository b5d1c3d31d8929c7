"""Intervals: against published or computed values, and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from grasp_agent.evaluation.intervals import mean, paired, paired_means, proportion


def outcomes(text: str) -> list[bool | None]:
    return [{"1": True, "0": False, "?": None}[c] for c in text]


def test_a_proportion_has_wilsons_interval():
    assert proportion([]) is proportion([None]) is None
    found = proportion(outcomes("1" * 10 + "?"))
    assert found is not None and (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(1 / (1 + 1.959964**2 / 10), abs=1e-5)


def test_a_paired_difference_has_a_score_interval_and_mcnemars_test():
    first, second = outcomes("1" * 36 + "1" * 12 + "0" * 2), outcomes("1" * 36 + "0" * 12 + "1" * 2)
    found = paired(first, second)
    assert found is not None
    assert found.p == pytest.approx(2 * (1 + 14 + 91) / 2**14)  # by hand: 12 of 14, or more
    low, high = found.difference[1:]
    assert found.difference.value == pytest.approx(0.2) and 0.03 < low < 0.1 and 0.3 < high < 0.4
    back = paired(second, first)
    assert back is not None and back.difference == pytest.approx([-0.2, -high, -low])


@pytest.mark.parametrize(("one", "other"), [(5, 0), (3, 0), (0, 0), (5, 5)])
def test_the_interval_of_few_episodes_ends_within_the_possible(one: int, other: int):
    found = paired([True] * one + [False] * other + [True], [False] * one + [True] * other + [True])
    assert found is not None
    assert -1 <= found.difference.low < found.difference.value < found.difference.high <= 1


@pytest.mark.parametrize(
    ("count", "one", "other"), [(20, 0.05, 0.0), (100, 0.02, 0.0), (100, 0.03, 0.01), (50, 0.2, 0.1)]
)
def test_at_least_nine_in_ten_intervals_hold_the_true_difference(count: int, one: float, other: float):
    draws, held = np.random.default_rng(0).random((300, count)), 0
    for row in draws:
        first, second = list(row < one + 0.5), list((row >= one) & (row < one + 0.5 + other))
        found = paired([bool(x) for x in first], [bool(x) for x in second])
        assert found is not None
        held += found.difference.low <= one - other <= found.difference.high
    assert held >= 0.9 * 300  # .95 of many more hold it: four standard deviations of chance


def test_agents_that_solve_the_same_few_episodes_may_differ():
    few, many = paired(outcomes("1" * 3), outcomes("1" * 3)), paired(outcomes("1" * 300), outcomes("1" * 300))
    assert few is not None and many is not None
    assert few.p == many.p == 1.0
    assert few.difference.low < -0.3 and few.difference.high > 0.3
    assert -0.02 < many.difference.low < 0 < many.difference.high < 0.02


def test_unknown_outcomes_are_not_compared():
    assert paired([], []) is paired(outcomes("1?"), outcomes("11")) is None
    with pytest.raises(ValueError, match="as many of both, got 1 and 2"):
        paired(outcomes("1"), outcomes("11"))


def test_a_mean_lies_between_its_limits_and_they_narrow():
    values = np.random.default_rng(0).normal(3, 2, 400)
    few, many = mean(list(values[:25])), mean(list(values))
    assert many.low < many.value < many.high
    assert many.high - many.low == pytest.approx(2 * 1.96 * 2 / 20, rel=0.15)
    assert few.high - few.low > 2 * (many.high - many.low)
    assert mean(list(values)) == many
    assert mean([2.0, 2.0]) == mean([2.0]) == (2.0, 2.0, 2.0)


def test_more_than_nine_in_ten_intervals_hold_the_true_value():
    draws = np.random.default_rng(1).exponential(1.0, (120, 30))
    assert sum(low <= 1.0 <= high for _, low, high in (mean(list(row)) for row in draws)) > 0.82 * 120


def test_differences_of_means_are_of_pairs():
    """All signs but the one found, or its opposite, are left out of 2 ** 8."""
    first = [float(2 * value) for value in range(8)]
    found = paired_means([value + 1 + 0.1 * (value % 3) for value in first], first)
    assert found.difference.value == pytest.approx(np.mean([1 + 0.1 * (value % 3) for value in first]))
    assert 1 <= found.difference.low < found.difference.value < found.difference.high <= 1.2
    assert found.p == pytest.approx(2 / 2**8)
    other = paired_means([1.0, -1.0, 2.0, -2.0], [0.0] * 4)
    assert other.p == 1.0 and other.difference.low < 0 < other.difference.high


def test_differences_of_means_in_degenerate_cases():
    assert paired_means([3.0], [1.0]) == ((2.0, 2.0, 2.0), 1.0)
    assert paired_means([3.0, 1.0], [3.0, 1.0]) == ((0.0, 0.0, 0.0), 1.0)
    lost = paired_means([float("nan"), 1.0], [3.0, 1.0])
    assert all(np.isnan(value) for value in (*lost.difference, lost.p))
    with pytest.raises(ValueError, match="as many of both, got 1 and 2"):
        paired_means([1.0], [1.0, 2.0])
