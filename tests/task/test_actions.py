"""Actions in [-1, 1] and in the environment's units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from grasp_agent.task.actions import check_actions, from_space, to_space

WHOLE = [
    (0, 1, np.int64),
    (-1, 1, np.int32),
    (-10, 10, np.int64),
    (0, 20, np.int8),
    (0, 3, np.uint8),
    (0, 255, np.uint8),
]


@pytest.mark.parametrize(("low", "high", "dtype"), WHOLE)
def test_whole_numbers_have_equal_parts_and_are_restored(low: int, high: int, dtype: Any):
    space = spaces.Box(low, high, (1,), dtype)
    draws = np.linspace(-1, 1, 100_001, dtype=np.float32)[:, None]
    found = to_space(draws, space)
    assert found.dtype == dtype
    values, counts = np.unique(found, return_counts=True)
    assert values.tolist() == list(range(low, high + 1))
    np.testing.assert_allclose(counts / len(draws), 1 / (high - low + 1), atol=2e-5)
    every = values[:, None]
    np.testing.assert_array_equal(to_space(from_space(every, space), space), every)
    assert np.abs(from_space(every, space)).max() < 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_ends_of_continuous_actions_are_the_bounds(dtype: Any):
    space = spaces.Box(np.array([-3, 0.1], dtype), np.array([10, 0.7], dtype), dtype=dtype)
    ends = to_space(np.array([[-1, -1], [1, 1]], np.float32), space)
    np.testing.assert_array_equal(ends, [space.low, space.high])
    assert ends.dtype == dtype
    np.testing.assert_allclose(from_space(ends, space), [[-1, -1], [1, 1]], atol=1e-6)


@pytest.mark.parametrize(
    "space", [spaces.Discrete(3), spaces.Box(-1, 1, (2, 2)), spaces.Box(-np.inf, 1, (2,)), spaces.MultiBinary(2)]
)
def test_other_spaces_are_refused(space: spaces.Space[Any]):
    with pytest.raises(ValueError, match="action space: expected"):
        check_actions(space)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int32, np.uint8])
def test_the_ends_of_whole_numbers_are_the_bounds_of_the_type(dtype: Any):
    limits = np.iinfo(dtype)
    space = spaces.Box(limits.min, limits.max, (1,), dtype)
    ends = to_space(np.array([[-1], [0], [1]], np.float32), space)
    assert ends[0, 0] == limits.min and ends[2, 0] == limits.max and ends[0, 0] < ends[1, 0] < ends[2, 0]


@pytest.mark.parametrize("space", [spaces.Box(-1.7e308, 1.7e308, (2,), np.float64), spaces.Box(-1, 1, (0,))])
def test_ranges_in_which_no_action_is_finite_are_refused(space: spaces.Box):
    with pytest.raises(ValueError, match="action space: expected at least one entry, and finite ranges"):
        check_actions(space)


def test_an_entry_that_cannot_change_stays_as_it_is():
    space = spaces.Box(np.array([2, -1], np.float32), np.array([2, 1], np.float32))
    assert to_space(np.array([[-1, 1], [1, -1]], np.float32), space)[:, 0].tolist() == [2, 2]
    assert from_space(np.array([[2, 1]], np.float32), space).tolist() == [[0, 1]]
