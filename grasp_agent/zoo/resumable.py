"""A resumable training of an algorithm of Stable-Baselines3, which may be stopped at any moment."""

from __future__ import annotations

import io
import pickle
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from grasp_agent.serialization import atomic_write
from grasp_agent.task.vec_env import spec_of
from grasp_agent.zoo.algorithms import untrained

_SLICE = 1000  # environment steps between two checks of the clock
_EVERY = 60.0  # time between two checkpoints [s]


class _Sink(io.FileIO):
    """A file in writing that remembers its error: of a full disk torch says only that a position is unexpected."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w")
        self._error: OSError | None = None

    def write(self, data: Any, /) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while len(left):
                left = left[super().write(left) :]
        except OSError as error:
            self._error = error
            raise
        return size

    def __exit__(self, *_: object) -> None:
        self.close()
        if self._error is not None:
            raise self._error


class ResumableTraining:
    """A model in training, the time that it has taken, and a checkpoint of both.

    The file holds only tensors and numbers; no code in it is run. The states of the random generators and the running
    episode are not saved: a resumed training differs from one that was not interrupted.

    Args:
        name: of the algorithm.
        env: its environment.
        steps: environment steps of the whole training.
        seed: of everything random.
        checkpoint: the file; if it exists, the training continues from it. None writes none.
        **settings: see `grasp_agent.zoo.algorithms.untrained`.

    Attributes:
        model: the model in training.
        seconds: time spent on learning, including that before interruptions [s].

    Raises:
        ValueError: if the file is of another training.
    """

    def __init__(
        self,
        name: str,
        env: gym.Env[Any, Any] | VecEnv,
        *,
        steps: int,
        seed: int,
        checkpoint: Path | None = None,
        **settings: Any,
    ) -> None:
        self.model, self.seconds = untrained(name, env, steps=steps, seed=seed, **settings), 0.0
        self._about = f"{name} in {_id_of(env)}, {steps} steps, seed {seed}, {settings}"
        self._checkpoint, self._written = checkpoint, time.monotonic()
        if checkpoint is not None and checkpoint.exists():
            self._resume(checkpoint)
            self.model.set_random_seed(seed + self.model.num_timesteps)

    def run(self, steps: int, callback: MaybeCallback = None) -> None:
        """Trains until `steps` were taken in all; algorithms that collect rollouts of fixed size take some more."""
        while self.model.num_timesteps < steps:
            began = time.monotonic()
            self.model.learn(min(_SLICE, steps - self.model.num_timesteps), callback, reset_num_timesteps=False)
            self.seconds += time.monotonic() - began
            if time.monotonic() - self._written > _EVERY:
                self._write()
        self._write()

    def end(self) -> None:
        """Removes the file."""
        if self._checkpoint is not None:
            self._checkpoint.unlink(missing_ok=True)

    def _write(self) -> None:
        if self._checkpoint is None:
            return
        buffer = getattr(self.model, "replay_buffer", None)
        content = {
            "about": self._about,
            "num_timesteps": self.model.num_timesteps,
            "seconds": self.seconds,
            "parameters": self.model.get_parameters(),
            "variables": {name: getattr(self.model, name).detach() for name in self._variables()},
            "buffer": {} if buffer is None else _contents(buffer),
        }
        with atomic_write(self._checkpoint) as aside, _Sink(aside) as stream:
            torch.save(content, stream)
        self._written = time.monotonic()

    def _resume(self, path: Path) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of other pickles, which it then refuses
                held = torch.load(path, weights_only=True)
            about = held["about"]
        except (RuntimeError, EOFError, LookupError, TypeError, OSError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path}: no checkpoint of a training (remove it): {error}") from error
        if about != self._about:
            raise ValueError(f"{path}: expected the training {self._about}, got {about} (remove it)")
        self.model.set_parameters(held["parameters"])
        for name in self._variables():
            getattr(self.model, name).data.copy_(held["variables"][name])
        if held["buffer"]:
            _refill(self.model.replay_buffer, held["buffer"])  # type: ignore[attr-defined]
        self.model.num_timesteps, self.seconds = int(held["num_timesteps"]), float(held["seconds"])

    def _variables(self) -> list[str]:
        """Returns the names of learned variables other than networks, for example SAC's entropy coefficient."""
        return self.model._get_torch_save_params()[1]


def _id_of(env: gym.Env[Any, Any] | VecEnv) -> str:
    spec = spec_of(env) if isinstance(env, VecEnv) else env.spec
    return type(env).__name__ if spec is None else f"{spec.id} {spec.kwargs}"


def _contents(buffer: ReplayBuffer) -> dict[str, Any]:
    """Returns the content of a replay buffer: arrays as tensors, and counters."""
    found: dict[str, Any] = {}
    for name, value in vars(buffer).items():
        if isinstance(value, np.ndarray) and value.dtype != object:
            found[name] = torch.from_numpy(value)
        elif isinstance(value, dict) and all(isinstance(part, np.ndarray) for part in value.values()):
            found[name] = {key: torch.from_numpy(part) for key, part in value.items()}
        elif name in ("pos", "full"):
            found[name] = value
    return found


def _refill(buffer: ReplayBuffer, contents: dict[str, Any]) -> None:
    """Inverts `_contents`; an unfinished episode is truncated."""
    for name, value in contents.items():
        if isinstance(value, dict):
            value = {key: part.numpy() for key, part in value.items()}
        setattr(buffer, name, value.numpy() if isinstance(value, torch.Tensor) else value)
    if isinstance(buffer, HerReplayBuffer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            buffer.truncate_last_trajectory()
