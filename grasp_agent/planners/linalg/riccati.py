"""The Riccati recursion of iterative LQR and of the lifted Newton step (Giftthaler et al. 2018, arXiv 1711.11006)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from grasp_agent.planners.linalg.least_squares import solve_symmetric
from grasp_agent.planners.work import SMALL_STEP, spend


class Feedback(NamedTuple):
    """Affine changes of the actions, `da_t = offsets_t + gains_t ds_t`, one for each step."""

    gains: list[Tensor]
    """`[B, N, A, S]` each."""
    offsets: list[Tensor]
    """`[B, N, A]` each."""


def riccati(
    by_state: Tensor,
    by_action: Tensor,
    gaps: Tensor | None,
    slope: Tensor,
    curvature: Tensor,
    effort_slope: Tensor,
    effort: float,
) -> Feedback:
    """Solves the linear-quadratic problem around a trajectory whose steps may have gaps.

    Minimises `sum_t slope_t ds_t + ds_t curvature_t ds_t / 2 + effort_slope_t da_t + effort da_t^2 / 2` with
    `ds_{t+1} = by_state_t ds_t + by_action_t da_t + gaps_t`.

    Args:
        by_state: `[B, N, H, S, S]` or `[S, S]`, derivative of the next state by the state.
        by_action: `[B, N, H, S, A]`, derivative by the action.
        gaps: `[B, N, H, S]`, prediction minus virtual state; None for a true rollout.
        slope: `[B, N, H, S]`, gradient of the cost at s_1 .. s_H.
        curvature: `[B, N, H, S, S]`, its second derivative.
        effort_slope: `[B, N, H, A]`, gradient of the cost of the actions.
        effort: its second derivative, with the damping [cost per squared action].

    Returns:
        The optimal changes of the actions.
    """
    horizon, size = by_action.shape[2], by_action.shape[-1]
    ridge = effort * torch.eye(size, dtype=by_action.dtype, device=by_action.device)
    value, bend = torch.zeros_like(slope[:, :, 0]), torch.zeros_like(curvature[:, :, 0])
    gains, offsets = [], []
    for t in reversed(range(horizon)):
        spend(SMALL_STEP)
        value, bend = value + slope[:, :, t], bend + curvature[:, :, t]
        a, b = by_state if by_state.ndim == 2 else by_state[:, :, t], by_action[:, :, t]
        if gaps is not None:
            value = value + (bend @ gaps[:, :, t, :, None])[..., 0]
        down = b.mT @ bend
        h_ux = down @ a
        g_u = (b.mT @ value[..., None])[..., 0] + effort_slope[:, :, t]
        solved = solve_symmetric(down @ b + ridge, torch.cat([h_ux, g_u[..., None]], -1))
        gain, offset = -solved[..., :-1], -solved[..., -1]
        value = (a.mT @ value[..., None] + h_ux.mT @ offset[..., None])[..., 0]
        bend = a.mT @ bend @ a + h_ux.mT @ gain
        gains.append(gain)
        offsets.append(offset)
    return Feedback(gains[::-1], offsets[::-1])
