"""The participant of a comparison."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym

from grasp_agent.evaluation.rollout import Predictor
from grasp_agent.task.goal import Goal


@dataclass(frozen=True)
class OwnFile:
    """A file that no user has named, such as one in the folder of a comparison: only a file of this package is loaded.

    Attributes:
        path: the file.
        planner: name of another planner for its model; empty for its own.
    """

    path: Path
    planner: str = ""

    def __str__(self) -> str:
        """Returns the path."""
        return str(self.path)


Given = str | Path | OwnFile | Predictor
TEXT = (str, Path, OwnFile)
"""Kinds of `Given` that other processes can resolve."""
Make = Callable[[gym.Env[Any, Any], int], Predictor]


class Participant(NamedTuple):
    """A participant of a comparison."""

    name: str
    """Name in tables."""
    make: Make
    """Builds the agent for an environment; the seed is for its random draws."""
    key: str | None
    """Identifies the agent's content; None where it has no stable identity, and its episodes must not be saved."""
    steps: int | None = None
    """Environment steps that it learned from; None where that is not known, 0 where it does not learn."""
    seconds: float | None = None
    """Time of its training [s], where that is known."""
    size: int | None = None
    """Of its file [bytes], where there is one."""
    goal: Goal | None = None
    """Its own goal, for environments that have none."""
    goal_known: bool = True
    """False where its goal is not known before it is built."""
    file: Path | None = None
    """The user's file that it is loaded from, if any."""
    notice: str | None = None
    """What the user should know before it is built; None for nothing."""


def check(agent: object, given: str) -> None:
    """Refuses objects without the `predict` of Stable-Baselines3's models.

    Raises:
        ValueError: if `predict` is missing or has another signature.
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
