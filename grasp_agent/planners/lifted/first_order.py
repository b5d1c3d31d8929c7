"""Updates of the lifted variables: gradient steps, Adam, or Gauss-Newton steps of the actions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.linalg.least_squares import least_squares
from grasp_agent.planners.problem import Problem
from grasp_agent.validation import at_least, fraction, more_than


class Moments(NamedTuple):
    """Adam's running averages."""

    first: Tensor
    """Of the gradient."""
    second: Tensor
    """Of the squared gradient."""
    steps: Tensor
    """Number of steps, a scalar on the values' device."""


class Optimiser(Protocol):
    """A first-order optimiser of one tensor, with separate memory."""

    def start(self, values: Tensor) -> Moments | None:
        """Returns the initial memory."""
        ...

    def apply(self, values: Tensor, gradient: Tensor, memory: Moments | None) -> tuple[Tensor, Moments | None]:
        """Returns the updated values and memory."""
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
        """See `Optimiser.start`: there is no memory."""

    def apply(self, values: Tensor, gradient: Tensor, memory: Moments | None) -> tuple[Tensor, None]:
        """See `Optimiser.apply`."""
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
        """See `Optimiser.start`: zero averages."""
        zero = torch.zeros_like(values, memory_format=torch.contiguous_format)
        return Moments(zero, zero, torch.zeros((), dtype=torch.float32, device=values.device))

    def apply(self, values: Tensor, gradient: Tensor, memory: Moments | None) -> tuple[Tensor, Moments]:
        """See `Optimiser.apply`."""
        first, second, steps = memory or self.start(values)
        moved, first, second = values.clone(memory_format=torch.contiguous_format), first.clone(), second.clone()
        steps = steps + 1
        # The kernel of `torch.optim.Adam(fused=True)`, without its parameters with state: one pass instead of six.
        torch.ops.aten._fused_adam_.default(
            [moved],
            [gradient.contiguous()],
            [first],
            [second],
            [],
            [steps],
            lr=self.lr,
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )
        return moved, Moments(first, second, steps)


class ActionUpdate(Protocol):
    """An update of the actions in the lifted problem, by D_a F only, never by the derivative by the state."""

    def start(self, actions: Tensor) -> Moments | None:
        """Returns the initial memory."""
        ...

    def apply(
        self, problem: Problem, candidates: Candidates, goal_weight: float, memory: Moments | None
    ) -> tuple[Tensor, Tensor, Moments | None]:
        """Returns gaps F(s_t, a_t) - s_{t+1} `[B, N, H, S]`, updated actions and memory, from ONE batched model call.

        Args:
            problem: the problem.
            candidates: actions, and virtual states, which are both the states before them and their targets.
            goal_weight: gamma, the weight of the dense goal term.
            memory: what `start` or the last call returned.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """Gradient steps of the actions on the published loss (GRASP eq. 10), by one vector-Jacobian product.

    Attributes:
        optimiser: optimiser of the actions.
    """

    needs_gradients: ClassVar[bool] = True

    optimiser: Descent | Adam

    def start(self, actions: Tensor) -> Moments | None:
        """See `ActionUpdate.start`."""
        return self.optimiser.start(actions)

    def apply(
        self, problem: Problem, candidates: Candidates, goal_weight: float, memory: Moments | None
    ) -> tuple[Tensor, Tensor, Moments | None]:
        """See `ActionUpdate.apply`."""
        states, actions = candidates.pair
        predicted, pull = problem.pullback(states, actions)
        # sum_t |F(s_t, a_t) - s_{t+1}|^2 + gamma sum_t |F(s_t, a_t) - g|^2, s_t without gradient (eq. 10).
        gaps = predicted - states
        cotangent = 2 * gaps
        if goal_weight:
            cotangent.add_(problem.goal.gradient(predicted), alpha=goal_weight)
        actions, memory = self.optimiser.apply(actions, pull(cotangent), memory)
        return gaps, actions, memory


@dataclass(frozen=True, kw_only=True)
class GaussNewton:
    """Gauss-Newton steps: solves a small least-squares problem in the action of each time step.

    It needs A Jacobian-vector products.

    Attributes:
        damping: Levenberg-Marquardt damping relative to the mean curvature.
    """

    needs_gradients: ClassVar[bool] = True

    damping: float = 0.01

    def __post_init__(self) -> None:
        at_least(0, damping=self.damping)

    def start(self, actions: Tensor) -> None:
        """See `ActionUpdate.start`: there is no memory."""

    def apply(
        self, problem: Problem, candidates: Candidates, goal_weight: float, memory: Moments | None
    ) -> tuple[Tensor, Tensor, None]:
        """See `ActionUpdate.apply`; the goal term has weight 1 for each named entry, and no curvature."""
        states, actions = candidates.pair
        predicted, slopes = problem.ensemble.linearise(problem.contexts(states, actions), actions)
        gaps = residual = predicted - states
        if goal_weight:
            residual = gaps + goal_weight * (predicted - problem.goal.project(predicted))
        return gaps, actions - least_squares(slopes, residual, self.damping), None


class RelaxationMemory(NamedTuple):
    """The memory of the optimisers of states and actions."""

    states: Moments | None
    """Memory of the states' optimiser."""
    actions: Moments | None
    """Memory of the actions' update."""


@dataclass(frozen=True, kw_only=True)
class Relaxation:
    """The published lifted step (eq. 10): states move to their predictions, predictions to the states and the goal.

    Attributes:
        states: optimiser of the virtual states.
        actions: update of the actions.
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
        """See `Update.start`."""
        return RelaxationMemory(self.states.start(candidates.states), self.actions.start(candidates.actions))

    def apply(
        self, problem: Problem, candidates: Candidates, memory: RelaxationMemory, phase: float
    ) -> tuple[Candidates, RelaxationMemory]:
        """See `Update.apply`."""
        goal_weight = self.goal_weight * (phase if self.anneal else 1.0)
        gaps, actions, action_memory = self.actions.apply(problem, candidates, goal_weight, memory.actions)
        # Without a gradient to s_t, |F(s_t, a_t) - s_{t+1}|^2 only moves s_{t+1} to its prediction.
        states, state_memory = self.states.apply(candidates.states, -2 * gaps, memory.states)
        return Candidates(states, actions), RelaxationMemory(state_memory, action_memory)
