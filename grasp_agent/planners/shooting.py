"""Shooting: actions improved through their true rollout, by gradient descent or by iterative LQR."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from grasp_agent.planners.descent import Adam, Descent
from grasp_agent.planners.problem import Problem


@dataclass(frozen=True, kw_only=True)
class ShootingGradient:
    """A few gradient steps on the rollout's distance to the goal: GRASP's published sync.

    Attributes:
        steps: J_sync, number of gradient steps.
        optimiser: what does a step.
        hold: number of last steps whose distance counts (the paper: 1).
    """

    steps: int = 25
    optimiser: Descent | Adam = Descent(lr=0.1)
    hold: int = 1

    def __call__(self, problem: Problem, states: Tensor, actions: Tensor) -> Tensor:
        """Improved actions `[B, N, H, A]`; the virtual states are not used."""
        memory = self.optimiser.start(actions)
        for _ in range(self.steps):
            leaf = actions.detach().requires_grad_()
            with torch.enable_grad():
                loss = problem.goal.cost(problem.follow(leaf)[..., -self.hold :, :]).sum()
                (gradient,) = torch.autograd.grad(loss, leaf)
            actions, memory = self.optimiser.apply(actions, gradient, memory)
            actions = problem.clamp(actions)
        return actions


@dataclass(frozen=True, kw_only=True)
class ILQR:
    """Iterative LQR with clamped controls: Gauss-Newton through the true rollout (Li and Todorov 2004).

    The model's Jacobians of all time steps come from one batched call; only rollouts and the Riccati recursion are
    serial. The cost is the squared distance to the goal over the last `hold` steps, plus `running` times its mean along
    the way, plus `effort` times the squared actions.

    Attributes:
        steps: greatest number of iterations.
        hold: number of last steps at the goal.
        running: weight of the distance along the way.
        effort: weight of the squared actions.
        damping: added to the control Hessian [squared distance per squared action].
    """

    steps: int = 3
    hold: int = 6
    running: float = 0.05
    effort: float = 1e-3
    damping: float = 0.03

    def __post_init__(self) -> None:
        if self.steps < 1 or self.hold < 1:
            raise ValueError(f"steps, hold: expected at least 1, got {self.steps} and {self.hold}")

    def __call__(self, problem: Problem, states: Tensor, actions: Tensor) -> Tensor:
        """Improved actions `[B, N, H, A]`; a candidate's own cost never rises."""
        path = problem.follow(actions)
        cost = self._cost(problem, path, actions)
        scale = torch.ones_like(cost)
        for _ in range(self.steps):
            gains, offsets = self._backward(problem, path, actions)
            trial_path, trial = self._forward(problem, path, actions, gains, offsets, scale)
            trial_cost = self._cost(problem, trial_path, trial)
            better = trial_cost < cost
            keep = better[..., None, None]
            path, actions = torch.where(keep, trial_path, path), torch.where(keep, trial, actions)
            cost = torch.where(better, trial_cost, cost)
            scale = torch.where(better, (2 * scale).clamp_max(1.0), scale / 4)
        return actions

    def _weights(self, path: Tensor) -> Tensor:
        horizon = path.shape[-2]
        weights = torch.full((horizon,), self.running / horizon, dtype=path.dtype, device=path.device)
        weights[-self.hold :] += 1 / min(self.hold, horizon)
        return weights

    def _cost(self, problem: Problem, path: Tensor, actions: Tensor) -> Tensor:
        goal = (problem.goal.cost(path) * self._weights(path)).sum(-1)
        cost = goal + self.effort * actions.square().sum((-1, -2)) / actions.shape[-2]
        return torch.where(cost.isfinite(), cost, torch.inf)

    def _backward(self, problem: Problem, path: Tensor, actions: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Riccati recursion: feedback gains `[B, N, A, S]` and open-loop changes `[B, N, A]`, one for each step."""
        previous = torch.cat([problem.start[:, None, None].expand(-1, path.shape[1], 1, -1), path[:, :, :-1]], dim=2)
        by_state, by_action = problem.jacobians(previous, actions)
        slope, curvature = _quadratic(problem, path)
        weights = self._weights(path)
        effort = 2 * self.effort / path.shape[2]
        eye = torch.eye(actions.shape[-1], dtype=actions.dtype, device=actions.device)
        value, bend = torch.zeros_like(slope[:, :, 0]), torch.zeros_like(curvature[:, :, 0])
        gains, offsets = [], []
        for t in reversed(range(path.shape[2])):
            value, bend = value + weights[t] * slope[:, :, t], bend + weights[t] * curvature[:, :, t]
            a, b = by_state[:, :, t], by_action[:, :, t]
            down = b.mT @ bend
            h_uu = down @ b + (effort + self.damping) * eye
            h_ux = down @ a
            g_u = (b.mT @ value[..., None])[..., 0] + effort * actions[:, :, t]
            solved = torch.linalg.solve_ex(h_uu, torch.cat([h_ux, g_u[..., None]], -1))[0]
            gain, offset = -solved[..., :-1], -solved[..., -1]
            value = (a.mT @ value[..., None] + h_ux.mT @ offset[..., None])[..., 0]
            bend = a.mT @ bend @ a + h_ux.mT @ gain
            gains.append(gain)
            offsets.append(offset)
        return gains[::-1], offsets[::-1]

    def _forward(
        self,
        problem: Problem,
        path: Tensor,
        actions: Tensor,
        gains: list[Tensor],
        offsets: list[Tensor],
        scale: Tensor,
    ) -> tuple[Tensor, Tensor]:
        state = before = problem.start[:, None].expand(-1, actions.shape[1], -1)
        trial_path, trial = [], []
        for t in range(actions.shape[2]):
            feedback = (gains[t] @ (state - before)[..., None])[..., 0]
            action = problem.clamp(actions[:, :, t] + scale[..., None] * offsets[t] + feedback)
            state = problem.step(state, action)
            before = path[:, :, t]
            trial_path.append(state)
            trial.append(action)
        return torch.stack(trial_path, 2), torch.stack(trial, 2)


def _quadratic(problem: Problem, path: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient `[..., S]` and Hessian `[..., S, S]` of the goal's cost at each state."""
    leaf = path.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(problem.goal.cost(leaf).sum(), leaf, create_graph=True)
        rows = [torch.autograd.grad(slope[..., i].sum(), leaf, retain_graph=True)[0] for i in range(path.shape[-1])]
    return slope.detach(), torch.stack(rows, -2)
