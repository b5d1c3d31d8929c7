"""How an agent plans, as properties that may be changed at any time."""

from __future__ import annotations

from typing import Any

from grasp_agent.agent.policy import PlanView, WorldModelPolicy
from grasp_agent.agent.replan_rule import ReplanRule
from grasp_agent.planners import Criteria, Planner


class PlanProperties:
    """The settings of an agent's `policy` that plans depend on, and its last plan."""

    policy: WorldModelPolicy

    def _plan_with(self, **changes: Any) -> None:
        """Changes how the policy plans; None stands for a default."""
        raise NotImplementedError

    @property
    def planner(self) -> Planner[Any]:
        """The planner; it may be replaced at any time, None by the default."""
        return self.policy.controller.planner

    @planner.setter
    def planner(self, planner: Planner[Any] | None) -> None:
        self._plan_with(planner=planner)

    @property
    def horizon(self) -> int:
        """Steps of a plan; a change takes effect with the next plan."""
        return self.policy.controller.horizon

    @horizon.setter
    def horizon(self, horizon: int | None) -> None:
        self._plan_with(horizon=horizon)

    @property
    def criteria(self) -> Criteria:
        """How plans are scored; it may be changed at any time."""
        return self.policy.controller.criteria

    @criteria.setter
    def criteria(self, criteria: Criteria | None) -> None:
        self._plan_with(criteria=criteria)

    @property
    def rule(self) -> ReplanRule:
        """When plans are replaced; it may be changed at any time."""
        return self.policy.controller.rule

    @rule.setter
    def rule(self, rule: ReplanRule | None) -> None:
        self._plan_with(rule=rule)

    @property
    def last_plan(self) -> PlanView | None:
        """The plan of the first environment at the last `predict`, for drawing."""
        return self.policy.last_plan
