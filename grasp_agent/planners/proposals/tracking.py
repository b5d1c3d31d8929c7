"""Tracking: a serial rollout finds the actions of virtual states through D_a F only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.noise import NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.validation import at_least


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Follows virtual states in one rollout and corrects each action by a Gauss-Newton step on D_a F.

    There is no back-propagation through time and no derivative by the state: a sync at the cost of one rollout.

    Attributes:
        damping: Levenberg-Marquardt damping relative to the curvature.
        together: False tracks with each candidate's own member; True with the mean over all members, so that a long
            plan does not drift with one member's error.
    """

    needs_gradients: ClassVar[bool] = True
    needs_goal: ClassVar[bool] = True

    damping: float = 0.01
    together: bool = False

    def __post_init__(self) -> None:
        at_least(0, damping=self.damping)

    def refine(self, problem: Problem, given: Candidates, noise: NoiseSource | None = None) -> Tensor:
        """Returns actions `[B, N, H, A]` whose rollout follows the virtual states, from one sweep."""
        if self.together and problem.members > 1:
            return self._follow_together(problem, given)[0]
        context = problem.context[:, None].expand(-1, given.size, -1)
        tracked = []
        for target, action in zip(given.states.unbind(2), given.actions.unbind(2), strict=True):
            corrected = self.correct(problem, context, target, action)
            context = problem.advance(context, corrected, problem.ensemble.step(context, corrected))
            tracked.append(corrected)
        return torch.stack(tracked, dim=2)

    def propose(self, problem: Problem, states: Tensor, actions: Tensor) -> Candidates:
        """Returns candidates that follow virtual states, with the rollouts of all members if these were computed."""
        if self.together and problem.members > 1:
            tracked, rollouts = self._follow_together(problem, Candidates(states, actions))
            return Candidates(states, tracked, rollouts)
        return Candidates(states, self.refine(problem, Candidates(states, actions)))

    def _follow_together(self, problem: Problem, given: Candidates) -> tuple[Tensor, Tensor]:
        """Returns actions `[B, N, H, A]` and all members' rollouts `[K, B, N, H, S]`, from one derivative per step.

        Two rollouts run in parallel. In the open-loop one, the mean over the members is steered along the targets, so
        the actions work without feedback, too. In the other one, every member is steered along them separately, as in
        execution; it is scored.
        """
        members, shape, planning = problem.members, given.actions.shape[:2], problem.steppers
        start = problem.context[:, None].expand(-1, given.size, -1).flatten(0, 1)
        context, rows = start.repeat(2, 1).expand(members, -1, -1), len(start)
        targets, actions = given.states.flatten(0, 1), given.actions.flatten(0, 1)
        tracked, states = [], []
        for target, action in zip(targets.unbind(1), actions.unbind(1), strict=True):
            predicted, slopes = problem.ensemble.linearise_rows(context, action.repeat(2, 1).expand(members, -1, -1))
            deviation = predicted[:planning, :rows].mean(0) - target
            change = problem.correction(slopes[:planning, :rows].mean(0), deviation, self.damping)
            corrected = problem.clamp(action - change)
            separate = problem.correction(slopes[:, rows:], predicted[:, rows:] - target, self.damping)
            open_loop, closed_loop = corrected.expand(members, -1, -1), problem.clamp(action - separate)
            taken = torch.cat([open_loop, closed_loop], 1)
            state = problem.dynamics(context, taken)
            context = problem.advance(context, taken, state)
            tracked.append(corrected)
            states.append(state[:, rows:])
        return torch.stack(tracked, 1).unflatten(0, shape), torch.stack(states, 2).unflatten(1, shape)

    def correct_together(self, problem: Problem, state: Tensor, target: Tensor, action: Tensor) -> Tensor:
        """Returns the action `[M, A]`, corrected to bring the members' mean next state nearer to `target` `[M, S]`."""
        rows = (problem.members, -1, -1)
        predicted, slopes = problem.ensemble.linearise_rows(state.expand(*rows), action.expand(*rows))
        change = problem.correction(slopes.mean(0), predicted.mean(0) - target, self.damping)
        return problem.clamp(action - change)

    def correct(self, problem: Problem, context: Tensor, target: Tensor, action: Tensor) -> Tensor:
        """Returns the action `[B, N, A]`, corrected so that the next state is nearer to `target` `[B, N, S]`."""
        predicted, slopes = problem.ensemble.linearise(context, action)
        return problem.clamp(action - problem.correction(slopes, predicted - target, self.damping))
