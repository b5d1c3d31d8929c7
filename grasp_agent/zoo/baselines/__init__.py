"""Bundled agents of Stable-Baselines3, trained in the environments of the bundled models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

import grasp_envs  # noqa: F401  registers the environments
from grasp_agent import serialization
from grasp_agent.agent.saved_settings import count_of, env_id_of
from grasp_agent.reading import check_finite, reading
from grasp_agent.zoo.algorithms import untrained

_NOT_SETTINGS = {"policy", "env", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model"}
_MOST = {"n_steps": 2**20, "n_critics": 64, "n_quantiles": 4096, "n_envs": 1024, "net_arch": 2**16}
_GREATEST = 1e12
"""Greatest values of hyperparameters in files, by name and of all others; chosen by hand."""


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
        names = ", ".join(f"{entry.algorithm}@{entry.steps}" for entry in known)
        names = names or "the environments " + ", ".join(sorted({entry.env_id for entry in baselines()}))
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
    return read(path)


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


def read(path: Path) -> BaseAlgorithm:
    """Returns the algorithm of a file that `saved` wrote (see `restored`); no code in it is run.

    Raises:
        ValueError: of one line that names the path, if it cannot be read.
    """
    return restored(*serialization.read(path), source=path)


def restored(config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: object = "it") -> BaseAlgorithm:
    """Returns the algorithm of a file's content, ready to predict; its replay buffer holds one step.

    Args:
        config: the settings in the file.
        tensors: the tensors in it.
        source: the file, for error messages.

    Raises:
        ValueError: of one line, if the content is inconsistent.
    """
    with reading(source, "cannot be loaded"):
        env_id, settings = env_id_of(config), dict(config.get("settings", {}))
        steps = count_of(config, "num_timesteps")
        check_finite(tensors)
        _check_settings(settings, sum(tensor.numel() for tensor in tensors.values()))
        settings.pop("buffer_size", None)
        env = gym.make(env_id)
        try:
            model = untrained(config["algorithm"], env, steps=1, seed=0, **settings)
            model.policy.load_state_dict(dict(tensors))
        finally:
            env.close()
        model.num_timesteps = steps
    return model


def _check_settings(settings: Any, weights: int) -> None:
    """Refuses settings of a file that are no hyperparameters, or networks of more than its number of weights.

    It is called before memory for them is allocated.
    """
    if not isinstance(settings, dict) or _NOT_SETTINGS & set(settings):
        raise ValueError(f"settings: expected hyperparameters without {', '.join(sorted(_NOT_SETTINGS))}")
    count, layers = 1, list[list[Any]]()
    parts: list[tuple[str, Any]] = [*settings.items()]
    while parts:
        name, value = parts.pop()
        if isinstance(value, dict):
            parts += value.items()
        elif isinstance(value, list):
            layers += [value] if name in ("net_arch", "pi", "vf", "qf") else []
            parts += [(name, part) for part in value]
        elif isinstance(value, (int, float)) and not abs(value) <= _MOST.get(name, _GREATEST):
            raise ValueError(
                f"settings: {name}: expected at most {_MOST.get(name, _GREATEST):g} in a file, got {value:g}"
            )
        elif name in ("n_critics", "n_quantiles") and isinstance(value, int):
            count *= value
    for widths in (found for found in layers if all(isinstance(width, int) for width in found)):
        if count * sum(max(1, width) * max(1, after) for width, after in pairwise([1, *widths])) > weights:
            raise ValueError(f"settings: expected networks of the file's {weights} weights, got layers {widths}"[:200])
