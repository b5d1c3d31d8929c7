"""Goals as states at a distance, for latents whose entries have no meaning of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Distance = Callable[[Tensor, Tensor], Tensor]
"""`(states [M, S], targets [M, S]) -> [M]`, differentiable, 0 at the target and nowhere negative."""


def root_mean_square(states: Tensor, targets: Tensor) -> Tensor:
    """Returns the root of the mean squared difference of states and targets, `[..., S], [..., S] -> [...]`.

    It is smooth at 0, within a radius of 1e-6.
    """
    return ((states - targets).square().mean(-1) + 1e-12).sqrt() - 1e-6


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
        if self.distance is None:
            return (states - self._targets(states)).square().mean(-1)
        return self._distances(self.distance, states).square()

    def gradient(self, states: Tensor) -> Tensor:
        """See `Goal.gradient`."""
        if self.distance is None:
            return (states - self._targets(states)) * (2 / states.shape[-1])
        distance, slope = self._slope(states)
        return 2 * distance[..., None] * slope

    def curvature(self, states: Tensor) -> Tensor:
        """See `Goal.curvature`; for a distance of its own the Gauss-Newton matrix, of the distance's slope alone."""
        size = states.shape[-1]
        if self.distance is None:
            return (torch.eye(size, dtype=states.dtype, device=states.device) * (2 / size)).expand(*states.shape, size)
        slope = self._slope(states)[1]
        return 2 * slope[..., None] * slope[..., None, :]

    def project(self, states: Tensor) -> Tensor:
        """See `Goal.project`: the target."""
        return self._targets(states)

    def _distances(self, distance: Distance, states: Tensor) -> Tensor:
        found = distance(states.flatten(0, -2), self._targets(states).flatten(0, -2))
        return found.unflatten(0, states.shape[:-1])

    def _slope(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the own distance of states `[..., S]`, `[...]`, and its derivative `[..., S]`."""
        assert self.distance is not None
        leaf = states.detach().requires_grad_()
        with torch.enable_grad():
            distance = self._distances(self.distance, leaf)
            (slope,) = torch.autograd.grad(distance.sum(), leaf)
        return distance.detach(), slope

    def _targets(self, states: Tensor) -> Tensor:
        return self.target[:, None, None].expand(states.shape)
