"""Environments that nothing here was written for, learned by the few lines of `docs/guides/your_environment.md`.

    python scripts/own_environments.py               # all; PointMaze_UMaze-v3 needs `pip install gymnasium-robotics`
    python scripts/own_environments.py Pendulum-v1
    python scripts/own_environments.py Pendulum-v1 --training-seed 1    # only prints

Writes `benchmarks/results/own_environments.json` and `docs/results/own_environments.md`. Trained with seed 0,
settings chosen on seeds from 5000, measured on episodes with seeds from 10000.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import pages
from grasp_agent import ExploreConfig, Goal, GraspAgent, MLPConfig
from grasp_agent.planners import MPPI

SEED = 10_000


@dataclass(frozen=True, kw_only=True)
class Example:
    """Settings of one environment's training and evaluation."""

    steps: int
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    package: str | None = None
    success: Callable[[Any, dict[str, Any]], bool] | None = None
    episodes: int = 20


def from_object_to_goal(obs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the vectors from the goal to the object `[n, 3]`, for Pusher's observations `[n, 23]`."""
    return obs[:, 17:20] - obs[:, 20:23]


EXAMPLES = {
    "MountainCarContinuous-v0": Example(
        steps=3000,
        settings={"goal": Goal.at({0: 0.45}, tolerance=0.05), "horizon": 120},
        success=lambda obs, _: bool(obs[0] >= 0.45),
        episodes=3,
    ),
    "Pendulum-v1": Example(
        steps=3000,
        settings={
            "goal": Goal.at({0: 1.0, 1: 0.0, 2: 0.0}, weights={2: 0.1}, tolerance=0.3, running=True),
            "horizon": 30,
            "explore": ExploreConfig(learning_starts=3000),
        },
        success=lambda obs, _: bool(obs[0] > 0.95),
    ),
    "Reacher-v5": Example(
        steps=8000,
        settings={
            "goal": Goal.at({8: 0.0, 9: 0.0}, tolerance=0.02),
            "model": MLPConfig.smooth(),
            "explore": ExploreConfig(learning_starts=2000, refit_growth=2.0),
        },
        success=lambda obs, _: bool(np.linalg.norm(obs[8:10]) < 0.02),
    ),
    "InvertedPendulum-v5": Example(
        steps=3000,
        settings={
            "goal": Goal.at(
                {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0}, weights={0: 0.1, 2: 0.1, 3: 0.1}, tolerance=0.05, running=True
            ),
            "model": MLPConfig.smooth(),
            "horizon": 20,
            "explore": ExploreConfig(learning_starts=3000),
        },
        success=lambda obs, _: bool(abs(obs[1]) < 0.05),
        episodes=5,
    ),
    "Pusher-v5": Example(
        steps=10_000,
        settings={
            "goal": Goal.of(from_object_to_goal, [0, 0, 0], tolerance=0.05),
            "model": MLPConfig.smooth(),
            "horizon": 40,
            "explore": ExploreConfig(learning_starts=10_000),
        },
        success=lambda obs, _: bool(np.linalg.norm(obs[17:20] - obs[20:23]) < 0.05),
        episodes=10,
    ),
    "HalfCheetah-v5": Example(
        steps=10_000,
        settings={
            "goal": Goal.at({8: 1.0}, tolerance=0.2, running=True),
            "planner": MPPI(),
            "model": MLPConfig.smooth(),
            "horizon": 15,
            "explore": ExploreConfig(learning_starts=10_000),
        },
        success=lambda obs, _: bool(abs(obs[8] - 1.0) < 0.2),
        episodes=3,
    ),
    "PointMaze_UMaze-v3": Example(
        steps=5000,
        settings={"horizon": 150, "explore": ExploreConfig(learning_starts=5000)},
        options={"continuing_task": False},
        package="gymnasium_robotics",
        success=lambda _, info: bool(info["success"]),
    ),
}


def row(name: str, training_seed: int) -> dict[str, float]:
    """Trains an agent in an environment and evaluates it."""
    example = EXAMPLES[name]
    if example.package is not None:
        gym.register_envs(importlib.import_module(example.package))
    env = gym.make(name, **example.options)
    began = time.monotonic()
    agent = GraspAgent("MultiInputPolicy", env, seed=training_seed, device="cpu", **example.settings)
    agent.learn(example.steps)
    trained = time.monotonic() - began
    returns, ends, count = [], [], 0
    began = time.monotonic()
    for seed in tqdm(range(SEED, SEED + example.episodes), desc=name, leave=False):
        agent.policy.forget()
        obs, _ = env.reset(seed=seed)
        done, total, info = False, 0.0, {}
        while not done:
            action, _ = agent.predict(obs)
            obs, reward, terminated, truncated, info = env.step(action)
            total, count, done = total + float(reward), count + 1, terminated or truncated
        returns.append(total)
        ends.append(example.success(obs, info) if example.success else False)
    env.close()
    return {
        "steps": example.steps,
        "episodes": example.episodes,
        "training_minutes": trained / 60,
        "success_end": float(np.mean(ends)),
        "return_mean": float(np.mean(returns)),
        "return_worst": float(np.min(returns)),
        "seconds_per_action": (time.monotonic() - began) / count,
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    """Returns the results as Markdown."""
    lines = [
        "| environment | steps learned from | episodes | success at the end | mean return (worst) | ms per step |",
        "|---|---|---|---|---|---|",
    ]
    for name, r in rows.items():
        score = f"{100 * r['success_end']:.0f} % | {r['return_mean']:.1f} ({r['return_worst']:.1f})"
        count, milliseconds = r.get("episodes", 20), 1000 * r["seconds_per_action"]
        lines.append(f"| `{name}` | {r['steps']:.0f} | {count} | {score} | {milliseconds:.0f} |")
    return "\n".join(lines) + "\n"


def page(rows: dict[str, dict[str, float]]) -> str:
    """Returns the page of results."""
    return pages.page(
        "Environments that nothing was tuned for",
        "python scripts/own_environments.py",
        "One training each (training seed 0), with the lines of [Your own environment](../guides/your_environment.md); "
        "evaluated with seeds from 10000 on one busy core. One training is an anecdote: `--training-seed N` "
        "repeats it.",
        table({name: rows[name] for name in EXAMPLES if name in rows}),
    )


def main(names: tyro.conf.Positional[tuple[str, ...]] = (), training_seed: int = 0) -> None:
    """Trains and evaluates in the named environments, or all.

    Args:
        names: environments.
        training_seed: of the agent; the files are of seed 0, any other is only printed.
    """
    unknown = set(names) - set(EXAMPLES)
    if unknown:
        raise SystemExit(f"unknown environment {unknown.pop()!r} (choose from {', '.join(EXAMPLES)})")
    torch.set_num_threads(1)
    for name in names or tuple(EXAMPLES):
        found = row(name, training_seed)
        print(json.dumps({name: found}), flush=True)
        if training_seed:
            continue
        rows = {**pages.read("own_environments", {}), name: found}
        pages.keep("own_environments", rows)
        pages.publish("own_environments", page(rows))


if __name__ == "__main__":
    tyro.cli(main)
