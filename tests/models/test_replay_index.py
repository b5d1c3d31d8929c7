"""What is remembered of each block: built from replay, saved and restored, and an agent that finds its blocks."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agents import tiny
from gymnasium import spaces
from torch import Tensor

import grasp_agent
from grasp_agent import ExploreConfig, GraspAgent, MLPConfig
from grasp_agent.models import EnsembleMLP
from grasp_agent.models.fresh import check_blocks
from grasp_agent.models.replay_index import ReplayIndex
from grasp_agent.models.roadmaps import most_nodes
from grasp_agent.models.world import World
from grasp_agent.planners import (
    Block,
    BlockRoadmap,
    BlockSupport,
    InertialSteering,
    ReplayWindows,
    RoadmapGraph,
    Support,
)
from grasp_agent.task.state_map import StateMap
from grasp_agent.task.structure import Structure

ENV = "grasp/BallNav4-v0"
PAIRS = Block((0, 3), (1,)), Block((1, 2), (0,))
WHOLE = Block((0, 1, 2, 3), (0, 1))
MAP = StateMap(columns=(0, 1, 2, 3), goal_index=(0, 1))


@pytest.fixture(scope="module")
def model() -> EnsembleMLP:
    """A model of four entries; entries 0 and 3 move by action 1, the others by action 0."""
    model = EnsembleMLP(4, 2, positions=(0, 1), config=MLPConfig(members=2, width=8, depth=1), seed=0)
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()
        model.scale.fill_(1.0)
        skip = torch.zeros_like(model.skip)
        skip[:, 4, 1] = skip[:, 4, 2] = skip[:, 5, 0] = skip[:, 5, 3] = 0.25
        model.skip.copy_(skip)
    return model.requires_grad_(False)


def replayed() -> tuple[Tensor, Tensor, ReplayWindows]:
    """Returns states along the diagonals that the actions can drive, their episodes, and windows of them."""
    generator = torch.Generator().manual_seed(0)
    actions = 2 * torch.rand(20, 9, 2, generator=generator) - 1
    moved = 0.25 * torch.cat([torch.zeros(20, 1, 2), actions.cumsum(1)], 1)[..., [1, 0, 0, 1]]
    return moved.flatten(0, 1), torch.arange(20).repeat_interleave(10), ReplayWindows(moved, actions)


@pytest.fixture(scope="module", params=[(), PAIRS], ids=["whole", "blocks"])
def index(request: pytest.FixtureRequest, model: EnsembleMLP) -> ReplayIndex:
    states, episodes, replay = replayed()
    return ReplayIndex.build(model, states, episodes, blocks=request.param, replay=replay)


def restored(model: EnsembleMLP, index: ReplayIndex, **changes: Tensor | None) -> ReplayIndex:
    """The index, saved and restored, with some tensors changed or missing."""
    saved = {**index.tensors(), **{name.replace("__", "."): value for name, value in changes.items()}}
    blocks = index.blocks if len(index.blocks) > 1 else ()
    return ReplayIndex.restore(model, {k: v for k, v in saved.items() if v is not None}, blocks)


def test_each_block_has_the_support_and_the_roadmap_of_its_own_entries(index: ReplayIndex):
    states = replayed()[0]
    assert index.blocks in ((WHOLE,), PAIRS)
    several = len(index.blocks) > 1
    assert isinstance(index.support, BlockSupport if several else Support)
    assert isinstance(index.roadmap, BlockRoadmap if several else RoadmapGraph)
    assert len(index.supports) == len(index.roadmaps) == len(index.blocks)
    for block, support, graph in zip(index.blocks, index.supports, index.roadmaps, strict=True):
        own = states[:, list(block.states)]
        assert (support.points[:, None] == own).all(-1).any(-1).all()
        assert not support.off(own).any()
        assert isinstance(graph, RoadmapGraph)
        assert torch.equal(graph.nodes, support.points[: len(graph.nodes)])
    assert not index.support.off(states).any()
    assert index.support.off(states + 9).all()
    assert (index.middle == states).all(-1).any()
    assert index.points.shape[1] == 4


def test_what_was_saved_is_restored(model: EnsembleMLP, index: ReplayIndex):
    again = restored(model, index)
    assert again.blocks == index.blocks
    for one, other in zip(index.tensors().items(), again.tensors().items(), strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])
    assert again.roadmap is not None
    assert index.roadmap is not None
    assert again.roadmap.connected == index.roadmap.connected


def test_every_tensor_that_is_cut_or_missing_is_refused_by_its_name(model: EnsembleMLP, index: ReplayIndex):
    saved = index.tensors()
    parts = range(len(index.blocks))
    names = {f"{kind}.{part}.{what}" for part in parts for kind, what in (("support", "points"), ("support", "radius"))}
    names |= {f"roadmap.{part}.{what}" for part in parts for what in ("neighbours", "steps", "error", "reach")}
    assert set(saved) == names | {"middle", "replay.states", "replay.actions", "linear"}
    for name, tensor in saved.items():
        key = name.replace(".", "__")
        cut = tensor.flatten()[:-1] if tensor.ndim else tensor.expand(2)
        words = (
            "one element"
            if name.endswith(("radius", "error", "reach"))
            else "roadmap: "
            if "roadmap" in name
            else f"{name}: expected"
        )
        with pytest.raises((ValueError, RuntimeError), match=words):
            restored(model, index, **{key: cut})
        if name == "linear":  # an index may have none
            assert restored(model, index, **{key: None}).linear is None
            continue
        if name.endswith(("error", "reach")):  # older files are without
            assert restored(model, index, **{key: None}).roadmap is not None
            continue
        with pytest.raises((KeyError, ValueError), match=name.split(".")[0]):
            restored(model, index, **{key: None})


@pytest.mark.parametrize(("blocks", "most"), [(1, 500), (16, 500), (40, 200), (10_000, 1)])
def test_nodes_of_all_blocks_are_limited(blocks: int, most: int):
    assert most_nodes(blocks) == most


def test_a_roadmap_larger_than_any_that_is_written_is_refused(model: EnsembleMLP, index: ReplayIndex):
    for count in (500, 501):
        large = {
            "support__0__points": torch.rand(2000, len(index.blocks[0].states)),
            "roadmap__0__steps": torch.ones(count, 3),
            "roadmap__0__neighbours": torch.ones(count, 3, dtype=torch.int16),
        }
        if count == 500:
            assert restored(model, index, **large).roadmap is not None
        else:
            with pytest.raises(ValueError, match=r"roadmap: \[501, 3\] and \[501, 3\] do not fit"):
                restored(model, index, **large)


@pytest.mark.parametrize("part", [0, 1])
def test_one_damaged_block_is_enough_to_refuse_the_index(model: EnsembleMLP, part: int):
    states, episodes, replay = replayed()
    index = ReplayIndex.build(model, states, episodes, blocks=PAIRS, replay=replay)
    saved = index.tensors()
    points, near = saved[f"support.{part}.points"], saved[f"roadmap.{part}.neighbours"]
    damages = {
        f"support__{part}__points": (points[:, :1], r"support\.\d\.points: expected shape \[None, 2\]"),
        f"roadmap__{part}__steps": (None, "roadmap: expected steps and neighbours, got"),
        f"roadmap__{part}__neighbours": (near + len(near), "roadmap: .* do not fit"),
    }
    for name, (wrong, words) in damages.items():
        with pytest.raises(ValueError, match=words):
            restored(model, index, **{name: wrong})
    without = {f"roadmap__{part}__{what}": None for what in ("steps", "neighbours", "error")}
    with pytest.raises(ValueError, match="roadmap: expected one for each of 2 blocks, got 1"):
        restored(model, index, **without)
    with pytest.raises(KeyError, match=r"support\.2"):
        ReplayIndex.restore(model, saved, (*PAIRS, Block((0,), (0,))))


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ([Block((0, 1), (0,))], r"each of 4 states in one block, got \[0, 1\]"),
        ([Block((0, 1), (0,)), Block((1, 2, 3), (1,))], r"each of 4 states in one block, got \[0, 1, 1, 2, 3\]"),
        ([Block((0, 1, 2, 4), (0, 1))], r"each of 4 states in one block, got \[0, 1, 2, 4\]"),
        ([Block((0, 2), (0,)), Block((1, 3), ())], r"each of 2 actions in one block, got \[0\]"),
        ([Block((0, 2), (0, 1)), Block((1, 3), (1,))], r"each of 2 actions in one block, got \[0, 1, 1\]"),
        ([Block((0, 1), (0,)), Block((2, 3), (1,))], r"a part of the goal in each, found none in Block.*\(2, 3\)"),
    ],
)
def test_blocks_that_do_not_partition_state_action_and_goal_are_refused(blocks: list[Block], words: str):
    with pytest.raises(ValueError, match=f"blocks: expected {words}"):
        check_blocks(blocks, MAP, 2)


@pytest.mark.parametrize("blocks", [(), (WHOLE,), PAIRS])
def test_blocks_that_do_are_not(blocks: tuple[Block, ...]):
    check_blocks(blocks, MAP, 2)


class Still(gym.Env[Any, Any]):
    """Spaces and blocks of four balls without their physics."""

    def __init__(self, blocks: Any = None) -> None:
        env = gym.make(ENV)
        self.observation_space, self.action_space = env.observation_space, env.action_space
        if blocks is not None:
            self.blocks = blocks
        env.close()


def fresh(env: Any = ENV, **settings: Any) -> GraspAgent:
    return tiny(env, **{"explore": ExploreConfig(learning_starts=10**6), **settings})


BALLS = tuple(Block((2 * ball, 2 * ball + 1), (2 * ball, 2 * ball + 1)) for ball in range(4))


@pytest.fixture(scope="module")
def balls(tmp_path_factory: pytest.TempPathFactory) -> tuple[GraspAgent, Path]:
    """Returns an agent that was trained on few steps of four balls, and its file."""
    path = tmp_path_factory.mktemp("balls") / "balls.zip"
    agent = fresh().learn(250)
    agent.save(path)
    return agent, path


def world_of(agent: GraspAgent) -> World:
    assert agent.policy.world is not None
    return agent.policy.world


def test_an_agent_takes_the_blocks_of_its_environment(balls: tuple[GraspAgent, Path]):
    agent, path = balls
    assert agent.structure == Structure(blocks=BALLS)
    with zipfile.ZipFile(path) as archive:
        saved = json.loads(archive.read("config.json"))["structure"]["blocks"]
    assert saved == [[list(block.states), list(block.actions)] for block in BALLS]
    world = world_of(agent)
    assert world.index.blocks == BALLS
    assert [support.points.shape[1] for support in world.index.supports] == [2] * 4
    start = torch.zeros(3, 8)
    problem = world.problem(start, np.zeros((3, 8), np.float32), 5, agent.criteria)
    assert problem.blocks == BALLS
    assert problem.scoring.distances(start[:, None, None]).shape == (3, 1, 1, 4)
    assert problem.score(problem.resting(1)).cost.shape == (3, 1)


def test_blocks_survive_saving_and_loading(balls: tuple[GraspAgent, Path], tmp_path: Path):
    agent, path = balls
    loaded = GraspAgent.load(path, device="cpu")
    assert loaded.structure.blocks == world_of(loaded).index.blocks == BALLS
    before, after = world_of(agent).tensors(), world_of(loaded).tensors()
    assert {"index.support.3.points", "index.support.3.radius"} <= set(before)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    loaded.save(tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == path.read_bytes()
    env = gym.make(ENV)
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        answers = [
            a.predict(observation, episode_start=np.array([True]), deterministic=True)[0]
            for a in (GraspAgent.load(path, device="cpu"), loaded)
        ]
        np.testing.assert_array_equal(answers[0], answers[1])
    env.close()


def test_given_blocks_replace_those_of_the_environment():
    halves = (Block((0, 1, 2, 3), (0, 1, 2, 3)), Block((4, 5, 6, 7), (4, 5, 6, 7)))
    assert fresh(Still(BALLS), structure=Structure(blocks=halves)).structure.blocks == halves
    assert fresh(Still([([0, 1], [0, 1])])).structure.blocks == (Block((0, 1), (0, 1)),)
    assert fresh(Still(BALLS), structure=Structure()).structure.blocks == ()
    assert fresh(Still(BALLS)).structure.blocks == BALLS
    assert fresh(Still()).structure == Structure()
    space = fresh(Still()).observation_space
    assert isinstance(space, spaces.Dict)
    assert space["desired_goal"].shape == (8,)


def test_wrong_blocks_are_refused_when_the_world_is_learned():
    agent = fresh(structure=Structure(blocks=(Block((0, 1), (0, 1)),)))
    with pytest.raises(ValueError, match=r"blocks: expected each of 8 states in one block, got \[0, 1\]"):
        agent.learn(120)


def test_the_reach_of_edges_between_states_with_velocities_is_saved():
    world = grasp_agent.load("point-maze", device="cpu").policy.world
    assert world is not None
    saved, named = world.index.tensors(), world.state_map.goal_index
    assert saved["roadmap.0.reach"] == 16
    for reach in (16, 64):
        changed = {**saved, "roadmap.0.reach": torch.tensor(reach)}
        driver = ReplayIndex.restore(world.model, changed, named=named).roadmaps[0].driver
        assert isinstance(driver, InertialSteering)
        assert driver.reach == reach
    with pytest.raises(ValueError, match="roadmap: expected the linear model that drives along it, and a reach of it"):
        ReplayIndex.restore(world.model, {**saved, "roadmap.0.reach": torch.tensor(10**9)}, named=named)
