"""Toy problems with known answers, in float64, and models that misbehave."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from grasp_agent.planners import Block, Criteria, NoiseSource, Problem, RoadmapGraph, Steering
from grasp_agent.planners.goal import EntryGoal
from grasp_agent.planners.protocols import Dynamics, Jacobian

STEP = 0.25
GAP = (0.5, 0.9)
"""Lowest and highest y at which the wall x = 0 can be passed."""
NEVER = Criteria(hold=1, accept=-1.0)  # nothing is good enough: every iteration is done


def tensor(*rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def noise(seed: int = 0) -> NoiseSource:
    return NoiseSource(seed, torch.device("cpu"), torch.float64)


STARTS = tensor([-1.0, 0.2], [-0.5, -0.7], [0.4, 0.8], [0.9, -0.9], [-0.2, 0.1])
TARGETS = tensor([0.9, -0.4], [0.6, 0.6], [-0.8, -0.3], [0.0, 0.5], [0.3, -0.9])


def spread(members: int) -> Tensor:
    """Factors `[K, 1, 1]` by which the members differ: 1 for a single one, else from 0.97 to 1.03."""
    factors = torch.linspace(-1, 1, members, dtype=torch.float64) if members > 1 else torch.zeros(1)
    return (1 + 0.03 * factors.double())[:, None, None]


def slide(members: int = 1) -> Dynamics:
    """An integrator: position moves by the action."""

    def step(state: Tensor, action: Tensor) -> Tensor:
        return state + STEP * spread(members)[: len(state)] * action

    return step


def accelerate(state: Tensor, action: Tensor) -> Tensor:
    """A double integrator: two positions, two velocities."""
    position, velocity = state[..., :2], state[..., 2:]
    return torch.cat([position + STEP * velocity + STEP**2 / 2 * action, velocity + STEP * action], -1)


def walled(state: Tensor, action: Tensor, margin: float = 0.0) -> Tensor:
    """An integrator with a wall at x = 0 that lets through in `GAP` only; who runs into it stops just before it.

    The gap is narrower by `margin` on either side.
    """
    move = STEP * action
    following = state + move
    crossing = state[..., 0] * following[..., 0] <= 0
    share = -state[..., 0] / torch.where(crossing, move[..., 0], 1).masked_fill(move[..., 0] == 0, 1)
    height = state[..., 1] + share * move[..., 1]
    stopped = crossing & ((height < GAP[0] + margin) | (height > GAP[1] - margin))
    before = torch.sign(state[..., :1]) * 1e-3
    return torch.where(stopped[..., None], torch.cat([before, following[..., 1:]], -1), following)


wall_with_clearance = partial(walled, margin=0.05)
"""The dynamics of roadmaps: whether a path along the gap's edge is free is chance."""


def nowhere(state: Tensor, action: Tensor) -> Tensor:
    """A model that never answers with a number."""
    return (state + action) * torch.nan


def nowhere_right(state: Tensor, action: Tensor) -> Tensor:
    """An integrator that answers NaN for states with x > 0.5."""
    return torch.where(state[..., :1] > 0.5, torch.nan, state + STEP * action)


class Slow:
    """Dynamics that take their time."""

    def __init__(self, dynamics: Dynamics, seconds: float) -> None:
        self._dynamics, self._seconds = dynamics, seconds

    def __call__(self, state: Tensor, action: Tensor) -> Tensor:
        time.sleep(self._seconds)
        return self._dynamics(state, action)


class Counted:
    """A model that writes down each call: what was called, how many rows it had, whether a state wanted a gradient."""

    def __init__(self, problem: Problem) -> None:
        self.calls: list[tuple[str, int]] = []
        self.state_wanted_gradient = False
        plain = rowwise(problem)
        full = problem.jacobian or problem.ensemble._generic_full_jacobian
        pullback = problem.action_pullback or problem.ensemble._generic_pullback

        def dynamics(state: Tensor, action: Tensor) -> Tensor:
            self._note("dynamics", state)
            return problem.dynamics(state, action)

        def action_jacobian(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
            self._note("action_jacobian", state)
            return plain(state, action)

        def action_pullback(state: Tensor, action: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            self._note("action_pullback", state)
            return pullback(state, action)

        def jacobian(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
            self._note("jacobian", state)
            return full(state, action)

        self.problem = replace(
            problem,
            dynamics=dynamics,
            action_jacobian=action_jacobian,
            action_pullback=action_pullback,
            jacobian=jacobian,
        )

    def _note(self, name: str, state: Tensor) -> None:
        self.calls.append((name, state.shape[0] * state.shape[1]))
        self.state_wanted_gradient |= state.requires_grad


def rowwise(problem: Problem) -> Jacobian:
    """The problem's `linearise` as a model's action_jacobian, on rows `[K, M, ...]`."""

    def action_jacobian(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        following, slopes = problem.ensemble.linearise(state.movedim(0, 1), action.movedim(0, 1))
        return following.movedim(0, 1), slopes.movedim(0, 1)

    return action_jacobian


def make(
    dynamics: Dynamics,
    start: Tensor = STARTS,
    target: Tensor = TARGETS,
    *,
    members: int = 1,
    horizon: int = 12,
    tolerance: float = 0.1,
    criteria: Criteria | None = None,
) -> Problem:
    """Problems whose goal is a position: the first entries of the state."""
    size = target.shape[1]
    goal = EntryGoal(
        size=start.shape[1],
        index=torch.arange(size),
        target=target,
        weights=torch.ones(size, dtype=torch.float64),
        tolerance=tolerance,
    )
    ones = torch.ones(2, dtype=torch.float64)
    rule = criteria or Criteria(hold=1)
    return Problem(
        dynamics=dynamics,
        goal=goal,
        start=start,
        low=-ones,
        high=ones,
        horizon=horizon,
        members=members,
        criteria=rule,
    )


def rows(problem: Problem, index: list[int]) -> Problem:
    """Some of the problems."""
    goal = problem.goal
    assert isinstance(goal, EntryGoal)
    return replace(problem, start=problem.start[index], goal=replace(goal, target=goal.target[index]))


def point(members: int = 1) -> Problem:
    """Free points; several members bring their own Jacobian."""
    problem = make(slide(members), members=members)
    if members == 1:
        return problem
    slopes = STEP * spread(members)[..., None] * torch.eye(2, dtype=torch.float64)

    def action_jacobian(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return problem.dynamics(state, action), slopes[: len(state)].expand(-1, state.shape[1], -1, -1)

    def jacobian(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        following, by_action = action_jacobian(state, action)
        by_state = torch.eye(2, dtype=torch.float64).expand_as(by_action)
        return following, torch.cat([by_state, by_action], -1)

    return replace(problem, action_jacobian=action_jacobian, jacobian=jacobian)


def double_integrator() -> Problem:
    problem = make(accelerate, torch.cat([STARTS, torch.zeros_like(STARTS)], 1), 0.7 * TARGETS, horizon=16)
    by_state = torch.eye(4, dtype=torch.float64) + STEP * torch.diag(torch.ones(2, dtype=torch.float64), 2)
    return replace(problem, state_jacobian=by_state)


def several(count: int = 3, members: int = 1, **settings: Any) -> Problem:
    """Returns free points, one for each block, with the start of one row of `STARTS` and the target of another."""
    problem = make(slide(members), STARTS.repeat(1, count), members=members, **settings)
    shifts = [(torch.arange(5) + 2 * block) % 5 for block in range(count)]
    start = torch.cat([STARTS[shift] for shift in shifts], 1)
    target = torch.cat([TARGETS[shift.flip(0)] for shift in shifts], 1)
    size = 2 * count
    goal = EntryGoal(
        size=size,
        index=torch.arange(size),
        target=target,
        weights=torch.ones(size, dtype=torch.float64),
        tolerance=0.1,
        part=torch.arange(size) // 2,
    )
    ones = torch.ones(size, dtype=torch.float64)
    blocks = tuple(Block((2 * b, 2 * b + 1), (2 * b, 2 * b + 1)) for b in range(count))
    return replace(problem, start=start, goal=goal, low=-ones, high=ones, blocks=blocks)


def grid(count: int = 12) -> Tensor:
    """States `[P, 2]` that cover [-1, 1]^2, none of them on the wall."""
    line = (torch.arange(count, dtype=torch.float64) + 0.5) / count * 2 - 1
    return torch.cartesian_prod(line, line)


def steering(problem: Problem, tolerance: float = 0.02) -> Steering:
    return Steering(
        dynamics=problem.dynamics,
        action_jacobian=rowwise(problem),
        members=problem.members,
        low=problem.low,
        high=problem.high,
        tolerance=tolerance,
    )


def wall() -> Problem:
    """Returns the problem from the left of the wall to the right: the path leads up, through the gap, and down."""
    start, target = tensor([-0.4, -0.5], [-0.6, 0.0], [0.5, -0.3]), tensor([0.4, -0.5], [0.7, -0.6], [-0.5, -0.2])
    problem = make(walled, start, target, horizon=24)
    return replace(problem, roadmap=wall_roadmap())


@cache
def wall_roadmap() -> RoadmapGraph | None:
    return RoadmapGraph.build(grid(), steering(make(wall_with_clearance)))


PROBLEMS = {
    "point": point,
    "four points": lambda: point(4),
    "double integrator": double_integrator,
    "wall": wall,
}


def moved(problem: Problem, dtype: torch.dtype, device: torch.device) -> Problem:
    """Returns the wall's problem with other numbers, its roadmap built again."""

    def to(value: Tensor) -> Tensor:
        return value.to(device, dtype if value.is_floating_point() else None)

    goal = problem.goal
    assert isinstance(goal, EntryGoal)
    aim = EntryGoal(
        size=goal.size,
        index=goal.index.to(device),
        target=to(goal.target),
        weights=to(goal.weights),
        tolerance=goal.tolerance,
    )
    plain = replace(
        problem, goal=aim, start=to(problem.start), low=to(problem.low), high=to(problem.high), roadmap=None
    )
    graph = RoadmapGraph.build(to(grid()), steering(plain))
    return replace(plain, roadmap=graph)
