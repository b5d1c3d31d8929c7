"""Proposals: initial plans for any planner. A callable of the form of `Initial` is one, too."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from grasp_agent.planners.base import Initial
from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.noise import NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.planners.proposals.contact import ContactReplay
from grasp_agent.planners.proposals.initial import Line, Rollout
from grasp_agent.planners.proposals.tracking import Tracking
from grasp_agent.validation import more_than


@dataclass(frozen=True, kw_only=True)
class Roadmap:
    """Shortest routes through replayed states, tracked; `otherwise`, if the model has no roadmap.

    The first candidate heads straight for the goal and stays there: the best plan if there is no obstacle.

    Attributes:
        stretch: factor on the roadmap's travel times, so that tracking can keep up.
        tracking: finds the actions of a route.
        otherwise: source of candidates without a roadmap.
    """

    stretch: float = 1.1
    tracking: Tracking = Tracking(together=True)
    otherwise: Initial = field(default_factory=ContactReplay)

    def __post_init__(self) -> None:
        more_than(0, stretch=self.stretch)

    def __call__(self, problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        """See `Initial`."""
        roadmap = problem.roadmap
        if roadmap is None:
            return self.otherwise(problem, count, noise)

        def aim(states: Tensor) -> Tensor:
            return roadmap.settle(problem.goal.project(states[..., None, :])[..., 0, :])

        states = aim(problem.start[:, None]).expand(-1, problem.horizon, -1)[:, None]
        if count > 1:
            routes = roadmap.paths(problem.start, aim, count - 1, problem.horizon, self.stretch, problem.refusals)
            lost = ~routes.isfinite().all(-1).all(-1)
            routes = torch.where(lost[..., None, None], Line(sigma=0.0)(problem, 1, noise).states, routes)
            states = torch.cat([states, routes], 1)
        return self.tracking.propose(problem, states, problem.resting(count))


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Recorded trajectories from near the start to near the goal, warped to join both, and tracked.

    Attributes:
        tracking: finds the actions of the warped states, from the recorded ones.
        otherwise: source of candidates without recordings.
    """

    tracking: Tracking = Tracking(together=True)
    otherwise: Initial = field(default_factory=Rollout)

    def __call__(self, problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        """See `Initial`."""
        replay = problem.replay
        if replay is None:
            return self.otherwise(problem, count, noise)
        # Distance of each step of each window to the goal, plus that of its first state to the start, [B, M, T].
        every = replay.states.expand(problem.size, -1, -1, -1)
        to_goal = (problem.goal.project(every) - every).norm(dim=-1)
        to_start = (every[:, :, :1] - problem.start[:, None, None]).norm(dim=-1)
        length = min(problem.horizon, replay.actions.shape[1])
        distance = to_goal[:, :, 1 : length + 1] + to_start
        moment = distance.min(-1)
        chosen = moment.values.topk(min(count, moment.values.shape[1]), largest=False).indices
        chosen = chosen[:, torch.arange(count, device=chosen.device) % chosen.shape[1]]
        last = moment.indices.gather(1, chosen)  # the window ends there, and the goal follows
        rows = torch.arange(problem.size, device=chosen.device)[:, None]
        times = torch.arange(problem.horizon, device=chosen.device)
        index = torch.minimum(times, last[..., None])
        states = every[rows[..., None], chosen[..., None], index + 1]
        actions = replay.actions[chosen[..., None], index]
        actions = torch.where((times > last[..., None])[..., None], problem.rest, actions)
        offset = problem.start[:, None] - every[rows, chosen, 0]
        states = warped(problem, states, offset, last)
        return self.tracking.propose(problem, states, actions)


@dataclass(frozen=True, kw_only=True)
class Warp:
    """Virtual states of another source, warped to end at the goal, and tracked.

    Attributes:
        source: source of the states to warp.
        tracking: finds their actions.
    """

    source: Initial = field(default_factory=Rollout)
    tracking: Tracking = Tracking(together=True)

    def __call__(self, problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        """See `Initial`."""
        states, actions = self.source(problem, count, noise).pair
        last = torch.full(states.shape[:2], states.shape[2] - 1, device=states.device)
        states = warped(problem, states, torch.zeros_like(states[:, :, 0]), last)
        return self.tracking.propose(problem, states, actions)


@dataclass(frozen=True, kw_only=True)
class Snap:
    """Virtual states of another source, moved to the nearest states of the support, and tracked.

    Attributes:
        source: source of the states to move.
        tracking: finds their actions.
    """

    source: Initial = field(default_factory=Rollout)
    tracking: Tracking = Tracking(together=True)

    def __call__(self, problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        """See `Initial`."""
        states, actions = self.source(problem, count, noise).pair
        if problem.support is None:
            return Candidates(states, actions)
        states = problem.support.nearest(states)
        return self.tracking.propose(problem, states, actions)


def warped(problem: Problem, states: Tensor, offset: Tensor, last: Tensor) -> Tensor:
    """Returns states `[B, N, H, S]`, shifted by `offset` `[B, N, S]` at first and to the goal at step `last` `[B, N]`.

    In between, the correction is linear in time.
    """
    times = torch.arange(1, states.shape[2] + 1, device=states.device, dtype=states.dtype)
    fraction = (times / (last[..., None] + 1)).clamp_max(1)[..., None]
    moved = states + (1 - fraction) * offset[:, :, None]
    end = moved.take_along_dim(last[..., None, None], 2)
    return moved + fraction * (problem.goal.project(end) - end)
