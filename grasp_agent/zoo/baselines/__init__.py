"""Bundled agents of Stable-Baselines3, trained in the environments of the bundled models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

import grasp_envs  # noqa: F401  registers the environments
from grasp_agent import serialization
from grasp_agent.zoo.algorithms import untrained


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """An entry of the catalog.

    Attributes:
        algorithm: its name, as in `grasp_agent.zoo.algorithms.ALGORITHMS`.
        env_id: the environment that it was trained in.
        steps: environment steps that it learned from.
        seconds: time that its training took, on one busy core [s].
        score: success at the end of the catalog's evaluation.
        command: the command that trained and evaluated it.
        sha256: hash of the file.
    """

    algorithm: str
    env_id: str
    steps: int
    seconds: float
    score: float
    command: str
    sha256: str

    @property
    def file(self) -> str:
        """Name of its file."""
        short = self.env_id.removeprefix("grasp/").removesuffix("-v0").lower()
        return f"{self.algorithm}-{short}-{self.steps}.zip"


def baselines() -> tuple[Baseline, ...]:
    """Returns the bundled baselines."""
    path = files(__name__) / "catalog.json"
    return tuple(Baseline(**entry) for entry in json.loads(path.read_text(encoding="utf-8")))


def find(algorithm: str, env_id: str, steps: int | None = None) -> Baseline:
    """Returns an entry of the catalog; without `steps`, the one with most.

    Raises:
        ValueError: if there is none.
    """
    algorithm = algorithm.lower()
    known = [entry for entry in baselines() if entry.env_id == env_id]
    fitting = [entry for entry in known if entry.algorithm == algorithm and steps in (None, entry.steps)]
    if not fitting:
        names = ", ".join(f"{entry.algorithm}@{entry.steps}" for entry in known) or "none"
        wanted = algorithm if steps is None else f"{algorithm}@{steps}"
        raise ValueError(f"no bundled baseline {wanted!r} for {env_id} (choose from {names})")
    return max(fitting, key=lambda entry: entry.steps)


def baseline(algorithm: str, env_id: str, steps: int | None = None) -> BaseAlgorithm:
    """Loads a baseline: a model of Stable-Baselines3, for prediction and evaluation; no code in its file is run.

    Args:
        algorithm: for example "sac".
        env_id: for example "grasp/BallNav-v0".
        steps: environment steps that it learned from; None for the baseline with most.

    Raises:
        ValueError: if there is none, or its file is damaged.
    """
    entry = find(algorithm, env_id, steps)
    path = Path(str(files(__name__) / entry.file))
    if hashlib.sha256(path.read_bytes()).hexdigest() != entry.sha256:
        raise ValueError(f"{entry.file}: the bundled file is damaged; expected the hash of the catalog")
    return restored(*serialization.read(path))


def saved(
    model: BaseAlgorithm, name: str, env_id: str, path: Path, *, seconds: float, settings: Mapping[str, Any]
) -> None:
    """Writes an algorithm's policy to a file that `restored` reads.

    Args:
        model: the trained model.
        name: of the algorithm.
        env_id: the environment that it was trained in.
        path: the file.
        seconds: time of its training [s].
        settings: settings that replaced those of `untrained`, ready for JSON.
    """
    about = {"algorithm": name, "env_id": env_id.split(":")[-1], "settings": dict(settings)}
    config = {**about, "num_timesteps": model.num_timesteps, "training_seconds": round(seconds, 1)}
    serialization.write(path, config, model.policy.state_dict())


def restored(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> BaseAlgorithm:
    """Returns the algorithm of a file's content, ready to predict; its replay buffer holds one step.

    Raises:
        ValueError: if the content is inconsistent.
    """
    try:
        env_id, settings = str(config["env_id"]), dict(config.get("settings", {}))
        if ":" in env_id:
            raise ValueError(f"env_id: a file must not name a module to import, got {env_id!r}")
        model = untrained(config["algorithm"], gym.make(env_id), steps=1, seed=0, **settings)
        model.policy.load_state_dict(dict(tensors))
        model.num_timesteps = int(config["num_timesteps"])
    except (LookupError, TypeError, AttributeError, RuntimeError, AssertionError, ValueError, gym.error.Error) as error:
        raise ValueError(f"it cannot be loaded: {' '.join(str(error).split())}") from error
    return model
