"""All readers of files, and the way in which they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from grasp_agent import GraspAgent
from grasp_agent.agent.checkpoint import Checkpoint
from grasp_agent.agent.settings import AgentSettings
from grasp_agent.evaluation import training
from grasp_agent.evaluation.cache import Store
from grasp_agent.evaluation.participants import OwnFile, participant
from grasp_agent.replay.image_buffer import ImageReplayBuffer
from grasp_agent.replay.offline import episodes_of
from grasp_agent.zoo import baselines

ENV = "grasp/BallNav-v0"
BOX = gym.spaces.Box(-1, 1, (2,))


def resumed(path: Path) -> object:
    """Reads a checkpoint, whose path was sound when the training began."""
    saver = Checkpoint(path.with_name("sound.zip"))
    saver.path = path
    return saver.read(AgentSettings(), torch.device("cpu"))


READERS: dict[str, Callable[[Path], object]] = {
    "agent": lambda path: GraspAgent.load(path, device="cpu"),
    "baseline": baselines.read,
    "checkpoint": lambda path: resumed(path),
    "participant": lambda path: participant(OwnFile(path), ENV),
    "dataset": lambda path: episodes_of(path, BOX, np.asarray),
    "learning curve": training.learning_curve,
    "images": lambda path: ImageReplayBuffer((2, 2, 3), path, 3),
    "episodes": lambda path: Store(path.parent, {}),
}


def refused(read: Callable[[], object], *words: str) -> str:
    """The one line, with these words, with which a file is refused."""
    with pytest.raises(ValueError, match=r".") as caught:
        read()
    line = str(caught.value)
    assert type(caught.value) is ValueError and "\n" not in line
    assert all(word in line for word in words), line
    return line
