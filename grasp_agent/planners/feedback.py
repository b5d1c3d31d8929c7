"""Feedback along a plan: linear in the deviation of the state, computed for all steps when the plan is made."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from grasp_agent.planners.problem import Problem


class PlanFeedback(NamedTuple):
    """The action at step t and state x is `actions_t + gains_t (x - s_t)`, inside its bounds."""

    actions: Tensor
    """`[B, H, A]`."""
    gains: Tensor
    """`[B, H, A, S]`."""


def feedback(problem: Problem, states: Tensor, actions: Tensor) -> PlanFeedback:
    """Returns the feedback that brings the members' mean next state back to that of a plan.

    Each action is corrected by one damped Gauss-Newton step on D_a F, in the problem's metric, where F is linearised
    around the plan: one batched derivative for all steps, instead of one at each step of the execution.

    Args:
        problem: B problems.
        states: `[B, H, S]`, predicted states after each action.
        actions: `[B, H, A]`.

    Returns:
        The actions and gains; without gains, `[B, H, A, 0]`, where derivatives by the state cannot be formed.
    """
    if not problem.is_small:
        return PlanFeedback(actions, actions.new_zeros(*actions.shape, 0))
    before = torch.cat([problem.start[:, None], states[:, :-1]], 1)
    rows = (problem.members, -1, -1)
    following, slopes = problem.ensemble.jacobian_rows(
        before.flatten(0, 1).expand(*rows), actions.flatten(0, 1).expand(*rows)
    )
    missed = following.mean(0) - states.flatten(0, 1)
    by_state, by_action = slopes.mean(0).split([states.shape[-1], actions.shape[-1]], -1)
    deviations = torch.cat([missed[..., None], by_state], -1).mT  # [B H, 1 + S, S]
    by_action = by_action[:, None].expand(-1, deviations.shape[1], -1, -1)
    changes = problem.correction(by_action, deviations, problem.criteria.damping)
    changes = torch.where(changes.isfinite(), changes, 0).unflatten(0, actions.shape[:2])
    return PlanFeedback(problem.clamp(actions - changes[:, :, 0]), -changes[:, :, 1:].mT)
