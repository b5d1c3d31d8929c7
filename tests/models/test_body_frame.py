"""Frames: models that see the world from a body, and what an agent and an environment say of them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agents import tiny
from gymnasium.wrappers import TransformAction
from torch import Tensor

import grasp_agent
from grasp_agent import Criteria, Frame, Goal, GraspAgent, MLPConfig, Structure, TrainConfig
from grasp_agent.models import FramedMLP
from grasp_agent.models.dynamics.fitting import fit
from grasp_agent.models.support import FramedSupport
from grasp_agent.replay.episodes import Dataset, Episode
from grasp_envs.push_t import PushTEnv

PUSH = Frame(origin=(4, 5), heading=(6, 7), points=((0, 1),), vectors=((2, 3),), actions=((0, 1),), lever=50.0)
SMALL = MLPConfig(members=3, width=16, depth=2, octaves=2)


def scenes(count: int, seed: int = 0) -> Tensor:
    """Observations `[count, 9]`: a point, its velocity, a body with its heading, and something that never turns."""
    random = np.random.default_rng(seed)
    places, angles = random.uniform(100, 400, (count, 4)), random.uniform(-np.pi, np.pi, count)
    vectors, rest = random.normal(0, 50, (count, 2)), random.normal(size=(count, 1))
    headings = np.stack([np.cos(angles), np.sin(angles)], 1)
    return torch.from_numpy(np.concatenate([places[:, :2], vectors, places[:, 2:], headings, rest], 1))


def moved(scene: Tensor, angle: float, shift: tuple[float, float]) -> Tensor:
    """The same scene elsewhere."""
    turn = torch.tensor([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    scene = scene.clone()
    for pair in ((0, 1), (2, 3), (4, 5), (6, 7)):
        scene[..., list(pair)] = scene[..., list(pair)] @ turn
    for pair in ((0, 1), (4, 5)):
        scene[..., list(pair)] += torch.tensor(shift, dtype=scene.dtype)
    return scene


@pytest.fixture(scope="module")
def model() -> FramedMLP:
    """Weights at random; scales and edges from scenes of which one, of every two, lies farther out than all others."""
    made, before = FramedMLP(9, 2, frame=PUSH, config=SMALL, seed=1).double(), scenes(400)
    generator = torch.Generator().manual_seed(0)
    after = before + torch.randn(before.shape, generator=generator).double()
    made.adapt(before, torch.rand(400, 2, generator=generator).double() * 2 - 1, after)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made


def rows(model: FramedMLP, count: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    state = model.encode(scenes(count, seed=7)).expand(3, -1, -1).contiguous()
    return state, torch.rand(3, count, 2, generator=generator).double() * 2 - 1


@pytest.mark.parametrize("angle", [0.7, -2.0])
def test_the_dynamics_do_not_depend_on_the_bodys_position_and_angle(model: FramedMLP, angle: float):
    state, action = rows(model)
    turn = torch.tensor([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    free = FramedMLP(9, 2, frame=PUSH, config=SMALL).double()
    free.load_state_dict({**model.state_dict(), "low": free.low - torch.inf, "high": free.high + torch.inf})
    there = free.encode(moved(free.decode(state), angle, (30.0, -70.0)))
    expected = moved(free.decode(free.step(state, action)), angle, (30.0, -70.0))
    torch.testing.assert_close(free.decode(free.step(there, action @ turn)), expected)
    assert (free.step(state, action) - state).abs().max() > 0.1


def test_its_derivatives_are_those_of_autograd_at_the_edges_too(model: FramedMLP):
    model, span = copy.deepcopy(model), model.high - model.low
    inward = torch.where(span.isfinite(), 0.2 * span, 0.0)  # many end there
    model.load_state_dict({**model.state_dict(), "low": model.low + inward, "high": model.high - inward})
    state, action = rows(model, 60)
    inputs = torch.cat([state, action], -1).requires_grad_()
    following = model.step(inputs[..., :9], inputs[..., 9:])
    expected = torch.stack(
        [torch.autograd.grad(following[..., entry].sum(), inputs, retain_graph=True)[0] for entry in range(9)], -2
    )
    edges = (following == model.encode(model.low)) | (following == model.encode(model.high))
    assert edges.any() and not edges.all(-1).any()
    for found, slopes in (model.jacobian(state, action), model.action_jacobian(state, action)):
        torch.testing.assert_close(found, following.detach())
        torch.testing.assert_close(slopes, expected[..., -slopes.shape[-1] :])
    found, pull = model.action_pullback(state, action)
    cotangent = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(found, following.detach())
    torch.testing.assert_close(pull(cotangent), (cotangent[..., None, :] @ expected[..., 9:])[..., 0, :])


def test_both_axes_share_their_scales_and_a_turn_counts_as_its_arc(model: FramedMLP):
    std, scale = model.normalizer.std, model.scale
    for x, y in ((0, 1), (2, 3), (4, 5), (6, 7)):
        assert std[x] == std[y] and scale[x] == scale[y]
    assert std[0] == std[4]
    torch.testing.assert_close(std[0] / std[6], std.new_tensor(PUSH.lever))


def test_a_state_is_restored_from_its_invariants(model: FramedMLP):
    state = model.encode(scenes(30))
    invariants = model.invariants(state)
    assert invariants.shape == (30, 5)
    torch.testing.assert_close(model.from_invariants(invariants, state), state)
    torch.testing.assert_close(model.invariants(model.encode(moved(scenes(30), 1.0, (5.0, 6.0)))), invariants)


def test_the_support_is_that_of_the_invariants(model: FramedMLP):
    known = model.encode(scenes(10))
    region = FramedSupport(known, 0.05, model)
    elsewhere = model.encode(moved(scenes(10), 2.0, (80.0, -30.0)))
    assert not region.off(elsewhere).any()
    strange = elsewhere.clone()
    strange[:, 0] += 3
    assert region.off(strange).all()
    torch.testing.assert_close(region.nearest(elsewhere + 1e-6), elsewhere, atol=1e-4, rtol=0)
    assert not region.off(region.nearest(strange)).any()


def pushes(episodes: int, seed: int) -> Dataset:
    """A point flies freely, stops at the walls of [0, 500], and takes a body along whose front it comes near."""
    random, data = np.random.default_rng(seed), Dataset()
    for episode in range(episodes):
        state = scenes(1, int(random.integers(2**31)))[0, :8].numpy()
        if episode % 2:
            state[:2] = state[4:6] + random.uniform(-50, 50, 2)
        actions = random.uniform(-1, 1, (30, 2)).astype(np.float32)
        states = [state]
        for action in actions:
            state = state.copy()
            state[2:4] = 0.5 * state[2:4] + 60 * action
            step = state[2:4] * 0.5
            forward = step @ state[6:8]
            if np.linalg.norm(state[:2] - state[4:6]) < 60 and forward > 0:
                state[4:6] += forward * state[6:8]
            state[:2] = np.clip(state[:2] + step, 0, 500)
            states.append(state)
        data.add(Episode(np.stack(states).astype(np.float32), actions))
    return data


def test_free_motion_is_exact_from_the_start_and_walls_do_not_spoil_it():
    model = FramedMLP(8, 2, frame=PUSH, config=SMALL)
    data = pushes(40, seed=0)
    fit(model, data, TrainConfig(gradient_steps=1, batch_size=8))
    states, actions = map(torch.from_numpy, data.windows(1))
    assert 0 < int((~model.usable(states)).sum()) < len(states) / 2
    walls = ((states[..., :2] <= 0) | (states[..., :2] >= 500)).any(-1).any(-1)
    assert walls.any() and not model.usable(states)[walls].any()
    found = model.decode(
        model.step(model.encode(states[None, :, 0]).expand(3, -1, -1), actions[:, 0].expand(3, -1, -1))
    )
    point = (found[..., :2] - states[:, 1, :2]).abs().amax(-1)
    assert point.max() < 0.5  # at the walls, too: no position is beyond the edges of the data
    assert (states[:, 1, :2] - states[:, 0, :2]).norm(dim=-1).median() > 10


def test_a_warm_start_keeps_the_edges_of_all_positions():
    """The edges of the known model's data are no walls for the new one."""
    known, new = (FramedMLP(8, 2, frame=PUSH, config=SMALL, seed=seed) for seed in (1, 2))
    fit(known, pushes(10, seed=0), TrainConfig(gradient_steps=1, batch_size=8))
    states, actions = (torch.from_numpy(array) for array in pushes(40, seed=1).windows(1))
    new.adapt(states[:, 0], actions[:, 0], states[:, 1])
    edges = new.low.clone(), new.high.clone()
    known.low[:2] = 20  # has not been everywhere
    assert new.warm_start_from(known, allow_drift=True)
    assert torch.equal(new.low, edges[0]) and torch.equal(new.high, edges[1])
    for one, other in zip(new.weights, known.weights, strict=True):
        assert torch.equal(one, other)


def test_a_frame_saves_data():
    config, data, test = TrainConfig(gradient_steps=800, weight_decay=0.0), pushes(40, seed=1), pushes(20, seed=2)
    states, actions = map(torch.from_numpy, test.windows(1))
    pushed = (states[:, 1, 4:6] - states[:, 0, 4:6]).norm(dim=-1) > 2
    errors, shape = [], MLPConfig(members=3, width=64, depth=2, octaves=2)
    for model in (
        FramedMLP(8, 2, frame=PUSH, config=shape),
        grasp_agent.EnsembleMLP(8, 2, positions=(0, 1, 4, 5), config=shape),
    ):
        fit(model, data, config)
        found = model.step(model.encode(states[None, :, 0]).expand(3, -1, -1), actions[:, 0].expand(3, -1, -1))
        errors.append((model.decode(found)[..., 4:6] - states[:, 1, 4:6]).norm(dim=-1)[:, pushed].mean().item())
    assert errors[0] < 0.5 * errors[1], errors


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"origin": (0, 1), "heading": (1, 2)}, "pairs of different entries"),
        ({"origin": (0,), "heading": (1, 2)}, "pairs of different entries"),
        ({"origin": (-1, 0), "heading": (1, 2)}, "pairs of different entries from 0"),
        ({"origin": (0, 1), "heading": (2, 3), "actions": ((0, 0),)}, "pairs of different entries"),
        ({"origin": (0, 1), "heading": (2, 3), "lever": 0.0}, "a lever of more than 0"),
    ],
)
def test_a_wrong_frame_is_refused(settings: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=f"frame: expected {words}"):
        Frame(**settings)


def test_a_frame_of_another_environment_is_refused():
    with pytest.raises(ValueError, match="frame: expected entries below 2 and 2"):
        tiny("grasp/BallNav-v0", structure=Structure(frame=PUSH))

    uneven = gym.spaces.Box(np.array([-1, -2], np.float32), np.array([1, 2], np.float32))
    env = TransformAction(gym.make("grasp/PushT-v0"), lambda action: action, uneven)
    with pytest.raises(ValueError, match="frame: expected actions \\(0, 1\\) with the same symmetric bounds"):
        tiny(env, structure=Structure(frame=PUSH))


def test_both_blocks_and_a_frame_are_refused():
    with pytest.raises(ValueError, match="blocks or a frame, got both"):
        Structure(frame=PUSH, blocks=(((0,), (0,)),))  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 0.0, 1.0), (1.0, 1.0, np.inf, 1.0)])
def test_goal_weights_that_do_not_fit_are_refused(weights: tuple[float, ...]):
    with pytest.raises(ValueError, match="goal_weights: expected"):
        tiny("grasp/PushT-v0", structure=Structure(goal_weights=weights))


def test_a_frame_of_another_type_is_refused_and_weights_are_kept_as_numbers():
    with pytest.raises(ValueError, match="frame: expected a Frame or None, got 3"):
        Structure(frame=3)  # type: ignore[arg-type]
    assert Structure(goal_weights=np.ones(2)) == Structure(goal_weights=(1.0, 1.0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        ("frame", np.zeros((4, 4)), "frame: expected a Frame or None"),
        ("frame", {"scale": 2}, "unexpected keyword argument 'scale'"),
        ("blocks", 7, "not iterable"),
        ("goal_weights", (1.0,), "goal_weights: expected 4, got 1"),
        ("rests", "no", "rests: expected True or False"),
    ],
)
def test_attributes_that_mean_something_else_are_ignored_with_a_warning(attribute: str, value: Any, words: str):
    class Own(PushTEnv):
        pass

    setattr(Own, attribute, value)
    with pytest.warns(UserWarning, match=f"attribute {attribute} is no prior knowledge.*{words}"):
        found = tiny(Own()).structure
    usual = tiny("grasp/PushT-v0").structure
    assert found == replace(usual, **{attribute: getattr(Structure(), attribute)})  # the others are kept
    assert tiny(Own(), structure=Structure()).structure == Structure()


def test_what_comes_from_numpy_can_be_saved(tmp_path: Any):
    frame = Frame(origin=tuple(np.array([4, 5])), heading=(np.int64(6), 7), lever=np.float32(2))  # type: ignore[arg-type]
    said = Structure(frame=frame, goal_weights=np.ones(4), rests=np.True_)  # type: ignore[arg-type]
    tiny("grasp/PushT-v0", structure=said).save(tmp_path / "agent.zip")
    assert GraspAgent.load(tmp_path / "agent.zip", device="cpu").structure == said


def test_a_constant_position_meets_no_wall():
    frame = Frame(origin=(0, 1), heading=(2, 3), points=((4, 5), (6, 7)))
    model, data = FramedMLP(8, 1, frame=frame, config=SMALL), torch.rand(200, 8)
    data[:, 6:] = 3.0
    data[:20, 4] = 1.0  # at the wall
    model.adapt(data, torch.zeros(200, 1), data)
    usable = model.usable(data[:, None])
    assert not usable[:20].any()
    assert usable[20:].float().mean() > 0.9


def test_a_body_without_other_entries_is_never_off_the_support():
    model, states = FramedMLP(4, 1, frame=Frame(origin=(0, 1), heading=(2, 3)), config=SMALL), torch.rand(5, 4)
    region = FramedSupport(states, 0.0, model)
    seen = torch.rand(2, 1, 3, 4)
    assert region.off(seen).shape == (2, 1, 3, 1) and not region.off(seen).any()
    torch.testing.assert_close(region.nearest(seen), seen)


def test_plans_for_an_own_goal_may_stop_where_things_rest():
    goal = Goal.at({0: 1.0}, tolerance=0.1)
    assert tiny("Pendulum-v1", goal=goal, structure=Structure(rests=True)).criteria.stop
    assert not tiny("Pendulum-v1", goal=goal).criteria.stop


def test_an_agent_takes_what_push_t_offers_and_keeps_it_in_its_file(tmp_path: Any):
    agent = tiny("grasp/PushT-v0", seed=0).learn(120)
    structure = agent.structure
    assert structure.frame is not None and structure.frame.origin == (4, 5) and structure.rests
    assert structure.goal_weights[:2] == (1.0, 1.0) and structure.goal_weights[2] == pytest.approx(20 / (np.pi / 9))
    assert agent.criteria.stop
    agent.save(tmp_path / "push.zip")
    loaded = GraspAgent.load(tmp_path / "push.zip", device="cpu")
    assert loaded.structure == structure and loaded.criteria == agent.criteria
    worlds = [a.policy.world for a in (agent, loaded)]
    assert all(w is not None and isinstance(w.model, FramedMLP) and w.index.roadmap is None for w in worlds)
    env = gym.make("grasp/PushT-v0")
    observation, _ = env.reset(seed=3)
    start = np.array([True])
    answers = [a.predict(observation, episode_start=start, deterministic=True)[0] for a in (agent, loaded)]
    np.testing.assert_array_equal(answers[0], answers[1])


def test_criteria_that_are_not_the_tasks_usual_ones_survive_saving(tmp_path: Any):
    for rule in (Criteria(), Criteria(stop=True), Criteria(hold=2)):
        tiny("grasp/PushT-v0", criteria=rule).save(tmp_path / "rule.zip")
        assert GraspAgent.load(tmp_path / "rule.zip", device="cpu").criteria == rule


def test_distances_of_goals_are_those_of_the_environment():
    agent = tiny("grasp/PushT-v0", seed=0).learn(120)
    world, env = agent.policy.world, PushTEnv()
    assert world is not None
    random = np.random.default_rng(0)
    poses = [
        np.array([*random.uniform(150, 350, 2), np.cos(t), np.sin(t)], np.float32) for t in random.uniform(-3, 3, 9)
    ]
    goal = np.array([250, 250, 1, 0], np.float32)
    aside, turned = np.array([262, 266, 1, 0], np.float32), np.array([250, 250, np.cos(0.3), np.sin(0.3)], np.float32)
    assert world.goal_distance(aside, goal) == pytest.approx(20.0)
    assert world.goal_distance(turned, goal) == pytest.approx(env.goal_distance(turned, goal), rel=0.01)
    observation, _ = env.reset(seed=0)
    raw = np.concatenate([observation["observation"], observation["achieved_goal"]]).astype(np.float32)[None]
    start = world.encode(raw)
    for pose in poses:
        problem = world.problem(start, pose[None], 3, agent.criteria)
        apart = world.goal_distance(observation["achieved_goal"].astype(np.float32), pose) / world.tolerance
        assert problem.scoring.distances(start[:, None, None]).item() == pytest.approx(float(apart), rel=1e-4)
