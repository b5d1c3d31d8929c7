"""Bundled models, which are loaded offline."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from grasp_agent.agent.agent import GraspAgent
from grasp_agent.task.vec_env import Environment


@dataclass(frozen=True, kw_only=True)
class BundledModel:
    """An entry of the catalog.

    Attributes:
        env_id: the environment that it was trained in.
        description: one line.
        command: the command that trained it.
        steps: environment steps that it learned from.
        score: success at the end of the catalog's evaluation.
        evaluation: the command that measured the score.
        sha256: hash of the file.
        options: of the environment; empty for a model of the environment as it is registered, from its state.
    """

    env_id: str
    description: str
    command: str
    steps: int
    score: float
    evaluation: str
    sha256: str
    options: dict[str, Any] = field(default_factory=dict)


def bundled() -> dict[str, BundledModel]:
    """Returns the bundled models, by name."""
    catalog = json.loads((files(__name__) / "catalog.json").read_text(encoding="utf-8"))
    return {name: BundledModel(**entry) for name, entry in catalog.items()}


def load(
    name_or_path: str | Path, env: Environment | str | None = None, device: torch.device | str = "auto", **settings: Any
) -> GraspAgent:
    """Loads a bundled model by its name, or a saved file.

    Args:
        name_or_path: for example "ball-nav", or the path of a file that `GraspAgent.save` wrote.
        env: environment to continue in, or its id.
        device: where the model lives.
        **settings: settings that replace the saved ones, e.g. `planner` (see `GraspAgent.load`).

    Raises:
        ValueError: for an unknown name, a missing, cut or foreign file, or an environment with other spaces.
    """
    models = bundled()
    if name_or_path in models:
        source = files(__name__) / f"{name_or_path}.zip"
        if hashlib.sha256(source.read_bytes()).hexdigest() != models[str(name_or_path)].sha256:
            raise ValueError(f"{name_or_path}: the bundled file is damaged; expected the hash of the catalog")
        with source.open("rb") as stream:
            return GraspAgent.load(stream, env=env, device=device, **settings)  # type: ignore[arg-type]
    path = Path(name_or_path)
    if not path.name or not any(map(os.path.lexists, (path, path.with_suffix(".zip")))):
        raise ValueError(f"no bundled model or file {str(path)!r} (choose from {', '.join(models)}, or a file)")
    return GraspAgent.load(path, env=env, device=device, **settings)
