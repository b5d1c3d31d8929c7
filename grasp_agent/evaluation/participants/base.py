"""What one who takes part in a comparison is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym

from grasp_agent.evaluation.rollout import Predictor
from grasp_agent.task.goal import Goal

Given = str | Path | Predictor
Make = Callable[[gym.Env[Any, Any], int], Predictor]


class Participant(NamedTuple):
    """One who takes part."""

    name: str
    """In tables."""
    make: Make
    """Makes it for an environment; the seed is for what is random in it."""
    key: str | None
    """Changes when it becomes another one; None where that cannot be seen, and its episodes must not be kept."""
    steps: int | None = None
    """Environment steps that it learned from; None where that is not known, 0 where it learns nothing."""
    seconds: float | None = None
    """Time of its training [s], where that is known."""
    size: int | None = None
    """Of its file [bytes], where there is one."""
    goal: Goal | None = None
    """Its own, for environments that have none."""
    tried: bool = True
    """False where its goal is not known before it is made."""


def check(agent: object, given: str) -> None:
    """Refuses what cannot be asked for an action as Stable-Baselines3's models can.

    Raises:
        ValueError: that says what is wrong with it.
    """
    predict = getattr(agent, "predict", None)
    if not callable(predict):
        raise ValueError(f"agents: {given}: expected something with predict, got {agent!r}")
    try:
        inspect.signature(predict).bind(None, episode_start=None, deterministic=True)
    except TypeError as error:
        wanted = "predict(observation, state=None, episode_start=None, deterministic=False)"
        raise ValueError(f"agents: {given}: expected {wanted}: {error}") from error
    except ValueError:
        pass  # a predict without a readable signature
