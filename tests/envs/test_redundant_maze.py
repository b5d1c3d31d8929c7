"""The maze of the benchmark of learning's cost."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env

from benchmarks import redundant_maze


def test_it_is_an_environment_with_redundant_entries_and_walls():
    env = gym.make(redundant_maze.ID)
    check_env(env.unwrapped, skip_render_check=True)
    blocked, random = 0, np.random.default_rng(0)
    for seed in range(20):
        (observation, _), truncated = env.reset(seed=seed), False
        for _ in range(redundant_maze.STEPS):
            before = observation["achieved_goal"]
            action = random.uniform(-1, 1, 2).astype(np.float32)
            observation, reward, terminated, truncated, info = env.step(action)
            point = observation["achieved_goal"]
            assert np.array_equal(observation["observation"], [*point, *point**2])
            assert redundant_maze.is_free(point) and np.abs(point - before).max() <= redundant_maze.STEP + 1e-9
            near = np.linalg.norm(point - observation["desired_goal"]) <= redundant_maze.RADIUS
            assert info["is_success"] == near == (reward == 0) and not terminated
            blocked += int((point == before).any())
        assert truncated
    assert blocked > 100


def test_a_point_slides_along_a_wall():
    env = gym.make(redundant_maze.ID).unwrapped
    assert isinstance(env, redundant_maze.RedundantMaze)
    env.reset(seed=0)
    env._point = np.array([0.4, 0.29])
    points = [env.step(np.array([0.5, 1.0], np.float32))[0]["achieved_goal"] for _ in range(5)]
    np.testing.assert_allclose(points[-1], [0.5, 0.29])
