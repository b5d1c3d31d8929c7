"""Converts an environment's observations to those of a goal environment, in whose vectors the policy plans."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from grasp_agent.replay.episodes import Dataset, Episode
from grasp_agent.task.goal import Goal
from grasp_agent.task.observation import KEYS, numbers, raw_vectors


class Perception(ABC):
    """Converts observations to the vectors in which the policy plans; for images, with encoder and replay buffer.

    Attributes:
        unit_groups: groups of the observation's entries that share a unit, and are scaled alike.
        names_goals: whether observations contain the goal.
    """

    unit_groups: Sequence[Sequence[int]] = ()
    names_goals: bool = True

    @property
    @abstractmethod
    def space(self) -> spaces.Dict:
        """The space of what `to_goal_dict` returns."""

    @abstractmethod
    def to_goal_dict(self, observation: Any) -> Any:
        """Returns observations, one or a batch, as those of a goal environment.

        Anything else, such as a pair `(observation, info)`, is returned unchanged: the policy refuses it.
        """

    @abstractmethod
    def rows(self, observations: Any) -> NDArray[Any]:
        """Returns observations as rows `[n, R]`, in which offline datasets are given to `store`."""

    @abstractmethod
    def store(self, episodes: Iterable[Episode], dataset: Dataset, action_size: int) -> None:
        """Adds offline episodes of such rows to the experience.

        Raises:
            ValueError: if they do not fit.
        """

    @abstractmethod
    def outcome(self, row: int, before: Any, after: Any, last: Any | None) -> tuple[NDArray[Any], NDArray[Any]]:
        """Returns the achieved goal of one of several environments after a step, and its desired goal before it.

        Args:
            row: the environment.
            before: observations before the step.
            after: observations after it.
            last: this environment's last observation, where its episode has ended.
        """

    def encoded(self, goals: NDArray[Any]) -> NDArray[np.float32]:
        """Returns goals of `outcome`, `[n, ...]`, as vectors `[n, G]`."""
        return goals

    def check_goal(self) -> None:  # noqa: B027
        """Raises ValueError where no goal is known."""

    def set_goal(self, image: Any) -> None:
        """See `GraspAgent.set_goal`."""
        raise ValueError("set_goal: expected an agent whose observations are images")

    def record(  # noqa: B027
        self,
        before: Any,
        actions: NDArray[np.float32],
        after: Any,
        lasts: Mapping[int, Any],
        terminated: Collection[int],
    ) -> None:
        """Records one step of n environments, where observations are not the vectors in which the policy plans.

        Args:
            before: observations before the step.
            actions: `[n, A]`, in [-1, 1].
            after: observations after it.
            lasts: the last observations of the environments whose episodes have ended.
            terminated: those of them whose last state is terminal, see `Episode`.
        """

    def fit(self, *, last: bool, progress_bar: bool) -> bool:
        """Fits the encoder where that is due; returns whether encodings, and with them the space, have changed."""
        return False

    def episodes(self, known: int) -> Iterable[Episode] | None:
        """Returns all experience encoded; None where there are no more than the `known` transitions."""
        return None

    def figures(self) -> dict[str, float]:
        """Returns the figures of the last fit, for the log."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Returns the encoder's weights, by name; empty without an encoder."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Takes over an encoder's weights; the encoder is frozen from then on."""

    def buffer_tensors(self) -> dict[str, Tensor]:
        """Returns the tensors of the image replay buffer that a checkpoint keeps in addition to the file of images."""
        return {}

    def open_buffer(self, path: Path | None, tensors: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Stores images in a file from now on, including earlier ones; a checkpoint's `tensors` continue its file.

        Without a path they are stored in a temporary file: that of a checkpoint may be another training's by now.
        """


class VectorPerception(Perception):
    """Observations of a goal environment, in whose vectors the policy plans directly.

    Args:
        space: a Dict of vectors observation, achieved_goal and desired_goal.
    """

    def __init__(self, space: spaces.Dict) -> None:
        self._space = space

    @property
    def space(self) -> spaces.Dict:
        """See `Perception.space`."""
        return self._space

    def to_goal_dict(self, observation: Any) -> Any:
        """See `Perception.to_goal_dict`: returns them unchanged."""
        return observation

    def rows(self, observations: Any) -> NDArray[np.float32]:
        """See `Perception.rows`: observation and achieved goal, `[n, O + G]`."""
        known = self.to_goal_dict(observations)
        if not isinstance(known, Mapping):
            raise ValueError("dataset: expected achieved goals in addition to the observations (a goal environment)")
        return raw_vectors(known)

    def store(self, episodes: Iterable[Episode], dataset: Dataset, action_size: int) -> None:
        """See `Perception.store`."""
        episodes = [*episodes]
        sizes = [self._space[key].shape[0] for key in KEYS[:2]]  # type: ignore[index]
        wanted = sum(sizes), action_size
        found = episodes[0].states.shape[1], episodes[0].actions.shape[1]
        if found != wanted:
            raise ValueError(f"dataset: expected observation, achieved goal and action of sizes {wanted}, got {found}")
        dataset.add_all(episodes)

    def outcome(self, row: int, before: Any, after: Any, last: Any | None) -> tuple[NDArray[Any], NDArray[Any]]:
        """See `Perception.outcome`: vectors `[G]`."""
        reached = self.to_goal_dict(after if last is None else last)["achieved_goal"]
        achieved, desired = reached[row] if last is None else reached, self.to_goal_dict(before)["desired_goal"][row]
        return numbers(achieved, KEYS[1]), numbers(desired, KEYS[2])


class GoalPerception(VectorPerception):
    """Vector observations with a goal that was given.

    Args:
        space: of the observations with the goal.
        goal: the goal.
    """

    def __init__(self, space: spaces.Dict, goal: Goal) -> None:
        super().__init__(space)
        self._goal = goal

    def to_goal_dict(self, observation: Any) -> Any:
        """See `Perception.to_goal_dict`."""
        return observation if isinstance(observation, (Mapping, tuple)) else self._goal.goal_observation(observation)
