"""Interfaces between planners, models and tasks: tensors only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from grasp_agent.planners.refusals import Refusals

_STILL = 0.02  # part of an object's greatest step up to which it counts as at rest; chosen by hand

Dynamics = Callable[[Tensor, Tensor], Tensor]
"""`(state [k, M, S], action [k, M, A]) -> next state [k, M, S]`, k <= K: the first k members step M rows each."""


Jacobian = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`Dynamics` and the derivative of the next state, by the action `[k, M, S, A]` or by all `[k, M, S, S + A]`."""


Pullback = Callable[[Tensor, Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]]
"""`Dynamics` and the vector-Jacobian product by the action, a function from `[k, M, S]` to `[k, M, A]`."""


class Goal(Protocol):
    """The interface of goals; the leading axes of `states` start with the problems, `[B, ...]`.

    A goal has G parts, one for each block of a factored problem (several balls, several arms), else one.
    """

    @property
    def tolerance(self) -> float:
        """Distance at which a part counts as reached, in the units of `sqrt(parts)`."""
        ...

    def parts(self, states: Tensor) -> Tensor:
        """Returns squared distances of the parts, `[..., B, N, H, S] -> [..., B, N, H, G]`; zero at the goal."""
        ...

    def cost(self, states: Tensor) -> Tensor:
        """Returns the sum of the parts, `[..., B, N, H, S] -> [..., B, N, H]`; differentiable."""
        ...

    def gradient(self, states: Tensor) -> Tensor:
        """Returns the derivative of `cost`, `[..., B, N, H, S] -> [..., B, N, H, S]`."""
        ...

    def curvature(self, states: Tensor) -> Tensor:
        """Returns the positive semi-definite Hessian of `cost`, `[..., B, N, H, S] -> [..., B, N, H, S, S]`."""
        ...

    def project(self, states: Tensor) -> Tensor:
        """Returns the nearest states at the goal, `[..., B, N, H, S] -> [..., B, N, H, S]`."""
        ...


class Block(NamedTuple):
    """Entries of state and action that are independent of all others, such as one ball of several."""

    states: tuple[int, ...]
    """Entries of the state."""
    actions: tuple[int, ...]
    """Entries of the action."""


class Region(Protocol):
    """The region of states that a model was trained on."""

    def off(self, states: Tensor) -> Tensor:
        """Returns whether parts of states `[..., S]` are outside the region, `[..., G]`; G is 1 without blocks."""
        ...

    def nearest(self, states: Tensor) -> Tensor:
        """Returns the nearest of the states that cover the region, `[..., S] -> [..., S]`, for each part."""
        ...


class History(NamedTuple):
    """What a model with a memory of h steps sees beside the present state and action."""

    states: Tensor
    """`[B, h - 1, S]`, the states before the present one."""
    actions: Tensor
    """`[B, h - 1, A]`, the actions that were taken in them."""


class Recording(NamedTuple):
    """Recorded trajectories, one after the other; row i of each array belongs to the same moment."""

    states: Tensor
    """`[M, S]`."""
    actions: Tensor
    """`[M, A]`, the action taken there; zeros where `left` is 0."""
    left: Tensor
    """`[M]`, actions that can be taken one after the other from here before the trajectory ends."""
    stride: int
    """Rows from the state before an action to the one after it."""

    def begins(self, history: int) -> Tensor:
        """Returns the rows `[m]` with an action after them and `history - 1` actions before them."""
        before = (history - 1) * self.stride
        rows = (self.left > 0).nonzero()[:, 0]
        rows = rows[rows >= before]
        return rows[self.left[rows - before] == self.left[rows] + history - 1]

    def contexts(self, rows: Tensor, history: int) -> Tensor:
        """Returns the contexts `[m, h S + (h - 1) A]` at rows `[m]` of `begins`, see `Problem.history`."""
        times = rows[:, None] + self.stride * torch.arange(1 - history, 1, device=rows.device)
        return torch.cat([self.states[times].flatten(1), self.actions[times[:, :-1]].flatten(1)], 1)


class ReplayWindows(NamedTuple):
    """M windows of trajectories, of T steps each."""

    states: Tensor
    """`[M, T + 1, S]`."""
    actions: Tensor
    """`[M, T, A]`."""

    def moves(self, entries: Sequence[int]) -> Tensor:
        """Returns in which steps these entries move, more than by noise, `[M, T]`."""
        steps = self.states[..., list(entries)].diff(dim=1).norm(dim=-1)
        return steps > _STILL * steps.max()


class Metric(Protocol):
    """A distance from states to targets that is made of embeddings of both."""

    def embedded(self, states: Tensor) -> Tensor:
        """Returns the embeddings `[M, E]` of states `[M, S]`."""
        ...

    def pairwise(self, embedded: Tensor, targets: Tensor) -> Tensor:
        """Returns distances `[M, N]` of embeddings `[M, E]` to those of targets `[N, E]` [steps]."""
        ...


Aim = Callable[[Tensor], Tensor]
"""The target `[..., M, S]` of states `[..., M, S]`, which depends on them if only some entries are named."""


class Driver(Protocol):
    """A local controller that drives a model from a state to a target nearby."""

    @property
    def tolerance(self) -> float:
        """Distance at which the target counts as reached [state units]."""
        ...

    def __call__(self, start: Tensor, aim: Aim, *, each: int = 1, far: bool = False) -> Tensor:
        """Returns the steps `[M * each]` to the targets; infinite if a member of the model does not reach one.

        Args:
            start: `[M, S]`, start states.
            aim: the targets of states `[..., M * each, S]`.
            each: number of targets of each start; those of one start are consecutive.
            far: whether to take more steps than for neighbours.
        """
        ...

    def distance(self, start: Tensor, target: Tensor) -> Tensor:
        """Returns a distance from states to targets, `[..., S], [..., S] -> [...]`, of which only the order matters."""
        ...

    def has_clearance(self, states: Tensor) -> Tensor:
        """Returns whether no obstacle hinders actions in states `[M, S]`, `[M]`."""
        ...

    def trace(self, points: Tensor, times: Tensor, horizon: int) -> Tensor:
        """Returns states `[B, R, H, S]` at steps 1 .. H along points `[B, R, W, S]` at `times` `[B, R, W]`."""
        ...

    def settle(self, states: Tensor) -> Tensor:
        """Returns states `[..., S]` at rest: entries that no goal names, such as velocities, are changed."""
        ...


class Router(Protocol):
    """Finds routes through replayed states."""

    @property
    def connected(self) -> float:
        """Fraction of ordered node pairs that are joined by a route."""
        ...

    def paths(
        self, start: Tensor, aim: Aim, count: int, horizon: int, stretch: float, refusals: Refusals | None = None
    ) -> Tensor:
        """Returns routes to the goal as states at steps 1 .. H, `[B, count, H, S]`; not finite if there is none.

        Args:
            start: `[B, S]`.
            aim: the goal.
            count: number of routes for each problem, different ones as far as possible.
            horizon: H.
            stretch: factor on the roadmap's travel times.
            refusals: steps that the environment refused, which routes avoid.
        """
        ...

    def ahead(
        self, start: Tensor, aim: Aim, horizon: int, stretch: float, refusals: Refusals | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the state at step H of the best route `[B, S]` where it is longer than that, else the goal.

        Returns:
            These states, and whether the goal is farther, `[B]`.
        """
        ...

    def settle(self, states: Tensor) -> Tensor:
        """Returns states `[..., S]` at rest: entries that no goal names, such as velocities, are changed."""
        ...
