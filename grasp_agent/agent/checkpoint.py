"""Checkpoints of a training that may be killed at any moment: agent and experience in a file.

Images are in a second file in the same folder, named as the checkpoint with `.pictures` appended.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from grasp_agent import serialization
from grasp_agent.agent.saved_settings import is_own
from grasp_agent.agent.settings import AgentSettings
from grasp_agent.agent.snapshot import Snapshot
from grasp_agent.files import check_writable, explained, followed, locked, named

_IMAGES = ".pictures"  # appended to the name
_NUMBERS = ("seed", "horizon", "goal_tolerance")
_SETTINGS = ("planner", "criteria", "model", "train", "explore", "encoder", "structure")
_WAIT_PER_WRITE = 20  # shortest wait after a write, in multiples of its duration


class Checkpoint:
    """The file of a training. It is complete at any moment, and can be loaded as any agent's.

    Args:
        path: the file; None writes nothing.
        seconds: time between two writes, longer where a write takes more than a twentieth of that [s].

    Raises:
        ValueError: for a name that no file can have.
        OSError: if a file of that name cannot be written.
    """

    def __init__(self, path: str | Path | None, seconds: float = 30.0) -> None:
        self.path = None if path is None else named(path, ".zip")
        if self.path is not None:
            with explained(self.path):
                self.path = followed(self.path)  # one lock and one file of images, however the file is named
            named(f"{self.path.name}{_IMAGES}")  # not too long
            check_writable(self.path)
        self._wait = seconds
        self._written = time.monotonic()

    @property
    def images(self) -> Path | None:
        """The file of images; None for none."""
        return None if self.path is None else self.path.with_name(f"{self.path.name}{_IMAGES}")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Refuses other trainings with this file, in other processes and in this one.

        Raises:
            BlockingIOError: if another training holds it.
        """
        if self.path is None:
            yield
        else:
            with locked(self.path, "another training writes this checkpoint"):
                yield

    @property
    def due(self) -> bool:
        """Whether a write is due."""
        return time.monotonic() - self._written > self._wait

    def write(self, snapshot: Callable[[], Snapshot]) -> None:
        """Writes the snapshot that a function returns; without a path it is not called."""
        if self.path is None:
            return
        began = time.monotonic()
        serialization.write(self.path, *snapshot().encode())
        self._written = time.monotonic()
        self._wait = max(self._wait, _WAIT_PER_WRITE * (self._written - began))

    def read(self, settings: AgentSettings, device: torch.device) -> Snapshot | None:
        """Returns the content of the file; None where there is none yet.

        Raises:
            ValueError: if it cannot be read (also a link to a file that does not exist), or is not of an agent with
                this goal.
        """
        if self.path is None or not os.path.lexists(self.path):
            return None
        config, tensors = serialization.read(self.path)
        goal = settings.goal
        wanted, found = goal and goal.to_config(), config.get("goal")
        if found != wanted:  # the experience contains goals achieved in the old goal's terms
            raise ValueError(f"{self.path}: expected the goal {wanted}, got {found}")
        changes = {"goal": goal, "planner": settings.planner if is_own(config.get("planner")) else None}
        given = {name: value for name, value in changes.items() if value is not None}
        return Snapshot.decode(config, tensors, str(self.path), device, given)

    def say_changes(self, held: Snapshot, given: Snapshot) -> None:
        """Warns where a training continues with other settings than those it was begun with."""
        (old, _), (new, _) = held.encode(), given.encode()
        shown = [f"{name} {new[name]} instead of {old[name]}" for name in _NUMBERS if new[name] != old[name]]
        shown += [f"another {name}" for name in _SETTINGS if new[name] != old[name]]
        if shown:
            warnings.warn(f"{self.path}: the training continues with {', '.join(shown)}", stacklevel=5)
