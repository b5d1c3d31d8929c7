"""Gradient shooting: actions are improved by back-propagation through their true rollout, from several starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from grasp_agent.planners.base import Initial, Planner
from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.lifted.first_order import Adam, Descent, Moments
from grasp_agent.planners.noise import Coloured, NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.planners.proposals.initial import Rollout, filled
from grasp_agent.validation import at_least, whole


class ShootingState(NamedTuple):
    """Gradient shooting between two steps."""

    actions: Tensor
    """`[B, N, H, A]`."""
    memory: Moments | None
    """The optimiser's memory."""


@dataclass(frozen=True, kw_only=True)
class GradientShooting(Planner[ShootingState]):
    """Gradient steps on the rollout's distance to the goal, or on another objective.

    `GradientShooting.sync()` is the published sync of GRASP (Psenka et al. 2026, arXiv 2602.00475).

    Attributes:
        initial: initial candidates.
        optimiser: optimiser of the actions.
        hold: number of last steps whose squared distance counts.
        running: weight of the mean squared distance along the trajectory.
    """

    needs_gradients: ClassVar[bool] = True

    candidates: int = 16
    iterations: int = 100
    verify_every: int = 10
    initial: Initial = field(default_factory=Rollout)
    optimiser: Descent | Adam = Adam(lr=0.1)
    hold: int = 6
    running: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(1, hold=self.hold)
        at_least(0, running=self.running)

    @classmethod
    def sync(cls, *, steps: int = 25, lr: float = 0.1) -> GradientShooting:
        """Returns GRASP's published sync: plain gradient steps on the last state's squared distance."""
        return cls(candidates=1, iterations=steps, optimiser=Descent(lr=lr), hold=1, running=0.0)

    @classmethod
    def paper(cls, *, iterations: int = 1000) -> GradientShooting:
        """Returns the published baseline of GRASP: one candidate, SGD with rate 1 on the last state, white noise."""
        initial = Rollout(sigma=0.003, shape=Coloured(beta=0.0))
        return cls(candidates=1, iterations=iterations, initial=initial, optimiser=Descent(lr=1.0), hold=1, running=0.0)

    def init(self, problem: Problem, given: Candidates | None, noise: NoiseSource) -> ShootingState:
        """See `Planner.init`."""
        actions = filled(problem, given, self.candidates, self.initial, noise).actions
        return ShootingState(actions, self.optimiser.start(actions))

    def step(self, problem: Problem, state: ShootingState, noise: NoiseSource) -> ShootingState:
        """See `Planner.step`: one gradient step, projected into the bounds."""
        leaf = state.actions.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(problem.loss(leaf, self.hold, self.running), leaf)
        actions, memory = self.optimiser.apply(state.actions, gradient, state.memory)
        return ShootingState(problem.clamp(actions), memory)

    def actions(self, problem: Problem, state: ShootingState) -> Tensor:
        """See `Planner.actions`."""
        return state.actions
