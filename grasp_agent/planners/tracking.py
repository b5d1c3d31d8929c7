"""From states to actions through D_a F alone: the serial rollout that follows the virtual states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from grasp_agent.planners.least_squares import least_squares
from grasp_agent.planners.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Follows the virtual states in one rollout, correcting each action by a Gauss-Newton step on D_a F.

    No back-propagation through time, no derivative by the state: a sync that costs one rollout.

    Attributes:
        damping: Levenberg-Marquardt damping relative to the curvature.
    """

    damping: float = 0.01

    def __call__(self, problem: Problem, states: Tensor, actions: Tensor) -> Tensor:
        """Actions `[B, N, H, A]` whose rollout follows `states` `[B, N, H, S]` as closely as one sweep can."""
        state = problem.start[:, None].expand(-1, actions.shape[1], -1)
        tracked = []
        for t in range(actions.shape[2]):
            action = self.correct(problem, state, states[:, :, t], actions[:, :, t])
            state = problem.step(state, action)
            tracked.append(action)
        return torch.stack(tracked, dim=2)

    def correct(self, problem: Problem, state: Tensor, target: Tensor, action: Tensor) -> Tensor:
        """The action `[B, N, A]`, corrected so that one step from `state` comes nearer to `target` `[B, N, S]`."""
        predicted, slopes = problem.linearise(state, action)
        return problem.clamp(action - least_squares(slopes, predicted - target, self.damping))
