"""Files of a `RewardAgent`: its model and settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple

from gymnasium import spaces
from torch import Tensor

from grasp_agent import serialization
from grasp_agent.agent.reward.experience import check_spaces
from grasp_agent.agent.reward.learned_prior import SAC_BESIDE
from grasp_agent.agent.saved_settings import (
    CODEC,
    check_planned,
    count_of,
    env_id_of,
    is_own,
    options_of,
    setting_to_config,
)
from grasp_agent.models.dynamics.rewarded import RewardModelConfig
from grasp_agent.models.dynamics.state_value import ValueConfig
from grasp_agent.reading import check_finite, parse_json, reading
from grasp_agent.serialization import space_from_config, space_to_config
from grasp_agent.task.action_codec import ActionCodec
from grasp_agent.validation import instance

KIND = "reward"
"""Of files, beside those of agents that plan for goals."""
CODED = ("planner", "model", "value")
GIVEN = ("objective", "prior")
"""Settings that no file holds."""
GIVEN_PRIOR = "given"
"""Stands for a prior that no file holds."""
_COUNTS = ("buffer_size", "learning_starts", "first_steps", "batch_size", "train_freq", "gradient_steps")
PLAIN = ("horizon", "gamma", "pessimism", "noise", "learning_rate", *_COUNTS)
_OF_PRIOR = "networks_of_prior."  # begins the names of the tensors of a prior that learns
_BOUNDS = ("lowest", "highest")  # tensors that are infinite before training


class SavedRewardAgent(NamedTuple):
    """The content of a file."""

    settings: dict[str, Any]
    """Arguments of `RewardAgent`, without environment and objective."""
    has_objective: bool
    """Whether rewards came from a function, which no file holds."""
    prior: str | None
    """"sac" for one that the file holds, "given" for one that no file holds, None for none."""
    by_prior: bool
    """Whether it acts itself."""
    observation_space: spaces.Box
    action_space: spaces.Space[Any]
    env_id: str | None
    """Id of the environment, if it has one."""
    env_kwargs: dict[str, Any]
    """Its options."""
    seed: int | None
    num_timesteps: int
    """Environment steps that were learned from."""
    updates: int
    """Gradient steps that were taken."""
    tensors: dict[str, Tensor]
    """Of the policy's networks."""

    def encode(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns settings, ready for JSON, and tensors by name."""
        config: dict[str, Any] = {
            "kind": KIND,
            **{name: self.settings[name] for name in PLAIN},
            **{name: setting_to_config(self.settings[name]) for name in CODED},
            "has_objective": self.has_objective,
            "observation_space": space_to_config(self.observation_space),
            "action_space": space_to_config(self.action_space),
            **{name: getattr(self, name) for name in ("env_id", "env_kwargs", "seed", "num_timesteps", "updates")},
            **{name: getattr(self, name) for name in ("prior", "by_prior")},
        }
        return config, {name: tensor.detach().cpu() for name, tensor in self.tensors.items()}

    def check_loadable(self) -> None:
        """Checks that a file with these settings can be loaded: writes and reads them once, without tensors.

        Raises:
            ValueError: that names the setting which files cannot hold.
        """
        config = parse_json(json.dumps(self.encode()[0]).encode())
        given = {"planner": self.settings["planner"], **dict.fromkeys(GIVEN, True)}
        with reading("settings", "expected settings that can be saved and loaded"):
            self.decode(config, {}, given)

    @classmethod
    def read(cls, path: str | Path | IO[bytes], changes: Mapping[str, Any]) -> SavedRewardAgent:
        """Reads a file.

        Args:
            path: file name or file object.
            changes: settings that replace the saved ones.

        Raises:
            ValueError: for a missing, cut or foreign file, or a setting that no file holds.
        """
        config, tensors = serialization.read(path)
        with reading(serialization.name_of(path), "cannot be loaded"):
            return cls.decode(config, tensors, changes)

    @classmethod
    def decode(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], changes: Mapping[str, Any]
    ) -> SavedRewardAgent:
        """Inverts `encode`; raises ValueError where a part is missing, foreign or does not fit."""
        if config.get("kind") != KIND:
            raise ValueError("expected an agent that plans for rewards, got one that plans for goals")
        check_finite(tensors, unless=tuple(name for name in tensors if name.endswith(_BOUNDS)))
        known = {name: config[name] for name in CODED}
        if is_own(known["planner"]):
            if changes.get("planner") is None:
                raise ValueError("its planner is not of this package, so no file holds it: load(..., planner=)")
            known["planner"] = None
        if config["has_objective"] and changes.get("objective") is None:
            raise ValueError("its rewards came from a function, which no file holds: load(..., objective=)")
        prior = config["prior"]
        if prior not in (None, GIVEN_PRIOR, SAC_BESIDE):
            raise ValueError(f'prior: expected null, "{GIVEN_PRIOR}" or "{SAC_BESIDE}", got {prior!r}')
        if prior == GIVEN_PRIOR and "prior" not in changes:
            raise ValueError("its plans start from a prior, which no file holds: load(..., prior=), or prior=None")
        for name in ("horizon", *_COUNTS):
            CODEC.check_limit(name, config[name])
        planner = CODEC.decode(known["planner"])
        check_planned(planner, config["horizon"])
        found = {name: space_from_config(config[name]) for name in ("observation_space", "action_space")}
        check_spaces(found["observation_space"], found["action_space"])
        networks = CODEC.decode(known["model"]), CODEC.decode(known["value"])
        instance(RewardModelConfig, model=networks[0])
        instance(ValueConfig, value=networks[1])
        _check_shapes(tensors, *networks, **found)
        return cls(
            settings={
                **{name: config[name] for name in PLAIN},
                "planner": planner,
                "model": networks[0],
                "value": networks[1],
                **({"prior": prior} if prior == SAC_BESIDE else {}),
                **changes,
            },
            has_objective=bool(config["has_objective"]),
            prior=prior,
            by_prior=bool(config["by_prior"]),
            **found,  # type: ignore[arg-type]
            env_id=None if config["env_id"] is None else env_id_of(config),
            env_kwargs=options_of(config["env_kwargs"]),
            seed=None if config["seed"] is None else count_of(config, "seed"),
            num_timesteps=count_of(config, "num_timesteps"),
            updates=count_of(config, "updates"),
            tensors=dict(tensors),
        )


def _check_shapes(
    tensors: Mapping[str, Tensor],
    model: Any,
    value: Any,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
) -> None:
    """Refuses a file whose networks are not of the size that its settings say, before any are made, and odd bounds."""
    if not tensors:
        return  # settings that are checked before training
    assert observation_space.shape is not None
    size = observation_space.shape[0]
    sizes = {"model": [size + ActionCodec(action_space).size, *[model.width] * model.depth, size + 2]}
    if value is not None:
        sizes["value"] = [size, *[value.width] * value.depth, 1]
    sizes |= {"averaged" if name == "model" else f"averaged_{name}": widths for name, widths in sizes.items()}
    for group, widths in sizes.items():
        for index, shape in enumerate(pairwise(widths)):
            name, wanted = f"{group}.weights.{index}", (model.members, *shape)
            if name not in tensors or tuple(tensors[name].shape) != wanted:
                raise ValueError(f"{name}: expected a tensor {list(wanted)}")
        for name in ("std", "scale"):
            if not (tensors[f"{group}.{name}"] > 0).all():
                raise ValueError(f"{group}.{name}: expected positive numbers")
        if not (tensors[f"{group}.lowest"] <= tensors[f"{group}.highest"]).all():
            raise ValueError(f"{group}.lowest: expected at most {group}.highest")


def with_prior_of(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors of a file with those of a policy's prior, where only one of them has a prior that learns."""
    mine, theirs = ({name for name in given if name.startswith(_OF_PRIOR)} for given in (wanted, tensors))
    if bool(mine) == bool(theirs):
        return dict(tensors)
    return {name: tensor for name, tensor in tensors.items() if name not in theirs} | {
        name: wanted[name] for name in mine
    }


def fitting(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors of a file; raises ValueError unless they have the names and shapes of a policy's."""
    missing, foreign = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing or foreign:
        odd = (f"{names[0]} is {what}" for names, what in ((missing, "missing"), (foreign, "unknown")) if names)
        raise ValueError(
            f"weights: expected the {len(wanted)} tensors of this policy, got {len(tensors)}: {', '.join(odd)}"
        )
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(f"{name}: expected {list(wanted[name].shape)}, got {list(tensor.shape)}")
    return {name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()}
