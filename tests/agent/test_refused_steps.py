"""Obstacles that the model does not know: the agent drives round what reality refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import grasp_agent
from grasp_agent.agent.plan_state import PlanState

if TYPE_CHECKING:
    from grasp_agent import GraspAgent

START, GOAL = np.array([[-0.5, 0.6]], np.float32), np.array([[0.4, 0.6]], np.float32)
TOP, BOTTOM = 0.9, 0.3  # of a wall at x = 0 in the empty part of the room


@pytest.fixture
def agent() -> GraspAgent:
    return grasp_agent.load("ball-nav", device="cpu")


def raw(point: np.ndarray) -> np.ndarray:
    """Returns observation and achieved goal `[1, O + G]`."""
    return np.concatenate([point, point], 1)


def driven(agent: GraspAgent, steps: int = 70) -> tuple[list[np.ndarray], PlanState]:
    """Returns the points passed where the model is right but for a wall, and the running plan."""
    world, point, plans = agent.policy.world, START, None
    assert world is not None
    passed = [START]
    for _ in range(steps):
        action, plans, _ = agent.policy.decide(raw(point), GOAL, plans, deterministic=True)
        following = world.achieved(world.predict(raw(point), action))
        span = (0 - point[0, 0]) / (following[0, 0] - point[0, 0] or 1)
        height = point[0, 1] + span * (following[0, 1] - point[0, 1])
        point = point if 0 <= span <= 1 and BOTTOM <= height <= TOP else following
        passed.append(point)
    assert plans is not None
    return passed, plans


def test_it_drives_round_an_obstacle_that_the_model_does_not_know(agent: GraspAgent):
    passed, plans = driven(agent)
    assert agent.policy.world is not None
    assert agent.policy.world.goal_distance(passed[-1], GOAL)[0] <= agent.policy.world.tolerance
    assert 1 <= plans.refusals[0] <= 30
    reached = agent.policy.world.achieved(torch.from_numpy(plans.refused[0, : plans.refusals[0], 0]))
    assert (np.abs(reached[:, 0]) < 0.2).all()  # before the wall


def test_without_memory_it_does_not(agent: GraspAgent, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(PlanState, "refusing", lambda self, states, least: np.zeros(len(states), np.bool_))
    passed, _ = driven(agent)
    assert passed[-1][0, 0] < 0


def test_a_new_episode_forgets(agent: GraspAgent):
    _, plans = driven(agent, 25)
    assert plans.refusals[0] > 0
    plans.begin_episodes(np.array([True]))
    assert plans.refusals[0] == 0 and not plans.valid[0] and not plans.refused.any()
    world = agent.policy.world
    assert world is not None
    assert not plans.refusing(world.encode(raw(START)).cpu().numpy(), 1e-6).any()


def test_plans_to_goals_beyond_the_horizon_are_made_over_and_over(agent: GraspAgent):
    agent.horizon = 10
    _, plans, _ = agent.policy.decide(raw(START), -START, None, deterministic=True)
    assert not plans.final[0] and plans.accepted[0]
    world = agent.policy.world
    assert world is not None
    ends = world.goal_distance(world.achieved(world.encode(raw(-START))), -START)
    assert ends[0] <= world.tolerance
    near = START + np.array([0.2, 0.0], np.float32)
    assert agent.policy.decide(raw(START), near, None, deterministic=True)[1].final[0]
