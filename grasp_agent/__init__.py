"""An agent for Gymnasium that plans with a learned world model by GRASP, with Stable-Baselines3's interface."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import grasp_envs  # noqa: F401  registers the grasp/ environments

if TYPE_CHECKING:
    from grasp_agent.agent.agent import GraspAgent
    from grasp_agent.agent.exploration import ExploreConfig
    from grasp_agent.agent.latent.agent import LatentAgent
    from grasp_agent.agent.latent.model import LatentModel
    from grasp_agent.agent.replan_rule import ReplanRule
    from grasp_agent.agent.reward.agent import RewardAgent
    from grasp_agent.evaluation.compare import compare
    from grasp_agent.evaluation.evaluate import evaluate
    from grasp_agent.models import EncoderConfig, EnsembleMLP, MLPConfig, TrainConfig
    from grasp_agent.models.dynamics.rewarded import RewardModelConfig
    from grasp_agent.models.dynamics.state_value import ValueConfig
    from grasp_agent.planners import GRASP, Criteria
    from grasp_agent.task import Frame, Goal, Structure
    from grasp_agent.video.record import record, record_beside, record_grid, record_search
    from grasp_agent.zoo.baselines import baseline
    from grasp_agent.zoo.pretrained import BundledModel, bundled, load

__version__ = "0.1.0"

# Names whose modules import torch are loaded at first use, so that importing the package is fast.
_HOMES = {
    "GraspAgent": "agent.agent",
    "LatentAgent": "agent.latent.agent",
    "LatentModel": "agent.latent.model",
    "evaluate": "evaluation.evaluate",
    "ReplanRule": "agent.replan_rule",
    "RewardAgent": "agent.reward.agent",
    "RewardModelConfig": "models.dynamics.rewarded",
    "ValueConfig": "models.dynamics.state_value",
    "ExploreConfig": "agent.exploration",
    "EncoderConfig": "models",
    "EnsembleMLP": "models",
    "Frame": "task",
    "MLPConfig": "models",
    "GRASP": "planners",
    "Criteria": "planners",
    "baseline": "zoo.baselines",
    "compare": "evaluation.compare",
    "BundledModel": "zoo.pretrained",
    "bundled": "zoo.pretrained",
    "load": "zoo.pretrained",
    "Structure": "task",
    "Goal": "task",
    "TrainConfig": "models",
    "record": "video.record",
    "record_beside": "video.record",
    "record_grid": "video.record",
    "record_search": "video.record",
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
    "LatentAgent",
    "LatentModel",
    "MLPConfig",
    "ReplanRule",
    "RewardAgent",
    "RewardModelConfig",
    "Structure",
    "TrainConfig",
    "ValueConfig",
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
