"""Iterative LQR with clamped controls: Gauss-Newton through the true rollout (Li and Todorov 2004)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from grasp_agent.planners.base import Initial, Planner
from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.linalg.riccati import Feedback, riccati
from grasp_agent.planners.noise import NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.planners.proposals.initial import Rollout, filled
from grasp_agent.validation import at_least, whole


class ILQRState(NamedTuple):
    """Iterative LQR between two sweeps."""

    states: Tensor
    """`[B, N, H, S]`, the rollouts."""
    actions: Tensor
    """`[B, N, H, A]`."""
    cost: Tensor
    """`[B, N]`."""
    scale: Tensor
    """`[B, N]`, scale of the next step."""


@dataclass(frozen=True, kw_only=True)
class ILQR(Planner[ILQRState]):
    """Sweeps of a backward Riccati recursion and a forward rollout.

    The model's Jacobians of all time steps come from one batched call; only rollouts and the recursion are serial. The
    cost is the squared distance to the goal over the last `hold` steps, plus `running` times its mean along the
    trajectory, plus `effort` times the squared actions.

    Attributes:
        initial: initial candidates.
        hold: number of last steps at the goal.
        running: weight of the distance along the trajectory.
        effort: weight of the squared actions.
        damping: added to the control Hessian [squared distance per squared action].
    """

    unbounded: ClassVar[tuple[str, ...]] = ("cost",)
    needs_small_states: ClassVar[bool] = True
    needs_goal: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    candidates: int = 8
    iterations: int = 20
    initial: Initial = field(default_factory=Rollout)
    hold: int = 6
    running: float = 0.05
    effort: float = 1e-3
    damping: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(1, hold=self.hold)
        at_least(0, running=self.running, effort=self.effort, damping=self.damping)

    def init(self, problem: Problem, given: Candidates | None, noise: NoiseSource) -> ILQRState:
        """See `Planner.init`."""
        actions = filled(problem, given, self.candidates, self.initial, noise).actions
        path = problem.follow(actions)
        cost = self._cost(problem, path, actions)
        return ILQRState(path, actions, cost, torch.ones_like(cost))

    def step(self, problem: Problem, state: ILQRState, noise: NoiseSource) -> ILQRState:
        """See `Planner.step`: one sweep; the cost of a candidate never rises."""
        path, actions, cost, scale = state
        _, by_state, by_action = problem.ensemble.jacobians(problem.shifted(path), actions)
        weights = problem.scoring.goal_weights(path, self.hold, self.running)
        effort = 2 * self.effort / path.shape[2]
        feedback = riccati(
            by_state,
            by_action,
            None,
            weights[..., None] * problem.goal.gradient(path),
            weights[..., None, None] * problem.goal.curvature(path),
            effort * actions,
            effort + self.damping,
        )
        trial_path, trial = _forward(problem, path, actions, feedback, scale)
        trial_cost = self._cost(problem, trial_path, trial)
        better = trial_cost < cost
        keep = better[..., None, None]
        return ILQRState(
            torch.where(keep, trial_path, path),
            torch.where(keep, trial, actions),
            torch.where(better, trial_cost, cost),
            torch.where(better, (2 * scale).clamp_max(1.0), scale / 4),
        )

    def actions(self, problem: Problem, state: ILQRState) -> Tensor:
        """See `Planner.actions`."""
        return state.actions

    def _cost(self, problem: Problem, path: Tensor, actions: Tensor) -> Tensor:
        goal = (problem.goal.cost(path) * problem.scoring.goal_weights(path, self.hold, self.running)).sum(-1)
        cost = goal + self.effort * actions.square().sum((-1, -2)) / actions.shape[-2]
        return torch.where(cost.isfinite(), cost, torch.inf)


def _forward(
    problem: Problem, path: Tensor, actions: Tensor, feedback: Feedback, scale: Tensor
) -> tuple[Tensor, Tensor]:
    state = before = problem.start[:, None].expand(-1, actions.shape[1], -1)
    trial_path, trial = [], []
    for t, (gain, offset) in enumerate(zip(feedback.gains, feedback.offsets, strict=True)):
        change = scale[..., None] * offset + (gain @ (state - before)[..., None])[..., 0]
        action = problem.clamp(actions[:, :, t] + change)
        state = problem.ensemble.step(state, action)
        before = path[:, :, t]
        trial_path.append(state)
        trial.append(action)
    return torch.stack(trial_path, 2), torch.stack(trial, 2)
