"""Names of OGBench's environments (Park et al. 2024, arXiv 2410.20092), and the ids by which Gymnasium knows them."""

from __future__ import annotations

OGBENCH_LIMITS: dict[str, int] = {
    "pointmaze-medium-v0": 1000,
    "pointmaze-large-v0": 1000,
    "pointmaze-giant-v0": 1000,
    "pointmaze-teleport-v0": 1000,
    "antmaze-medium-v0": 1000,
    "antmaze-large-v0": 1000,
    "antmaze-giant-v0": 1000,
    "antmaze-teleport-v0": 1000,
    "humanoidmaze-medium-v0": 2000,
    "humanoidmaze-large-v0": 2000,
    "humanoidmaze-giant-v0": 4000,
    "antsoccer-arena-v0": 1000,
    "antsoccer-medium-v0": 1000,
    "cube-single-v0": 200,
    "cube-double-v0": 500,
    "cube-triple-v0": 1000,
    "cube-quadruple-v0": 1000,
    "cube-octuple-v0": 1500,
    "scene-v0": 750,
    "puzzle-3x3-v0": 500,
    "puzzle-4x4-v0": 500,
    "puzzle-4x5-v0": 1000,
    "puzzle-4x6-v0": 1000,
}
"""OGBench's own ids of its environments with goals and vector observations, and their time limits [steps].

`humanoidmaze-teleport-v0`, of which there is no data, cannot be made with ogbench 1.2.2."""

DATASET_KINDS = ("navigate", "stitch", "explore", "play", "noisy")
"""Words by which the name of a dataset differs from that of its environment."""

OGBENCH_IDS: tuple[str, ...] = tuple(f"ogbench/{name}" for name in OGBENCH_LIMITS)
"""Gymnasium's ids of the same environments as `grasp_envs.ogbench_env.OGBenchEnv`."""


def registered_id(name: str) -> str:
    """Returns the id under which Gymnasium knows an environment.

    `ogbench:` and the name of an environment of OGBench, or of a dataset, stands for one of `OGBENCH_IDS`, for example
    `ogbench:pointmaze-medium-v0` and `ogbench:pointmaze-medium-navigate-v0` for `ogbench/pointmaze-medium-v0`.
    Gymnasium itself would import the package `ogbench` there and make an environment that does not observe its goal.

    Args:
        name: any environment's id; all others are returned as they are.

    Raises:
        ValueError: If OGBench has no such environment with goals and vector observations.
    """
    package, _, own = name.partition(":")
    if package != "ogbench":
        return name
    parts = own.split("-")
    found = "ogbench/" + "-".join(part for part in parts if part not in DATASET_KINDS)
    if found not in OGBENCH_IDS or len(parts) > found.count("-") + 2:
        raise ValueError(
            f"{name}: expected ogbench: and one of {', '.join(OGBENCH_LIMITS)}, or the name of a dataset, such as "
            "pointmaze-medium-navigate-v0; images (visual), single tasks (singletask), oracle representations "
            "(oraclerep) and Powderworld are not supported"
        )
    return found
