"""Linear models, and how states with inertia are driven: known answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
from problems import double_integrator, noise, tensor
from torch import Tensor

from grasp_agent.planners import (
    GRASP,
    Criteria,
    InertialSteering,
    LinearModel,
    Problem,
    ReplayWindows,
    Roadmap,
    RoadmapGraph,
)
from grasp_agent.planners.roadmap.linear_model import Horizons

NAMED = torch.tensor([True, True, False, False])


def recorded(problem: Problem, count: int = 200, length: int = 10) -> ReplayWindows:
    source = noise(3)
    start, actions = source.normal(count, 4), source.normal(count, length, 2).clamp(-1, 1)
    states = [start]
    for action in actions.unbind(1):
        states.append(problem.dynamics(states[-1][None], action[None])[0])
    return ReplayWindows(torch.stack(states, 1), actions)


def linear() -> LinearModel:
    return LinearModel.regress(recorded(double_integrator()))


def driver(problem: Problem, **settings: float) -> InertialSteering:
    return InertialSteering(
        dynamics=problem.dynamics,
        members=problem.members,
        linear=linear(),
        named=NAMED,
        low=problem.low,
        high=problem.high,
        tolerance=0.02,
        **settings,  # type: ignore[arg-type]
    )


def fixed(target: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda _: target


def test_a_linear_world_is_regressed_as_it_is():
    problem, found = double_integrator(), linear()
    assert problem.state_jacobian is not None
    torch.testing.assert_close(found.by_state, problem.state_jacobian, atol=2e-3, rtol=0)
    states, actions = noise().normal(7, 4), noise(1).normal(7, 2)
    torch.testing.assert_close(found.step(states, actions), problem.dynamics(states, actions), atol=5e-3, rtol=0)
    packed = LinearModel.unpack(found.packed)
    assert all(torch.equal(one, other) for one, other in zip(packed, found, strict=True))


def test_a_part_of_a_linear_model_moves_as_the_whole_does():
    whole = linear()
    part = whole.part([0, 2], [0])
    states, actions = torch.zeros(5, 4).double(), torch.zeros(5, 2).double()
    states[:, [0, 2]], actions[:, 0] = noise().normal(5, 2), noise(1).normal(5)
    moved = part.step(states[:, [0, 2]], actions[:, :1])
    torch.testing.assert_close(moved, whole.step(states, actions)[:, [0, 2]])


def test_a_settled_state_keeps_its_position_and_loses_its_velocity():
    states = noise().normal(3, 5, 4)
    settled = linear().settle(states, NAMED)
    assert torch.equal(settled[..., :2], states[..., :2])
    assert (settled[..., 2:].abs() < 0.1 * states[..., 2:].abs() + 0.02).all()


def test_entries_without_data_stay_when_the_others_settle():
    still = LinearModel(torch.eye(3).double(), torch.ones(3, 1).double(), torch.zeros(3).double())
    states = noise().normal(6, 3)
    torch.testing.assert_close(still.settle(states, torch.tensor([True, False, False])), states)


def test_the_metric_is_the_root_of_the_riccati_solution():
    model = linear()
    root = model.metric(effort=0.1)
    assert root is not None
    a, b = model.by_state.numpy(), model.by_action.numpy()
    effort = 0.1 * np.square(b).sum(0).mean() * np.eye(2)
    expected = scipy.linalg.solve_discrete_are(a, b, np.eye(4), effort)
    np.testing.assert_allclose((root.mT @ root).numpy(), expected, rtol=1e-6, atol=1e-9)


def test_where_no_action_helps_there_is_no_metric():
    runaway = LinearModel(1.5 * torch.eye(2).double(), torch.tensor([[1.0], [0.0]]).double(), torch.zeros(2).double())
    assert runaway.metric() is None


@pytest.mark.parametrize("steps", [2, 5, 9])
def test_a_state_is_reached_in_just_so_many_steps_with_the_least_effort(steps: int):
    model, source = linear(), noise(5)
    horizons = Horizons.of(model, 9)
    start, target = source.normal(6, 4), source.normal(6, 4)
    state, effort, actions = start, torch.zeros(6).double(), []
    for left in range(steps, 0, -1):
        actions.append(horizons.action(state, target, left))
        effort += actions[-1].square().sum(-1)
        state = model.step(state, actions[-1])
    torch.testing.assert_close(state, target, atol=1e-2, rtol=0)
    priced = (horizons.missing(start, target, steps) @ horizons.roots[steps].mT).square().sum(-1)
    torch.testing.assert_close(priced, effort, rtol=2e-2, atol=1e-3)
    # The least-norm solution of the whole system, all at once.
    reach = torch.cat([horizons.powers[steps - 1 - t] @ model.by_action for t in range(steps)], -1)
    least = torch.linalg.lstsq(reach, horizons.missing(start, target, steps).mT, driver="gelsd").solution.mT
    torch.testing.assert_close(torch.cat(actions, -1), least, rtol=2e-2, atol=2e-2)


def test_a_drive_takes_the_fewest_steps_that_the_bounds_allow():
    problem = double_integrator()
    drive = driver(problem, effort=1.0)
    start = tensor([0.0, 0.0, 0.0, 0.0]).expand(3, -1)
    # Of least effort is thrust that falls evenly from full to full braking: the farthest rest that four steps reach.
    state = start[:1]
    for thrust in (1.0, 1 / 3, -1 / 3, -1.0):
        state = problem.dynamics(state, tensor([thrust, 0.0]).expand(1, -1))
    far = state * tensor([1.0, 0.0, 0.0, 0.0])
    targets = torch.cat([0.98 * far, 1.05 * far, 60 * far])
    steps = drive(start, fixed(targets))
    assert steps[:2].tolist() == [4.0, 5.0]
    assert steps[2].isinf()


def test_a_longer_reach_gets_to_states_that_a_shorter_one_does_not():
    problem = double_integrator()
    start, target = tensor([0, 0, 0, 0]), tensor([3, 0, 0, 0])
    short = driver(problem, reach=16, longest=64)
    assert short(start, fixed(target)).isinf().all()
    steps = driver(problem, reach=64)(start, fixed(target))
    assert 16 < steps.item() <= 64
    assert short(start, fixed(target), far=True) == steps
    # What is traced takes as long, and is there in the end.
    times = torch.stack([torch.zeros_like(steps), steps], -1)[:, None]
    traced = short.trace(torch.stack([start, target], 1)[:, None], times, 64)
    torch.testing.assert_close(traced[:, 0, int(steps) - 1], target, atol=0.02, rtol=0)


def test_a_drive_that_one_member_cannot_follow_is_none():
    problem = double_integrator()

    def blocked(state: Tensor, action: Tensor) -> Tensor:
        following = problem.dynamics(state, action)
        following[1:, ..., 0] = following[1:, ..., 0].clamp_max(0.05)  # the second member knows of a wall
        return following

    drive = replace(driver(problem), dynamics=blocked, members=2)
    start, targets = torch.zeros(2, 4).double(), tensor([0.04, 0.0, 0.0, 0.0], [0.2, 0.0, 0.0, 0.0])
    assert drive(start, fixed(targets)).isfinite().tolist() == [True, False]
    assert driver(problem)(start, fixed(targets)).isfinite().all()


def test_each_of_many_drives_is_judged_by_itself():
    """Of different lengths, beyond the linear model's reach, and into a wall, in any order."""
    problem = double_integrator()

    def blocked(state: Tensor, action: Tensor) -> Tensor:
        following = problem.dynamics(state, action)
        entries = torch.where(following[..., :1] > 0.3, 0.3, following[..., :1])
        return torch.cat([entries, following[..., 1:]], -1)

    drive = replace(driver(problem, reach=64), dynamics=blocked)
    targets = torch.zeros(40, 4).double()
    targets[:, 0] = torch.linspace(-3, 1, 40)[torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    targets[::7, 0] = 1e3
    together = drive(torch.zeros(40, 4).double(), fixed(targets))
    alone = [drive(torch.zeros(1, 4).double(), fixed(target[None])) for target in targets]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(together.isfinite(), targets[:, 0] < 0.3 + drive.tolerance)
    assert len(together.unique()) > 8


@pytest.mark.parametrize("count", [1, 5, 64])
def test_feedback_over_many_steps_is_each_step_after_the_other(count: int):
    model, source = linear(), noise(5)
    horizons = Horizons.of(model, 64)
    state, target = source.normal(6, 4), source.normal(6, 4)
    to_actions, to_end = horizons.feedback(count)
    missing = horizons.missing(state, target, count)
    foreseen = (missing @ to_actions.mT).unflatten(-1, (count, -1))
    for step in range(count):
        action = horizons.action(state, target, count - step)
        torch.testing.assert_close(action, foreseen[:, step], rtol=1e-4, atol=1e-6 * float(foreseen.abs().max()))
        state = model.step(state, action)
    torch.testing.assert_close(target - state, missing @ to_end.mT, rtol=1e-3, atol=1e-6)


def test_what_is_nearer_in_time_is_nearer_however_far_it_lies():
    drive, moving = driver(double_integrator()), tensor([0.0, 0.0, 0.5, 0.0])
    ahead, behind = tensor([0.3, 0.0, 0.5, 0.0]), tensor([-0.1, 0.0, 0.5, 0.0])
    assert drive.distance(moving, ahead) < drive.distance(moving, behind)


def test_a_trace_passes_its_points_on_time_and_holds_the_last():
    drive = driver(double_integrator())
    points = torch.zeros(1, 1, 4, 4).double()
    points[0, 0, 1:, 0] = tensor([0.1, 0.3, 0.3])
    points[0, 0, 1, 2] = 0.2
    states = drive.trace(points, tensor([0.0, 6.0, 13.0, 13.0])[None], 30)
    torch.testing.assert_close(states[0, 0, 5], points[0, 0, 1], atol=1e-2, rtol=0)
    torch.testing.assert_close(states[0, 0, 12:], points[0, 0, 3].expand(18, -1), atol=1e-2, rtol=0)


def test_a_roadmap_of_states_with_velocities_leads_a_planner_to_its_goals_at_once():
    problem = double_integrator()
    source = noise(8)
    nodes = torch.cat([2 * source.normal(150, 2).tanh(), 0.4 * source.normal(150, 2)], 1)
    graph = RoadmapGraph.build(nodes, driver(problem))
    assert graph is not None
    assert graph.connected > 0.9
    aimed = replace(
        problem, horizon=40, roadmap=graph, metric=linear().metric(), criteria=Criteria(hold=4, off_support=0.0)
    )
    plan = GRASP(iterations=0, proposals=Roadmap(), proposed=4).plan(aimed)
    assert plan.accepted.all()
    # It comes to rest at the goal, not only past it.
    assert (plan.states[:, -4:, 2:].abs() < 0.1).all()
