"""When a running plan is kept: `ReplanRule.on_course`, case by case."""

from __future__ import annotations

import numpy as np
import pytest

from grasp_agent.agent.controller import ReplanRule
from grasp_agent.agent.plan_state import PlanState

HORIZON = 12
RULE = ReplanRule(commit=8)


def on_course(
    step: int, *, accepted: bool = True, valid: bool = True, off: float = 0.0, goal: float = 1.0, radius: float = 0.1
) -> bool:
    """Whether a plan that moves one unit a step is kept at a step, `off` its prediction."""
    plans = PlanState.blank(1, HORIZON, 1, 1, 1)
    plans.states[0, :, 0] = np.arange(HORIZON + 1)
    plans.goals[:], plans.step[:], plans.accepted[:], plans.valid[:] = 1.0, step, accepted, valid
    state, goals = np.array([[step + off]], np.float32), np.array([[goal]], np.float32)
    return bool(RULE.on_course(state, goals, plans, radius)[0])


@pytest.mark.parametrize("step", [0, 1, RULE.commit - 1])
@pytest.mark.parametrize("accepted", [True, False])
def test_a_plan_near_its_prediction_is_kept(step: int, accepted: bool):
    assert on_course(step, accepted=accepted)


@pytest.mark.parametrize("step", [RULE.commit, HORIZON - 1])
def test_after_the_commitment_only_an_accepted_plan_is_kept(step: int):
    assert on_course(step)
    assert not on_course(step, accepted=False)


def test_a_plan_ends_with_its_last_action():
    assert not on_course(HORIZON)


@pytest.mark.parametrize(("off", "kept"), [(0.09, True), (-0.09, True), (0.11, False), (-0.11, False)])
def test_a_plan_is_kept_within_the_radius_of_its_prediction(off: float, kept: bool):
    assert on_course(3, off=off) is kept


def test_a_plan_for_another_goal_or_none_is_not_kept():
    assert not on_course(3, goal=1.5)
    assert not on_course(3, valid=False)
