"""The lifted Newton step: virtual states and actions are updated jointly, and the goal affects all steps at once.

It is Gauss-Newton multiple shooting (Giftthaler et al. 2018, arXiv 1711.11006). As in GRASP (Psenka et al. 2026, arXiv
2602.00475), the network's derivative by the state is never formed. A constant matrix takes its place: the mean
derivative of the next state by the state, regressed from replay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.linalg.riccati import riccati
from grasp_agent.planners.problem import Problem
from grasp_agent.validation import at_least, more_than, whole


@dataclass(frozen=True, kw_only=True)
class LiftedNewton:
    """One batched model call and one Riccati recursion, in which goal information flows backwards.

    Attributes:
        hold: number of last steps at the goal.
        running: weight of the distance along the trajectory.
        effort: weight of the squared actions.
        damping: added to the control Hessian [squared distance per squared action].
        step_size: fraction of the Newton step that is taken.

    Raises:
        ValueError: if a number is out of range.
    """

    needs_small_states: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    hold: int = 6
    running: float = 0.05
    effort: float = 1e-3
    damping: float = 0.03
    step_size: float = 1.0

    def __post_init__(self) -> None:
        whole(1, hold=self.hold)
        at_least(0, running=self.running)
        more_than(0, damping=self.damping, step_size=self.step_size)

    def start(self, candidates: Candidates) -> None:
        """See `Update.start`: there is no memory."""

    def apply(self, problem: Problem, candidates: Candidates, memory: None, phase: float) -> tuple[Candidates, None]:
        """See `Update.apply`."""
        states, actions = candidates.pair
        predicted, by_action = problem.ensemble.linearise(problem.shifted(states), actions)
        size = states.shape[-1]
        by_state = problem.state_jacobian
        if by_state is None:
            by_state = torch.eye(size, dtype=states.dtype, device=states.device)
        gaps = predicted - states
        weights = problem.scoring.goal_weights(states, self.hold, self.running)
        effort = 2 * self.effort / states.shape[2]
        feedback = riccati(
            by_state,
            by_action,
            gaps,
            weights[..., None] * problem.goal.gradient(states),
            weights[..., None, None] * problem.goal.curvature(states),
            effort * actions,
            effort + self.damping,
        )
        change = torch.zeros_like(states[:, :, 0])
        moved_states, moved_actions = [], []
        for t, (gain, offset) in enumerate(zip(feedback.gains, feedback.offsets, strict=True)):
            unbounded = actions[:, :, t] + self.step_size * offset + (gain @ change[..., None])[..., 0]
            action = problem.clamp(unbounded)
            by = (by_action[:, :, t] @ (action - actions[:, :, t])[..., None])[..., 0]
            change = change @ by_state.mT + by + self.step_size * gaps[:, :, t]
            moved_states.append(states[:, :, t] + change)
            moved_actions.append(action)
        return Candidates(torch.stack(moved_states, 2), torch.stack(moved_actions, 2)), None
