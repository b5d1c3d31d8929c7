"""Tuned hyperparameters of RL Zoo (Raffin 2020, github.com/DLR-RM/rl-baselines3-zoo), where it is installed."""

from __future__ import annotations

import ast
import json
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

_NEED_WRAPPERS = ("normalize", "env_wrapper", "frame_stack", "noise_type")
_NOT_SETTINGS = ("n_timesteps", "policy", "callback")


def tuned(algorithm: str, env_id: str) -> dict[str, Any] | None:
    """Returns an algorithm's tuned hyperparameters for an environment, ready for JSON.

    Returns:
        Constructor arguments, and `n_envs` where it is not 1. None where RL Zoo is not installed, has no entry, or one
        that needs wrappers or objects.
    """
    if find_spec("rl_zoo3") is None:
        return None
    import yaml  # comes with RL Zoo

    path = files("rl_zoo3") / "hyperparams" / f"{algorithm}.yml"
    if not path.is_file():
        return None
    return read(yaml.safe_load(path.read_text(encoding="utf-8")).get(env_id))


def read(entry: dict[str, Any] | None) -> dict[str, Any] | None:
    """Returns the hyperparameters of an entry of RL Zoo's files; see `tuned`."""
    if entry is None or any(entry.get(name) for name in _NEED_WRAPPERS):
        return None
    settings = {name: value for name, value in entry.items() if name not in (*_NOT_SETTINGS, *_NEED_WRAPPERS)}
    try:
        if "policy_kwargs" in settings:
            settings["policy_kwargs"] = _keywords(settings["policy_kwargs"])
        json.dumps(settings)
    except (ValueError, TypeError):
        return None
    if any(isinstance(value, str) and value.startswith("lin_") for value in settings.values()):
        return None  # schedules over a fixed number of steps
    return settings


def _keywords(text: str) -> dict[str, Any]:
    """Returns the values of `dict(name=literal, ...)`; raises ValueError for anything else."""
    match ast.parse(text.strip(), mode="eval").body:
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in keywords}
    raise ValueError(f"expected dict(name=value, ...), got {text}")
