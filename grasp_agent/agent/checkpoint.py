"""A training that may be killed at any moment: agent and experience in a file, from which it goes on.

Pictures lie beside it, in a file whose name is the checkpoint's and `.pictures`; both belong together.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from grasp_agent import serialization
from grasp_agent.agent.snapshot import packed

if TYPE_CHECKING:
    from grasp_agent.agent.agent import GraspAgent


class Checkpoint:
    """The file of a training. It is whole at any moment, and can be loaded as any agent's.

    Args:
        path: the file; None for none: nothing is ever written.
        seconds: time between two writings, longer where writing takes more than a twentieth of that [s].
    """

    def __init__(self, path: str | Path | None, seconds: float = 30.0) -> None:
        path = None if path is None else Path(path)
        self.path = path if path is None or path.suffix else path.with_suffix(".zip")
        self._wait = seconds
        self._written = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() - self._written > self._wait

    def write(self, agent: GraspAgent) -> None:
        """Writes the agent with its experience."""
        if self.path is None:
            return
        began = time.monotonic()
        config, tensors = packed(agent)
        config["fits"] = asdict(agent.learner.fits)
        pictures = {} if agent.vision is None else agent.vision.album.tensors()
        serialization.write(self.path, config, {**tensors, **agent.learner.tensors(), **pictures})
        self._written = time.monotonic()
        self._wait = max(self._wait, 20 * (self._written - began))

    def resume(self, agent: GraspAgent) -> bool:
        """Gives the agent what the file holds: world, experience and the number of steps taken.

        Returns:
            Whether there was a file.

        Raises:
            ValueError: if it is none of an agent with this goal and these spaces.
        """
        if self.path is None:
            return False
        pictures = self.path.with_name(f"{self.path.name}.pictures")
        if not self.path.exists():
            if agent.vision is not None:
                agent.vision.keep_in(pictures)
            return False
        config, tensors = serialization.read(self.path)
        wanted, found = agent.goal and agent.goal.to_config(), config.get("goal")
        if found != wanted:  # what was achieved on the way is part of the experience
            raise ValueError(f"{self.path}: expected the goal {wanted}, got {found}")
        known = type(agent).load(self.path, device=agent.device, goal=agent.goal)
        for name in ("observation_space", "action_space"):
            wanted, found = getattr(agent, name), getattr(known, name)
            if found != wanted:
                raise ValueError(f"{self.path}: expected the {name.replace('_', ' ')} {wanted}, got {found}")
        agent.num_timesteps, agent.training_seconds = known.num_timesteps, known.training_seconds
        agent.learner.resume(known.learner)
        if agent.vision is not None:
            if known.vision is not None and known.vision.encoder is not None:
                agent._look(known.vision.tensors())
            agent.vision.keep_in(pictures, tensors if "album.count" in tensors else None)
        if known.policy.world is not None:
            agent.policy.learned(known.policy.world)
        if agent.seed is not None and agent.env is not None:
            agent.env.seed(agent.seed + agent.num_timesteps)  # other episodes than those that were seen
        return True
