"""How the lifted variables move: gradient steps, Adam, or Gauss-Newton steps of the actions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.linalg.least_squares import least_squares
from grasp_agent.planners.problem import Problem
from grasp_agent.validation import at_least, fraction, more_than


class Moments(NamedTuple):
    """Adam's running averages; empty for methods without memory."""

    first: Tensor
    second: Tensor
    steps: int


class Optimiser(Protocol):
    """A first-order method on one tensor, its memory outside."""

    def start(self, values: Tensor) -> Moments | None:
        """Fresh memory."""
        ...

    def apply(self, values: Tensor, gradient: Tensor, memory: Moments | None) -> tuple[Tensor, Moments | None]:
        """The moved values and the memory after it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Descent:
    """Plain gradient descent.

    Attributes:
        lr: step size.

    Raises:
        ValueError: if it is not positive.
    """

    lr: float

    def __post_init__(self) -> None:
        more_than(0, lr=self.lr)

    def start(self, values: Tensor) -> None:
        """No memory."""

    def apply(self, values: Tensor, gradient: Tensor, memory: Moments | None) -> tuple[Tensor, None]:
        """One gradient step."""
        return torch.sub(values, gradient, alpha=self.lr), None


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980).

    Attributes:
        lr: step size.
        beta1: decay of the gradient's average.
        beta2: decay of the squared gradient's average.

    Raises:
        ValueError: if a number is out of range.
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999

    def __post_init__(self) -> None:
        more_than(0, lr=self.lr)
        fraction(beta1=self.beta1, beta2=self.beta2)

    def start(self, values: Tensor) -> Moments:
        """Zero averages."""
        return Moments(torch.zeros_like(values), torch.zeros_like(values), 0)

    def apply(self, values: Tensor, gradient: Tensor, memory: Moments | None) -> tuple[Tensor, Moments]:
        """One Adam step."""
        first, second, steps = memory or self.start(values)
        steps += 1
        first = torch.lerp(gradient, first, self.beta1)
        second = torch.addcmul(self.beta2 * second, gradient, gradient, value=1 - self.beta2)
        # Both averages' corrections for their start at zero are in the step size (there, end of section 2).
        spread = (1 - self.beta2**steps) ** 0.5
        root = second.sqrt().add_(1e-8 * spread)
        moved = torch.addcdiv(values, first, root, value=-self.lr * spread / (1 - self.beta1**steps))
        return moved, Moments(first, second, steps)


class ActionUpdate(Protocol):
    """One move of the actions in the lifted problem; sees D_a F only, never the derivative by the state."""

    def start(self, actions: Tensor) -> Moments | None:
        """Fresh memory."""
        ...

    def apply(
        self, problem: Problem, candidates: Candidates, goal_weight: float, memory: Moments | None
    ) -> tuple[Tensor, Tensor, Moments | None]:
        """Predicted states `[B, N, H, S]`, moved actions and memory, from ONE batched model call.

        Args:
            problem: the problem.
            candidates: virtual states, which are where the actions start from and where they should lead to.
            goal_weight: gamma, the weight of the dense goal term.
            memory: what `start` or the last call returned.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """Moves actions along the gradient of the published loss (GRASP eq. 10), by one vector-Jacobian product.

    Attributes:
        optimiser: what does the step.
    """

    optimiser: Descent | Adam

    def start(self, actions: Tensor) -> Moments | None:
        """Fresh memory."""
        return self.optimiser.start(actions)

    def apply(
        self, problem: Problem, candidates: Candidates, goal_weight: float, memory: Moments | None
    ) -> tuple[Tensor, Tensor, Moments | None]:
        """See `ActionUpdate.apply`."""
        states, actions = candidates.pair
        predicted, pull = problem.ensemble.pullback(problem.shifted(states), actions)
        # sum_t |F(s_t, a_t) - s_{t+1}|^2 + gamma sum_t |F(s_t, a_t) - g|^2, s_t without gradient (eq. 10).
        cotangent = 2 * (predicted - states)
        if goal_weight:
            cotangent = cotangent.add_(problem.goal.gradient(predicted), alpha=goal_weight)
        actions, memory = self.optimiser.apply(actions, pull(cotangent), memory)
        return predicted, actions, memory


@dataclass(frozen=True, kw_only=True)
class GaussNewton:
    """Solves each time step's small least-squares problem in its action, from A Jacobian-vector products.

    Attributes:
        damping: Levenberg-Marquardt damping relative to the mean curvature.
    """

    damping: float = 0.01

    def __post_init__(self) -> None:
        at_least(0, damping=self.damping)

    def start(self, actions: Tensor) -> None:
        """No memory."""

    def apply(
        self, problem: Problem, candidates: Candidates, goal_weight: float, memory: Moments | None
    ) -> tuple[Tensor, Tensor, None]:
        """See `ActionUpdate.apply`; the goal term has weight 1 for each named entry, and its curvature is left out."""
        states, actions = candidates.pair
        predicted, slopes = problem.ensemble.linearise(problem.shifted(states), actions)
        residual = predicted - states
        if goal_weight:
            residual = residual + goal_weight * (predicted - problem.goal.project(predicted))
        return predicted, actions - least_squares(slopes, residual, self.damping), None


class RelaxationMemory(NamedTuple):
    """What the optimisers of states and actions remember."""

    states: Moments | None
    actions: Moments | None


@dataclass(frozen=True, kw_only=True)
class Relaxation:
    """The published lifted step: states move to their predictions, actions to their states and to the goal (eq. 10).

    Attributes:
        states: how virtual states move along their gradient.
        actions: how actions move.
        goal_weight: gamma, weight of the dense goal term.
        anneal: True lets gamma fall linearly, towards zero, within each phase between two syncs.

    Raises:
        ValueError: if a part is of the wrong kind.
    """

    states: Descent | Adam = Descent(lr=0.25)
    actions: ActionUpdate = field(default_factory=lambda: Gradient(optimiser=Adam(lr=0.05)))
    goal_weight: float = 0.01
    anneal: bool = False

    def __post_init__(self) -> None:
        at_least(0, goal_weight=self.goal_weight)
        for name in ("states", "actions"):
            if not callable(getattr(getattr(self, name), "apply", None)):
                raise ValueError(f"{name}: expected a part with the method apply, got {getattr(self, name)!r}")

    def start(self, candidates: Candidates) -> RelaxationMemory:
        """Fresh memory."""
        return RelaxationMemory(self.states.start(candidates.states), self.actions.start(candidates.actions))

    def apply(
        self, problem: Problem, candidates: Candidates, memory: RelaxationMemory, phase: float
    ) -> tuple[Candidates, RelaxationMemory]:
        """See `Update.apply`."""
        goal_weight = self.goal_weight * (phase if self.anneal else 1.0)
        predicted, actions, action_memory = self.actions.apply(problem, candidates, goal_weight, memory.actions)
        # With s_t free of gradient, |F(s_t, a_t) - s_{t+1}|^2 pulls s_{t+1} to its prediction and nothing else.
        gradient = 2 * (candidates.states - predicted)
        states, state_memory = self.states.apply(candidates.states, gradient, memory.states)
        return Candidates(states, actions), RelaxationMemory(state_memory, action_memory)
