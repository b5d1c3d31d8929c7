"""Near goals of three bundled agents: starts and goals that every planner's short plan joins without a detour."""

from __future__ import annotations

import math
from itertools import count
from typing import Any

import gymnasium as gym
import numpy as np

from benchmarks.peers.worker import Task
from grasp_envs.ball_nav import BallNavEnv, is_free
from grasp_envs.point_maze import PointMazeEnv

HORIZON = 20
"""H, actions of a plan."""
LIMIT = 40
"""Steps of an episode."""
NEAREST = 0.25
"""Fraction of an environment's own starts and goals, by their distance, that counts as near."""
TUNING_SEED, SEED = 5_000, 60_000
_DRAWS = 1000  # episodes whose distances give the quantile
_POINTS = 50  # of the line from start to goal, where it must be free

TASKS = {
    name: Task(model=name, env_id=env_id, horizon=HORIZON, budget=math.inf, commit=HORIZON)
    for name, env_id in (
        ("ball-nav", "grasp/BallNav-v0"),
        ("reacher", "grasp/Reacher-v0"),
        ("point-maze", "grasp/PointMaze-v0"),
    )
}


def near_distance(env: gym.Env[Any, Any]) -> float:
    """Returns the distance up to which goals are near, from the environment's own draws."""
    return float(np.quantile([_distance(env.reset(seed=TUNING_SEED + draw)[0]) for draw in range(_DRAWS)], NEAREST))


def near_seeds(env: gym.Env[Any, Any], first: int, episodes: int, nearest: float) -> list[int]:
    """Returns the first seeds whose goals are near, without a wall on the straight line."""
    found: list[int] = []
    for seed in count(first):
        if len(found) == episodes:
            break
        observation, _ = env.reset(seed=seed)
        if _distance(observation) <= nearest and _clear(env, observation):
            found.append(seed)
    return found


def _distance(observation: dict[str, np.ndarray]) -> float:
    return float(np.linalg.norm(observation["achieved_goal"] - observation["desired_goal"]))


def _clear(env: gym.Env[Any, Any], observation: dict[str, np.ndarray]) -> bool:
    """Returns whether the straight line from start to goal is free; the arm's plane has no walls."""
    line = np.linspace(observation["achieved_goal"], observation["desired_goal"], _POINTS)
    inner = env.unwrapped
    if isinstance(inner, BallNavEnv):
        return bool(is_free(line, inner.walls).all())
    return not isinstance(inner, PointMazeEnv) or bool(inner.is_free(line).all())
