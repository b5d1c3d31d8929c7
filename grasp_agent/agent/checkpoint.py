"""Checkpoints of a training that may be killed at any moment: agent and experience in a file.

Images are in a second file in the same folder, named as the checkpoint with `.pictures` appended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from grasp_agent import serialization
from grasp_agent.agent.snapshot import Snapshot
from grasp_agent.task.goal import Goal

_WAIT_PER_WRITE = 20  # shortest wait after a write, in multiples of its duration


class Checkpoint:
    """The file of a training. It is complete at any moment, and can be loaded as any agent's.

    Args:
        path: the file; None writes nothing.
        seconds: time between two writes, longer where a write takes more than a twentieth of that [s].
    """

    def __init__(self, path: str | Path | None, seconds: float = 30.0) -> None:
        path = None if path is None else Path(path)
        self.path = path if path is None or path.suffix else path.with_suffix(".zip")
        self._wait = seconds
        self._written = time.monotonic()

    @property
    def images(self) -> Path | None:
        """The file of images; None for none."""
        return None if self.path is None else self.path.with_name(f"{self.path.name}.pictures")

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

    def read(self, goal: Goal | None, device: torch.device) -> Snapshot | None:
        """Returns the content of the file; None where there is none yet.

        Raises:
            ValueError: if it cannot be read (also a link to a file that does not exist), or is not of an agent with
                this goal.
        """
        if self.path is None or not os.path.lexists(self.path):
            return None
        config, tensors = serialization.read(self.path)
        wanted, found = goal and goal.to_config(), config.get("goal")
        if found != wanted:  # the experience contains goals achieved in the old goal's terms
            raise ValueError(f"{self.path}: expected the goal {wanted}, got {found}")
        return Snapshot.decode(config, tensors, str(self.path), device, {} if goal is None else {"goal": goal})
