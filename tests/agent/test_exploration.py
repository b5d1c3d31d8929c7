"""Exploration: what episodes are for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

import grasp_agent
from grasp_agent.agent.exploration import ExploreConfig, Explorer
from grasp_agent.task.observation import raw_vectors

if TYPE_CHECKING:
    from grasp_agent import GraspAgent


@pytest.fixture
def agent() -> GraspAgent:
    """An agent with an exact model: its accuracy is not tested here."""
    return grasp_agent.load("ball-nav", device="cpu")


AIMED = 10
"""Tolerances: six episodes of random actions come no farther than 7 from where they begin."""


def explored(
    agent: GraspAgent, steps: int, seed: int = 0, surprise_share: float = 0.0, **settings: Any
) -> tuple[NDArray[np.float64], float]:
    """Distances from the goal, which is where the episode begins, along an exploring episode; and their tolerance.

    Its random actions change at each step, so that they stay near the start.
    """
    env = gym.make("grasp/BallNav-v0")
    world, size = agent.policy.world, env.action_space.shape[0]  # type: ignore[index]
    assert world is not None
    explorer = Explorer(
        1,
        size,
        ExploreConfig(**{"noise": 0.0, "surprise_share": surprise_share, "longest_hold": 1, **settings}),
        seed=seed,
    )
    explorer.learned(agent.policy, world.index.points)
    observation, _ = env.reset(seed=0)
    goal, distances = observation["achieved_goal"][None].astype(np.float32), []
    for _ in range(steps):
        here = observation["achieved_goal"][None].astype(np.float32)
        distances.append(float(world.goal_distance(here, goal)[0]))
        raw = raw_vectors({key: value[None] for key, value in observation.items()})
        (action,) = explorer.act(agent.policy, raw, here, goal)
        observation, *_ = env.step(agent.policy.to_space(action))
    env.close()
    return np.array(distances), world.tolerance


def test_an_episode_that_held_its_goal_continues_to_explore(agent: GraspAgent):
    farthest = []
    for seed in range(6):
        distances, tolerance = explored(agent, 40, seed, frontier_share=0.0, hold=6)
        assert (distances[:6] <= tolerance).all()
        farthest.append(distances.max() / tolerance)
    assert max(farthest) > AIMED


def test_leaving_a_goal_does_not_count_as_a_deviation(agent: GraspAgent):
    calm, startled = (explored(agent, 8, 1, share, frontier_share=0.0, hold=4)[0] for share in (0.0, 1.0))
    assert calm[-1] > calm[3]  # it has left the goal
    np.testing.assert_array_equal(calm, startled)


def test_an_episode_stays_at_its_goal_for_the_configured_time(agent: GraspAgent):
    distances, tolerance = explored(agent, 40, frontier_share=0.0, hold=100)
    assert (distances <= tolerance).all()


def test_an_episode_for_the_frontier_leaves_at_once(agent: GraspAgent):
    episodes = [explored(agent, 34, seed, frontier_share=1.0, hold=100) for seed in range(6)]
    assert max(distances.max() / tolerance for distances, tolerance in episodes) > AIMED


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="hold: expected a whole number of at least 1, got 0"):
        ExploreConfig(hold=0)
    with pytest.raises(ValueError, match="kind_growth: expected more than 1, got inf"):
        ExploreConfig(kind_growth=float("inf"))
    with pytest.raises(ValueError, match="visit_exponent: expected at least 0, got -1"):
        ExploreConfig(visit_exponent=-1)
    with pytest.raises(ValueError, match="noise: expected at least 0, got inf"):
        ExploreConfig(noise=float("inf"))


@pytest.mark.parametrize("rest", [0.0, 0.3])
def test_a_fraction_of_the_random_actions_is_zero(agent: GraspAgent, rest: float):
    explorer = Explorer(500, 2, ExploreConfig(rest=rest), seed=0)
    none = np.zeros((500, 2), np.float32)
    actions = explorer.act(agent.policy, none, none, none)
    assert (actions == 0).all(1).mean() == pytest.approx(rest, abs=0.07 if rest else 0)


def test_a_fraction_above_one_is_refused():
    with pytest.raises(ValueError, match="rest: expected a fraction"):
        ExploreConfig(rest=1.1)
