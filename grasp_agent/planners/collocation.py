"""LatCo: collocation with full state gradients and multipliers on the dynamics (Rybkin et al. 2021, arXiv 2106.13229).

GRASP differs from it: LatCo optimises states THROUGH the model's derivative by the state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from grasp_agent.planners.base import Initial, Planner
from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.noise import NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.planners.proposals.initial import Line, filled
from grasp_agent.validation import at_least, more_than, whole


class CollocationState(NamedTuple):
    """Collocation between two iterations."""

    states: Tensor
    """`[B, N, H, S]`, s_1 .. s_H."""
    actions: Tensor
    """`[B, N, H, A]`, a_0 .. a_{H-1}."""
    multipliers: Tensor
    """`[B, N, H]`, weights of the squared violations of the dynamics."""
    iteration: int


@dataclass(frozen=True, kw_only=True)
class Collocation(Planner[CollocationState]):
    """Levenberg-Marquardt steps on states and actions jointly, with the dynamics as a weighted constraint.

    Minimises `sum_t w_t |s_t - g|^2 + lambda_t |F(s_{t-1}, a_{t-1}) - s_t|^2`. The normal equations are block
    tridiagonal and are solved by one sweep in each direction. The multipliers rise where the dynamics are violated by
    more than `slack`, and fall elsewhere.

    Attributes:
        initial: initial candidates.
        damping: damping of the Levenberg-Marquardt step.
        multiplier: initial multiplier.
        multiplier_rate: exponent of the multipliers' change, of the violation relative to the slack.
        multiplier_every: iterations between two changes of the multipliers.
        slack: violation of one step that is tolerated [state units].
        hold: number of last steps at the goal.
        running: weight of the distance along the trajectory.
        step_size: fraction of the Levenberg-Marquardt step that is taken.
        rounds: greatest number of solves in a step; each fixes the actions that the last one drove out of bounds.
    """

    needs_small_states: ClassVar[bool] = True
    needs_goal: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    iterations: int = 60
    verify_every: int = 10
    initial: Initial = field(default_factory=Line)
    damping: float = 1e-3
    multiplier: float = 1.0
    multiplier_rate: float = 0.3
    multiplier_every: int = 3
    slack: float = 0.003
    hold: int = 6
    running: float = 0.05
    step_size: float = 0.7
    rounds: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(1, multiplier_every=self.multiplier_every, hold=self.hold, rounds=self.rounds)
        at_least(0, multiplier_rate=self.multiplier_rate, running=self.running)
        more_than(0, damping=self.damping, multiplier=self.multiplier, slack=self.slack, step_size=self.step_size)

    @classmethod
    def paper(cls, *, iterations: int = 200) -> Collocation:
        """Returns LatCo with the published step: Gauss-Newton, damping 1e-3, multipliers from 1, reward at all steps.

        The rate of the multipliers and the slack are this implementation's.
        """
        return cls(iterations=iterations, hold=1, running=1.0, step_size=1.0, slack=0.01)

    def init(self, problem: Problem, given: Candidates | None, noise: NoiseSource) -> CollocationState:
        """See `Planner.init`."""
        states, actions = filled(problem, given, self.candidates, self.initial, noise).pair
        multipliers = states.new_full(states.shape[:3], self.multiplier)
        return CollocationState(states, actions, multipliers, 0)

    def step(self, problem: Problem, state: CollocationState, noise: NoiseSource) -> CollocationState:
        """See `Planner.step`: actions that would leave their bounds are fixed there, and the step is solved again."""
        states, actions, multipliers, iteration = state
        predicted, by_state, by_action = problem.ensemble.jacobians(problem.shifted(states), actions)
        gaps = predicted - states
        weights = problem.scoring.goal_weights(states, self.hold, self.running)
        slope = weights[..., None] * problem.goal.gradient(states) / 2
        bend = weights[..., None, None] * problem.goal.curvature(states) / 2
        change = torch.zeros_like(actions)
        held, d_states = torch.zeros_like(actions, dtype=torch.bool), torch.zeros_like(states)
        for _ in range(self.rounds):
            # Actions at their bounds are fixed, and the others are solved for.
            fixed = (by_action @ torch.where(held, change, 0)[..., None])[..., 0]
            free = by_action * ~held[..., None, :]
            d_states, d_actions = self._solve(by_state, free, gaps + fixed, multipliers, slope, bend)
            d_actions = torch.where(held, change, d_actions)
            unbounded = actions + d_actions
            beyond = ~held & ((unbounded < problem.low) | (unbounded > problem.high))
            change = torch.where(beyond, problem.clamp(unbounded) - actions, d_actions)
            if not beyond.any():
                break
            held = held | beyond
        solved = (d_states.isfinite().all(-1) & change.isfinite().all(-1)).all(-1)[..., None, None]
        d_states, change = torch.where(solved, d_states, 0), torch.where(solved, change, 0)
        iteration += 1
        if iteration % self.multiplier_every == 0:
            ratio = (gaps.norm(dim=-1) / self.slack).clamp(1e-2, 1e2)
            multipliers = (multipliers * ratio**self.multiplier_rate).clamp(1e-3, 1e4)  # more exceeds single precision
        return CollocationState(
            states + self.step_size * d_states,
            problem.clamp(actions + self.step_size * change),
            multipliers,
            iteration,
        )

    def actions(self, problem: Problem, state: CollocationState) -> Tensor:
        """See `Planner.actions`."""
        return state.actions

    def _solve(
        self, by_state: Tensor, by_action: Tensor, gaps: Tensor, multipliers: Tensor, slope: Tensor, bend: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns changes of states and actions; solves the normal equations in z_t = (s_{t+1}, a_t) block by block."""
        horizon, size, action_size = by_action.shape[2:]
        # Residual t is J_t z_t + P_t z_{t-1} + gap_t, with J_t = [-I, B_t] and P_t = [A_t, 0].
        eye = torch.eye(size, dtype=gaps.dtype, device=gaps.device).expand(*by_action.shape[:3], -1, -1)
        own = torch.cat([-eye, by_action], -1)
        past = torch.cat([by_state, torch.zeros_like(by_action)], -1)
        weighted = multipliers[..., None, None]
        corner = torch.nn.functional.pad(bend, (0, action_size, 0, action_size))
        ridge = self.damping * torch.eye(size + action_size, dtype=gaps.dtype, device=gaps.device)
        diagonal = weighted * own.mT @ own + corner + ridge
        diagonal[:, :, :-1] += (weighted * past.mT @ past)[:, :, 1:]
        lower = weighted * own.mT @ past  # couples z_t to z_{t-1}
        right = weighted * own.mT @ gaps[..., None]
        right[:, :, :-1] += (weighted * past.mT @ gaps[..., None])[:, :, 1:]
        right = -right - torch.nn.functional.pad(slope, (0, action_size))[..., None]
        eliminated, reduced = [], []
        for t in range(horizon):
            matrix, side = diagonal[:, :, t], right[:, :, t]
            if t:
                matrix = matrix - lower[:, :, t] @ eliminated[-1]
                side = side - lower[:, :, t] @ reduced[-1]
            upper = lower[:, :, t + 1].mT if t + 1 < horizon else side[..., :0]
            solved = torch.linalg.solve_ex(matrix, torch.cat([upper, side], -1))[0]
            eliminated.append(solved[..., :-1])
            reduced.append(solved[..., -1:])
        changes = [reduced[-1]]
        for t in reversed(range(horizon - 1)):
            changes.append(reduced[t] - eliminated[t] @ changes[-1])
        change = torch.stack(changes[::-1], 2)[..., 0]
        return change[..., :size], change[..., size:]
