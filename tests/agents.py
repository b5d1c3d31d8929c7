"""Agents for tests that need one but not what it learns."""

from __future__ import annotations

from typing import Any

from grasp_agent import GRASP, ExploreConfig, GraspAgent, MLPConfig, TrainConfig

ENV = "grasp/BallNav-v0"


def tiny(env: Any = ENV, **settings: Any) -> GraspAgent:
    """An agent that learns next to nothing, quickly."""
    given: dict[str, Any] = {
        "planner": GRASP(candidates=2, iterations=3),
        "horizon": 12,
        "model": MLPConfig(members=2, width=16, depth=1),
        "train": TrainConfig(gradient_steps=60, batch_size=32),
        "explore": ExploreConfig(learning_starts=100),
        "seed": 3,
        "device": "cpu",
    }
    return GraspAgent("MultiInputPolicy", env, **{**given, **settings})
