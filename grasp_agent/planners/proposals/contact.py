"""Proposals through contact: recorded motions of an object, carried over to where it lies and where it has to go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from grasp_agent.planners.approach import Approach
from grasp_agent.planners.base import Initial
from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.noise import NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.planners.proposals.initial import Rollout
from grasp_agent.planners.proposals.tracking import Tracking
from grasp_agent.planners.protocols import ReplayWindows
from grasp_agent.validation import at_least

# All values below are chosen by hand.
_PAUSE = 8  # steps of rest that end a motion
_PACE = 0.75  # quantile of the mover's steps that is its pace on the way to a recording


class _Motions(NamedTuple):
    """When objects move in M recorded windows, in each of which they do."""

    windows: ReplayWindows
    first: Tensor
    """`[M]`, the step with which the object begins to move."""
    last: Tensor
    """`[M]`, the state after that motion: the object rests for some steps, or the window ends."""

    @classmethod
    def of(cls, goal: Approach, replay: ReplayWindows) -> _Motions | None:
        """Returns the windows in which the object moves; None if there are none."""
        moves = replay.moves(goal.object.tolist())
        some = moves.any(1)
        if not some.any():
            return None
        moves = moves[some]
        first, length = moves.to(torch.uint8).argmax(1), moves.shape[1]
        times = torch.arange(length, device=moves.device)
        latest = torch.where(moves, times, -1).cummax(1).values  # the last move up to each step
        over = (times - latest >= _PAUSE) & (times > first[:, None])
        end = torch.where(over.any(1), over.to(torch.uint8).argmax(1), length - 1)
        last = latest.gather(1, end[:, None])[:, 0] + 1
        return cls(ReplayWindows(replay.states[some], replay.actions[some]), first, last)


@dataclass(frozen=True, kw_only=True)
class ContactReplay:
    """Recorded contacts, shifted to the object, whose motion is warped to end at the goal, and tracked.

    Of all recorded motions those are taken that move the object most like the way that it has to go, from near where it
    lies. The way to the contact is a recorded one from near the present state. Only goals that are an `Approach` tell
    what moves the object: others get their candidates from `otherwise`.

    Attributes:
        tracking: finds the actions of the warped states, from the recorded ones.
        elsewhere: weight of the distance between the recorded and the present place of the object, beside that between
            the recorded and the wanted motion.
        travel: weight of the way to the recording, see `Approach.apart`.
        otherwise: source of candidates without recorded contacts.
    """

    tracking: Tracking = Tracking(together=True)
    elsewhere: float = 0.3
    travel: float = 0.1
    otherwise: Initial = field(default_factory=Rollout)

    def __post_init__(self) -> None:
        at_least(0, elsewhere=self.elsewhere, travel=self.travel)

    def __call__(self, problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        """See `Initial`."""
        goal, replay = problem.goal, problem.replay
        motions = _Motions.of(goal, replay) if isinstance(goal, Approach) and replay is not None else None
        if motions is None or not isinstance(goal, Approach):
            return self.otherwise(problem, count, noise)
        found = [self._carried(problem, goal, motions, row, count) for row in range(problem.size)]
        states, actions = (torch.stack(parts) for parts in zip(*found, strict=True))
        return self.tracking.propose(problem, states, actions)

    def _carried(
        self, problem: Problem, goal: Approach, motions: _Motions, row: int, count: int
    ) -> tuple[Tensor, Tensor]:
        """Returns states `[count, H, S]` and actions `[count, H, A]` for one problem."""
        start, recorded = problem.start[row], motions.windows.states
        target = goal.project(problem.start[:, None, None])[row, 0, 0]
        place, moved = (goal.scale[1] * states[..., goal.object] for states in (start, recorded))
        way = goal.scale[1] * target[goal.object] - place
        times, last = torch.arange(recorded.shape[1], device=start.device), motions.last[:, None]
        apart = goal.apart(recorded, start).masked_fill(times >= last, torch.inf)
        nearest, begin = apart.min(-1)
        first = torch.maximum(motions.first, begin)
        origin = moved.take_along_dim(first[:, None, None], 1)
        mismatch = (moved - origin - way).norm(dim=-1)
        mismatch = mismatch.masked_fill((times <= first[:, None]) | (times > last), torch.inf)
        least, stop = mismatch.min(-1)
        place_apart = (origin[:, 0] - place).norm(dim=-1)
        order = (least + self.elsewhere * place_apart + self.travel * nearest).argsort(stable=True)
        parts = []
        for one in order[torch.arange(count, device=start.device) % len(order)].tolist():
            span = _Span(*(int(moments[one]) for moments in (begin, first, stop)))
            recording = ReplayWindows(*(part[one] for part in motions.windows))
            parts.append(_warped(problem, goal, start, target, recording, span))
        states, actions = zip(*parts, strict=True)
        return torch.stack(states), torch.stack(actions)


class _Span(NamedTuple):
    """The used part of a recording."""

    begin: int
    """The state that is nearest to the present one."""
    first: int
    """The step with which the object begins to move."""
    stop: int
    """The state at which it has moved enough."""


def _warped(
    problem: Problem, goal: Approach, start: Tensor, target: Tensor, recording: ReplayWindows, span: _Span
) -> tuple[Tensor, Tensor]:
    """Returns states `[H, S]` and actions `[H, A]` of one recorded motion for another start and goal.

    Args:
        problem: of which horizon, bounds and rest count.
        goal: tells mover and object.
        start: `[S]`.
        target: `[S]`, at the goal.
        recording: one window, states `[T + 1, S]` and actions `[T, A]`.
        span: the part of it that is used.
    """
    begin, first, stop = span
    states, actions = recording
    pace = (goal.scale[0] * states[:, goal.mover]).diff(dim=0).norm(dim=-1).quantile(_PACE).clamp_min(1e-6)
    travel = int((goal.apart(states[begin], start) / pace).ceil().clamp_max(problem.horizon // 2))
    kept, taken = states[begin : stop + 1].clone(), actions[begin:stop]
    times = torch.arange(len(kept), device=start.device)
    arriving = ((times + 1) / (first - begin + 1)).clamp_max(1)[:, None]  # from the present state to contact
    moving = ((times - (first - begin)) / max(1, stop - first)).clamp(0, 1)[:, None]  # from contact to the goal
    shift = start[goal.object] - states[first, goal.object]
    rest = target[goal.object] - states[stop, goal.object] - shift
    kept[:, goal.object] = torch.where(moving > 0, kept[:, goal.object] + shift + moving * rest, start[goal.object])
    ratio = goal.scale[1] / goal.scale[0]
    kept[:, goal.mover] += ratio * (arriving * shift + moving * rest)
    fraction = torch.arange(1, travel + 1, device=start.device, dtype=start.dtype)[:, None] / max(1, travel)
    path = torch.cat([torch.lerp(start, kept[0], fraction), kept[1:]])[: problem.horizon]
    path = torch.cat([path, path[-1:].expand(problem.horizon - len(path), -1)])
    plan = torch.cat([problem.rest.expand(travel, -1), taken])[: problem.horizon]
    return path, torch.cat([plan, problem.rest.expand(problem.horizon - len(plan), -1)])
