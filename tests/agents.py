"""Tiny agents for tests that do not depend on what they learn."""

from __future__ import annotations

import gc
import threading
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation

from grasp_agent import GRASP, ExploreConfig, GraspAgent, MLPConfig, ReplanRule, TrainConfig
from grasp_agent.agent.pixel_perception import PixelPerception
from grasp_agent.models import EncoderConfig
from grasp_agent.models.dynamics.rewarded import RewardModelConfig
from grasp_agent.models.dynamics.state_value import ValueConfig
from grasp_agent.planners import ICEM

ENV = "grasp/BallNav-v0"
PIXELS = "grasp-tests/Pixels-v0"
_PIXEL_OPTIONS = {"layout": "barrier", "observation": "pixels", "goal": "pixels"}
FLAT, CHOICES = "agents:grasp-tests/Flat-v0", "agents:grasp-tests/Choices-v0"


class Steering(gym.ActionWrapper[Any, Any, Any]):
    """Rest, or one of four directions."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.action_space = spaces.Discrete(5)

    def action(self, action: Any) -> Any:
        return np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)][int(action)], np.float32)


def flat(**options: Any) -> gym.Env[Any, Any]:
    """Returns an environment with rewards and a Box of observations."""
    return FlattenObservation(gym.make(ENV, **options).unwrapped)


def choices(**options: Any) -> gym.Env[Any, Any]:
    """Returns the same with discrete actions."""
    return Steering(flat(**options))


for name, entry in ((FLAT, flat), (CHOICES, choices)):
    gym.register(name.split(":")[1], entry, max_episode_steps=100)
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


def tiny_reward(env: Any = FLAT, **settings: Any) -> Any:
    """Returns an agent for rewards that learns in seconds."""
    given: dict[str, Any] = {
        "planner": ICEM(iterations=1, samples=8, elites=2),
        "horizon": 3,
        "model": RewardModelConfig(members=2, width=16),
        "value": ValueConfig(width=16),
        "learning_starts": 20,
        "first_steps": 30,
        "batch_size": 16,
        "buffer_size": 1000,
        "seed": 3,
        "device": "cpu",
    }
    return GraspAgent("MlpPolicy", env, **{**given, **settings})


def tiny_choices(env: Any = CHOICES, **settings: Any) -> Any:
    """Returns the same with discrete actions."""
    return tiny_reward(env, **settings)
