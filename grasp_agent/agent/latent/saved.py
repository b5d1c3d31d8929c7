"""Files of a `LatentAgent`: its settings and its replay, without the model, which is not ours to pack."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from grasp_agent import serialization
from grasp_agent.agent.latent.memory import LatentEpisode
from grasp_agent.agent.saved_settings import CODEC, env_id_of, is_own, options_of, setting_to_config
from grasp_agent.models.temporal_distance import TemporalDistance
from grasp_agent.reading import check_finite, reading
from grasp_agent.validation import whole

KIND = "latent"
"""Of files, beside those of agents that learn their model."""
_ALIKE = 0.01  # relative difference of predictions that other processors may make; chosen by hand
_DISTANCE = "distance."
CODED = ("planner", "criteria", "rule")
_LONGEST = 1000  # frame-skip and history in files; chosen by hand
PLAIN = ("frame_skip", "history", "horizon", "seed", "goal_tolerance")


class SavedLatentAgent(NamedTuple):
    """The content of a file."""

    settings: dict[str, Any]
    """Arguments of `LatentAgent`, without environment, model and replay."""
    env_id: str | None
    """Id of the environment, if it has one."""
    env_kwargs: dict[str, Any]
    """Its options."""
    shape: tuple[int, ...]
    """Of a latent."""
    episodes: list[LatentEpisode]
    """The replay."""
    goal: Tensor | None
    """`[1, S]`, the goal that was set; None for none."""
    has_goal_function: bool
    """Whether goals came from a function, which no file holds."""
    distance: TemporalDistance | None
    """The learned distance; None for none."""
    trial: Tensor
    """Some entries of the change that the model predicts in a trial, see `LatentDynamics`."""

    def encode(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns settings, ready for JSON, and tensors by name."""
        config: dict[str, Any] = {
            "kind": KIND,
            "env_id": self.env_id,
            "env_kwargs": self.env_kwargs,
            "shape": list(self.shape),
            "has_goal_function": self.has_goal_function,
            **{name: self.settings[name] for name in PLAIN},
            **{name: setting_to_config(self.settings[name]) for name in CODED},
        }
        tensors = {"trial": self.trial, **({} if self.goal is None else {"goal": self.goal})}
        if self.distance is not None:
            tensors.update({_DISTANCE + name: value for name, value in self.distance.state_dict().items()})
        if self.episodes:
            tensors["latents"] = torch.cat([episode.latents for episode in self.episodes])
            tensors["actions"] = torch.from_numpy(np.concatenate([episode.actions for episode in self.episodes]))
            tensors["lengths"] = torch.tensor([len(episode.actions) for episode in self.episodes])
        return config, tensors

    @classmethod
    def read(cls, path: str | Path | IO[bytes], replaced: set[str]) -> SavedLatentAgent:
        """Reads a file.

        Args:
            path: file name or file object.
            replaced: names of settings that are given, in place of the saved ones.

        Raises:
            ValueError: for a missing, cut or foreign file, or a setting that no file holds.
        """
        config, tensors = serialization.read(path)
        with reading(serialization.name_of(path), "cannot be loaded"):
            return cls._decoded(config, tensors, replaced)

    def env(self) -> gym.Env[Any, Any]:
        """Makes the environment of the file; raises ValueError where it has no id."""
        if self.env_id is None:
            raise ValueError("env: expected one, as the file has no environment's id")
        return gym.make(self.env_id, **self.env_kwargs)

    def is_of(self, trial: Tensor) -> bool:
        """Returns whether a model, by its prediction in the trial, is the one that the file was saved with."""
        if self.trial.shape != trial.shape:
            return False
        known, found = self.trial.double(), trial.double()
        return bool((known - found).norm() <= _ALIKE * (known.norm() + 1e-6))

    @classmethod
    def _decoded(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], replaced: set[str]) -> SavedLatentAgent:
        if config.get("kind") != KIND:
            raise ValueError("expected an agent of a given world model, got one that learned its own: GraspAgent.load")
        check_finite(tensors)
        known = {name: config[name] for name in CODED}
        if is_own(known["planner"]):
            if "planner" not in replaced:
                raise ValueError("its planner is not of this package, so no file holds it: load(..., planner=)")
            known["planner"] = None
        if config["has_goal_function"] and "goal" not in replaced:
            raise ValueError("its goals came from a function, which no file holds: load(..., goal=)")
        for name in ("frame_skip", "history"):
            whole(1, **{name: config[name]})
            if config[name] > _LONGEST:
                raise ValueError(f"{name}: expected at most {_LONGEST}, got {config[name]}")
        shape = tuple(config["shape"])
        whole(1, **{f"shape[{axis}]": length for axis, length in enumerate(shape)})
        CODEC.check_limit("horizon", config["horizon"])
        goal = tensors.get("goal")
        if goal is not None and goal.shape != (1, prod(shape)):
            raise ValueError(f"goal: expected [1, {prod(shape)}], got {list(goal.shape)}")
        return cls(
            settings={
                **{name: config[name] for name in PLAIN},
                **{name: CODEC.decode(value) for name, value in known.items()},
            },
            env_id=None if config["env_id"] is None else env_id_of(config),
            env_kwargs=options_of(config["env_kwargs"]),
            shape=shape,
            episodes=_episodes(tensors, prod(shape)),
            goal=goal,
            has_goal_function=bool(config["has_goal_function"]),
            distance=_distance(tensors, prod(shape)),
            trial=tensors["trial"],
        )


def _distance(tensors: Mapping[str, Tensor], size: int) -> TemporalDistance | None:
    parts = {name.removeprefix(_DISTANCE): tensors[name] for name in tensors if name.startswith(_DISTANCE)}
    return TemporalDistance.of(parts, size) if parts else None


def _episodes(tensors: Mapping[str, Tensor], size: int) -> list[LatentEpisode]:
    if "lengths" not in tensors:
        return []
    latents, actions, lengths = (tensors[name] for name in ("latents", "actions", "lengths"))
    counts = lengths.tolist()
    if lengths.ndim != 1 or min(counts) < 0 or latents.shape != (sum(counts) + len(counts), size):
        raise ValueError(f"latents: expected [{sum(counts) + len(counts)}, {size}], got {list(latents.shape)}")
    if actions.ndim != 2 or len(actions) != sum(counts):
        raise ValueError(f"actions: expected [{sum(counts)}, A], got {list(actions.shape)}")
    states = latents.split([count + 1 for count in counts])
    return [LatentEpisode(*pair) for pair in zip(states, map(Tensor.numpy, actions.float().split(counts)), strict=True)]
