"""The content of a saved agent, as data: settings, counters, spaces, tensors in groups."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from grasp_agent import planners
from grasp_agent.agent.exploration import ExploreConfig
from grasp_agent.agent.settings import KINDS, AgentSettings
from grasp_agent.agent.trainer import Fits
from grasp_agent.models import EncoderConfig, MLPConfig, TrainConfig
from grasp_agent.models.world import World
from grasp_agent.planners import GRASP
from grasp_agent.reading import check_finite, reading
from grasp_agent.serialization import Codec, space_from_config, space_to_config
from grasp_agent.task.goal import Goal
from grasp_agent.task.state_map import StateMap
from grasp_agent.task.structure import Frame, Structure
from grasp_agent.validation import at_least, whole

_LIMITS = {
    "horizon": 10_000,
    "members": 64,
    "width": 4096,
    "depth": 32,
    "octaves": 16,
    "candidates": 65_536,
    "samples": 65_536,
    "iterations": 10_000,
    "rounds": 100,
    "proposed": 1024,
    "shortlist": 1024,
    "opening": 10_000,
    "hold": 10_000,
    "points": 256,
    "channels": 256,
    "ahead": 1000,
    "columns": 4096,
    "frames": 64,
}
"""Greatest values of numbers in files that determine memory and time; chosen by hand, far above the defaults."""
_MOST_PLANNED = 2**22  # steps of all candidates of a planner in a file together; chosen by hand

CODEC = Codec(
    [
        *(getattr(planners, name) for name in planners.__all__),
        MLPConfig,
        EncoderConfig,
        TrainConfig,
        ExploreConfig,
        StateMap,
        Structure,
        Frame,
    ],
    _LIMITS,
)
"""JSON form of all settings that files may hold."""

CHANGEABLE = ("horizon", "goal_tolerance", *(name for name in KINDS if name != "encoder"))
"""Settings of a saved agent that may be replaced when it is loaded."""

_CODED = ("planner", "criteria", "model", "train", "explore", "encoder")
_INDEX = ("middle", "linear", "support.", "roadmap.", "replay.")  # names in format 1, without the prefix `index.`


_MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w./-]*")  # `module:name`
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
        usual = {"planner": GRASP(), "criteria": settings.usual_criteria}  # defaults are saved as None
        coded = {name: getattr(settings, name) for name in _CODED}
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
            **{name: None if usual.get(name) == value else CODEC.encode(value) for name, value in coded.items()},
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
            known = {name: tensor.to(device) for name, tensor in _renamed(tensors).items()}
            return cls._decoded(config, known, changes or {})

    @classmethod
    def _decoded(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], changes: Mapping[str, Any]) -> Snapshot:
        settings = _settings(config, changes)
        tolerance_given = settings.goal_tolerance if {"goal", "goal_tolerance"} & set(changes) else None
        check_finite(tensors, unless=_INFINITE)
        return cls(
            settings=settings,
            observation_space=space_from_config(config["observation_space"]),
            action_space=space_from_config(config["action_space"]),
            env_id=None if config["env_id"] is None else env_id_of(config),
            env_kwargs=_options(config["env_kwargs"]),
            num_timesteps=count_of(config, "num_timesteps"),
            training_seconds=_seconds(config.get("training_seconds", 0.0)),
            seed=None if config["seed"] is None else count_of(config, "seed"),
            world=_world(config["world"], tensors, settings, tolerance_given),
            encoder=_group(tensors, "encoder"),
            experience=_group(tensors, "experience"),
            images=_group(tensors, "images"),
            fits=_fits(config),
        )

    def check_spaces(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], source: str) -> None:
        """Refuses spaces that are not this agent's.

        Raises:
            ValueError: that names what differs, and the source.
        """
        for name, wanted in (("observation_space", observation_space), ("action_space", action_space)):
            if getattr(self, name) != wanted:
                what = name.replace("_", " ")
                raise ValueError(f"{source}: expected the {what} {wanted}, got {getattr(self, name)}")


def env_id_of(config: Mapping[str, Any]) -> str:
    """Returns the id of an environment in a file.

    Raises:
        ValueError: if it is none, or names a module, which making the environment would import.
    """
    env_id = config["env_id"]
    if not isinstance(env_id, str):
        raise ValueError(f"env_id: expected the id of an environment, got {str(env_id)[:80]}")
    if ":" in env_id:
        raise ValueError(f"env_id: a file must not name a module to import, got {env_id!r}")
    return env_id


def count_of(config: Mapping[str, Any], name: str) -> int:
    """Returns a whole number of at least 0 in a file; raises ValueError for anything else."""
    whole(0, **{name: config[name]})
    return min(config[name], 2**62)


def _seconds(value: Any) -> float:
    at_least(0, training_seconds=value)
    return float(value)


def _options(options: Any) -> dict[str, Any]:
    if not isinstance(options, dict):
        raise ValueError(f"env_kwargs: expected options by name, got {str(options)[:80]}")
    parts: list[Any] = [options]
    while parts:
        part = parts.pop()
        parts += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        if isinstance(part, str) and _MODULE.fullmatch(part):  # for environments that make others
            raise ValueError(f"env_kwargs: a file must not name a module to import, got {part!r}")
    return options


def _settings(config: Mapping[str, Any], changes: Mapping[str, Any]) -> AgentSettings:
    saved_goal, new_goal = config["goal"], changes.get("goal")
    if new_goal is not None:
        AgentSettings(goal=new_goal)
        new_goal.check_saved(saved_goal)
        changes = {"goal_tolerance": new_goal.tolerance, **changes}
    known = {name: config[name] for name in _CODED if name != "encoder"}  # older files have no encoder
    structure = CODEC.decode(config["structure"]) if "structure" in config else Structure(blocks=config["blocks"])
    CODEC.check_limit("horizon", config["horizon"])
    saved = {
        "horizon": config["horizon"],
        "goal_tolerance": config["goal_tolerance"],
        "goal": None if saved_goal is None or new_goal is not None else Goal.from_config(saved_goal),
        "structure": structure,
        **{name: CODEC.decode(value) for name, value in known.items()},
        "encoder": CODEC.decode(_renamed_encoder(config.get("encoder"))),
    }
    _check_size(saved["planner"], saved["horizon"])
    return AgentSettings(**{**saved, **changes})


def _check_size(planner: Any, horizon: int) -> None:
    """Refuses a planner of a file whose candidates take more memory than any of this package's."""
    count = max((getattr(planner, name, 1) for name in ("candidates", "samples")), default=1)
    if count * horizon > _MOST_PLANNED:
        raise ValueError(f"candidates, horizon: expected at most {_MOST_PLANNED} steps in all, got {count} x {horizon}")
    if hasattr(planner, "pieces"):
        _check_size(planner.pieces, horizon)


def _world(
    config: Mapping[str, Any] | None, tensors: Mapping[str, Tensor], settings: AgentSettings, tolerance: float | None
) -> World | None:
    if config is None:
        return None
    numbers = tolerance or float(config["tolerance"]), float(config["error"])
    if not all(math.isfinite(number) and number > 0 for number in numbers):
        raise ValueError(f"tolerance, error: expected positive numbers, got {numbers}")
    model, state_map = (CODEC.decode(config[name]) for name in ("model", "state_map"))
    return World.restore(tensors, model, state_map, settings.structure or Structure(), *numbers)


def _fits(config: Mapping[str, Any]) -> Fits:
    """Returns how much of its dataset a checkpoint's model was fitted to; older files hold one count, agents none."""
    if "fits" not in config:
        fitted = int(config.get("fitted_at", 0))
        return Fits(seen=fitted, completed=int(config.get("completed_at", fitted)), kind_chosen=fitted)
    counts = {name: int(config["fits"][name]) for name in ("seen", "completed", "kind_chosen", "rehearsed")}
    return Fits(**counts, least_error=float(config["fits"]["least_error"]))


def _group(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def _renamed_encoder(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns an encoder's settings by their current names; older files call `reconstruction` `picture`."""
    if config is None:
        return None
    return {"reconstruction" if name == "picture" else name: value for name, value in config.items()}


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors by their current names; older files have others."""

    def present(name: str) -> str:
        if name in ("verdicts", "experience.verdicts"):
            return "experience.success_changes"
        if name.startswith("encoder.painter."):
            return name.replace("painter", "decoder", 1)
        if name.startswith("album."):
            return name.replace("album.", "images.", 1)
        return f"index.{name}" if name.startswith(_INDEX) else name

    return {present(name): tensor for name, tensor in tensors.items()}
