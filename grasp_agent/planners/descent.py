"""How the lifted variables move: gradient steps, Adam, or Gauss-Newton steps of the actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from grasp_agent.planners.least_squares import least_squares
from grasp_agent.planners.problem import Problem


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
        if not self.lr > 0:
            raise ValueError(f"lr: expected more than 0, got {self.lr}")

    def start(self, values: Tensor) -> None:
        """No memory."""

    def apply(self, values: Tensor, gradient: Tensor, memory: Moments | None) -> tuple[Tensor, None]:
        """One gradient step."""
        return values - self.lr * gradient, None


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980).

    Attributes:
        lr: step size.
        beta1: decay of the gradient's average.
        beta2: decay of the squared gradient's average.

    Raises:
        ValueError: if the step size is not positive.
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"lr: expected more than 0, got {self.lr}")

    def start(self, values: Tensor) -> Moments:
        """Zero averages."""
        return Moments(torch.zeros_like(values), torch.zeros_like(values), 0)

    def apply(self, values: Tensor, gradient: Tensor, memory: Moments | None) -> tuple[Tensor, Moments]:
        """One Adam step."""
        first, second, steps = memory or self.start(values)
        steps += 1
        first = torch.lerp(gradient, first, self.beta1)
        second = torch.lerp(gradient.square(), second, self.beta2)
        step = first / (1 - self.beta1**steps) / ((second / (1 - self.beta2**steps)).sqrt() + 1e-8)
        return values - self.lr * step, Moments(first, second, steps)


class ActionUpdate(Protocol):
    """One move of the actions in the lifted problem; sees D_a F only, never the derivative by the state."""

    def start(self, actions: Tensor) -> Moments | None:
        """Fresh memory."""
        ...

    def apply(
        self,
        problem: Problem,
        previous: Tensor,
        states: Tensor,
        actions: Tensor,
        goal_weight: float,
        memory: Moments | None,
    ) -> tuple[Tensor, Tensor, Moments | None]:
        """Predicted states `[B, N, H, S]`, moved actions and memory, from ONE batched model call.

        Args:
            problem: the problem.
            previous: `[B, N, H, S]`, the virtual states that the actions start from, without gradient.
            states: `[B, N, H, S]`, the virtual states that they should lead to.
            actions: `[B, N, H, A]`.
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
        self,
        problem: Problem,
        previous: Tensor,
        states: Tensor,
        actions: Tensor,
        goal_weight: float,
        memory: Moments | None,
    ) -> tuple[Tensor, Tensor, Moments | None]:
        """See `ActionUpdate.apply`."""
        leaf = actions.detach().requires_grad_()
        with torch.enable_grad():
            predicted = problem.step(previous, leaf)
            # sum_t |F(s_t, a_t) - s_{t+1}|^2 + gamma sum_t |F(s_t, a_t) - g|^2, s_t without gradient (eq. 10).
            loss = (predicted - states).square().sum() + goal_weight * problem.goal.cost(predicted).sum()
            (gradient,) = torch.autograd.grad(loss, leaf)
        actions, memory = self.optimiser.apply(actions, gradient, memory)
        return predicted.detach(), actions, memory


@dataclass(frozen=True, kw_only=True)
class GaussNewton:
    """Solves each time step's small least-squares problem in its action, from A Jacobian-vector products.

    Attributes:
        damping: Levenberg-Marquardt damping relative to the mean curvature.
    """

    damping: float = 0.01

    def start(self, actions: Tensor) -> None:
        """No memory."""

    def apply(
        self,
        problem: Problem,
        previous: Tensor,
        states: Tensor,
        actions: Tensor,
        goal_weight: float,
        memory: Moments | None,
    ) -> tuple[Tensor, Tensor, None]:
        """See `ActionUpdate.apply`; the goal term has weight 1 for each named entry, and its curvature is left out."""
        predicted, slopes = problem.linearise(previous, actions)
        residual = predicted - states
        if goal_weight:
            residual = residual + goal_weight * (predicted - problem.goal.project(predicted))
        return predicted, actions - least_squares(slopes, residual, self.damping), None
