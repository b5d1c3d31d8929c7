"""Goals as states at a distance, for latents whose entries have no meaning of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Distance = Callable[[Tensor, Tensor], Tensor]
"""`(states [M, S], targets [M, S]) -> [M]`, differentiable, 0 at the target and nowhere negative."""


def root_mean_square(states: Tensor, targets: Tensor) -> Tensor:
    """Returns the root of the mean squared difference of states and targets, `[..., S], [..., S] -> [...]`."""
    return (states - targets).square().mean(-1).sqrt()


@dataclass(frozen=True, kw_only=True)
class DistanceGoal:
    """The states within a distance of a target.

    Attributes:
        target: `[B, S]`, the target of each problem.
        tolerance: distance at which the goal counts as reached.
        distance: of states to targets; None for `root_mean_square`.
    """

    target: Tensor
    tolerance: float
    distance: Distance | None = None

    def parts(self, states: Tensor) -> Tensor:
        """See `Goal.parts`: a single one, the squared distance."""
        return self.cost(states)[..., None]

    def cost(self, states: Tensor) -> Tensor:
        """See `Goal.cost`."""
        targets = self._targets(states)
        if self.distance is None:
            return (states - targets).square().mean(-1)  # without the root, whose slope at 0 is not finite
        return self.distance(states.flatten(0, -2), targets.flatten(0, -2)).square().unflatten(0, states.shape[:-1])

    def gradient(self, states: Tensor) -> Tensor:
        """See `Goal.gradient`."""
        if self.distance is None:
            return (states - self._targets(states)) * (2 / states.shape[-1])
        leaf = states.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self.cost(leaf).sum(), leaf)
        return gradient

    def curvature(self, states: Tensor) -> Tensor:
        """See `Goal.curvature`; only for `root_mean_square`.

        Raises:
            ValueError: for another distance.
        """
        if self.distance is not None:
            raise ValueError("goal: expected one with second derivatives, got a DistanceGoal with its own distance")
        size = states.shape[-1]
        return (torch.eye(size, dtype=states.dtype, device=states.device) * (2 / size)).expand(*states.shape, size)

    def project(self, states: Tensor) -> Tensor:
        """See `Goal.project`: the target."""
        return self._targets(states)

    def _targets(self, states: Tensor) -> Tensor:
        return self.target[:, None, None].expand(states.shape)
