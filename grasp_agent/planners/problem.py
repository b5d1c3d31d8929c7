"""What a planner is given: one-step dynamics, a goal, bounds, and the one way in which candidates are judged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from grasp_agent.planners.least_squares import least_squares

if TYPE_CHECKING:
    from grasp_agent.planners.roadmap import RoadmapGraph

Dynamics = Callable[[Tensor, Tensor], Tensor]
"""`(state [K, M, S], action [K, M, A]) -> next state [K, M, S]`; ensemble member k steps its own M rows."""

Jacobian = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""As `Dynamics`, with the derivative of the next state: by the action `[K, M, S, A]`, or by all `[K, M, S, S + A]`."""


class Goal(Protocol):
    """What a planner asks of a goal; the leading axes of `states` start with the problems, `[B, ...]`."""

    @property
    def tolerance(self) -> float:
        """Distance at which the goal counts as reached, in the units of `sqrt(cost)`."""
        ...

    def cost(self, states: Tensor) -> Tensor:
        """Squared distance to the goal, `[..., B, N, H, S] -> [..., B, N, H]`: zero at the goal, differentiable."""
        ...

    def project(self, states: Tensor) -> Tensor:
        """The nearest states that are at the goal, `[..., B, N, H, S] -> [..., B, N, H, S]`."""
        ...


class Support:
    """The region of states that a model has seen: balls around points that cover the replayed states.

    Args:
        points: `[P, S]` covering points.
        radius: a state farther than this from every point is off the support.
    """

    def __init__(self, points: Tensor, radius: float) -> None:
        self.points = points
        self.radius = radius
        self._squares = points.square().sum(-1)

    def off(self, states: Tensor) -> Tensor:
        """True where a state `[..., S]` lies off the support, `[...]`."""
        flat = states.reshape(-1, states.shape[-1])
        nearest = torch.addmm(self._squares, flat, self.points.T, alpha=-2).amin(-1) + flat.square().sum(-1)
        return (nearest > self.radius**2).view(states.shape[:-1])


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """How a candidate is judged (all distances in units of the goal's tolerance).

    Attributes:
        hold: number of last steps during which the goal has to be kept.
        accept: a plan is good enough when its worst distance over those steps, under the worst ensemble member, plus
            its penalty for leaving the support, is below this; a negative number accepts none.
        running: weight of the mean distance along the way; prefers plans that arrive early.
        off_support: weight of the share of steps that lie off the replayed support, on the way to the goal.
        feedback: True judges candidates as they are executed: with one tracking step on D_a F for each action, towards
            the members' common prediction. False judges the bare actions.
        damping: damping of that tracking step.
        disagreement: weight of the members' mean disagreement [tolerances per state unit].

    Raises:
        ValueError: if a number is out of range.
    """

    hold: int = 6
    accept: float = 0.6
    running: float = 0.1
    off_support: float = 10.0
    feedback: bool = True
    damping: float = 0.01
    disagreement: float = 0.0

    def __post_init__(self) -> None:
        if self.hold < 1:
            raise ValueError(f"hold: expected at least 1, got {self.hold}")
        for name in ("running", "off_support", "damping", "disagreement"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a finite number of at least 0, got {getattr(self, name)}")


class Verdict(NamedTuple):
    """What `Problem.score` says of candidates."""

    cost: Tensor
    """`[B, N]`, lower is better; infinite where the model's answer is not finite."""
    accepted: Tensor
    """`[B, N]`, True where the candidate is good enough to stop searching."""
    states: Tensor
    """`[B, N, H, S]`, predicted states after each action, the mean over the members."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """B planning problems that share a model.

    Letters: B problems, N candidates, H horizon, S state, A action, K ensemble members.

    Attributes:
        dynamics: one-step dynamics of the K members.
        goal: the goals of the B problems.
        start: `[B, S]` start states.
        low: `[A]` lower bounds of the actions.
        high: `[A]` upper bounds of the actions.
        horizon: number of actions in a plan.
        members: K, how many members `dynamics` evaluates.
        action_jacobian: the model's own derivative by the action; None lets torch compute it.
        jacobian: the model's own derivative by state and action; None lets torch compute it.
        support: region of states that the model knows, if it is known.
        roadmap: graph over replayed states, if there is one (see `grasp_agent.planners.roadmap`).
        criteria: how candidates are judged.

    Raises:
        ValueError: if shapes, bounds or horizon do not fit.
    """

    dynamics: Dynamics
    goal: Goal
    start: Tensor
    low: Tensor
    high: Tensor
    horizon: int
    members: int = 1
    action_jacobian: Jacobian | None = None
    jacobian: Jacobian | None = None
    support: Support | None = None
    roadmap: RoadmapGraph | None = None
    criteria: Criteria = field(default_factory=Criteria)

    def __post_init__(self) -> None:
        if self.start.ndim != 2:
            raise ValueError(f"start: expected shape [B, S], got {list(self.start.shape)}")
        if self.low.ndim != 1 or self.low.shape != self.high.shape:
            raise ValueError(
                f"low, high: expected one shape [A], got {list(self.low.shape)} and {list(self.high.shape)}"
            )
        if not bool((self.low < self.high).all() and self.low.isfinite().all() and self.high.isfinite().all()):
            raise ValueError("low, high: expected finite bounds with low < high")
        if self.horizon < 1:
            raise ValueError(f"horizon: expected at least 1, got {self.horizon}")

    @property
    def size(self) -> int:
        """B, the number of problems."""
        return self.start.shape[0]

    @property
    def rest(self) -> Tensor:
        """`[A]`, the middle of the bounds: zero for symmetric actions."""
        return (self.low + self.high) / 2

    def clamp(self, actions: Tensor) -> Tensor:
        """Actions `[..., A]` projected into the bounds."""
        return torch.minimum(torch.maximum(actions, self.low), self.high)

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """One step of each candidate under its own member: `[B, N, ..., S], [B, N, ..., A] -> [B, N, ..., S]`.

        Candidate n is stepped by member n % K. Where N is not a multiple of K, each is stepped by the members' mean.
        """
        fold = _Fold.of(states, self.members)
        return fold.back(self.dynamics(fold.rows(states), fold.rows(actions)))

    def linearise(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """As `step`, with the derivative by the action: `[B, N, ..., S]` and `[B, N, ..., S, A]`.

        The derivative by the state is not formed.
        """
        fold = _Fold.of(states, self.members)
        jacobian = self.action_jacobian or self._generic_jacobian
        following, slopes = jacobian(fold.rows(states), fold.rows(actions))
        return fold.back(following), fold.back(slopes)

    def jacobians(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives of `step` by the state, `[B, N, ..., S, S]`, and by the action, `[B, N, ..., S, A]`.

        For serial planners that follow true rollouts; the lifted iteration never calls it.
        """
        fold = _Fold.of(states, self.members)
        jacobian = self.jacobian or self._generic_full_jacobian
        slopes = fold.back(jacobian(fold.rows(states), fold.rows(actions))[1])
        return slopes[..., : states.shape[-1]], slopes[..., states.shape[-1] :]

    def follow(self, actions: Tensor) -> Tensor:
        """Rollout of each candidate under its own member: `[B, N, H, A] -> [B, N, H, S]`."""
        state = self.start[:, None].expand(-1, actions.shape[1], -1)
        states = []
        for t in range(actions.shape[2]):
            state = self.step(state, actions[:, :, t])
            states.append(state)
        return torch.stack(states, dim=2)

    def rollout(self, actions: Tensor) -> Tensor:
        """Rollout of each candidate under ALL members: `[B, N, H, A] -> [K, B, N, H, S]`."""
        rows = actions.flatten(0, 1).expand(self.members, -1, -1, -1)
        state = self.start[:, None].expand(-1, actions.shape[1], -1).flatten(0, 1).expand(self.members, -1, -1)
        states = []
        for t in range(actions.shape[2]):
            action = rows[:, :, t]
            if self.criteria.feedback and self.members > 1:
                action = self._fed_back(state, action)
            state = self.dynamics(state, action)
            states.append(state)
        return torch.stack(states, dim=2).unflatten(1, actions.shape[:2])

    def _fed_back(self, state: Tensor, action: Tensor) -> Tensor:
        """Actions `[K, M, A]` corrected so that every member comes to where the members meet on average."""
        jacobian = self.action_jacobian or self._generic_jacobian
        predicted, slopes = jacobian(state, action)
        return self.clamp(action - least_squares(slopes, predicted - predicted.mean(0), self.criteria.damping))

    def distance(self, states: Tensor) -> Tensor:
        """Distance to the goal in units of its tolerance, `[..., B, N, H, S] -> [..., B, N, H]`."""
        return self.goal.cost(states).clamp_min(0).sqrt() / self.goal.tolerance

    def own_cost(self, states: Tensor) -> Tensor:
        """Cost of rollouts `[B, N, H, S]` under the candidates' own members alone, `[B, N]`."""
        distance = self.distance(states)
        cost = distance[..., -self.criteria.hold :].amax(-1) + self.criteria.running * distance.mean(-1)
        return torch.where(cost.isfinite(), cost, torch.inf)

    def score(self, actions: Tensor) -> Verdict:
        """Judges candidates `[B, N, H, A]` by their rollouts under all members; the worst member counts."""
        rule = self.criteria
        rollouts = self.rollout(actions)
        distance = self.distance(rollouts)
        worst = distance[..., -rule.hold :].amax(-1)
        if self.support is not None:
            # Standing at a goal that was never visited is no detour: only the way there counts.
            strays = self.support.off(rollouts) & (distance > 1)
            worst = worst + rule.off_support * strays.to(worst.dtype).mean(-1)
        cost = worst + rule.running * distance.mean(-1)
        if rule.disagreement:
            cost = cost + rule.disagreement * self.disagreement(rollouts).mean(-1)
        finite = rollouts.isfinite().all(-1).all(-1).all(0)
        cost = torch.where(finite, cost.amax(0), torch.inf)
        return Verdict(cost, finite & (worst.amax(0) <= rule.accept), rollouts.mean(0))

    def disagreement(self, rollouts: Tensor) -> Tensor:
        """The greatest distance of a member's state from the members' mean, `[K, B, N, H, S] -> [B, N, H]`."""
        return (rollouts - rollouts.mean(0)).norm(dim=-1).amax(0)

    def _generic_jacobian(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        return _derivative(lambda a: self.dynamics(states, a), actions)

    def _generic_full_jacobian(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        size = states.shape[-1]
        rows = torch.cat([states, actions], dim=-1)
        return _derivative(lambda x: self.dynamics(x[..., :size], x[..., size:]), rows)


def _derivative(function: Callable[[Tensor], Tensor], inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Values `[..., S]` and derivative `[..., S, I]` of a function of rows `[..., I]`: one call, S batched products."""
    leaf = inputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        values = function(leaf)
        basis = torch.eye(values.shape[-1], dtype=values.dtype, device=values.device)
        basis = basis.view(-1, *[1] * (values.ndim - 1), values.shape[-1]).expand(-1, *values.shape)
        (slopes,) = torch.autograd.grad(values, leaf, basis, is_grads_batched=True)
    return values.detach(), slopes.movedim(0, -2)


class _Fold(NamedTuple):
    """How candidates `[B, N, ...]` are laid out as the rows `[K, M]` of an ensemble."""

    shape: tuple[int, ...]
    members: int
    shared: bool

    @staticmethod
    def of(states: Tensor, members: int) -> _Fold:
        return _Fold(tuple(states.shape[:-1]), members, states.shape[1] % members != 0)

    def rows(self, values: Tensor) -> Tensor:
        if self.members == 1:
            return values.reshape(1, -1, values.shape[-1])
        if self.shared:
            return values.reshape(1, -1, values.shape[-1]).expand(self.members, -1, -1)
        return values.unflatten(1, (-1, self.members)).movedim(2, 0).flatten(1, -2)

    def back(self, rows: Tensor) -> Tensor:
        rest = rows.shape[2:]
        if self.members == 1 or self.shared:
            return rows.mean(0).view(*self.shape, *rest)
        batch, count, *inner = self.shape
        return rows.view(self.members, batch, count // self.members, *inner, *rest).movedim(0, 2).flatten(1, 2)
