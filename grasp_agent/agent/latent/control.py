"""Model-predictive control in latents: which plans are kept, and how new ones are made."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grasp_agent.agent.latent.memory import LatentMemory
from grasp_agent.agent.latent.model import LatentDynamics
from grasp_agent.agent.latent.plans import LatentPlans
from grasp_agent.agent.replan_rule import ReplanRule
from grasp_agent.planners import Criteria, DistanceGoal, History, Planner, Problem
from grasp_agent.planners.distance_goal import root_mean_square
from grasp_agent.planners.requirements import is_small

_SMALLEST_RADIUS = 0.01  # of deviations from a plan [tolerances], for models that are almost exact; chosen by hand
_NEAR = 1e-3  # relative difference of encoded goals that count as the same; chosen by hand
Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class LatentControl:
    """What decides on plans at one moment; see `LatentAgent` for the settings.

    Attributes:
        dynamics: the model.
        planner: of new plans.
        horizon: model steps of a plan.
        criteria: how plans are scored.
        rule: when plans are replaced.
        memory: recorded experience.
        seed: seed of the planner's noise.
    """

    dynamics: LatentDynamics
    planner: Planner[Any]
    horizon: int
    criteria: Criteria
    rule: ReplanRule
    memory: LatentMemory
    seed: int

    def begin_steps(self, latents: Tensor, goals: Tensor, rows: NDArray[np.int64], plans: LatentPlans) -> None:
        """Begins a model step of some environments: replaces plans where needed, and takes their next actions.

        Args:
            latents: `[m, S]`, the present ones.
            goals: `[m, S]`.
            rows: `[m]`, the environments.
            plans: of all environments, changed in place.
        """
        known, wanted = latents.cpu().numpy().astype(np.float32), goals.cpu().numpy().astype(np.float32)
        plans.observe(rows, known)
        stale = np.flatnonzero(~self._on_course(latents, wanted, rows, plans))
        warm_rows = plans.valid[rows[stale]] & _same(plans.goals[rows[stale]], wanted[stale])
        for warm in (True, False):
            chosen = stale[warm_rows == warm]
            if not len(chosen):
                continue
            start, goal = latents[chosen], goals[chosen]
            aim, roadmap = goal, self.memory.roadmap
            if roadmap is not None:
                aim, _ = roadmap.ahead(start, lambda _, goal=goal: goal[:, None], self.horizon)
            problem = self._problem(start, aim, rows[chosen], plans)
            running = torch.from_numpy(plans.remaining(rows[chosen])).to(latents) if warm else None
            plan = self.planner.plan(problem, warm=running, seed=self.seed)
            if not plan.cost.isfinite().any():
                warnings.warn("model.step: no finite prediction for any plan; the agent rests", stacklevel=4)
            states = torch.cat([problem.start[:, None], plan.states], 1)
            accepted = plan.accepted & (aim == goal).all(-1)  # on the way to the goal, plans are replaced early
            actions, path, accepted = (part.cpu().numpy() for part in (plan.actions, states, accepted))
            plans.put(rows[chosen], actions, path, wanted[chosen], accepted)
        plans.begin_block(rows, known)

    def _on_course(
        self, latents: Tensor, goals: Array, rows: NDArray[np.int64], plans: LatentPlans
    ) -> NDArray[np.bool_]:
        """Returns where running plans are kept, `[m]`; see `ReplanRule`."""
        limit = np.where(plans.accepted[rows] & (self.memory.error is not None), self.horizon, self.rule.commit)
        kept = plans.valid[rows] & (plans.step[rows] < np.minimum(limit, self.horizon))
        kept &= _same(plans.goals[rows], goals)
        error, tolerance = self.memory.error, self.memory.tolerance
        if error is None or not kept.any():
            return kept
        predicted = torch.from_numpy(plans.states[rows, plans.step[rows]]).to(latents)
        off = (self.memory.distance or root_mean_square)(latents, predicted).cpu().numpy()
        return kept & (off <= max(self.rule.deviation * error, _SMALLEST_RADIUS * (tolerance or 1.0)))

    def _problem(self, start: Tensor, goals: Tensor, rows: NDArray[np.int64], plans: LatentPlans) -> Problem:
        past, dynamics, memory = None, self.dynamics, self.memory
        if dynamics.history > 1:
            past = History(*(torch.from_numpy(p[rows]).to(start) for p in (plans.past_states, plans.past_actions)))
        ones = start.new_ones(dynamics.action_size)
        return Problem(
            dynamics=dynamics,
            goal=DistanceGoal(target=goals, tolerance=memory.tolerance or 1.0, distance=memory.distance),
            start=start,
            low=-ones,
            high=ones,
            horizon=self.horizon,
            members=dynamics.members,
            recording=memory.recording,
            roadmap=memory.roadmap,
            history=past,
            forms_jacobians=is_small(dynamics.size, has_history=dynamics.history > 1),
            criteria=self.criteria if memory.tolerance else replace(self.criteria, accept=-1.0),
        )


def _same(goals: Array, others: Array) -> NDArray[np.bool_]:
    """Returns whether encoded goals `[m, S]` are the same, `[m]`, but for rounding."""
    return np.linalg.norm(goals - others, axis=-1) <= _NEAR * np.linalg.norm(others, axis=-1)
