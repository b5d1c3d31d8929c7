"""Terminal states: recorded by agents, found in replay, avoided by plans and roadmaps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agents import images_of, tiny, tiny_seer
from gymnasium import spaces
from problems import STEP, make, slide, tensor
from stable_baselines3.common.buffers import DictReplayBuffer
from torch import Tensor

from grasp_agent import GRASP, Goal
from grasp_agent.models.replay_index import ReplayIndex
from grasp_agent.models.support import terminal_states
from grasp_agent.planners import CEM, MPPI, ContextRoadmap, Criteria, Planner, RoadmapGraph, Steering, TerminalStates

Ended = Callable[[Tensor], Tensor]


def pit(states: Tensor) -> Tensor:
    return (states[..., 0].abs() < 0.25) & (states[..., 1].abs() < 0.6)


def over_the_edge(states: Tensor) -> Tensor:
    return states.sum(-1) > 0.5


def toppled(states: Tensor) -> Tensor:
    return states[..., 1].abs() > 0.5


def walked(ended: Ended, size: int, seed: int = 0, step: float = 0.15) -> tuple[Tensor, Tensor, Tensor]:
    """Returns states `[M, S]` of random walks that end in a region, their episodes, and the ends `[E, S]`."""
    generator = torch.Generator().manual_seed(seed)
    states, episodes, ends = [], [], []
    for episode in range(150):
        state = 2 * torch.rand(size, generator=generator) - 1
        while bool(ended(state)):
            state = 2 * torch.rand(size, generator=generator) - 1
        for _ in range(20):
            states.append(state)
            episodes.append(episode)
            state = (state + step * (2 * torch.rand(size, generator=generator) - 1)).clamp(-1, 1)
            if bool(ended(state)):
                ends.append(state)
                break
    return torch.stack(states), torch.tensor(episodes), torch.stack(ends)


@pytest.mark.parametrize(("ended", "size"), [(pit, 2), (over_the_edge, 2), (toppled, 3)])
def test_states_where_walks_ended_are_terminal_and_those_from_which_they_went_on_are_not(ended: Ended, size: int):
    states, episodes, ends = walked(ended, size)
    region = terminal_states(states, episodes, ends, states[::10])
    assert region is not None
    others, _, later = walked(ended, size, seed=1)
    assert region.contains(later).float().mean() > 0.9
    assert region.contains(others).float().mean() < 0.2
    assert region.contains(later.view(-1, 1, size)).shape == (len(later), 1)


def test_ends_that_the_state_does_not_predict_are_no_region():
    states, episodes, _ = walked(pit, 2)
    anywhere = states[torch.randperm(len(states), generator=torch.Generator().manual_seed(0))[:100]]
    assert terminal_states(states, episodes, anywhere + 0.005, states[::10]) is None
    assert terminal_states(states, episodes, anywhere[:1] + 5, states[::10]) is None  # one end is no region


def ditch() -> TerminalStates:
    """A ditch at |x| < 0.2, except for y > 0.5."""
    axis = torch.linspace(-1, 1, 21, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    inside = (grid[:, 0].abs() < 0.15) & (grid[:, 1] < 0.45)
    return TerminalStates(grid[inside], grid[~inside & ((grid[:, 0].abs() > 0.25) | (grid[:, 1] > 0.5))], 1.0)


def test_a_line_through_the_region_is_crossed_and_one_beside_it_is_not():
    start = tensor([-0.5, 0.0], [-0.5, 0.9], [-0.5, -1.0], [-0.5, 0.0])
    end = tensor([0.5, 0.0], [0.5, 0.9], [-0.5, 1.0], [-0.19, 0.0])
    assert ditch().contains(end).tolist() == [False, False, False, True]
    assert ditch().crossed(start, end).tolist() == [True, False, False, False]  # the last one's end is not checked


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("termination", [100.0, 7.0])
def test_a_plan_through_the_region_costs_what_the_criteria_say_and_is_never_accepted(termination: float, stop: bool):
    criteria = Criteria(hold=1, running=0.0, termination=termination, stop=stop, accept=200.0, excursion=1e9)
    problem = make(slide(), tensor([-0.5, 0.0]), tensor([0.5, 0.0]), horizon=6, criteria=criteria)
    actions = torch.zeros(1, 1, 6, 2, dtype=torch.float64)
    actions[:, :, :4, 0] = 1
    free, ended = problem.score(actions), replace(problem, terminal=ditch()).score(actions)
    assert free.accepted.item() and not ended.accepted.item()
    assert ended.cost.item() == pytest.approx(free.cost.item() + max(termination + 1 / 0.1, 201))  # it starts 1 away
    merits = [replace(problem, terminal=region).scoring.merit(problem.follow(actions)) for region in (None, ditch())]
    if not stop:
        assert merits[1].item() == pytest.approx(merits[0].item() + termination + 10)
    else:  # it stops before the ditch, as long as the way across is worth less
        assert merits[0].item() == pytest.approx(0) and merits[1].item() == pytest.approx(7.5)
    blind = replace(problem, terminal=ditch(), criteria=replace(criteria, termination=0.0))
    assert blind.score(actions).accepted.item()


def test_a_goal_in_the_region_is_no_fault_of_the_plan():
    criteria = Criteria(hold=1, running=0.0, stride=1)
    problem = make(slide(), tensor([-0.5, 0.0]), tensor([0.0, 0.0]), horizon=2, criteria=criteria)
    actions = tensor([[[1.0, 0.0], [1.0, 0.0]]])
    assert replace(problem, terminal=ditch()).score(actions).accepted.item()


def roadmap(region: TerminalStates | None) -> RoadmapGraph:
    ones = torch.ones(2, dtype=torch.float64)

    def action_jacobian(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return slide()(state, action), STEP * torch.eye(2).to(state).expand(*state.shape, 2)

    driver = Steering(
        dynamics=slide(), action_jacobian=action_jacobian, members=1, low=-ones, high=ones, tolerance=1e-3
    )
    axis = torch.linspace(-1, 1, 11, dtype=torch.float64)
    graph = RoadmapGraph.build(torch.cartesian_prod(axis, axis), driver, degree=12, terminal=region)
    assert graph is not None
    return graph


def test_no_route_of_a_roadmap_leads_through_the_region():
    start, target = tensor([-0.61, 0.02]), tensor([0.63, 0.01])
    free, around = (roadmap(region).paths(start, target.expand_as, 1, 40, 1.0)[0, 0] for region in (None, ditch()))
    assert ditch().contains(free).any() and not ditch().contains(around).any()
    assert around[:, 1].max() > 0.5
    assert (around[-1] - target).norm() < 1e-3


@pytest.mark.parametrize("planner", [GRASP(), CEM(), MPPI()], ids=lambda planner: type(planner).__name__)
def test_planners_go_round_the_region(planner: Planner[Any]):
    starts, targets = tensor([-0.6, 0.2], [0.6, -0.3]), tensor([0.6, 0.2], [-0.6, 0.1])
    problem = make(slide(), starts, targets, horizon=14, criteria=Criteria(hold=2))
    problem = replace(problem, roadmap=roadmap(ditch()))
    plans = [planner.plan(replace(problem, terminal=region), seed=0) for region in (ditch(), None)]
    entered = [ditch().contains(plan.states).any(-1) for plan in plans]
    assert entered[1].any() and not entered[0].any()
    assert plans[0].accepted.all() or isinstance(planner, MPPI)  # whose noise leaves the goal


class Trap(gym.Env[Any, Any]):
    """A point on a line whose episodes end at 1 (a trap), at the goal -1, or after 12 steps."""

    def __init__(self, goal: bool = True, says: bool = True) -> None:
        vector = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        names = ("observation", "achieved_goal", "desired_goal")
        self.goal, self.says = goal, says
        self.observation_space = spaces.Dict(dict.fromkeys(names, vector)) if goal else vector
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)
        if goal:
            self.distance_threshold = 0.2

    def _seen(self) -> Any:
        place = np.array([self.place], np.float32)
        if not self.goal:
            return place
        return {"observation": place, "achieved_goal": place, "desired_goal": -np.ones_like(place)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.steps = float(self.np_random.uniform(-0.6, 0.6)), 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place, self.steps = self.place + 0.3 * float(action[0]), self.steps + 1
        success = self.place < -0.8
        info = {"is_success": success} if self.says else {}
        return self._seen(), 0.0, success or self.place > 1, self.steps >= 12, info


@pytest.mark.parametrize(
    ("env", "goal"),
    [
        (lambda: Trap(), None),
        (lambda: Trap(says=False), None),
        (lambda: Trap(goal=False, says=False), Goal.at({0: -1.0}, tolerance=0.2)),
    ],
)
def test_an_agent_records_ends_that_are_neither_success_nor_time_limit(
    env: Callable[[], gym.Env[Any, Any]], goal: Goal | None, tmp_path: Path
):
    agent = tiny(env(), goal=goal).learn(300, checkpoint=tmp_path / "agent")
    episodes = agent.trainer.dataset.episodes
    last = np.array([float(episode.states[-1, 0]) for episode in episodes])
    terminated = [episode.terminated for episode in episodes]
    assert terminated == (last > 1).tolist()
    assert 0 < sum(terminated) < len(terminated)
    assert (last < -0.8).any() and (np.abs(last) < 0.8).any()  # successes and time limits, which are not terminal
    assert agent.trainer.dataset.terminal.sum() == sum(terminated)
    again = tiny(env(), goal=goal).learn(300, checkpoint=tmp_path / "agent")
    assert [episode.terminated for episode in again.trainer.dataset.episodes] == terminated


def test_the_region_is_saved_and_restored_with_the_agent(tmp_path: Path):
    agent = tiny(Trap()).learn(300)
    index = agent.policy.world.index  # type: ignore[union-attr]
    assert index.terminal is not None
    assert index.support.off(agent.policy.world.encode(np.array([[1.3, 1.3]], np.float32))).item()  # type: ignore[union-attr]
    known = ReplayIndex.restore(agent.policy.world.model, index.tensors())  # type: ignore[union-attr]
    states = torch.linspace(-3, 3, 50)[:, None]
    assert known.terminal is not None and index.terminal.contains(states).any()
    assert torch.equal(known.terminal.contains(states), index.terminal.contains(states))


GOALS = ("observation", "achieved_goal", "desired_goal")


def seen(place: float) -> dict[str, Any]:
    return dict(zip(GOALS, np.array([[[place]], [[place]], [[-1.0]]], np.float32), strict=True))


@pytest.mark.parametrize("kind", ["buffer", "minari", "file", "bad file"])
def test_offline_data_tell_which_ends_are_terminal(kind: str, tmp_path: Path):
    env, episodes = Trap(says=False), [(-0.5, 0.9, 1.2), (0.5, 0.2, 0.4), (-0.3, -0.6, -0.9)]
    agent = tiny(env)
    steps = [(a, b, b == e[-1], abs(b) > 0.85) for e in episodes for a, b in pairwise(e)]
    steps = [(a, b, last, last and ended) for a, b, last, ended in steps]
    if kind == "buffer":
        buffer = DictReplayBuffer(10, env.observation_space, env.action_space, handle_timeout_termination=True)  # type: ignore[arg-type]
        for before, after, done, ended in steps:
            info = {"TimeLimit.truncated": done and not ended}
            buffer.add(seen(before), seen(after), np.zeros((1, 1)), np.zeros(1), np.array([done]), [info])
        source: Any = buffer
    elif kind == "minari":
        played = [
            SimpleNamespace(
                observations={key: np.concatenate([seen(place)[key] for place in episode]) for key in GOALS},
                actions=np.zeros((2, 1)),
                terminations=np.array([False, abs(episode[-1]) > 0.85]),
            )
            for episode in episodes
        ]
        source = SimpleNamespace(iterate_episodes=lambda: iter(played))
    else:
        source = tmp_path / "steps.npz"
        before, after, _, ended = (np.array(values, np.float32)[:, None] for values in zip(*steps, strict=True))
        ends = ended[:, 0] * (after[:, 0] > 0) + (kind == "bad file") / 2  # a file says which ends are no success
        names = ("observations", "achieved_goal", "next_observations", "next_achieved_goal", "actions", "terminations")
        np.savez(source, **dict(zip(names, (before, before, after, after, 0 * before, ends), strict=True)))
    if kind == "bad file":
        with pytest.raises(ValueError, match="terminations of 0 or 1"):
            agent.fit(source)
        return
    agent.fit(source)
    assert [episode.terminated for episode in agent.trainer.dataset.episodes] == [True, False, False]


def test_where_success_is_not_known_no_end_is_terminal():
    env = Trap(says=False)
    del env.distance_threshold
    agent = tiny(env).learn(150)
    assert agent.goal_tolerance is None
    assert not any(episode.terminated for episode in agent.trainer.dataset.episodes)


def test_success_under_another_name_is_no_terminal_state():
    class Named(Trap):
        def step(self, action: Any) -> Any:
            seen, reward, terminated, truncated, info = super().step(action)
            return seen, reward, terminated, truncated, {"success": info["is_success"]}

    episodes = tiny(Named()).learn(300).trainer.dataset.episodes
    last = np.array([float(episode.states[-1, 0]) for episode in episodes])
    assert [episode.terminated for episode in episodes] == (last > 1).tolist() and (last < -0.8).any()


class Seen(Trap):
    """The same, seen by a camera."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, 255, (16, 16, 3), np.uint8)

    def _seen(self) -> Any:
        image = np.zeros((16, 16, 3), np.uint8)
        image[6:10, int(np.clip(8 + 6 * self.place, 0, 15)) :][:, :3] = 255
        return image


def test_images_keep_which_ends_are_terminal(tmp_path: Path):
    agent = tiny_seer(Seen()).learn(300, checkpoint=tmp_path / "seen")
    terminated = [episode.terminated for episode in agent.trainer.dataset.episodes]
    assert terminated == [episode.terminated for episode in images_of(agent).buffer.episodes]
    assert 0 < sum(terminated) < len(terminated)
    again = tiny_seer(Seen()).learn(300, checkpoint=tmp_path / "seen")
    assert [episode.terminated for episode in images_of(again).buffer.episodes] == terminated


def test_waiting_is_cheaper_than_an_end_however_far_the_goal_is():
    for tolerance in (0.1, 1e-3, 1e-5):
        criteria = Criteria(hold=1, running=1.0)
        problem = make(slide(), tensor([-0.5, 0.0]), tensor([0.5, 0.0]), horizon=6, criteria=criteria)
        problem = replace(problem, terminal=ditch(), goal=replace(problem.goal, tolerance=tolerance))  # type: ignore[type-var]
        actions = torch.zeros(1, 2, 6, 2, dtype=torch.float64)
        actions[:, 0, :4, 0] = 1
        for cost in (problem.score(actions).cost, problem.scoring.merit(problem.follow(actions))):
            assert cost[0, 1] < cost[0, 0]


def test_no_leg_to_or_from_a_roadmap_leads_through_the_region():
    around = roadmap(ditch())
    near, far = tensor([-0.3, 0.0]), tensor([0.3, 0.0])  # nodes on the other side are nearest
    nodes = around.nodes[(around.nodes[:, 0] > 0.15) | (around.nodes[:, 1] > 0.5)]
    one_sided = RoadmapGraph.build(nodes, around.driver, degree=12, terminal=ditch())
    assert one_sided is not None
    for start, target in ((near, far), (far, near)):
        path = one_sided.paths(start, target.expand_as, 1, 40, 1.0)[0, 0]
        assert not path.isfinite().all() or not ditch().contains(path).any()


def test_roadmaps_of_contexts_avoid_the_region():
    states = torch.cat([roadmap(None).nodes, torch.zeros(121, 1, dtype=torch.float64)], 1)
    ends, starts = (torch.nn.functional.pad(points, (0, 1)) for points in (ditch().ends, ditch().starts))
    region = TerminalStates(ends, starts, 1.0)
    ones = torch.ones(2, dtype=torch.float64)

    def step(state: Tensor, action: Tensor) -> Tensor:
        return state + STEP * torch.nn.functional.pad(action, (0, 1))

    def action_jacobian(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return step(state, action), STEP * torch.eye(3, 2).to(state).expand(*state.shape, 2)

    driver = Steering(dynamics=step, action_jacobian=action_jacobian, members=1, low=-ones, high=ones, tolerance=1e-3)
    start, target = tensor([-0.61, 0.02, 0.0]), tensor([0.63, 0.01, 0.0])
    found = [
        ContextRoadmap(states, (2,), driver, avoided).paths(start, target.expand_as, 1, 40, 1.0)[0, 0]
        for avoided in (None, region)
    ]
    assert region.contains(found[0]).any()
    assert found[1].isfinite().all() and not region.contains(found[1]).any()
