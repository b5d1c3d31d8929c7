"""Local controllers that drive a model from a state to one nearby: the edges of roadmaps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from grasp_agent.planners.linalg.least_squares import least_squares
from grasp_agent.planners.protocols import Aim, Dynamics, Jacobian
from grasp_agent.planners.roadmap.linear_model import Horizons, LinearModel
from grasp_agent.planners.work import SMALL_STEP, spend

_HINDERED = 0.8  # fraction of its median effect that an action must have in a state with clearance; chosen by hand
_TOGETHER = 3  # number of action entries up to which all combinations of extreme actions are tried; chosen by hand


@dataclass(frozen=True, kw_only=True)
class Steering:
    """Drives the model straight to a nearby state by Gauss-Newton steps on D_a F: for states without inertia.

    Attributes:
        dynamics: the model's step.
        action_jacobian: the step and its derivative by the action.
        members: K.
        low: `[A]` lower bounds.
        high: `[A]` upper bounds.
        reach: greatest number of steps.
        longest: greatest number of steps to far targets.
        tolerance: distance at which the target counts as reached [state units].
    """

    dynamics: Dynamics
    action_jacobian: Jacobian
    members: int
    low: Tensor
    high: Tensor
    reach: int = 3
    longest: int = 50
    tolerance: float = 0.02

    def __call__(self, start: Tensor, aim: Aim, *, each: int = 1, far: bool = False) -> Tensor:
        """See `Driver`."""
        rest, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        linear = self._at_rest(start.expand(self.members, -1, -1), rest)  # the same for all targets of a start
        predicted, slopes = (values.repeat_interleave(each, 1) for values in linear)
        everywhere = start.repeat_interleave(each, 0).repeat(self.members, 1, 1)
        steps = everywhere.new_full(everywhere.shape[:-1], torch.inf)
        steps[(everywhere - aim(everywhere)).norm(dim=-1) <= self.tolerance] = 0
        going = torch.arange(everywhere.shape[1], device=start.device)
        for count in range(self.longest if far else self.reach):
            state = everywhere[:, going]
            if count:
                predicted, slopes = self._at_rest(state, rest)
            everywhere[:, going] = predicted
            change = least_squares(slopes, predicted - aim(everywhere)[..., going, :], 1e-3)
            effort = (change / half).abs().amax(-1).clamp(1e-3, 1)  # the fraction of a step that is needed
            action = torch.minimum(torch.maximum(rest - change, self.low), self.high)
            everywhere[:, going] = following = self.dynamics(state, action)
            arrived = (following - aim(everywhere)[..., going, :]).norm(dim=-1) <= self.tolerance
            steps[:, going] = torch.where(arrived, (count + effort).minimum(steps[:, going]), steps[:, going])
            # A row ends when all members have arrived, or when one is stuck elsewhere.
            missing = steps[:, going].isinf()
            stuck = missing & ((following - state).norm(dim=-1) < 0.1 * self.tolerance)
            going = going[missing.any(0) & ~stuck.any(0)]
            if not len(going):
                break
        return steps.amax(0)

    def _at_rest(self, state: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        """Returns next states of `[K, M, S]` at rest, `[A]`, and their derivative by the action, `[K, M, S, A]`."""
        return self.action_jacobian(state, rest.expand(*state.shape[:-1], -1))

    def distance(self, start: Tensor, target: Tensor) -> Tensor:
        """See `Driver`: the Euclidean distance."""
        return (target - start).norm(dim=-1)

    def has_clearance(self, states: Tensor) -> Tensor:
        """See `Driver`: every extreme action moves a state about as far as the median state, in every member."""
        count, rest = len(self.low), (self.low + self.high) / 2
        single = torch.cat([torch.eye(count), -torch.eye(count)]).tolist()
        signs = product((-1.0, 0.0, 1.0), repeat=count) if count <= _TOGETHER else single
        actions = rest + (self.high - self.low) / 2 * states.new_tensor([sign for sign in signs if any(sign)])
        distances = []
        for action in actions:
            state = states.expand(self.members, -1, -1)
            following = self.dynamics(state, action.expand(*state.shape[:-1], -1))
            distances.append((following - state).norm(dim=-1))
        moved = torch.stack(distances)
        return (moved > _HINDERED * moved.median(-1, keepdim=True).values).all(0).all(0)

    def trace(self, points: Tensor, times: Tensor, horizon: int) -> Tensor:
        """See `Driver`: straight lines; the last point is held."""
        upper, before, after = _segments(times, horizon)
        steps = torch.arange(1, horizon + 1, device=points.device, dtype=points.dtype)
        fraction = ((steps - before) / (after - before).clamp_min(1e-6)).clamp(0, 1)[..., None]
        wide = upper[..., None].expand(-1, -1, -1, points.shape[-1])
        return torch.lerp(points.gather(2, wide - 1), points.gather(2, wide), fraction)

    def settle(self, states: Tensor) -> Tensor:
        """See `Driver`: without velocities, every state is at rest."""
        return states


@dataclass(frozen=True, kw_only=True)
class InertialSteering:
    """Drives the model to a state, velocities included, by feedback of a linear model: for states with inertia.

    Attributes:
        dynamics: the model's step.
        members: K.
        linear: a linear model of the step.
        named: `[S]`, True for the entries that goals name.
        low: `[A]` lower bounds.
        high: `[A]` upper bounds.
        reach: greatest number of steps.
        longest: greatest number of steps to far targets.
        effort: fraction of the bounds that the linear model's actions may use: the rest is reserved for feedback.
        tolerance: distance at which the target counts as reached [state units].
    """

    dynamics: Dynamics
    members: int
    linear: LinearModel
    named: Tensor
    low: Tensor
    high: Tensor
    reach: int = 16
    longest: int = 64
    effort: float = 0.9
    tolerance: float = 0.3

    def __call__(self, start: Tensor, aim: Aim, *, each: int = 1, far: bool = False) -> Tensor:
        """See `Driver`: the steps are whole numbers."""
        start = start.repeat_interleave(each, 0)
        target = aim(start)
        steps = self._steps(start, target, self.longest if far else self.reach)
        feasible = steps.isfinite().nonzero()[:, 0]  # for the linear model; the others need not be tried
        if len(feasible):
            # The longest first: those that are still driven are then the first ones.
            feasible = feasible[steps[feasible].argsort(descending=True, stable=True)]
            steps[feasible] = self._driven(start[feasible], target[feasible], steps[feasible])
        return steps

    def _driven(self, start: Tensor, target: Tensor, steps: Tensor) -> Tensor:
        """Returns the steps `[M]`, infinite if a member of the model misses its target; they never rise."""
        count = steps.clamp(1, self.longest).long()
        state = start.repeat(self.members, 1, 1)
        for done in range(int(count[0])):
            going = int((count > done).sum())
            action = self._horizons.action(state[:, :going], target[:going], count[:going] - done)
            bounded = torch.minimum(torch.maximum(action, self.low), self.high)
            state[:, :going] = self.dynamics(state[:, :going], bounded)
        missed = ((state - target).norm(dim=-1) > self.tolerance).any(0) | ~state.isfinite().all(-1).all(0)
        return steps.masked_fill(missed, torch.inf)

    def distance(self, start: Tensor, target: Tensor) -> Tensor:
        """See `Driver`: the least sum of steps and squared actions."""
        horizons = self._horizons
        least = start.new_full(torch.broadcast_tensors(start, target)[0].shape[:-1], torch.inf)
        for count in _counts(self.reach):
            missing = horizons.missing(start, target, count)
            least = torch.minimum(least, count + (missing @ horizons.roots[count].mT).square().sum(-1))
        return least

    def has_clearance(self, states: Tensor) -> Tensor:
        """See `Driver`: True, as the effect of actions depends on the velocity and does not show obstacles."""
        return torch.ones(len(states), dtype=torch.bool, device=states.device)

    def trace(self, points: Tensor, times: Tensor, horizon: int) -> Tensor:
        """See `Driver`: the linear model's trajectory, whole steps between points; the last point is held."""
        upper, _, after = _segments(times.ceil(), horizon)
        state, states = points[:, :, 0], []
        for step in range(horizon):
            spend(SMALL_STEP)
            left = after[:, :, step] - step
            left = torch.where(left >= 1, left.clamp_max(self.longest), self.reach).long()  # the last point is held
            target = points.take_along_dim(upper[:, :, step, None, None], 2)[:, :, 0]
            action = self._horizons.action(state, target, left)
            state = self.linear.step(state, torch.minimum(torch.maximum(action, self.low), self.high))
            states.append(state)
        return torch.stack(states, 2)

    def settle(self, states: Tensor) -> Tensor:
        """See `Driver`."""
        return self.linear.settle(states, self.named)

    @cached_property
    def _horizons(self) -> Horizons:
        return Horizons.of(self.linear, max(self.reach, self.longest))

    @cached_property
    def _feedback(self) -> dict[int, tuple[Tensor, Tensor]]:
        """For each number of steps that is tried, see `Horizons.feedback`."""
        counts = {*_counts(self.reach), *_counts(self.longest)}
        precise = Horizons.of(LinearModel(*(values.double() for values in self.linear)), max(counts))
        return {n: tuple(values.to(self.low) for values in precise.feedback(n)) for n in counts}  # type: ignore[misc]

    def _steps(self, start: Tensor, target: Tensor, reach: int) -> Tensor:
        """Returns the fewest steps `[M]` in which the linear model reaches targets within `effort`, or infinite."""
        bound = self.effort * (self.high - self.low) / 2
        rest = (self.low + self.high) / 2
        best = start.new_full(start.shape[:-1], torch.inf)
        for count in reversed(_counts(reach)):
            to_actions, to_end = self._feedback[count]
            missing = self._horizons.missing(start, target, count)
            actions = (missing @ to_actions.mT).unflatten(-1, (count, -1))
            possible = ((actions - rest).abs() <= bound).flatten(-2).all(-1)
            near = (missing @ to_end.mT).norm(dim=-1) <= self.tolerance
            best = torch.where(possible & near, float(count), best)
        return best


def _counts(reach: int) -> list[int]:
    """Returns the numbers of steps that are tried, up to `reach`, in increments of about a fifth."""
    counts = [1]
    while counts[-1] < reach:
        counts.append(min(reach, counts[-1] + max(1, counts[-1] // 5)))
    return counts


def _segments(times: Tensor, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns for steps 1 .. H the index `[B, R, H]` of the next of `times` `[B, R, W]`, and the times around it."""
    steps = torch.arange(1, horizon + 1, device=times.device, dtype=times.dtype)
    steps = steps.expand(*times.shape[:2], -1).contiguous()
    upper = torch.searchsorted(times.contiguous(), steps).clamp(1, times.shape[-1] - 1)
    return upper, times.gather(2, upper - 1), times.gather(2, upper)
