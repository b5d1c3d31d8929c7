"""Linear algebra and attacks behind the figures: Jacobians, condition numbers, adversarial starts."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from grasp_agent.planners import Coloured, NoiseSource, Problem


def jacobians_along(problem: Problem, noise: NoiseSource) -> tuple[Tensor, Tensor]:
    """Returns D_s F `[B, H, S, S]` and D_a F `[B, H, S, A]` along rollouts of smooth random actions."""
    draw = Coloured(beta=3.0).sample(noise, problem.size, problem.horizon, problem.low.shape[0])
    actions = problem.clamp(draw[:, None])
    states = problem.shifted(problem.follow(actions))
    _, by_state, by_action = problem.ensemble.jacobians(states, actions)
    return by_state[:, 0].double(), by_action[:, 0].double()


def rollout_jacobian(by_state: Tensor, by_action: Tensor) -> Tensor:
    """Returns a rollout's states by its actions, `[B, H * S, H * A]`: block lower triangular, products of D_s F."""
    size, horizon, states, actions = by_action.shape
    whole = by_action.new_zeros(size, horizon, states, horizon, actions)
    for t in range(horizon):
        if t:
            whole[:, t] = torch.einsum("bij,bjha->biha", by_state[:, t], whole[:, t - 1])
        whole[:, t, :, t] = by_action[:, t]
    return whole.reshape(size, horizon * states, horizon * actions)


def lifted_jacobian(by_action: Tensor) -> Tensor:
    """Returns each step's published residuals (eq. 10) by its action and virtual state, `[B * H, 2 S, A + S]`."""
    slopes = by_action.flatten(0, 1)
    eye = torch.eye(slopes.shape[1], dtype=slopes.dtype).expand(len(slopes), -1, -1)
    gaps = torch.cat([slopes, -eye], -1)  # F(s, a) - s', the first s without gradient
    goal = torch.cat([slopes, torch.zeros_like(eye)], -1)  # F(s, a) - g
    return torch.cat([gaps, goal], 1)


def condition_number(residuals: Tensor) -> NDArray[Any]:
    """Returns the condition number of `J' J`, which limits gradient descent."""
    values = torch.linalg.svdvals(residuals)
    return (values[..., 0] / values[..., -1].clamp_min(1e-12)).square().numpy()


def rest_distances(problem: Problem, start: Tensor) -> Tensor:
    """Returns each member's distance to the goal after resting, `[K, B]` [model units]."""
    state = start.expand(problem.members, -1, -1)
    rest = problem.rest.expand(problem.members, problem.size, -1)
    for _ in range(problem.horizon):
        state = problem.dynamics(state, rest)
    return problem.goal.cost(state[:, :, None, None])[..., 0, 0].sqrt()


def adversarial_starts(problem: Problem, size: float, free: Tensor) -> Tensor:
    """Returns start states `[B, S]`, perturbed by up to `size` to minimise the first member's final distance.

    Projected normalised gradient descent (Madry et al. 2018, arXiv 1706.06083); the best iterate counts.
    """
    step = torch.zeros_like(problem.start)
    best, nearest = step, rest_distances(problem, problem.start)[0]
    for _ in range(60):
        step = step.detach().requires_grad_()
        ends = rest_distances(problem, problem.start + step)[0]
        (slope,) = torch.autograd.grad(ends.sum(), step)
        with torch.no_grad():
            better = ends < nearest
            best, nearest = torch.where(better[:, None], step, best), torch.where(better, ends, nearest)
            slope = slope * free
            step = step - size / 10 * slope / slope.norm(dim=-1, keepdim=True).clamp_min(1e-9)
            step = step * (size / step.norm(dim=-1, keepdim=True).clamp_min(1e-9)).clamp_max(1)
    return problem.start + best.detach()
