"""Settings and counters of agents in files: their JSON form, checked and limited where it is read."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

from gymnasium.envs.registration import EnvSpec
from torch import Tensor

from grasp_agent import planners
from grasp_agent.agent.exploration import ExploreConfig
from grasp_agent.agent.replan_rule import ReplanRule
from grasp_agent.agent.settings import KINDS, AgentSettings
from grasp_agent.agent.trainer import Fits
from grasp_agent.models import EncoderConfig, MLPConfig, TrainConfig
from grasp_agent.models.dynamics.rewarded import RewardModelConfig
from grasp_agent.models.dynamics.state_value import ValueConfig
from grasp_agent.models.world import World
from grasp_agent.planners import Planner
from grasp_agent.reading import parse_json
from grasp_agent.serialization import Codec
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

_OWN = "own"  # type of a planner that is not of this package, in files

CODEC = Codec(
    [
        *(getattr(planners, name) for name in planners.__all__),
        MLPConfig,
        EncoderConfig,
        RewardModelConfig,
        ValueConfig,
        TrainConfig,
        ExploreConfig,
        ReplanRule,
        StateMap,
        Structure,
        Frame,
    ],
    _LIMITS,
)
"""JSON form of all settings that files may hold."""

CHANGEABLE = ("horizon", "goal_tolerance", *(name for name in KINDS if name != "encoder"))
"""Settings of a saved agent that may be replaced when it is loaded."""

CODED = ("planner", "criteria", "rule", "model", "train", "explore", "encoder")
_INDEX = ("middle", "linear", "support.", "roadmap.", "replay.")  # names in format 1, without the prefix `index.`


_MODULE = re.compile(r"[A-Za-z_][\w.]*:")  # `module:name`


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


def seconds_of(value: Any) -> float:
    """Returns a time in a file [s]; raises ValueError for anything but a number of at least 0."""
    at_least(0, training_seconds=value)
    return float(value)


def options_of(options: Any) -> dict[str, Any]:
    """Returns the options of an environment in a file.

    Raises:
        ValueError: if they are none, or name a module, which making the environment would import.
    """
    if not isinstance(options, dict):
        raise ValueError(f"env_kwargs: expected options by name, got {str(options)[:80]}")
    parts: list[Any] = [options]
    while parts:
        part = parts.pop()
        parts += [*part, *part.values()] if isinstance(part, dict) else part if isinstance(part, list) else []
        if isinstance(part, str) and _MODULE.match(part):  # for environments that make others
            raise ValueError(f"env_kwargs: a file must not name a module to import, got {part!r}")
    return options


def savable_options(spec: EnvSpec) -> dict[str, Any]:
    """Returns the options that an environment was made with; none, with a warning, where no file can hold them."""
    options = {name: value for name, value in spec.kwargs.items() if name != "render_mode"}
    try:
        return options_of(parse_json(json.dumps(options).encode()))
    except (TypeError, ValueError) as error:
        what = f"{spec.id} was made with options that cannot be saved; they are left out"
        warnings.warn(f"{what}: {error}", stacklevel=5)
        return {}


def setting_to_config(value: Any) -> Any:
    """Returns the JSON form of a setting; of a planner that is not of this package, or has such parts, its name."""
    try:
        return CODEC.encode(value)
    except ValueError:
        if not isinstance(value, Planner):
            raise
        return {"type": _OWN, "name": type(value).__name__}


def is_own(config: Any) -> bool:
    """Returns whether a JSON form is that of a planner which is not of this package."""
    return isinstance(config, dict) and config.get("type") == _OWN


def settings_of(config: Mapping[str, Any], changes: Mapping[str, Any]) -> AgentSettings:
    """Returns the constructor arguments in a file, some of them replaced by `changes`; raises where they do not fit."""
    saved_goal, new_goal = config["goal"], changes.get("goal")
    if new_goal is not None:
        AgentSettings(goal=new_goal)
        new_goal.check_saved(saved_goal)
        changes = {"goal_tolerance": new_goal.tolerance, **changes}
    known = {name: config[name] for name in CODED if name not in ("encoder", "rule")}  # not in older files
    if is_own(known["planner"]):
        if changes.get("planner") is None:
            name = str(known["planner"].get("name"))[:80]
            raise ValueError(f"its planner {name} is not of this package, so no file holds it: load(..., planner=)")
        known["planner"] = None
    structure = CODEC.decode(config["structure"]) if "structure" in config else Structure(blocks=config["blocks"])
    CODEC.check_limit("horizon", config["horizon"])
    saved = {
        "horizon": config["horizon"],
        "goal_tolerance": config["goal_tolerance"],
        "goal": None if saved_goal is None or new_goal is not None else Goal.from_config(saved_goal),
        "structure": structure,
        **{name: CODEC.decode(value) for name, value in known.items()},
        "encoder": CODEC.decode(_renamed_encoder(config.get("encoder"))),
        "rule": CODEC.decode(config.get("rule")),
    }
    check_planned(saved["planner"], saved["horizon"])
    return AgentSettings(**{**saved, **changes})


def check_planned(planner: Any, horizon: int) -> None:
    """Refuses a planner of a file whose candidates take more memory than any of this package's."""
    count = max((getattr(planner, name, 1) for name in ("candidates", "samples")), default=1)
    if count * horizon > _MOST_PLANNED:
        raise ValueError(f"candidates, horizon: expected at most {_MOST_PLANNED} steps in all, got {count} x {horizon}")
    if hasattr(planner, "pieces"):
        check_planned(planner.pieces, horizon)


def world_of(
    config: Mapping[str, Any] | None, tensors: Mapping[str, Tensor], settings: AgentSettings, tolerance: float | None
) -> World | None:
    """Returns a world of a file, with another success radius where one is given; raises where parts do not fit."""
    if config is None:
        return None
    numbers = tolerance or float(config["tolerance"]), float(config["error"])
    if not all(math.isfinite(number) and number > 0 for number in numbers):
        raise ValueError(f"tolerance, error: expected positive numbers, got {numbers}")
    model, state_map = (CODEC.decode(config[name]) for name in ("model", "state_map"))
    return World.restore(tensors, model, state_map, settings.structure or Structure(), *numbers)


def fits_of(config: Mapping[str, Any]) -> Fits:
    """Returns how much of its dataset a checkpoint's model was fitted to; older files hold one count, agents none."""
    if "fits" not in config:
        fitted = int(config.get("fitted_at", 0))
        return Fits(seen=fitted, completed=int(config.get("completed_at", fitted)), kind_chosen=fitted)
    counts = {name: int(config["fits"][name]) for name in ("seen", "completed", "kind_chosen", "rehearsed")}
    return Fits(**counts, least_error=float(config["fits"]["least_error"]))


def group_of(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Returns the tensors of a group, without its name."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def _renamed_encoder(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns an encoder's settings by their current names; older files call `reconstruction` `picture`."""
    if config is None:
        return None
    return {"reconstruction" if name == "picture" else name: value for name, value in config.items()}


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
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
