"""Objectives other than goals: what a plan is worth, such as the return of rewards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

import torch
from torch import Tensor

from grasp_agent.validation import at_least, fraction

StepFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(state [..., S], action [..., A], next state [..., S]) -> [...]`, a number for each step of a plan."""


class Objective(Protocol):
    """What plans are worth; it takes the place of a goal, see `Problem.objective`."""

    def cost(self, start: Tensor, rollouts: Tensor, actions: Tensor) -> Tensor:
        """Returns the cost `[B, N]` of candidates, lower is better; differentiable where planners use gradients.

        Args:
            start: `[B, S]`, start states.
            rollouts: `[K, B, N, H, S]`, predicted states after each action under all members.
            actions: `[B, N, H, A]`.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Return:
    """The discounted return of a plan, under all members of the model.

    The cost is `-(mean - pessimism * std)` of the members' returns: with the mean alone, or under a single member each,
    a search finds the plans that the model is wrong about (Chua et al. 2018, arXiv 1805.12114, average over members).
    With a value, every state of a plan may be its end: the return is the mean over all ends, weighted as in TD(lambda)
    (Sutton 1988): the end after h of H steps by (1 - decay) decay^(h - 1), the last one by decay^(H - 1). Late states,
    where predictions are worst and open-loop plans of unstable systems fall, count less than with the last end alone.

    Attributes:
        reward: of each step.
        ends: probability that the episode ends with a step, which no rewards follow then; None for never.
        value: what a state is worth, `[..., S] -> [...]`; None for nothing.
        discount: of a step.
        decay: lambda, in [0, 1]; 1 takes the last end alone.
        pessimism: weight of the standard deviation over members.

    Raises:
        ValueError: if a number is out of range.
    """

    reward: StepFunction
    ends: StepFunction | None = None
    value: Callable[[Tensor], Tensor] | None = None
    discount: float = 0.99
    decay: float = 1.0
    pessimism: float = 0.5

    def __post_init__(self) -> None:
        fraction(discount=self.discount, decay=self.decay)
        at_least(0, pessimism=self.pessimism)

    def cost(self, start: Tensor, rollouts: Tensor, actions: Tensor) -> Tensor:
        """See `Objective.cost`."""
        returns = self.returns(start, rollouts, actions)
        if len(returns) == 1:
            return -returns[0]
        return self.pessimism * returns.std(0, correction=0) - returns.mean(0)

    def returns(self, start: Tensor, rollouts: Tensor, actions: Tensor) -> Tensor:
        """Returns the discounted returns `[K, B, N]` under each member; see `cost`."""
        first = start[:, None, None].expand(*rollouts.shape[:3], 1, -1)
        step = torch.cat([first, rollouts[..., :-1, :]], -2), actions.expand(len(rollouts), *actions.shape), rollouts
        horizon = rollouts.shape[-2]
        weights = self.discount ** torch.arange(horizon + 1, dtype=rollouts.dtype, device=rollouts.device)
        if self.ends is not None:
            alive = (1 - self.ends(*step)).cumprod(-1)
            weights = torch.cat([torch.ones_like(alive[..., :1]), alive], -1) * weights
        gained = self.reward(*step) * weights[..., :-1]
        if self.value is None:
            return gained.sum(-1)
        if self.decay == 1:  # no other value has to be asked for
            return gained.sum(-1) + self.value(rollouts[..., -1, :]) * weights[..., -1]
        totals = gained.cumsum(-1) + self.value(rollouts) * weights[..., 1:]
        shares = self.decay ** torch.arange(horizon, dtype=totals.dtype, device=totals.device)
        shares[:-1] *= 1 - self.decay
        return totals @ shares


class NoGoal:
    """In the place of a goal where a problem has an objective: planners that ask for a goal are refused."""

    def _refused(self, *_: object) -> NoReturn:
        raise ValueError(
            "planner: expected one that plans for rewards, as there is no goal; CEM, ICEM, MPPI and GradientShooting do"
        )

    tolerance = property(_refused)
    parts = cost = gradient = curvature = project = _refused
