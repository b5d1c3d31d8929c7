"""An agent for Gymnasium that plans with a learned world model by GRASP and looks like a Stable-Baselines3 model."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import grasp_envs  # noqa: F401  registers the grasp/ environments

if TYPE_CHECKING:
    from grasp_agent.agent import GraspAgent
    from grasp_agent.baselines import baseline
    from grasp_agent.comparison import compare
    from grasp_agent.evaluation import evaluate
    from grasp_agent.explore import ExploreConfig
    from grasp_agent.models import EncoderConfig, EnsembleMLP, Frame, MLPConfig
    from grasp_agent.planners import GRASP, Criteria
    from grasp_agent.pretrained import BundledModel, bundled, load
    from grasp_agent.structure import Structure
    from grasp_agent.task import Goal
    from grasp_agent.train import TrainConfig
    from grasp_agent.video import record, record_beside, record_grid, record_search

__version__ = "0.1.0"

# What needs torch is loaded when it is first asked for, so that importing the package takes no time.
_HOMES = {
    "GraspAgent": "agent",
    "evaluate": "evaluation",
    "ExploreConfig": "explore",
    "EncoderConfig": "models",
    "EnsembleMLP": "models",
    "Frame": "models",
    "MLPConfig": "models",
    "GRASP": "planners",
    "Criteria": "planners",
    "baseline": "baselines",
    "compare": "comparison",
    "BundledModel": "pretrained",
    "bundled": "pretrained",
    "load": "pretrained",
    "Structure": "structure",
    "Goal": "task",
    "TrainConfig": "train",
    "record": "video",
    "record_beside": "video",
    "record_grid": "video",
    "record_search": "video",
}

__all__ = [
    "GRASP",
    "BundledModel",
    "Criteria",
    "EncoderConfig",
    "EnsembleMLP",
    "ExploreConfig",
    "Frame",
    "Goal",
    "GraspAgent",
    "MLPConfig",
    "Structure",
    "TrainConfig",
    "baseline",
    "bundled",
    "compare",
    "evaluate",
    "load",
    "record",
    "record_beside",
    "record_grid",
    "record_search",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
