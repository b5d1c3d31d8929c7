"""The model of a planning problem: steps of candidates, each under its own member, and their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from grasp_agent.planners.candidates import Fold, derivative
from grasp_agent.planners.protocols import Dynamics, Jacobian, Pullback


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """One-step dynamics of an ensemble's members.

    Attributes:
        dynamics: one step.
        steppers: number of members, the first ones, that step candidates during planning.
        action_jacobian: the model's own derivative by the action; None uses autograd.
        action_pullback: the model's own vector-Jacobian product by the action; None uses autograd.
        jacobian: the model's own derivative by state and action; None uses autograd.
    """

    dynamics: Dynamics
    steppers: int = 1
    action_jacobian: Jacobian | None = None
    action_pullback: Pullback | None = None
    jacobian: Jacobian | None = None

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """Steps each candidate under its own member: `[B, N, ..., S], [B, N, ..., A] -> [B, N, ..., S]`.

        Candidate n is stepped by member n % k, where k is the largest divisor of N up to the number of members in use.
        """
        fold = Fold.of(states, self.steppers)
        return fold.back(self.dynamics(fold.rows(states), fold.rows(actions)))

    def linearise(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns `step` and its derivative by the action, `[B, N, ..., S]` and `[B, N, ..., S, A]`.

        The derivative by the state is not formed.
        """
        fold = Fold.of(states, self.steppers)
        following, slopes = self.linearise_rows(fold.rows(states), fold.rows(actions))
        return fold.back(following), fold.back(slopes)

    def pullback(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Returns `step` and its vector-Jacobian product by the action, from `[B, N, ..., S]` to `[B, N, ..., A]`.

        The product is to be called once: its memory is reused.
        """
        fold = Fold.of(states, self.steppers)
        pullback = self.action_pullback or self._generic_pullback
        following, pull = pullback(fold.rows(states), fold.rows(actions))
        return fold.back(following), lambda cotangent: fold.back(pull(fold.rows(cotangent)))

    def jacobians(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns `step` and its derivatives by the state `[B, N, ..., S, S]` and by the action `[B, N, ..., S, A]`.

        For planners that follow true rollouts, and for full collocation; GRASP's lifted iteration never calls it.
        """
        fold = Fold.of(states, self.steppers)
        following, slopes = map(fold.back, self.jacobian_rows(fold.rows(states), fold.rows(actions)))
        return following, slopes[..., : states.shape[-1]], slopes[..., states.shape[-1] :]

    def jacobian_rows(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Returns next states of rows `[k, M, S]`, and their derivative by state and action `[k, M, S, S + A]`."""
        return (self.jacobian or self._generic_full_jacobian)(state, action)

    def linearise_rows(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Returns next states of rows `[k, M, S]`, and their derivative by the action `[k, M, S, A]`."""
        return (self.action_jacobian or self._generic_jacobian)(state, action)

    def _generic_jacobian(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        return derivative(lambda a: self.dynamics(states, a), actions)

    def _generic_full_jacobian(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        size = states.shape[-1]
        rows = torch.cat([states, actions], dim=-1)
        return derivative(lambda x: self.dynamics(x[..., :size], x[..., size:]), rows)

    def _generic_pullback(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        leaf = actions.detach().requires_grad_()
        with torch.enable_grad():
            values = self.dynamics(states, leaf)
        return values.detach(), lambda cotangent: torch.autograd.grad(values, leaf, cotangent)[0]
