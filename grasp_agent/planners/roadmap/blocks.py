"""Roadmaps of the blocks of factored problems."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from grasp_agent.planners.protocols import Aim, Block, Dynamics, Jacobian, Router
from grasp_agent.planners.refusals import Refusals


class BlockRoadmap:
    """A roadmap for each block: n balls in a room need no roadmap of their joint positions.

    Args:
        graphs: the blocks' roadmaps, each over the block's entries only.
        blocks: the blocks.
    """

    def __init__(self, graphs: Sequence[Router], blocks: Sequence[Block]) -> None:
        self.graphs, self._blocks = tuple(graphs), tuple(blocks)

    @property
    def connected(self) -> float:
        """See `Router.connected`: of the worst block."""
        return min(graph.connected for graph in self.graphs)

    def settle(self, states: Tensor) -> Tensor:
        """See `Router.settle`."""
        settled = states.clone()
        for graph, block in zip(self.graphs, self._blocks, strict=True):
            settled[..., list(block.states)] = graph.settle(states[..., list(block.states)])
        return settled

    def paths(
        self, start: Tensor, aim: Aim, count: int, horizon: int, stretch: float, refusals: Refusals | None = None
    ) -> Tensor:
        """See `Router.paths`."""
        states = start[:, None, None].expand(-1, count, horizon, -1).clone()
        for graph, block in zip(self.graphs, self._blocks, strict=True):
            entries = list(block.states)
            own = None if refusals is None else refusals.of_block(entries)
            states[..., entries] = graph.paths(
                start[:, entries], _part(aim, entries, start), count, horizon, stretch, own
            )
        return states

    def ahead(
        self, start: Tensor, aim: Aim, horizon: int, stretch: float, refusals: Refusals | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Router.ahead`: the goal is too far where it is so for one block."""
        states, far = aim(start[:, None])[:, 0].clone(), start.new_zeros(len(start), dtype=torch.bool)
        for graph, block in zip(self.graphs, self._blocks, strict=True):
            entries = list(block.states)
            own = None if refusals is None else refusals.of_block(entries)
            states[:, entries], late = graph.ahead(start[:, entries], _part(aim, entries, start), horizon, stretch, own)
            far |= late
        return states, far


def _part(aim: Aim, entries: list[int], start: Tensor) -> Aim:
    """Returns the goal of a block's entries; `start` `[B, S]` has the size of whole states."""

    def part_aim(parts: Tensor) -> Tensor:
        whole = parts.new_zeros(*parts.shape[:-1], start.shape[-1])
        whole[..., entries] = parts
        return aim(whole)[..., entries]

    return part_aim


def block_dynamics(dynamics: Dynamics, block: Block, others: Tensor, rest: Tensor) -> Dynamics:
    """Returns the dynamics of a block while the other blocks rest at `others` `[S]`."""
    return lambda state, action: dynamics(*_embedded(state, action, block, others, rest))[..., list(block.states)]


def block_jacobian(action_jacobian: Jacobian, block: Block, others: Tensor, rest: Tensor) -> Jacobian:
    """Returns the dynamics of a block with their derivative by the block's actions, see `block_dynamics`."""

    def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        states, actions = list(block.states), list(block.actions)
        following, slopes = action_jacobian(*_embedded(state, action, block, others, rest))
        return following[..., states], slopes[..., states, :][..., actions]

    return step


def _embedded(state: Tensor, action: Tensor, block: Block, others: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Returns states and actions of all blocks, with those of one block inserted."""
    whole, acting = others.expand(*state.shape[:-1], -1).clone(), rest.expand(*action.shape[:-1], -1).clone()
    whole[..., list(block.states)], acting[..., list(block.actions)] = state, action
    return whole, acting
