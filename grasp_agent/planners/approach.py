"""Goals for what moves in contact only: until the goal is reached, the distance to the moved object counts, too."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from grasp_agent.planners.protocols import Goal

_OTHERS = 0.1  # weight of other entries in the distance of two states; chosen by hand
_WEIGHT = 0.25  # of the squared distance to the object, beside that of the object to its goal; chosen by hand


@dataclass(frozen=True, kw_only=True)
class Approach:
    """Another goal, at which an object has to be, and before it the way of what moves the object to the object.

    Without contact the goal does not depend on the actions: no plan is better than another. The second term leads to
    contact. It ends where the object is in reach, and fades away where the goal is reached.

    Attributes:
        size: S, the length of a state.
        goal: the goal, of one part.
        mover: `[D]`, entries of the state: the position of what moves the object.
        object: `[D]`, entries of the object's position, in the same unit.
        scale: `[2, D]`, factors of these entries [the goal's unit per state unit].
        offset: `[D]`, the difference of both where the state is 0 [the goal's unit].
        reach: distance at which the object is in reach [the goal's unit].
    """

    size: int
    goal: Goal
    mover: Tensor
    object: Tensor
    scale: Tensor
    offset: Tensor
    reach: float

    @property
    def tolerance(self) -> float:
        """See `Goal.tolerance`."""
        return self.goal.tolerance

    def parts(self, states: Tensor) -> Tensor:
        """See `Goal.parts`."""
        parts = self.goal.parts(states)
        return parts + (self._weight(parts[..., 0]) * self._excess(self.separation(states)).square())[..., None]

    def cost(self, states: Tensor) -> Tensor:
        """See `Goal.cost`."""
        cost = self.goal.cost(states)
        return cost + self._weight(cost) * self._excess(self.separation(states)).square()

    def gradient(self, states: Tensor) -> Tensor:
        """See `Goal.gradient`; the fading counts as constant."""
        excess, slope = self._slope(states)
        weight = self._weight(self.goal.cost(states))
        return self.goal.gradient(states) + (2 * weight * excess)[..., None] * slope

    def curvature(self, states: Tensor) -> Tensor:
        """See `Goal.curvature`: of the second term, the Gauss-Newton matrix."""
        excess, slope = self._slope(states)
        weight = 2 * self._weight(self.goal.cost(states)) * (excess > 0)
        return self.goal.curvature(states) + weight[..., None, None] * slope[..., None] * slope[..., None, :]

    def project(self, states: Tensor) -> Tensor:
        """See `Goal.project`: that of the goal itself."""
        return self.goal.project(states)

    def separation(self, states: Tensor) -> Tensor:
        """Returns the differences of the positions of mover and object, `[..., S] -> [..., D]` [the goal's unit]."""
        mover, moved = states.index_select(-1, self.mover), states.index_select(-1, self.object)
        return mover * self.scale[0] - moved * self.scale[1] + self.offset

    def apart(self, states: Tensor, start: Tensor) -> Tensor:
        """Returns how far states `[..., S]` are from a start `[S]`, wherever the object is, `[...]`.

        The mover's position relative to the object counts, and a little all other entries [state units].
        """
        used = {*self.mover.tolist(), *self.object.tolist()}
        others = [entry for entry in range(self.size) if entry not in used]
        way = (self.separation(states) - self.separation(start)).norm(dim=-1)
        return way + _OTHERS * (states - start)[..., others].norm(dim=-1)

    def _weight(self, cost: Tensor) -> Tensor:
        """Returns the second term's weight: 0 within the tolerance, the whole one from twice the tolerance on."""
        return _WEIGHT * (cost.detach().clamp_min(0).sqrt() / self.tolerance - 1).clamp(0, 1)

    def _excess(self, difference: Tensor) -> Tensor:
        return ((difference.square().sum(-1) + 1e-12).sqrt() - self.reach).clamp_min(0)

    def _slope(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the distance beyond reach of states `[..., S]`, `[...]`, and its derivative `[..., S]`."""
        difference = self.separation(states)
        direction = difference / difference.norm(dim=-1, keepdim=True).clamp_min(1e-9)
        return self._excess(difference), direction @ self._by_state

    @cached_property
    def _by_state(self) -> Tensor:
        """`[D, S]`, the derivative of the difference."""
        rows = torch.arange(len(self.mover), device=self.mover.device)
        matrix = self.scale.new_zeros(len(rows), self.size)
        matrix[rows, self.mover], matrix[rows, self.object] = self.scale[0], -self.scale[1]
        return matrix
