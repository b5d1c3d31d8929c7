"""What a good plan is: goals, the region that a model knows, and the rules by which candidates are judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from grasp_agent.planners.protocols import Block
from grasp_agent.validation import at_least, whole


class Support:
    """The region of states that a model has seen: balls around points that cover the replayed states.

    Args:
        points: `[P, S]` covering points.
        radius: a state farther than this from every point is off the support.
    """

    def __init__(self, points: Tensor, radius: float) -> None:
        self.points = points
        self.radius = radius
        self._squares = points.square().sum(-1)

    def off(self, states: Tensor) -> Tensor:
        """See `Region.off`."""
        flat = self._flat(states)
        nearest = self._partial(flat).amin(-1) + flat.square().sum(-1)
        return (nearest > self.radius**2).view(*states.shape[:-1], 1)

    def nearest(self, states: Tensor) -> Tensor:
        """See `Region.nearest`."""
        index = self._partial(self._flat(states)).argmin(-1)
        return self.points[index].view(states.shape)

    @staticmethod
    def _flat(states: Tensor) -> Tensor:
        """`[M, S]`; S may be 0, where nothing is around a body."""
        return states.reshape(math.prod(states.shape[:-1]), states.shape[-1])

    def _partial(self, flat: Tensor) -> Tensor:
        """Squared distances `[M, P]` of states to the points, without the states' own squares."""
        return torch.addmm(self._squares, flat, self.points.T, alpha=-2)


class BlockSupport:
    """A region for each block.

    Args:
        supports: the blocks' regions, each of the block's entries alone.
        blocks: the blocks.
    """

    def __init__(self, supports: Sequence[Support], blocks: Sequence[Block]) -> None:
        self.supports, self._blocks = tuple(supports), tuple(blocks)

    def off(self, states: Tensor) -> Tensor:
        """See `Region.off`."""
        parts = [s.off(states[..., list(b.states)]) for s, b in zip(self.supports, self._blocks, strict=True)]
        return torch.cat(parts, -1)

    def nearest(self, states: Tensor) -> Tensor:
        """See `Region.nearest`."""
        states = states.clone()
        for support, block in zip(self.supports, self._blocks, strict=True):
            entries = list(block.states)
            states[..., entries] = support.nearest(states[..., entries])
        return states


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """How a candidate is judged (all distances in units of the goal's tolerance).

    Attributes:
        hold: number of last steps during which the goal has to be kept.
        accept: a plan is good enough when its worst distance over those steps, under the worst ensemble member, plus
            its penalty for leaving the support, is not above this; a negative number accepts none.
        excursion: a plan that has come to the goal (within `accept`) must not go farther than this away again.
        running: weight of the mean distance along the way; prefers plans that arrive early.
        off_support: weight of each step that lies off the replayed support, on the way to the goal: two or three make
            a plan unacceptable, however long it is.
        stride: while planners search, the support is checked at each step of this many; a verdict checks all.
        feedback: True judges candidates as they are executed: with one tracking step on D_a F for each action, towards
            the members' common prediction. False judges the bare actions.
        damping: damping of that tracking step.
        disagreement: weight of the members' mean disagreement [tolerances per state unit].
        unused: this many members, the last ones, step no candidate while planners search, and they alone judge; 0 lets
            all members do both.
        stop: True for tasks that stay as they are when left alone (blocks on a table): a plan may stop at any time, is
            judged by where it is then, and rests from there on. `hold` has no meaning then.

    Raises:
        ValueError: if a number is out of range.
    """

    hold: int = 6
    accept: float = 0.6
    excursion: float = 1.0
    running: float = 0.1
    off_support: float = 0.25
    stride: int = 3
    feedback: bool = True
    damping: float = 0.01
    disagreement: float = 0.0
    unused: int = 0
    stop: bool = False

    def __post_init__(self) -> None:
        whole(1, hold=self.hold, stride=self.stride)
        whole(0, unused=self.unused)
        names = ("excursion", "running", "off_support", "damping", "disagreement")
        at_least(0, **{name: getattr(self, name) for name in names})
        at_least(-math.inf, accept=self.accept)


class Verdict(NamedTuple):
    """What `Problem.score` says of candidates."""

    cost: Tensor
    """`[B, N]`, lower is better; infinite where the model's answer is not finite."""
    accepted: Tensor
    """`[B, N]`, True where the candidate is good enough to stop searching."""
    states: Tensor
    """`[B, N, H, S]`, predicted states after each action, the mean over the members."""
