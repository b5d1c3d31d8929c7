"""What an agent is made with: given by a user, completed by its environment, kept in files."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from grasp_agent.agent.exploration import ExploreConfig
from grasp_agent.agent.pixel_perception import PixelPerception
from grasp_agent.agent.replan_rule import ReplanRule
from grasp_agent.models import EncoderConfig, MLPConfig, TrainConfig
from grasp_agent.planners import GRASP, ICEM, Criteria, Planner, Roadmap
from grasp_agent.task.goal import Goal
from grasp_agent.task.pixels import PixelLayout
from grasp_agent.task.structure import Structure
from grasp_agent.task.success import success_radius
from grasp_agent.task.vec_env import time_limit
from grasp_agent.validation import instance, more_than, whole

_PIXEL_STARTS = 10_000  # `learning_starts` where observations are images [environment steps]; chosen by hand
_SHORTEST, _LONGEST = 10, 50  # limits of the default horizon [steps]; chosen by hand

IMAGE_PLANNER = ICEM(iterations=4, samples=128, verify_every=4, proposals=Roadmap())
"""The default where observations are images: `benchmarks.image_planners` compares it with others."""

KINDS: dict[str, type] = {
    "goal": Goal,
    "planner": Planner,
    "criteria": Criteria,
    "rule": ReplanRule,
    "model": MLPConfig,
    "train": TrainConfig,
    "explore": ExploreConfig,
    "structure": Structure,
    "encoder": EncoderConfig,
}


@dataclass(frozen=True, kw_only=True)
class AgentSettings:
    """An agent's constructor arguments; see `GraspAgent` for what they mean. None stands for a default.

    Raises:
        ValueError: if one is not of its kind, or out of range.
    """

    goal: Goal | None = None
    planner: Planner[Any] | None = None
    horizon: int | None = None
    model: MLPConfig | None = None
    encoder: EncoderConfig | None = None
    train: TrainConfig | None = None
    explore: ExploreConfig | None = None
    criteria: Criteria | None = None
    rule: ReplanRule | None = None
    structure: Structure | None = None
    goal_tolerance: float | None = None

    def __post_init__(self) -> None:
        for name, kind in KINDS.items():
            instance(kind, **{name: getattr(self, name)})
        if self.goal_tolerance is not None:
            more_than(0, goal_tolerance=self.goal_tolerance)
        if self.horizon is not None:
            whole(1, horizon=self.horizon)

    @property
    def tolerance(self) -> float | None:
        """The distance to the goal that counts as success, where it is given, be it with the goal."""
        return self.goal.tolerance if self.goal_tolerance is None and self.goal is not None else self.goal_tolerance

    @property
    def arguments(self) -> dict[str, Any]:
        """The settings by name, as constructor arguments."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def usual_criteria(self) -> Criteria:
        """The default criteria of plans: the goal's, with stopping where the task's structure permits it."""
        usual = Criteria() if self.goal is None else self.goal.criteria
        return replace(usual, stop=self.structure is not None and self.structure.rests)

    def usual(self, space: spaces.Space[Any]) -> dict[str, Any]:
        """Returns the defaults of what decides on plans, for an observation space; files hold None for them."""
        planner = GRASP() if self.layout(space) is None else IMAGE_PLANNER
        return {"planner": planner, "criteria": self.usual_criteria, "rule": ReplanRule()}

    def layout(self, space: Any) -> PixelLayout | None:
        """Returns the layout of an observation space's images; None where there are none."""
        return PixelLayout.of(space, None if self.encoder is None else self.encoder.frames)

    def completed(self, env: VecEnv | None) -> AgentSettings:
        """Returns the settings with defaults filled in: from the environment, where there is one."""
        layout = None if env is None else self.layout(env.observation_space)
        explore = ExploreConfig() if layout is None else ExploreConfig(learning_starts=_PIXEL_STARTS)
        known = replace(
            self,
            train=self.train or TrainConfig(),
            explore=self.explore or explore,
            goal_tolerance=self.tolerance,
            structure=self._structure(env, layout) if self.structure is None else self.structure,
        )
        known = replace(known, criteria=known.criteria or known.usual_criteria, rule=known.rule or ReplanRule())
        return known if env is None else known.in_env(env)

    def _structure(self, env: VecEnv | None, layout: PixelLayout | None) -> Structure:
        if env is None:
            return Structure()
        if layout is None:  # an environment weighs the entries of its own goal, not of another one
            return Structure.from_env(env, weighs_goal=self.goal is None)
        rests = env.has_attr("rests") and bool(env.get_attr("rests")[0])
        count = env.action_space.shape[0]  # type: ignore[index]
        return PixelPerception.structure(layout, self.encoder or EncoderConfig(), actions=count, rests=rests)

    def in_env(self, env: VecEnv) -> AgentSettings:
        """Returns the settings, with horizon and tolerance from an environment where they are None."""
        horizon, tolerance = self.horizon, self.goal_tolerance
        if horizon is None:
            limit = time_limit(env)
            horizon = _LONGEST if limit is None else min(_LONGEST, max(_SHORTEST, limit // 2))
        if tolerance is None and PixelLayout.of(env.observation_space) is None:  # with images distances are of latents
            threshold = env.get_attr("distance_threshold")[0] if env.has_attr("distance_threshold") else None
            if isinstance(threshold, int | float | np.number) and 0 < threshold < math.inf:
                tolerance = float(threshold)
            elif threshold is None and env.has_attr("compute_reward"):
                tolerance = success_radius(env)
        return replace(self, horizon=horizon, goal_tolerance=tolerance)
