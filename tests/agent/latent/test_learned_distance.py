"""Planning by a learned temporal distance, in closed loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from worlds import Bay, in_bay

from grasp_agent import LatentAgent, serialization
from grasp_agent.planners import CEM, GRASP, ICEM, ILQR, Coloured, Retrieval, Stitching

HORIZON = 8  # a plan moves by .8 at most: it cannot reach the gap, and has to move away from the goal


def played(episodes: int = 45) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Noisy drifts from anywhere: observations and actions of each episode."""
    env, random, recorded = Bay(anywhere=True), np.random.default_rng(0), []
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        seen, actions, drift = [observation], [], random.uniform(-3, 3, 2)
        for _ in range(40):
            drift = random.uniform(-3, 3, 2) if random.uniform() < 0.1 else drift
            actions.append(np.clip(drift + random.normal(0, 0.5, 2), -3, 3))
            seen.append(env.step(actions[-1])[0])
        recorded.append(({key: np.stack([one[key] for one in seen]) for key in seen[0]}, np.stack(actions)))
    return recorded


def agent_for(env: Any, proposals: Any = None, **settings: Any) -> LatentAgent:
    planner = ICEM(iterations=3, samples=48, noise=Coloured(beta=2.0), proposals=proposals, proposed=4)
    return LatentAgent(env, in_bay, horizon=HORIZON, planner=planner, **settings)


def ends(agent: LatentAgent, episodes: int = 4) -> list[float]:
    """Distances to the goal at the end of each episode."""
    env, found = Bay(), []
    for seed in range(episodes):
        observation, _ = env.reset(seed=100 + seed)
        agent.forget()
        for _ in range(140):
            action, _ = agent.predict(observation)
            observation, *_ = env.step(action)
        found.append(float(np.linalg.norm(env.position - env.goal)))
    return found


@pytest.fixture(scope="module")
def learned() -> LatentAgent:
    agent = agent_for(Bay(), replay=played())
    agent.learn_distance(1000)
    return agent


def test_goals_behind_a_wall_and_beyond_the_horizon(learned: LatentAgent):
    assert sorted(ends(learned))[2] < 0.3  # three of four
    plain = agent_for(Bay(), replay=played())
    assert min(ends(plain, 1)) > 0.5  # the line to the goal ends at the wall


def test_distances_are_steps_of_the_replay_and_the_model_s_own_near_the_goal(learned: LatentAgent):
    """One step apart they are about one of each kind, of which half is the tolerance; far away the own one is 1."""
    assert learned.goal_tolerance == pytest.approx(1.0, abs=0.4)
    distance, temporal = learned.memory.distance, learned.memory.learned_distance
    assert distance is not None and temporal is not None
    here = torch.tensor([[-1.0, 0.0]])
    far, near = here + torch.tensor([[1.0, 0.0]]), here + torch.tensor([[0.01, 0.0]])
    assert float(distance(here, far)) == pytest.approx(float(temporal(here, far)) + 1)
    assert float(distance(here, here)) == pytest.approx(0, abs=1e-4)
    assert float(distance(here, near)) > float(temporal(here, near)) + 0.05


def test_a_given_tolerance_stays():
    agent = agent_for(Bay(), replay=played(5), goal_tolerance=0.7)
    agent.learn_distance(5)
    assert agent.goal_tolerance == 0.7


def test_stitched_plans_are_followed_without_a_search(learned: LatentAgent):
    """Recorded actions alone lead round the wall, replanned at each second step."""
    agent = LatentAgent(Bay(), in_bay, horizon=HORIZON, planner=ICEM(iterations=0, proposals=Stitching(), proposed=8))
    agent.memory.add(learned.memory.episodes)
    agent.memory.use_distance(learned.memory.learned_distance)
    assert np.median(ends(agent, 3)) < 0.5
    agent.planner = ICEM(iterations=0, proposals=Retrieval(), proposed=8)
    agent.memory.use_distance(None)
    assert min(ends(agent, 1)) > 0.5


def test_saved_and_loaded_with_its_distance(learned: LatentAgent, tmp_path: Path):
    learned.save(tmp_path / "agent.zip")
    loaded = LatentAgent.load(tmp_path / "agent.zip", in_bay, Bay())
    assert loaded.goal_tolerance == pytest.approx(learned.goal_tolerance)
    assert loaded.memory.error == pytest.approx(learned.memory.error)
    observation, _ = Bay().reset(seed=7)
    learned.forget()
    np.testing.assert_array_equal(learned.predict(observation)[0], loaded.predict(observation)[0])


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("mean", lambda value: value[:1], "mean"),
        ("network.0.weight", lambda value: value[:, :1], "expected floating-point weights for 2 entries"),
        ("network.2.weight", lambda value: value.long(), "expected floating-point weights for 2 entries"),
        ("scale", torch.zeros_like, "expected scales greater than 0"),
        ("network.4.weight", lambda value: value * 1e38, "finite"),
    ],
)
def test_files_with_wrong_distances_are_refused(
    learned: LatentAgent, tmp_path: Path, name: str, change: Any, reason: str
):
    learned.save(tmp_path / "agent.zip")
    config, tensors = serialization.read(tmp_path / "agent.zip")
    tensors[f"distance.{name}"] = change(tensors[f"distance.{name}"]).contiguous()
    serialization.write(tmp_path / "agent.zip", config, tensors)
    with pytest.raises(ValueError, match=reason):
        LatentAgent.load(tmp_path / "agent.zip", in_bay, Bay())


def test_models_of_double_precision(learned: LatentAgent, tmp_path: Path):
    class Double:
        encode = staticmethod(lambda observation: torch.from_numpy(observation["observation"]).double())
        step = staticmethod(in_bay)

    learned.save(tmp_path / "agent.zip")
    loaded = LatentAgent.load(tmp_path / "agent.zip", Double(), Bay())
    assert np.isfinite(loaded.predict(Bay().reset(seed=0)[0])[0]).all()


@pytest.mark.parametrize("planner", [GRASP(candidates=4, iterations=3), ILQR(), CEM(iterations=2, samples=8, elites=2)])
def test_planners_of_small_states_plan_by_it(learned: LatentAgent, planner: Any):
    agent = LatentAgent(Bay(), in_bay, horizon=HORIZON, planner=planner)
    agent.memory.add(learned.memory.episodes)
    agent.memory.use_distance(learned.memory.learned_distance)
    assert np.isfinite(agent.predict(Bay().reset(seed=0)[0])[0]).all()


def test_further_replay_keeps_the_distance_and_extends_the_roadmap(learned: LatentAgent):
    agent = agent_for(Bay())
    agent.memory.add(learned.memory.episodes[:20])
    agent.memory.use_distance(learned.memory.learned_distance)
    before, roadmap = agent.memory.distance, agent.memory.roadmap
    agent.add_replay(played(3))
    assert agent.memory.distance is before
    assert agent.memory.roadmap is not roadmap


def test_nothing_to_learn_from():
    with pytest.raises(ValueError, match="expected recorded episodes"):
        agent_for(Bay()).learn_distance()
    with pytest.raises(ValueError, match="steps: expected"):
        agent_for(Bay(), replay=played(2)).learn_distance(0)
