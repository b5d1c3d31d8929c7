"""The two-link arm: Gymnasium's dynamics, its kinematics, its limits."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import numpy as np

from grasp_envs.goal_env import GoalEnv
from grasp_envs.reacher import ELBOW_LIMIT, INNER_REACH, OUTER_REACH, fingertip


def reacher() -> GoalEnv:
    return cast(GoalEnv, gym.make("grasp/Reacher-v0").unwrapped)


def test_the_arm_moves_exactly_as_that_of_gymnasium() -> None:
    ours, theirs, rng = (
        reacher(),
        cast(Any, gym.make("Reacher-v5").unwrapped),
        np.random.default_rng(0),
    )
    theirs.reset(seed=0)
    angles, velocities = np.array([2.0, -1.0]), np.array([0.5, -0.3])
    theirs.set_state(np.array([*angles, 0.1, 0.1]), np.array([*velocities, 0.0, 0.0]))
    ours.reset(seed=0, options={"state": [*angles, *velocities]})
    for action in rng.uniform(-1, 1, (100, 2)).astype(np.float32):
        theirs.step(action)
        achieved = ours.step(action)[0]["achieved_goal"]
        # Gymnasium's positions of bodies lag behind its angles until they are recomputed.
        theirs.set_state(theirs.data.qpos, theirs.data.qvel)
        expected = np.concatenate((theirs.data.qpos[:2], theirs.data.qvel[:2]))
        np.testing.assert_allclose(ours.state, expected, rtol=0, atol=1e-8)
        np.testing.assert_allclose(achieved, theirs.get_body_com("fingertip")[:2], rtol=0, atol=1e-8)


def test_the_fingertip_of_known_angles() -> None:
    angles = [[0.0, 0.0], [np.pi / 2, 0.0], [0.0, np.pi / 2]]
    np.testing.assert_allclose(fingertip(angles), [[0.21, 0.0], [0.0, 0.21], [0.1, 0.11]], atol=1e-15)


def test_every_goal_of_the_arm_can_be_reached_within_its_joint_limits() -> None:
    env = reacher()
    goals = np.array([env.reset(seed=seed)[0]["desired_goal"] for seed in range(500)])
    radius = np.linalg.norm(goals, axis=-1)
    assert INNER_REACH < 0.03 <= radius.min()
    assert radius.max() <= 0.2 < OUTER_REACH
    elbow = np.arccos((radius**2 - 0.1**2 - 0.11**2) / (2 * 0.1 * 0.11))
    assert np.abs(elbow).max() < ELBOW_LIMIT
    shoulder = np.arctan2(goals[:, 1], goals[:, 0]) - np.arctan2(0.11 * np.sin(elbow), 0.1 + 0.11 * np.cos(elbow))
    np.testing.assert_allclose(fingertip(np.stack((shoulder, elbow), axis=-1)), goals, atol=1e-12)


def test_states_beyond_the_soft_stop_of_the_elbow_can_be_restored() -> None:
    env = reacher()
    env.reset(seed=0)
    elbow = []
    for step in range(100):
        env.step([-1.0, 1.0] if step % 3 else [1.0, 1.0])
        elbow.append(abs(env.state[1]))
        env.reset(options={"state": env.state, "goal": [0.1, 0.1]})
    assert max(elbow) > ELBOW_LIMIT
