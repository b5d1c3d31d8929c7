"""Interfaces between planners, models and tasks: tensors only."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor

Dynamics = Callable[[Tensor, Tensor], Tensor]
"""`(state [k, M, S], action [k, M, A]) -> next state [k, M, S]`, k <= K: the first k members step M rows each."""


Jacobian = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""As `Dynamics`, with the derivative of the next state: by the action `[k, M, S, A]`, or by all `[k, M, S, S + A]`."""


Pullback = Callable[[Tensor, Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]]
"""As `Dynamics`, with the product of a row vector `[k, M, S]` and D_a F, a function to `[k, M, A]`."""


class Goal(Protocol):
    """What a planner asks of a goal; the leading axes of `states` start with the problems, `[B, ...]`.

    A goal has G parts, one for each block of a problem that falls apart (several balls, several arms), else one.
    """

    @property
    def tolerance(self) -> float:
        """Distance at which a part counts as reached, in the units of `sqrt(parts)`."""
        ...

    def parts(self, states: Tensor) -> Tensor:
        """Squared distance of each part to the goal, `[..., B, N, H, S] -> [..., B, N, H, G]`; zero at the goal."""
        ...

    def cost(self, states: Tensor) -> Tensor:
        """Sum of the parts, `[..., B, N, H, S] -> [..., B, N, H]`; differentiable."""
        ...

    def gradient(self, states: Tensor) -> Tensor:
        """Derivative of `cost`, `[..., B, N, H, S] -> [..., B, N, H, S]`."""
        ...

    def curvature(self, states: Tensor) -> Tensor:
        """Second derivative of `cost`, `[..., B, N, H, S] -> [..., B, N, H, S, S]`, positive semi-definite."""
        ...

    def project(self, states: Tensor) -> Tensor:
        """The nearest states that are at the goal, `[..., B, N, H, S] -> [..., B, N, H, S]`."""
        ...


class Block(NamedTuple):
    """Entries of state and action that move independently of all others: one ball of several."""

    states: tuple[int, ...]
    """Entries of the state."""
    actions: tuple[int, ...]
    """Entries of the action."""


class Region(Protocol):
    """The states that a model has seen."""

    def off(self, states: Tensor) -> Tensor:
        """True where a part of a state `[..., S]` is unlike all that was seen, `[..., G]`; G is 1 without blocks."""
        ...

    def nearest(self, states: Tensor) -> Tensor:
        """The nearest of the seen states that cover the region, `[..., S] -> [..., S]`, part by part."""
        ...


class ReplayWindows(NamedTuple):
    """M pieces of T steps each."""

    states: Tensor
    """`[M, T + 1, S]`."""
    actions: Tensor
    """`[M, T, A]`."""


Aim = Callable[[Tensor], Tensor]
"""The target `[..., M, S]` that belongs to states `[..., M, S]`: depends on them where only some entries are named."""


class Driver(Protocol):
    """Drives a model from a state to one nearby."""

    @property
    def tolerance(self) -> float:
        """Distance at which the target counts as reached [state units]."""
        ...

    def __call__(self, start: Tensor, aim: Aim, *, each: int = 1, far: bool = False) -> Tensor:
        """Steps `[M * each]` from `start` `[M, S]` until a state x meets `aim(x)`; infinite where a member misses it.

        Args:
            start: where to start.
            aim: where to go, for states `[..., M * each, S]`.
            each: targets of each start; those of one start follow each other.
            far: whether to go on for as long as can be.
        """
        ...

    def distance(self, start: Tensor, target: Tensor) -> Tensor:
        """How far targets are from states, `[..., S], [..., S] -> [...]`: only its order matters."""
        ...

    def has_clearance(self, states: Tensor) -> Tensor:
        """Whether there is room around states `[M, S]`, `[M]`: nothing hinders pushes."""
        ...

    def trace(self, points: Tensor, times: Tensor, horizon: int) -> Tensor:
        """States at steps 1 .. H on the way through points `[B, R, W, S]` at `times` `[B, R, W]`, `[B, R, H, S]`."""
        ...

    def settle(self, states: Tensor) -> Tensor:
        """The same states `[..., S]`, entries that no goal names changed so that they can stay."""
        ...


class Router(Protocol):
    """Finds ways through replayed states."""

    @property
    def connected(self) -> float:
        """Share of ordered node pairs that are joined by a route."""
        ...

    def paths(self, start: Tensor, aim: Aim, count: int, horizon: int, stretch: float) -> Tensor:
        """Ways from start to goal as states at steps 1 .. H, `[B, count, H, S]`; not finite where there is none.

        Args:
            start: `[B, S]`.
            aim: the goal.
            count: ways for each problem, which differ as far as there are different ones.
            horizon: H.
            stretch: each is driven this much slower than the roadmap says.
        """
        ...

    def settle(self, states: Tensor) -> Tensor:
        """The same states `[..., S]`, entries that no goal names changed so that they can stay."""
        ...
