"""Recorded play as the source of plans, tolerance and error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import Exact, Point, played, solved

from grasp_agent import GraspAgent
from grasp_agent.planners import ICEM, Coloured

QUICK = ICEM(iterations=2, samples=24, elites=4, noise=Coloured(beta=2.0))


def test_replay_proposes_plans_and_measures_the_tolerance():
    env = Point(length=60)
    agent = GraspAgent.from_model(env, Exact().eval(), horizon=8)
    assert agent.goal_tolerance is None
    agent.collect(300)
    assert len(agent.memory) >= 300
    assert agent.goal_tolerance is not None and 0 < agent.goal_tolerance < 0.2
    assert agent.memory.error == pytest.approx(0, abs=1e-4)
    agent.planner = replace(agent.planner, iterations=0)
    assert np.mean(solved(agent, env, 8)) >= 0.5  # by retrieved actions alone


@pytest.mark.parametrize(
    ("replay", "message"),
    [
        ([np.zeros((3, 2))], "pairs of observations and actions"),
        ([(np.zeros((3, 2), np.float32), np.zeros((3, 2)))], "one more observation than actions, got 3 and 3"),
        ([], "at least one step"),
        ([(np.zeros((3, 2), np.float32), np.zeros((2, 2)))], "at least 5 steps"),
        ("nowhere.npz", "nowhere.npz"),
    ],
)
def test_a_replay_that_does_not_fit_is_refused(replay: Any, message: str):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        GraspAgent.from_model(Point(), Exact(5).eval(), frame_skip=5, replay=replay)


def test_collected_episodes_differ_from_those_before():
    agent = GraspAgent.from_model(Point(length=20), Exact().eval())
    agent.collect(40)
    agent.collect(40)
    episodes = agent.memory.episodes
    assert len({episode.actions.tobytes() for episode in episodes}) == len(episodes) == 4


def test_recorded_steps_of_an_npz_file_become_episodes(tmp_path: Path):
    env = Point(length=20)
    (seen, actions), (others, more) = played(env, 2)
    before, after = np.concatenate([seen[:-1], others[:-1]]), np.concatenate([seen[1:], others[1:]])
    taken = np.concatenate([actions, more])
    np.savez(tmp_path / "play.npz", observations=before, next_observations=after, actions=taken)
    agent = GraspAgent.from_model(env, Exact().eval(), replay=str(tmp_path / "play.npz"))
    assert [len(episode.actions) for episode in agent.memory.episodes] == [20, 20]
    latents = agent.memory.episodes[0].latents.unflatten(1, (2, 3))
    np.testing.assert_allclose(latents[..., 0].numpy(), seen, atol=1e-6)


def test_replay_whose_entries_are_of_different_lengths():
    env = Point(dictionary=True)
    (seen, actions), *_ = played(Point(), 1)
    both = {"observation": seen, "achieved_goal": seen, "desired_goal": seen[:-1]}
    with pytest.raises(ValueError, match="expected one more observation than actions, got 20, 21 and 20"):
        GraspAgent.from_model(env, Exact().eval(), replay=[(both, actions)])
