"""Tiny agents for tests that do not depend on what they learn."""

from __future__ import annotations

import gc
import threading
from typing import Any

import gymnasium as gym

from grasp_agent import GRASP, ExploreConfig, GraspAgent, MLPConfig, ReplanRule, TrainConfig
from grasp_agent.agent.pixel_perception import PixelPerception
from grasp_agent.models import EncoderConfig

ENV = "grasp/BallNav-v0"
PIXELS = "grasp-tests/Pixels-v0"
_PIXEL_OPTIONS = {"layout": "barrier", "observation": "pixels", "goal": "pixels"}
gym.register(PIXELS, "grasp_envs.ball_nav:BallNavEnv", max_episode_steps=100, kwargs=_PIXEL_OPTIONS)


def tiny(env: Any = ENV, **settings: Any) -> GraspAgent:
    """Returns an agent with a tiny model and short fits."""
    given: dict[str, Any] = {
        "planner": GRASP(candidates=2, iterations=3),
        "horizon": 12,
        "model": MLPConfig(members=2, width=16, depth=1),
        "train": TrainConfig(gradient_steps=60, batch_size=32),
        "explore": ExploreConfig(learning_starts=100),
        "rule": ReplanRule(work=None),  # each call completes its search
        "seed": 3,
        "device": "cpu",
    }
    return GraspAgent(settings.pop("policy", "MultiInputPolicy"), env, **{**given, **settings})


def images_of(agent: GraspAgent) -> PixelPerception:
    """What an agent makes of images."""
    assert isinstance(agent.perception, PixelPerception)
    return agent.perception


def tiny_seer(env: Any = PIXELS, **settings: Any) -> GraspAgent:
    """Returns the same, from images."""
    encoder = EncoderConfig(points=2, channels=(2, 4), ahead=(1, 2), gradient_steps=5, batch_size=8)
    return tiny(env, **{"encoder": encoder, **settings})


def threads() -> int:
    """Returns the number of threads of searches."""
    gc.collect()
    return sum(thread.name == "plan" for thread in threading.enumerate())
