"""From states to actions through D_a F alone: the serial rollout that follows the virtual states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.noise import NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.validation import at_least


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Follows the virtual states in one rollout, correcting each action by a Gauss-Newton step on D_a F.

    No back-propagation through time, no derivative by the state: a sync that costs one rollout.

    Attributes:
        damping: Levenberg-Marquardt damping relative to the curvature.
        together: False follows with each candidate's own member; True with the mean over all members, so that a long
            plan does not drift with one member's error.
    """

    damping: float = 0.01
    together: bool = False

    def __post_init__(self) -> None:
        at_least(0, damping=self.damping)

    def refine(self, problem: Problem, given: Candidates, noise: NoiseSource | None = None) -> Tensor:
        """Actions `[B, N, H, A]` whose rollout follows the virtual states as closely as one sweep can."""
        if self.together and problem.members > 1:
            return self._follow_together(problem, given)[0]
        state = problem.start[:, None].expand(-1, given.size, -1)
        tracked = []
        for target, action in zip(given.states.unbind(2), given.actions.unbind(2), strict=True):
            corrected = self.correct(problem, state, target, action)
            state = problem.ensemble.step(state, corrected)
            tracked.append(corrected)
        return torch.stack(tracked, dim=2)

    def propose(self, problem: Problem, states: Tensor, actions: Tensor) -> Candidates:
        """Candidates that follow virtual states, together with all members' rollouts where those are at hand."""
        if self.together and problem.members > 1:
            tracked, rollouts = self._follow_together(problem, Candidates(states, actions))
            return Candidates(states, tracked, rollouts)
        return Candidates(states, self.refine(problem, Candidates(states, actions)))

    def _follow_together(self, problem: Problem, given: Candidates) -> tuple[Tensor, Tensor]:
        """Actions `[B, N, H, A]` and all members' rollouts `[K, B, N, H, S]`, from one call and one derivative a step.

        Two rollouts run side by side: a bare one, whose mean over the members is steered along the targets, so that the
        actions serve blindly, too; and one in which every member is steered along them by itself, as reality will be,
        for judging.
        """
        members, shape, planning = problem.members, given.actions.shape[:2], problem.steppers
        start = problem.start[:, None].expand(-1, given.size, -1).flatten(0, 1)
        state, rows = start.repeat(2, 1).expand(members, -1, -1), len(start)
        targets, actions = given.states.flatten(0, 1), given.actions.flatten(0, 1)
        tracked, states = [], []
        for target, action in zip(targets.unbind(1), actions.unbind(1), strict=True):
            predicted, slopes = problem.ensemble.linearise_rows(state, action.repeat(2, 1).expand(members, -1, -1))
            wanted = predicted[:planning, :rows].mean(0) - target
            change = problem.correction(slopes[:planning, :rows].mean(0), wanted, self.damping)
            corrected = problem.clamp(action - change)
            apart = problem.correction(slopes[:, rows:], predicted[:, rows:] - target, self.damping)
            bare, fed = corrected.expand(members, -1, -1), problem.clamp(action - apart)
            state = problem.dynamics(state, torch.cat([bare, fed], 1))
            tracked.append(corrected)
            states.append(state[:, rows:])
        return torch.stack(tracked, 1).unflatten(0, shape), torch.stack(states, 2).unflatten(1, shape)

    def correct_together(self, problem: Problem, state: Tensor, target: Tensor, action: Tensor) -> Tensor:
        """The action `[M, A]`, corrected so that the members' mean comes nearer to `target` `[M, S]` from `state`."""
        rows = (problem.members, -1, -1)
        predicted, slopes = problem.ensemble.linearise_rows(state.expand(*rows), action.expand(*rows))
        change = problem.correction(slopes.mean(0), predicted.mean(0) - target, self.damping)
        return problem.clamp(action - change)

    def correct(self, problem: Problem, state: Tensor, target: Tensor, action: Tensor) -> Tensor:
        """The action `[B, N, A]`, corrected so that one step from `state` comes nearer to `target` `[B, N, S]`."""
        predicted, slopes = problem.ensemble.linearise(state, action)
        return problem.clamp(action - problem.correction(slopes, predicted - target, self.damping))
