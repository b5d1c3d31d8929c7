"""Actions as vectors, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from grasp_agent.task.action_codec import ActionCodec

SPACES: dict[str, tuple[spaces.Space[Any], tuple[int, ...]]] = {
    "discrete": (spaces.Discrete(3), (3,)),
    "discrete from -2": (spaces.Discrete(4, start=-2), (4,)),
    "several": (spaces.MultiDiscrete([2, 5, 3]), (2, 5, 3)),
    "several from 1": (spaces.MultiDiscrete([2, 3], start=[1, -1]), (2, 3)),
    "binary": (spaces.MultiBinary(3), (2, 2, 2)),
    "box": (spaces.Box(np.array([-1.0, 3.0]), np.array([2.0, 4.0]), dtype=np.float64), ()),
}


@pytest.mark.parametrize("name", SPACES)
def test_actions_are_restored(name: str):
    space, choices = SPACES[name]
    space.seed(0)
    codec, actions = ActionCodec(space), np.array([space.sample() for _ in range(50)])
    vectors = codec.encode(actions)
    assert codec.choices == choices and vectors.shape == (50, codec.size) and vectors.dtype == np.float32
    found = codec.decode(vectors)
    np.testing.assert_allclose(found, actions, atol=1e-6)
    assert found.dtype == space.dtype and all(space.contains(action) for action in found)
    if choices:
        assert set(np.unique(vectors)) == {-1, 1} and ((vectors == 1).sum(-1) == len(choices)).all()


def test_the_greatest_entry_of_each_choice_is_taken():
    codec = ActionCodec(spaces.MultiDiscrete([2, 3]))
    assert codec.decode(np.array([[0.1, 0.2, -0.3, -0.1, -0.2]])).tolist() == [[1, 1]]


def test_random_choices_are_uniform():
    codec = ActionCodec(spaces.MultiDiscrete([2, 3]))
    found = codec.decode(codec.random(np.random.default_rng(0), 6000))
    for column, count in ((0, 2), (1, 3)):
        np.testing.assert_allclose(np.bincount(found[:, column]) / 6000, 1 / count, atol=0.03)


@pytest.mark.parametrize(
    ("space", "match"),
    [
        (spaces.Box(-np.inf, np.inf, (2,)), "bounded Box"),
        (spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])), "action space: expected"),
        (spaces.Text(3), "action space: expected"),
        (spaces.MultiBinary([3]), "action space: expected"),
        (spaces.Discrete(10**9), "at most 4096 choices"),
    ],
    ids=["unbounded", "two axes", "text", "binary of a list", "many"],
)
def test_other_spaces_are_refused(space: Any, match: str):
    with pytest.raises(ValueError, match=match):
        ActionCodec(space)
