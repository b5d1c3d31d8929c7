"""Goal-reaching environments for Gymnasium: importing this package registers them and loads no simulator."""

from typing import Any

import gymnasium as gym

from grasp_envs.ogbench_names import OGBENCH_IDS, OGBENCH_LIMITS, registered_id

__all__ = ["ENV_IDS", "OGBENCH_IDS", "registered_id"]

_SPECS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "grasp/BallNav-v0": ("grasp_envs.ball_nav:BallNavEnv", 100, {"layout": "barrier"}),
    "grasp/BallNavTrap-v0": ("grasp_envs.ball_nav:BallNavEnv", 100, {"layout": "trap"}),
    "grasp/BallNavMaze-v0": ("grasp_envs.ball_nav:BallNavEnv", 200, {"layout": "maze"}),
    "grasp/BallNav4-v0": ("grasp_envs.ball_nav:BallNavEnv", 100, {"balls": 4, "layout": "barrier"}),
    "grasp/Wall-v0": ("grasp_envs.ball_nav:BallNavEnv", 100, {"layout": "rooms"}),
    "grasp/WallDoor-v0": ("grasp_envs.ball_nav:BallNavEnv", 100, {"layout": "rooms", "door": "random"}),
    "grasp/PointMaze-v0": ("grasp_envs.point_maze:PointMazeEnv", 100, {"layout": "umaze"}),
    "grasp/PointMazeMedium-v0": ("grasp_envs.point_maze:PointMazeEnv", 200, {"layout": "medium"}),
    "grasp/PointMazeLarge-v0": ("grasp_envs.point_maze:PointMazeEnv", 300, {"layout": "large"}),
    "grasp/PushT-v0": ("grasp_envs.push_t:PushTEnv", 150, {}),
    "grasp/Reacher-v0": ("grasp_envs.reacher:ReacherEnv", 50, {}),
}

ENV_IDS: tuple[str, ...] = tuple(_SPECS)
"""The ids of this package's own environments."""

_OGBENCH: dict[str, tuple[str, int, dict[str, Any]]] = {
    f"ogbench/{_name}": ("grasp_envs.ogbench_env:OGBenchEnv", _steps, {"name": _name})
    for _name, _steps in OGBENCH_LIMITS.items()
}

for _id, (_entry_point, _steps, _kwargs) in {**_SPECS, **_OGBENCH}.items():
    if _id not in gym.registry:
        gym.register(id=_id, entry_point=_entry_point, max_episode_steps=_steps, kwargs=_kwargs)
