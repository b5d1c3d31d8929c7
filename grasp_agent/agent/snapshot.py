"""What a saved agent consists of, and how it is put together again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from grasp_agent import planners, serialization
from grasp_agent.agent.exploration import ExploreConfig
from grasp_agent.agent.trainer import Fits
from grasp_agent.models import EncoderConfig, MLPConfig
from grasp_agent.models.dynamics.fitting import TrainConfig
from grasp_agent.models.world import World
from grasp_agent.planners import GRASP, Criteria, Planner
from grasp_agent.serialization import Codec
from grasp_agent.task.goal import Goal
from grasp_agent.task.state_map import StateMap
from grasp_agent.task.structure import Frame, Structure
from grasp_agent.validation import instance

if TYPE_CHECKING:
    from grasp_agent.agent.agent import GraspAgent

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
    ]
)
"""JSON form of all settings that files may hold."""

Agent = TypeVar("Agent", bound="GraspAgent")

_SAVED = {"planner": Planner, "criteria": Criteria, "model": MLPConfig, "train": TrainConfig, "explore": ExploreConfig}
_ADDED = {"encoder": EncoderConfig}  # older files know nothing of them
_KINDS = {**_SAVED, **_ADDED, "structure": Structure, "goal": Goal}
CHANGEABLE = ("horizon", "goal_tolerance", *(name for name in _KINDS if name not in _ADDED))
"""Settings of a saved agent that may be replaced when it is loaded."""


def packed(agent: GraspAgent) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """An agent's settings, ready for JSON, and its tensors; its experience is left out."""
    world, policy = agent.policy.world, agent.policy
    config: dict[str, Any] = {
        "env_id": agent.env_id,
        "env_kwargs": agent.env_kwargs,
        "observation_space": serialization.space_to_config(agent.observation_space),
        "action_space": serialization.space_to_config(agent.action_space),
        "num_timesteps": agent.num_timesteps,
        "training_seconds": round(agent.training_seconds, 1),
        "seed": agent.seed,
        "horizon": policy.horizon,
        "goal_tolerance": agent.goal_tolerance,
        "goal": None if agent.goal is None else agent.goal.to_config(),
        "structure": CODEC.encode(agent.structure),
        "planner": _unless_default(policy.planner, GRASP()),
        "criteria": _unless_default(policy.criteria, agent.usual_criteria),
        "model": CODEC.encode(agent.model_config),
        "encoder": CODEC.encode(agent.encoder_config),
        "train": CODEC.encode(agent.train_config),
        "explore": CODEC.encode(agent.explore_config),
        "world": None,
    }
    seen = {} if agent.vision is None else agent.vision.tensors()
    if world is None:
        return config, seen
    config["world"] = {
        "tolerance": world.tolerance,
        "error": world.error,
        "state_map": CODEC.encode(world.state_map),
        "model": CODEC.encode(world.model.config),
    }
    return config, {**seen, **world.tensors()}


def unpacked(
    kind: type[Agent],
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    device: torch.device | str,
    changes: Mapping[str, Any],
) -> Agent:
    """The agent of a file's content.

    Args:
        kind: its class.
        config: what `packed` said of it.
        tensors: its tensors.
        device: where it shall live.
        changes: settings that replace the saved ones.

    Raises:
        ValueError: where something does not fit; a missing or foreign part raises what Python raises.
    """
    saved_goal, new_goal = config["goal"], changes.get("goal")
    if new_goal is not None:
        check_kinds(goal=new_goal)
        new_goal.check_saved(saved_goal)
        changes = {"goal_tolerance": new_goal.tolerance, **changes}
    settings = {
        "horizon": int(config["horizon"]),
        "goal_tolerance": config["goal_tolerance"],
        "goal": None if saved_goal is None or new_goal is not None else Goal.from_config(saved_goal),
        "seed": config["seed"],
        "structure": _structure(config),
        **{name: CODEC.decode(config[name]) for name in _SAVED},
        **{name: CODEC.decode(config.get(name)) for name in _ADDED},
        **changes,
    }
    agent = kind("MultiInputPolicy", None, device=device, _init_setup_model=False, **settings)
    agent.observation_space = serialization.space_from_config(config["observation_space"])
    agent.action_space = serialization.space_from_config(config["action_space"])
    agent.env_id, agent.env_kwargs = config["env_id"], dict(config["env_kwargs"])
    if agent.env_id is not None and ":" in agent.env_id:
        raise ValueError(f"env_id: a file must not name a module to import, got {agent.env_id!r}")
    agent.num_timesteps = int(config["num_timesteps"])
    agent.training_seconds = float(config.get("training_seconds", 0.0))
    agent._setup_model()
    tensors = {name: tensor.to(agent.device) for name, tensor in tensors.items()}
    if any(name.startswith("encoder.") for name in tensors):
        agent._look(tensors)
    learned = config["world"]
    if learned is not None:
        numbers = changes.get("goal_tolerance") or float(learned["tolerance"]), float(learned["error"])
        if not all(math.isfinite(number) and number > 0 for number in numbers):
            raise ValueError(f"tolerance, error: expected positive numbers, got {numbers}")
        model, state_map = (CODEC.decode(learned[name]) for name in ("model", "state_map"))
        agent.policy.learned(World.restore(tensors, model, state_map, agent.structure, *numbers))
    if "experience.lengths" in tensors:
        agent.learner.restore(tensors, _fits(config))
    return agent


def _fits(config: Mapping[str, Any]) -> Fits:
    """What a checkpoint's model has been fitted to; older files know how much alone."""
    if "fits" not in config:
        seen = int(config["fitted_at"])
        return Fits(seen=seen, completed=int(config.get("completed_at", seen)), kind_chosen=seen)
    counts = {name: int(config["fits"][name]) for name in ("seen", "completed", "kind_chosen", "rehearsed")}
    return Fits(**counts, least_error=float(config["fits"]["least_error"]))


def _structure(config: Mapping[str, Any]) -> Structure:
    """What was known of the task; older files name the blocks alone."""
    return CODEC.decode(config["structure"]) if "structure" in config else Structure(blocks=config["blocks"])


def _unless_default(settings: Any, default: Any) -> Any:
    """JSON form of settings, null for the defaults: a file that asks for nothing special gets those of its reader."""
    return None if settings == default else CODEC.encode(settings)


def check_kinds(**settings: Any) -> None:
    """Refuses settings of the wrong kind, from a user or a damaged file.

    Raises:
        ValueError: that names the setting.
    """
    for name, value in settings.items():
        instance(_KINDS[name], **{name: value})
