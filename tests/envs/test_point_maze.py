"""Mazes for a ball with inertia: physics with known answers, walls, layouts."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from scipy.ndimage import label

from grasp_envs.point_maze import LAYOUTS, RADIUS, PointMazeEnv

HALL = ("#####", "#   #", "#   #", "#   #", "#####")


def make(layout: object = "umaze") -> PointMazeEnv:
    return cast(PointMazeEnv, gym.make("grasp/PointMaze-v0", layout=layout).unwrapped)


def test_a_constant_force_accelerates_the_ball_by_newtons_law() -> None:
    env = make(("#" * 12, "#" + " " * 10 + "#", "#" * 12))
    env.reset(seed=0, options={"state": [-4.5, 0.0, 0.0, 0.0], "goal": [4.0, 0.0]})
    for step in range(1, 16):
        x, y, velocity, sideways = env.step(np.array([1.0, 0.0], np.float32))[0]["observation"]
        time = 0.1 * step
        # m dv/dt = F - c v with F = 4 N, c = 2 N s/m, m = 1 kg; implicit Euler at 0.01 s is good to two per cent.
        assert velocity == pytest.approx(2 * (1 - np.exp(-2 * time)), rel=0.02)
        assert x + 4.5 == pytest.approx(2 * time - (1 - np.exp(-2 * time)), rel=0.12)
        assert y == sideways == 0.0


def test_the_ball_stops_without_a_force() -> None:
    env = make(HALL)
    env.reset(seed=0, options={"state": [-1.0, 0.0, 1.0, 0.0], "goal": [1.0, 1.0]})
    for _ in range(40):
        env.step(np.zeros(2, np.float32))
    assert env.state[0] == pytest.approx(-0.5, abs=0.02)  # v / (c / m) further on
    assert np.abs(env.state[2:]).max() < 1e-3


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_no_push_brings_the_ball_into_a_wall(layout: str) -> None:
    env, rng = make(layout), np.random.default_rng(0)
    for seed in range(5):
        env.reset(seed=seed)
        for _ in range(15):
            action = rng.uniform(-1, 1, 2).astype(np.float32)
            for _ in range(8):
                position = env.step(action)[0]["achieved_goal"]
                # The contact is soft: a ball that runs into a wall gets a hair's breadth into it.
                nearby = position + 0.02 * np.array(
                    [[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [1, -1], [-1, 1], [-1, -1]]
                )
                assert env.is_free(nearby).any()


def test_a_ball_that_is_pushed_at_a_wall_slides_along_it() -> None:
    env = make(HALL)
    env.reset(seed=0, options={"state": [0.0, 1.35, 0.0, 0.0], "goal": [1.0, -1.0]})
    for _ in range(8):
        env.step(np.array([0.5, 1.0], np.float32))
    assert env.state[0] > 0.3
    assert env.state[1] == pytest.approx(1.5 - RADIUS, abs=0.01)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_every_cell_of_a_maze_can_be_reached_from_every_other(layout: str) -> None:
    _, regions = cast(tuple[Any, int], label(~make(layout).cells))
    assert regions == 1


def test_free_positions_of_the_ball_are_known() -> None:
    env = make(HALL)
    assert env.is_free([[0.0, 0.0], [1.4, 1.4], [1.41, 0.0], [2.0, 0.0], [9.0, 0.0]]).tolist() == [
        True,
        True,
        False,
        False,
        False,
    ]
    corner = make("umaze")  # the end of its inner wall is at (0.5, +-0.5)
    offset = RADIUS / np.sqrt(2)
    assert corner.is_free([0.5 + offset + 0.002, 0.5 + offset + 0.002])
    assert not corner.is_free([0.5 + offset - 0.01, 0.5 + offset - 0.01])


@pytest.mark.parametrize(
    "layout",
    ["small", 3, (), ("###", "# #"), ("###", "#.#", "###"), ("####", "#   ", "####"), ("###", "###", "###"), ("##", 5)],
)
def test_bad_layouts_are_refused_with_the_choices(layout: object) -> None:
    with pytest.raises(ValueError, match="layout must be one of 'umaze', 'medium', 'large', or rows"):
        make(layout)
