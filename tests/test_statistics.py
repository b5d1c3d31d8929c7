"""Intervals: against published or computed values, and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from grasp_agent.statistics import mean, paired, share


def outcomes(text: str) -> list[bool | None]:
    return [{"1": True, "0": False, "?": None}[c] for c in text]


def test_a_share_has_wilsons_interval():
    assert share([]) is share([None]) is None
    found = share(outcomes("1" * 10 + "?"))
    assert found is not None and (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(1 / (1 + 1.959964**2 / 10), abs=1e-5)


def test_a_paired_difference_looks_at_the_episodes_that_only_one_solved():
    first, second = outcomes("1" * 8 + "0" * 1 + "11"), outcomes("0" * 8 + "1" * 1 + "11")
    found = paired(first, second)
    assert found is not None
    assert found.difference.value == pytest.approx(7 / 11)
    assert found.p == pytest.approx(2 * (1 + 9) / 2**9)  # McNemar's exact test, by hand: 8 of 9, or more
    back = paired(second, first)
    assert back is not None and back.difference == pytest.approx(
        [-7 / 11, -found.difference.high, -found.difference.low]
    )


@pytest.mark.parametrize("won", range(13))
def test_the_interval_leaves_zero_out_where_the_test_is_below_five_percent(won: int):
    first = [True] * won + [False] * (12 - won) + [True] * 20
    found = paired(first, [not outcome for outcome in first[:12]] + [True] * 20)
    assert found is not None
    low, high = found.difference[1:]
    assert low <= found.difference.value <= high
    assert (low > 0 or high < 0) == (found.p < 0.05)
    assert found.p == pytest.approx(binomtest(won, 12).pvalue)


def test_agents_that_solve_the_same_episodes_do_not_differ():
    found = paired(outcomes("1100"), outcomes("1100"))
    assert found == ((0.0, 0.0, 0.0), 1.0)


def test_what_is_not_known_is_not_compared():
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


def test_nine_in_ten_intervals_and_more_hold_the_truth():
    draws = np.random.default_rng(1).exponential(1.0, (120, 30))
    assert sum(low <= 1.0 <= high for _, low, high in (mean(list(row)) for row in draws)) > 0.87 * 120
