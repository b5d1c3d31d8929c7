"""A linear model of a step: it models inertia, and the time from a state to another."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from grasp_agent.planners.protocols import ReplayWindows

_DOUBLINGS = 20  # iterations of the Riccati solver, for 2^20 steps: more than any horizon


class LinearModel(NamedTuple):
    """`s' = A s + B a + c`, regressed from replay; S state, A action."""

    by_state: Tensor
    """A, `[S, S]`."""
    by_action: Tensor
    """B, `[S, A]`."""
    offset: Tensor
    """c, `[S]`."""

    @classmethod
    def regress(cls, replay: ReplayWindows) -> LinearModel:
        """Fits all recorded steps by least squares, regularised towards states that stay."""
        states, actions = replay.states[:, :-1].flatten(0, 1), replay.actions.flatten(0, 1)
        inputs = torch.cat([states, actions, torch.ones_like(states[:, :1])], -1)
        changes = (replay.states[:, 1:] - replay.states[:, :-1]).flatten(0, 1)
        ridge = 1e-4 * len(inputs) * torch.eye(inputs.shape[1], dtype=inputs.dtype, device=inputs.device)
        slopes = torch.linalg.solve(inputs.mT @ inputs + ridge, inputs.mT @ changes).mT.contiguous()
        slopes.diagonal().add_(1)
        return cls.unpack(slopes)

    @classmethod
    def unpack(cls, packed: Tensor) -> LinearModel:
        """Returns the model of a matrix `packed`."""
        size = packed.shape[0]
        return cls(packed[:, :size], packed[:, size:-1], packed[:, -1])

    @property
    def packed(self) -> Tensor:
        """`[S, S + A + 1]`, all matrices concatenated."""
        return torch.cat([self.by_state, self.by_action, self.offset[:, None]], -1)

    def part(self, states: list[int], actions: list[int]) -> LinearModel:
        """Returns the model of some entries, without the others."""
        return LinearModel(self.by_state[states][:, states], self.by_action[states][:, actions], self.offset[states])

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """Returns next states: `[..., S], [..., A] -> [..., S]`."""
        return states @ self.by_state.mT + actions @ self.by_action.mT + self.offset

    def settle(self, states: Tensor, named: Tensor) -> Tensor:
        """Returns states at rest: entries that are not named, such as velocities, are changed.

        Args:
            states: `[..., S]`.
            named: `[S]`, True for entries that are kept.
        """
        free = ~named
        change = self.by_state - torch.eye(len(named), dtype=states.dtype, device=states.device)
        moving, kept = change[:, free], change[:, named]
        # The least |A s + B 0 + c - s|, and of those the nearest to the given entries.
        ridge = 1e-4 * torch.eye(moving.shape[1], dtype=states.dtype, device=states.device)
        residual = (states[..., named] @ kept.mT + self.offset) @ moving
        settled = states.clone()
        settled[..., free] = torch.linalg.solve(moving.mT @ moving + ridge, (1e-4 * states[..., free] - residual).mT).mT
        return settled

    def metric(self, effort: float = 0.1) -> Tensor | None:
        """Returns `[S, S]`, a matrix M: a deviation d costs `|M d|^2` until optimal feedback has brought it to zero.

        That cost is the solution of the discrete algebraic Riccati equation for unit cost of deviations. One step of
        feedback in this metric takes into account what later steps can correct.

        Args:
            effort: cost of actions, relative to their mean squared effect in a step.

        Returns:
            The metric; None if the equation has no solution.
        """
        a, b = self.by_state.double(), self.by_action.double()
        identity = torch.eye(len(a), dtype=a.dtype, device=a.device)
        spread = b @ b.mT / (effort * b.square().sum(0).mean() + 1e-9)
        # Structure-preserving doubling (Chu, Fan, Lin and Wang 2004): step n looks 2^n steps ahead.
        cost = ahead = identity
        for _ in range(_DOUBLINGS):
            inverse = torch.linalg.inv(identity + spread @ cost)
            ahead = a.mT @ cost @ inverse @ a
            cost, spread, a = cost + ahead, spread + a @ inverse @ spread @ a.mT, a @ inverse @ a
        root, failed = torch.linalg.cholesky_ex((cost + cost.mT) / 2, upper=True)
        settled = ahead.norm() <= 1e-6 * cost.norm()
        return root.to(self.by_state) if settled and not failed and root.isfinite().all() else None


class Horizons(NamedTuple):
    """Minimum-energy control of a linear model to a state in exactly m steps, for m = 0 .. M.

    The first of m actions is `gains_m (g - powers_m s - drifts_m)` (Kailath 1980, ch. 2).
    """

    powers: Tensor
    """`[M + 1, S, S]`, A^m."""
    drifts: Tensor
    """`[M + 1, S]`, the state after m steps from zero without action."""
    gains: Tensor
    """`[M + 1, A, S]`."""
    roots: Tensor
    """`[M + 1, S, S]`: `|roots_m x|^2` is the least sum of squared actions that moves a state by x in m steps."""
    remains: Tensor
    """`[M + 1, S, S]`: what is missing after the first of m actions, of what was missing before."""

    @classmethod
    def of(cls, linear: LinearModel, reach: int) -> Horizons:
        """Returns the control for up to M = `reach` steps."""
        a, b = linear.by_state.double(), linear.by_action.double()
        identity = torch.eye(len(a), dtype=a.dtype, device=a.device)
        power, drift, gramian = identity, torch.zeros_like(a[0]), torch.zeros_like(a)
        powers, drifts, gains, roots = [power], [drift], [torch.zeros_like(b.mT)], [torch.zeros_like(a)]
        remains = [identity]
        for _ in range(reach):
            reached = power @ b
            gramian = gramian + reached @ reached.mT
            power, drift = a @ power, a @ drift + linear.offset.double()
            # Uncontrollable directions cost much, but not infinitely much.
            inverse = torch.linalg.inv(gramian + 1e-6 * gramian.diagonal().mean() * identity)
            powers.append(power)
            drifts.append(drift)
            gains.append(reached.mT @ inverse)
            remains.append(identity - reached @ gains[-1])
            roots.append(torch.linalg.cholesky(inverse).mT)
        return cls(*(torch.stack(values).to(linear.by_state) for values in (powers, drifts, gains, roots, remains)))

    def missing(self, states: Tensor, targets: Tensor, steps: Tensor | int) -> Tensor:
        """Returns targets `[..., S]` minus states `[..., S]` after `steps` `[...]` without action."""
        if isinstance(steps, int):  # the same for all, which needs no matrix for each state
            return targets - (states @ self.powers[steps].mT + self.drifts[steps])
        return targets - ((self.powers[steps] @ states[..., None])[..., 0] + self.drifts[steps])

    def action(self, states: Tensor, targets: Tensor, steps: Tensor | int) -> Tensor:
        """Returns the first of the `steps` actions `[..., A]` that lead from states to targets `[..., S]`."""
        return (self.gains[steps] @ self.missing(states, targets, steps)[..., None])[..., 0]

    def feedback(self, count: int) -> tuple[Tensor, Tensor]:
        """Returns what `count` steps of feedback do with what is missing before them, see `missing`.

        Returns:
            Matrices to all actions, `[count * A, S]`, and to what is missing in the end, `[S, S]`.
        """
        left, actions = self.powers[0], []
        for steps in range(count, 0, -1):
            actions.append(self.gains[steps] @ left)
            left = self.remains[steps] @ left
        return torch.cat(actions), left
