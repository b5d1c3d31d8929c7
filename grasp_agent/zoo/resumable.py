"""A resumable training of an algorithm of Stable-Baselines3, which may be stopped at any moment."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from grasp_agent import serialization
from grasp_agent.agent.saved_settings import count_of
from grasp_agent.files import atomic_write
from grasp_agent.reading import reading
from grasp_agent.task.vec_env import spec_of
from grasp_agent.validation import at_least
from grasp_agent.zoo.algorithms import untrained

_SLICE = 1000  # environment steps between two checks of the clock
_EVERY = 60.0  # time between two checkpoints [s]
_WAIT_PER_WRITE = 20  # shortest wait after one, in multiples of its duration
_LARGEST = 3 * 2**30  # of a checkpoint's tensors [bytes]; chosen by hand


class ResumableTraining:
    """A model in training, the time that it has taken, and a checkpoint of both.

    The file holds only tensors and numbers, in this package's format; no code in it is run. The states of the random
    generators and the running episode are not saved: a resumed training differs from one that was not interrupted.

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
        self._checkpoint, self._written, self._wait = checkpoint, time.monotonic(), _EVERY
        if checkpoint is not None and os.path.lexists(checkpoint):
            self._resume(checkpoint)
            self.model.set_random_seed(seed + self.model.num_timesteps)

    def run(self, steps: int, callback: MaybeCallback = None) -> None:
        """Trains until `steps` were taken in all; algorithms that collect rollouts of fixed size take some more."""
        while self.model.num_timesteps < steps:
            began = time.monotonic()
            self.model.learn(min(_SLICE, steps - self.model.num_timesteps), callback, reset_num_timesteps=False)
            self.seconds += time.monotonic() - began
            if time.monotonic() - self._written > self._wait:
                self._write()
        self._write()

    def end(self) -> None:
        """Removes the file."""
        if self._checkpoint is not None:
            self._checkpoint.unlink(missing_ok=True)

    def _write(self) -> None:
        if self._checkpoint is None:
            return
        began, buffer = time.monotonic(), getattr(self.model, "replay_buffer", None)
        content = {
            "num_timesteps": self.model.num_timesteps,
            "seconds": self.seconds,
            "parameters": self.model.get_parameters(),
            "variables": {name: getattr(self.model, name).detach() for name in self._variables()},
            "buffer": {} if buffer is None else _contents(buffer),
        }
        layout, tensors = _flattened(content)
        with atomic_write(self._checkpoint) as aside, open(aside, "wb") as stream:
            serialization.write(stream, {"about": self._about, "training": layout}, tensors)
        self._written = time.monotonic()
        self._wait = max(_EVERY, _WAIT_PER_WRITE * (self._written - began))

    def _resume(self, path: Path) -> None:
        with reading(path, "no checkpoint of a training (remove it)"):
            config, tensors = serialization.read(path, largest=_LARGEST)
            about = str(config["about"])
        if about != self._about:
            raise ValueError(f"{path}: expected the training {self._about}, got {about[:400]} (remove it)")
        with reading(path, "no checkpoint of a training (remove it)"):
            held = _unflattened(config["training"], tensors)
            self._check_optimisers(held["parameters"])
            self.model.set_parameters(held["parameters"])
            for name in self._variables():
                getattr(self.model, name).data.copy_(held["variables"][name])
            if held["buffer"]:
                _refill(self.model.replay_buffer, held["buffer"])  # type: ignore[attr-defined]
            self.model.num_timesteps, self.seconds = count_of(held, "num_timesteps"), float(held["seconds"])
            at_least(0, seconds=self.seconds)

    def _check_optimisers(self, parameters: dict[str, Any]) -> None:
        """Refuses states of optimisers that do not fit the parameters: torch does so only when it takes a step."""
        for name, found in parameters.items():
            if "param_groups" not in found:
                continue
            optimiser = attrgetter(name)(self.model)
            known = [parameter for group in optimiser.param_groups for parameter in group["params"]]
            for place, state in found["state"].items():
                for part, value in state.items():
                    if isinstance(value, torch.Tensor) and value.ndim and value.shape != known[place].shape:
                        raise ValueError(
                            f"{name}: {part}: expected {list(known[place].shape)}, got {list(value.shape)}"
                        )
            own = optimiser.state_dict()["param_groups"]
            if len(own) != len(found["param_groups"]):
                raise ValueError(f"{name}: expected {len(own)} groups of parameters")
            found["param_groups"] = own  # hyperparameters are those of this training

    def _variables(self) -> list[str]:
        """Returns the names of learned variables other than networks, for example SAC's entropy coefficient."""
        return self.model._get_torch_save_params()[1]


def _id_of(env: gym.Env[Any, Any] | VecEnv) -> str:
    spec = spec_of(env) if isinstance(env, VecEnv) else env.spec
    return type(env).__name__ if spec is None else f"{spec.id} {spec.kwargs}"


def _contents(buffer: ReplayBuffer) -> dict[str, Any]:
    """Returns the content of a replay buffer: the filled rows of its arrays as tensors, and counters."""
    rows, found = buffer.size(), dict[str, Any]()
    for name, array in _arrays(buffer).items():
        filled = array[:rows] if len(array) == buffer.buffer_size else array
        found[name] = torch.from_numpy(np.ascontiguousarray(filled))
    return {"arrays": found, "pos": buffer.pos, "full": buffer.full}


def _arrays(buffer: ReplayBuffer) -> dict[str, np.ndarray]:
    """Returns the arrays of a replay buffer; those of a dict by both names."""
    found: dict[str, np.ndarray] = {}
    for name, value in vars(buffer).items():
        if isinstance(value, np.ndarray) and value.dtype != object and value.ndim:
            found[name] = value
        elif isinstance(value, dict) and all(isinstance(part, np.ndarray) for part in value.values()):
            found |= {f"{name}/{key}": part for key, part in value.items()}
    return found


def _refill(buffer: ReplayBuffer, contents: dict[str, Any]) -> None:
    """Inverts `_contents`; an unfinished episode is truncated. Raises ValueError for another buffer's content."""
    position, full = int(contents["pos"]), bool(contents["full"])
    rows = buffer.buffer_size if full else position
    if not 0 <= position < buffer.buffer_size + (not full):
        raise ValueError(f"buffer: expected a position below {buffer.buffer_size}, got {position}")
    for name, array in _arrays(buffer).items():
        values = contents["arrays"][name].numpy()
        part = array[:rows] if len(array) == buffer.buffer_size else array
        if values.shape != part.shape or values.dtype != array.dtype:
            raise ValueError(f"buffer: {name}: expected {list(part.shape)}, got {list(values.shape)}")
        part[...] = values
    buffer.pos, buffer.full = position, full
    if isinstance(buffer, HerReplayBuffer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            buffer.truncate_last_trajectory()


def _flattened(content: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Returns nested dicts and lists of numbers and tensors as a layout, ready for JSON, and its tensors by name."""
    tensors: dict[str, torch.Tensor] = {}

    def layout(part: Any, name: str) -> Any:
        if isinstance(part, torch.Tensor):
            tensors[name] = part
            return {"tensor": name}
        if isinstance(part, Mapping):
            return {"items": [[key, layout(value, f"{name}.{key}")] for key, value in part.items()]}
        if isinstance(part, (list, tuple)):
            return [layout(value, f"{name}.{place}") for place, value in enumerate(part)]
        return part

    return layout(content, ""), tensors


def _unflattened(layout: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Inverts `_flattened`; tuples become lists."""
    if isinstance(layout, dict):
        if "tensor" in layout:
            return tensors[layout["tensor"]]
        return {key: _unflattened(value, tensors) for key, value in layout["items"]}
    return [_unflattened(value, tensors) for value in layout] if isinstance(layout, list) else layout
