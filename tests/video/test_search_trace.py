"""Traces and videos of searches."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from agents import tiny
from test_record import decode

from grasp_agent import GraspAgent, record_search
from grasp_agent.planners import CEM, GRASP, Criteria
from grasp_agent.video.search_trace import trace_search

ENV = "grasp/BallNav-v0"
SEARCH = GRASP(proposals=None, candidates=4, iterations=6, verify_every=3)


@pytest.fixture
def hard(agent: GraspAgent) -> GraspAgent:
    """Finds no plan good enough: every search is done to its end."""
    agent.criteria = Criteria(accept=-1.0)
    return agent


@pytest.mark.parametrize("planner", [SEARCH, CEM(iterations=6, samples=4, elites=2)])
def test_each_iteration_is_traced_from_the_start_to_the_plan(hard: GraspAgent, planner: GRASP | CEM):
    env = gym.make(ENV)
    observation, _ = env.reset(seed=2)
    trace = trace_search(hard, observation, planner)
    horizon = hard.horizon
    assert trace.candidates.shape[0] == 7 and trace.candidates.shape[2:] == (horizon, 2)
    assert trace.path.shape == (horizon + 1, 2) and not trace.accepted
    np.testing.assert_allclose(trace.path[0], observation["achieved_goal"], atol=1e-5)
    moved = np.abs(trace.candidates[-1] - trace.candidates[0]).max()
    assert np.isfinite(trace.candidates).all() and moved > 0.05
    assert hard.last_plan is None  # the agent's own running plan is not touched
    again = trace_search(hard, observation, planner)
    np.testing.assert_array_equal(again.candidates, trace.candidates)
    env.close()


def test_the_video_has_a_frame_for_each_iteration_and_two_seconds_of_the_plan(hard: GraspAgent, tmp_path: Path):
    made = record_search(hard, ENV, tmp_path / "a.mp4", seed=2, planner=SEARCH, fps=4.0, size=160)
    frames = decode(made.path).astype(int)
    assert made.frames == len(frames) == 7 + 8
    assert frames.shape[2] == 160
    changes = np.abs(np.diff(frames[:, :160], axis=0)).max(axis=(1, 2, 3))
    assert (changes[:7] > 40).all()  # candidates move, then the plan is drawn
    assert (changes[7:] < 20).all()


def test_searches_that_cannot_be_traced_are_refused(agent: GraspAgent, tmp_path: Path):
    env = gym.make(ENV)
    observation, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match="expected one that has learned something"):
        trace_search(tiny(), observation)
    with pytest.raises(ValueError, match="expected a single one, got a batch"):
        trace_search(agent, {key: value[None] for key, value in observation.items()})
    env.close()
    with pytest.raises(ValueError, match="goal_to_pixels"):
        record_search(agent, "Pendulum-v1", tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())
