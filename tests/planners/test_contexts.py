"""Worlds that differ from episode to episode in what nothing moves: models, goals and roadmaps know of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from problems import STEP, make, rowwise, tensor
from torch import Tensor

import grasp_envs  # noqa: F401
from grasp_agent import ExploreConfig, GraspAgent, MLPConfig, Structure, TrainConfig
from grasp_agent.agent.plan_state import PlanState
from grasp_agent.models import EnsembleMLP
from grasp_agent.models.learning import static_entries_of
from grasp_agent.models.world import World
from grasp_agent.planners import ContextRoadmap, RoadmapGraph, Steering
from grasp_agent.planners.roadmap.graph import build_roadmap
from grasp_agent.replay.episodes import Dataset, Episode

WIDTH = 0.3


def doors(state: Tensor, action: Tensor) -> Tensor:
    """Positions x, y and a door: the wall x = 0 lets through where y is near the door only."""
    following = state[..., :2] + STEP * action
    crossing = state[..., 0] * following[..., 0] <= 0
    stopped = crossing & ((following[..., 1] - state[..., 2]).abs() > WIDTH)
    before = torch.cat([torch.sign(state[..., :1]) * 0.1, following[..., 1:]], -1)
    return torch.cat([torch.where(stopped[..., None], before, following), state[..., 2:]], -1)


def roadmap(count: int = 300) -> ContextRoadmap:
    start, target = tensor([-0.5, 0.0, 0.6], [-0.5, 0.0, -0.6]), tensor([0.5, 0.0], [0.5, 0.0])
    problem = make(doors, start, target)
    ones = torch.ones(2, dtype=torch.float64)
    driver = Steering(dynamics=doors, action_jacobian=rowwise(problem), members=1, low=-ones, high=ones, reach=2)
    points = 2 * torch.rand(count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    points[:, 0] = points[:, 0].sign() * (0.15 + 0.85 * points[:, 0].abs())  # none within the wall
    return ContextRoadmap(points, [2], driver)


def aim(states: Tensor) -> Tensor:
    """The goal (0.5, 0), whatever the door."""
    return torch.cat([torch.zeros_like(states[..., :2]) + states.new_tensor([0.5, 0.0]), states[..., 2:]], -1)


def test_each_route_leads_through_the_door_of_its_own_world():
    ways = roadmap().paths(tensor([-0.5, 0.0, 0.6], [-0.5, 0.0, -0.6]), aim, 2, 40, 2.0)
    assert ways.isfinite().all()
    for way, door in zip(ways, (0.6, -0.6), strict=True):
        for route in way:
            state, heights = tensor([-0.5, 0.0, door])[0], []
            for target in route:  # who follows it arrives, and comes through the door
                following = doors(state, ((target - state)[:2] / STEP).clamp(-1, 1))
                heights += [float(following[1])] if state[0] * following[0] < 0 else []
                state = following
            assert (state[:2] - tensor(0.5, 0.0)).norm() < 0.05
            assert all(abs(height - door) < WIDTH for height in heights) and heights
        torch.testing.assert_close(way[:, -1, :2], tensor([0.5, 0.0], [0.5, 0.0]))
        assert (way[..., 2] == door).all()


@pytest.mark.parametrize("door", [0.6, -0.3])
def test_no_node_lies_where_only_other_worlds_have_a_door(door: float):
    random = torch.Generator().manual_seed(0)
    seen = 2 * torch.rand(40_000, 3, generator=random, dtype=torch.float64) - 1
    within = seen[:, 0].abs() < 0.1
    seen = seen[~within | ((seen[:, 1] - seen[:, 2]).abs() < WIDTH)]  # in the wall, except each world's own door
    driver = roadmap().driver
    graph = ContextRoadmap(seen, [2], driver).graph(tensor(door))
    assert graph is not None
    within = graph.nodes[:, 0].abs() < 0.1
    assert within.sum() >= 5
    assert ((graph.nodes[within, 1] - door).abs() < WIDTH + 0.15).all()
    assert ((graph.nodes[:, 2] - door).abs() <= driver.tolerance / 2).all()
    assert ((graph.nodes[:, :2] - torch.tensor([[-0.9, -0.9]])).norm(dim=-1) < 0.2).any()  # and they cover the rest


def test_a_roadmap_is_built_once_for_each_context_and_old_ones_are_discarded():
    graphs = roadmap()
    near = 10 * graphs.driver.tolerance
    one = graphs.graph(tensor(near))
    assert one is graphs.graph(tensor(near + 0.4 * graphs.driver.tolerance))
    assert one is not graphs.graph(tensor(near + 2 * graphs.driver.tolerance))
    for door in torch.linspace(-0.9, 0.2, 20, dtype=torch.float64):
        graphs.paths(tensor([-0.5, 0.0, float(door)]), aim, 1, 5, 1.1)
    assert one is not graphs.graph(tensor(near))


def test_a_roadmap_in_frequent_use_is_not_discarded():
    graphs = roadmap(40)
    one = graphs.graph(tensor(0.5))
    for door in torch.linspace(-0.9, 0.2, 20, dtype=torch.float64):
        graphs.paths(torch.cat([tensor([-0.5, 0.0]), door[None, None]], 1), aim, 1, 5, 1.1)
        assert one is graphs.graph(tensor(0.5))


def test_a_route_does_not_depend_on_other_queries():
    graphs, tolerance = roadmap(), Steering.tolerance
    start = tensor([-0.5, 0.0, 0.3], [-0.5, 0.0, 0.3 + 0.9 * tolerance])
    both = graphs.paths(start, aim, 2, 40, 2.0)
    for row, way in zip(start, both, strict=True):
        torch.testing.assert_close(roadmap().paths(row[None], aim, 2, 40, 2.0)[0], way, rtol=0, atol=0)


def test_a_context_that_is_not_finite_has_no_roadmap():
    assert roadmap().graph(tensor(torch.nan)) is None


def test_there_is_clearance_where_no_action_is_hindered():
    states = tensor([-0.5, 0.0, 0.6], [-0.5 * STEP, 0.0, 0.6], [-0.5 * STEP, 0.6, 0.6], [0.5 * STEP, 0.0, 0.6])
    driver = roadmap().driver
    assert isinstance(driver, Steering)
    assert (
        driver.has_clearance(torch.cat([states, states[:1].expand(9, -1)])).tolist()
        == [True, False, True, False] + [True] * 9
    )


def test_most_nodes_and_routes_keep_a_steps_distance_from_obstacles():
    driver, generator = roadmap().driver, torch.Generator().manual_seed(0)
    assert isinstance(driver, Steering)
    points = 2 * torch.rand(400, 3, generator=generator, dtype=torch.float64) - 1
    points[:, 2] = 0.6
    room = driver.has_clearance(points)
    assert 0.5 < room.double().mean() < 0.9
    ordered, graph = build_roadmap(points, driver, 200)
    assert isinstance(graph, RoadmapGraph) and torch.equal(ordered[:200], graph.nodes)
    assert sorted(ordered.tolist()) == sorted(points.tolist())
    assert driver.has_clearance(ordered)[:200].double().mean() >= 0.6
    _, graph = build_roadmap(points, driver, 400)
    assert isinstance(graph, RoadmapGraph)
    free = driver.has_clearance(graph.nodes)
    hindered = ~(free[:, None] & free[graph.neighbours]) & graph.steps.isfinite()
    assert hindered.any()
    torch.testing.assert_close(graph.times[0], graph.steps)
    torch.testing.assert_close(graph.costs[0], torch.where(hindered, 3 * graph.steps, graph.steps))
    start = tensor([-0.6, -0.6, 0.6])
    ways, times = graph.routes(start, lambda states: tensor([0.6, -0.6, 0.6]).expand_as(states), 1)
    passed = ways[0, 0, 2:-2]  # the ends and their nearest nodes may be anywhere
    nearest = torch.cdist(passed, graph.nodes).argmin(-1)
    assert len(nearest) > 3 and free[nearest].double().mean() > 0.7
    assert times[0, 0, -1] < 50  # steps, not costs


def test_where_no_points_with_clearance_are_near_others_are_nodes():
    driver = roadmap().driver
    assert isinstance(driver, Steering)
    line = torch.linspace(-0.9, 0.9, 40, dtype=torch.float64)
    beside = torch.stack([torch.full_like(line, -0.5 * STEP), line, torch.full_like(line, 0.6)], 1)  # of the wall
    away = torch.stack(
        [torch.linspace(-0.95, -0.4, 160, dtype=torch.float64)] * 2 + [torch.full((160,), 0.6).double()], 1
    )
    points = torch.cat([beside, away])
    hindered = ~driver.has_clearance(points)
    assert hindered[:40].any() and not hindered[40:].any()
    ordered, _ = build_roadmap(points, driver, 150)
    kept = ~driver.has_clearance(points)[(ordered[:150, None] == points).all(-1).double().argmax(-1)]
    assert int(kept.sum()) == int(hindered.sum())


def test_without_a_door_routes_end_at_the_wall():
    ways = roadmap().paths(tensor([-0.5, 0.0, 5.0]), aim, 1, 20, 1.1)
    assert ways.isfinite().all()
    crossing = (ways[0, 0, 1:, 0] > 0) & (ways[0, 0, :-1, 0] <= 0)
    assert int(crossing.sum()) <= 1  # from the node that is nearest to the goal, straight on


def episodes(count: int, noise: float, seed: int = 0) -> Dataset:
    """A door that stays, up to noise, and a ball that moves now and then."""
    random, data = np.random.default_rng(seed), Dataset()
    for index in range(count):
        states = np.zeros((31, 3), np.float32)
        states[:, 0] = random.uniform(-1, 1)
        if index % 10 == 0:  # in most episodes it rests
            states[:, 0] = np.linspace(-1, 1, 31)
        states[:, 1] = np.cumsum(random.normal(0, 0.1, 31))
        states[:, 2] = random.uniform(-1, 1) + noise * random.normal(size=31)
        data.add(Episode(states, np.zeros((30, 2), np.float32)))
    return data


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_static_entries_are_found_and_those_that_seldom_move_are_not_among_them(noise: float):
    assert static_entries_of(episodes(40, noise)) == (2,)


def test_an_entry_that_moves_little_in_short_episodes_is_not_static():
    random, data = np.random.default_rng(0), Dataset()
    for _ in range(40):
        ball = random.uniform(-1, 1, 2) + 0.05 * random.uniform(-1, 1, (4, 2)).cumsum(0)
        door = np.full((4, 1), random.uniform(-1, 1))
        data.add(Episode(np.concatenate([ball, door], 1).astype(np.float32), np.zeros((3, 2), np.float32)))
    assert np.max([episode.states.std(0) for episode in data.episodes], 0).max() < 0.2 * data.states.std(0).min()
    assert static_entries_of(data) == (2,)


def test_few_episodes_or_constants_give_no_static_entries():
    assert static_entries_of(episodes(10, 0.0)) == ()
    data = Dataset()
    data.add_all(Episode(np.ones((31, 3), np.float32), episode.actions) for episode in episodes(40, 0.0).episodes)
    assert static_entries_of(data) == ()


def test_a_models_derivatives_include_the_features_of_mixtures():
    torch.manual_seed(0)
    model = EnsembleMLP(4, 2, positions=(0, 1), config=MLPConfig(members=2, width=16, octaves=3), fixed=(2,)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.scale.copy_(torch.tensor([0.3, 0.5, 0.0, 0.2]))
    state, action = torch.randn(2, 5, 4).double(), torch.randn(2, 5, 2).double()
    both = torch.cat([state, action], -1).requires_grad_()
    following = model.step(both[..., :4], both[..., 4:])
    expected = torch.stack(
        [torch.autograd.grad(following[..., i].sum(), both, retain_graph=True)[0] for i in range(4)], 2
    )
    torch.testing.assert_close(model.jacobian(state, action)[1], expected)
    torch.testing.assert_close(model.action_jacobian(state, action)[1], expected[..., 4:])
    assert model.unchanging == (2,)
    assert torch.equal(model.step(state, action)[..., 2], state[..., 2])


class Lit(gym.ObservationWrapper[Any, Any, Any]):
    """A ball in the open, and a lamp, brighter in some episodes than in others: it is easily learned."""

    def __init__(self) -> None:
        super().__init__(gym.make("grasp/BallNav-v0", layout="open", anywhere=True))
        vector = spaces.Box(-1, 1, (3,), np.float64)
        self.observation_space = spaces.Dict({**self.env.observation_space.spaces, "observation": vector})  # type: ignore[attr-defined]
        self._lamp = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._lamp = float(self.np_random.uniform(-0.7, 0.7))
        return self.observation(observation), info

    def observation(self, observation: Any) -> Any:
        return {**observation, "observation": np.append(observation["observation"], self._lamp)}


@pytest.fixture(scope="module")
def taught() -> GraspAgent:
    agent = GraspAgent(
        "MultiInputPolicy",
        Lit(),
        structure=Structure(),
        model=MLPConfig(members=2, width=32),
        explore=ExploreConfig(learning_starts=2000),
        train=TrainConfig(gradient_steps=600, batch_size=256),
        seed=0,
        device="cpu",
    )
    return agent.learn(2000)


def world_of(agent: GraspAgent) -> World:
    world = agent.policy.world
    assert world is not None
    return world


def test_an_agent_that_learned_of_lamps_plans_and_is_loaded_with_its_contexts(taught: GraspAgent, tmp_path: Path):
    world = world_of(taught)
    assert world.model.unchanging == (2,)
    assert isinstance(world.index.roadmap, ContextRoadmap)
    taught.save(tmp_path / "lamps")
    loaded = GraspAgent.load(tmp_path / "lamps", device="cpu")
    other = world_of(loaded).index.roadmap
    assert isinstance(other, ContextRoadmap)
    assert torch.equal(other.states, world.index.roadmap.states)
    assert other.fixed == world.index.roadmap.fixed == (2,)
    observation, _ = Lit().reset(seed=0)
    one, two = (agent.predict(observation, deterministic=True)[0] for agent in (taught, loaded))
    assert np.array_equal(one, two)


def test_goals_give_no_weight_to_static_entries(taught: GraspAgent):
    world = world_of(taught)
    of_all = replace(world, state_map=type(world.state_map)(columns=(0, 1, 2), goal_index=(0, 1, 2)))
    assert of_all.goal_weights == (1.0, 1.0, 0.0)
    start = world.encode(np.array([[0.1, 0.2, 0.3]], np.float32))
    problem = of_all.problem(start, np.array([[0.5, 0.5, -0.9]], np.float32), 10, taught.criteria)
    aimed = problem.goal.project(start[:, None, None])[0, 0, 0]
    assert aimed[2] == start[0, 2]
    assert of_all.goal_distance(np.zeros((1, 3), np.float32), np.array([[0, 0, 9]], np.float32)) == 0


def test_only_states_near_those_of_their_running_plan_are_held():
    carry = PlanState.blank(3, 4, 2, 3, 2)
    carry.states[:] = [[[5.0, 1.0, 2.0]]]
    carry.valid[:] = [True, True, False]
    states = np.array([[0, 1.06, 2.07], [0, 1.08, 2.08], [0, 1.06, 2.07]], np.float32)
    held = carry.held(states, (1, 2), near=0.1)
    np.testing.assert_array_equal(held, np.array([[0, 1, 2], [0, 1.08, 2.08], [0, 1.06, 2.07]], np.float32))
    np.testing.assert_array_equal(states[0], np.array([0, 1.06, 2.07], np.float32))
    assert carry.held(states, (), near=9.0) is states


@pytest.mark.parametrize(("nearness", "begins", "held"), [(0.5, False, True), (0.5, True, False), (2.0, False, False)])
def test_a_running_plan_keeps_its_static_entries_within_the_radius(
    taught: GraspAgent, nearness: float, begins: bool, held: bool
):
    world, policy = world_of(taught), taught.policy
    observation, _ = Lit().reset(seed=0)
    _, first = policy.predict(observation, episode_start=np.ones(1, bool), deterministic=True)
    noisy = {key: value.copy() for key, value in observation.items()}
    noisy["observation"][2] += (
        nearness * policy.controller.rule.radius(world) * float(world.model.decode(torch.eye(3)).diff(dim=0)[1, 2])
    )
    other = {**noisy, "desired_goal": noisy["desired_goal"] * np.float32(-1)}  # so that there must be another plan
    _, then = policy.predict(other, first, np.array([begins]), deterministic=True)
    doors = [plans[1][0, 0, 2] for plans in (first, then)]
    assert (doors[0] == doors[1]) == held
