"""The content of a saved agent, as data: settings, counters, spaces, tensors in groups."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from grasp_agent.agent.saved_settings import (
    CODEC,
    CODED,
    count_of,
    env_id_of,
    fits_of,
    group_of,
    options_of,
    renamed,
    seconds_of,
    setting_to_config,
    settings_of,
    world_of,
)
from grasp_agent.agent.settings import AgentSettings
from grasp_agent.agent.trainer import Fits
from grasp_agent.models.world import World
from grasp_agent.reading import check_finite, parse_json, reading
from grasp_agent.serialization import space_from_config, space_to_config

_INFINITE = (".steps", ".low", ".high")  # tensors that may be: edges that cannot be driven, unknown edges


def loading(source: str) -> AbstractContextManager[None]:
    """Raises a ValueError that names the source, for any exception that a damaged or foreign file causes."""
    return reading(source, "cannot be loaded")


class Snapshot(NamedTuple):
    """An agent at one moment."""

    settings: AgentSettings
    """Its constructor arguments."""
    observation_space: spaces.Space[Any]
    """Of its environment."""
    action_space: spaces.Space[Any]
    """Of its environment."""
    env_id: str | None
    """Id of its environment, if that has one."""
    env_kwargs: dict[str, Any]
    """Options of its environment."""
    num_timesteps: int
    """Environment steps that it has learned from."""
    training_seconds: float
    """Time that it has spent on learning [s]."""
    seed: int | None
    """Of everything random."""
    world: World | None
    """Its learned world model; None before training."""
    encoder: dict[str, Tensor]
    """Weights of its encoder; empty for an agent without images, or before training."""
    experience: dict[str, Tensor]
    """Its dataset (see `ModelTrainer.tensors`); empty where that was not requested."""
    images: dict[str, Tensor]
    """Tensors that belong to the file of its images (see `ImageReplayBuffer.tensors`)."""
    fits: Fits
    """How much of the dataset its world model has been fitted to."""

    def encode(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns settings, ready for JSON, and tensors by name."""
        settings, world = self.settings, self.world
        usual = settings.usual(self.observation_space)
        coded = {name: getattr(settings, name) for name in CODED}
        config: dict[str, Any] = {
            "env_id": self.env_id,
            "env_kwargs": self.env_kwargs,
            "observation_space": space_to_config(self.observation_space),
            "action_space": space_to_config(self.action_space),
            "num_timesteps": self.num_timesteps,
            "training_seconds": round(self.training_seconds, 1),
            "seed": self.seed,
            "horizon": settings.horizon,
            "goal_tolerance": settings.goal_tolerance,
            "goal": None if settings.goal is None else settings.goal.to_config(),
            "structure": CODEC.encode(settings.structure),
            **{name: None if usual.get(name) == value else setting_to_config(value) for name, value in coded.items()},
            "world": None,
        }
        if self.experience:
            config["fits"] = asdict(self.fits)
        groups = {"encoder": self.encoder, "experience": self.experience, "images": self.images}
        tensors = {f"{group}.{name}": tensor for group, found in groups.items() for name, tensor in found.items()}
        if world is None:
            return config, tensors
        config["world"] = {
            "tolerance": world.tolerance,
            "error": world.error,
            "state_map": CODEC.encode(world.state_map),
            "model": CODEC.encode(world.model.config),
        }
        return config, {**tensors, **world.tensors()}

    @classmethod
    def decode(
        cls,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        source: str,
        device: torch.device | str = "cpu",
        changes: Mapping[str, Any] | None = None,
    ) -> Snapshot:
        """Inverts `encode`.

        Args:
            config: settings.
            tensors: by name.
            source: name of their file, for error messages.
            device: device of the tensors.
            changes: settings that replace the saved ones.

        Raises:
            ValueError: where a part is missing, foreign or does not fit.
        """
        with loading(source):
            known = {name: tensor.to(device) for name, tensor in renamed(tensors).items()}
            return cls._decoded(config, known, changes or {})

    @classmethod
    def _decoded(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], changes: Mapping[str, Any]) -> Snapshot:
        if config.get("kind") == "reward":
            raise ValueError("it holds an agent that plans for rewards: grasp_agent.RewardAgent.load(path)")
        if config.get("kind") is not None:
            raise ValueError("it holds an agent of a given model: grasp_agent.LatentAgent.load(path, model)")
        settings = settings_of(config, changes)
        tolerance_given = settings.goal_tolerance if {"goal", "goal_tolerance"} & set(changes) else None
        check_finite(tensors, unless=_INFINITE)
        return cls(
            settings=settings,
            observation_space=space_from_config(config["observation_space"]),
            action_space=space_from_config(config["action_space"]),
            env_id=None if config["env_id"] is None else env_id_of(config),
            env_kwargs=options_of(config["env_kwargs"]),
            num_timesteps=count_of(config, "num_timesteps"),
            training_seconds=seconds_of(config.get("training_seconds", 0.0)),
            seed=None if config["seed"] is None else count_of(config, "seed"),
            world=world_of(config["world"], tensors, settings, tolerance_given),
            encoder=group_of(tensors, "encoder"),
            experience=group_of(tensors, "experience"),
            images=group_of(tensors, "images"),
            fits=fits_of(config),
        )

    def check_loadable(self) -> None:
        """Checks that a file with these settings can be loaded: writes and reads them once, without tensors.

        Raises:
            ValueError: that names the setting which files cannot hold.
        """
        known = {"goal": self.settings.goal, "planner": self.settings.planner}
        changes = {name: value for name, value in known.items() if value is not None}
        try:
            config, _ = self._replace(world=None, encoder={}, experience={}, images={}).encode()
            self.decode(parse_json(json.dumps(config).encode()), {}, "settings", changes=changes)
        except (TypeError, ValueError) as error:
            reason = str(error).removeprefix("settings: cannot be loaded: ")
            raise ValueError(f"expected settings that can be saved and loaded: {reason}") from error

    def check_spaces(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], source: str) -> None:
        """Refuses spaces that are not this agent's.

        Raises:
            ValueError: that names what differs, and the source.
        """
        for name, wanted in (("observation_space", observation_space), ("action_space", action_space)):
            if getattr(self, name) != wanted:
                what = name.replace("_", " ")
                raise ValueError(f"{source}: expected the {what} {wanted}, got {getattr(self, name)}")
