"""The mazes of benchmarks."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from benchmarks import mazes


@pytest.mark.parametrize("redundant", [False, True])
@pytest.mark.parametrize("name", mazes.LAYOUTS)
def test_it_is_an_environment_with_walls(name: str, redundant: bool):
    env = gym.make("benchmarks/Maze-v0", layout=name, redundant=redundant)
    if name == "two":
        check_env(env.unwrapped, skip_render_check=True)
    layout, blocked, random = mazes.LAYOUTS[name], 0, np.random.default_rng(0)
    for seed in range(10):
        (observation, _), truncated = env.reset(seed=seed), False
        for _ in range(layout.steps):
            before = observation["achieved_goal"]
            action = random.uniform(-1, 1, 2).astype(np.float32)
            observation, reward, terminated, truncated, info = env.step(action)
            point = observation["achieved_goal"]
            assert np.array_equal(observation["observation"], [*point, *point**2] if redundant else point)
            assert mazes.is_free(point, layout) and np.abs(point - before).max() <= layout.step + 1e-9
            near = np.linalg.norm(point - observation["desired_goal"]) <= mazes.RADIUS
            assert info["is_success"] == near == (reward == 0) and not terminated
            blocked += int((point == before).any())
        assert truncated
    assert blocked > 50


def test_a_point_slides_along_a_wall():
    maze = mazes.Maze()
    point = np.array([0.4, 0.29])
    for _ in range(5):
        point = maze.moved(point, np.array([0.5, 1.0]))
    np.testing.assert_allclose(point, [0.5, 0.29])


@pytest.mark.parametrize("name", mazes.LAYOUTS)
def test_far_starts_are_far_on_the_way_round_the_walls(name: str):
    layout, env = mazes.LAYOUTS[name], gym.make("benchmarks/Maze-v0", layout=name, far=True)
    longest, straight = mazes.longest_way(layout), []
    for seed in range(10):
        observation, _ = env.reset(seed=seed)
        start, goal = observation["achieved_goal"], observation["desired_goal"]
        assert longest / 2 <= mazes.way(layout, start, goal) < np.inf
        straight.append(np.linalg.norm(start - goal) < longest / 2)
    assert any(straight) and np.sqrt(2) < longest < 10
