"""Factored problems: plans combined from the best parts for each block."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.problem import Problem


def gather_parts(problem: Problem, samples: Tensor, index: Tensor) -> Tensor:
    """Returns plans combined from samples, block by block.

    Args:
        problem: the problem, whose blocks are the parts.
        samples: `[..., P, H, A]`.
        index: `[..., E, G]`, the sample from which each of E plans takes each block; G = 1 takes all from one.

    Returns:
        `[..., E, H, A]`.
    """
    if index.shape[-1] == 1:
        return _take(samples, index[..., 0])
    plans = _take(samples, index[..., 0])
    for part, block in enumerate(problem.independent):
        entries = list(block.actions)
        plans[..., entries] = _take(samples[..., entries], index[..., part])
    return plans


@dataclass(frozen=True, kw_only=True)
class Recombination:
    """Recombines candidates after a sync: each block is taken from one of the best candidates for that block.

    This combines solutions that different candidates found for different blocks; without blocks it is selection. The
    first plan has the best part for every block.

    Attributes:
        share: fraction of the candidates, the best for a block, from which parts are taken.

    Raises:
        ValueError: if it is not in (0, 1].
    """

    share: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share: expected a fraction in (0, 1], got {self.share}")

    def __call__(self, problem: Problem, candidates: Candidates, costs: Tensor) -> Candidates:
        """Returns N candidates combined from the best parts of N, whose costs are `[B, N, G]`.

        A part may move to a candidate of another ensemble member, which changes its rollout a little.
        """
        count = candidates.size
        pool = max(1, round(self.share * count))
        order = costs.argsort(1)[:, :pool]
        # Block g of new candidate n comes from the (n + n // pool * g)-th best for the block: all pairings occur.
        rows = torch.arange(count, device=costs.device)[:, None]
        parts = torch.arange(costs.shape[-1], device=costs.device)
        index = order.gather(1, ((rows + rows // pool * parts) % pool).expand(len(costs), -1, -1))
        states, actions = candidates.states.clone(), candidates.actions.clone()
        for part, block in enumerate(problem.independent):
            chosen = index[..., part] if costs.shape[-1] > 1 else index[..., 0]
            for values, old, entries in (
                (states, candidates.states, list(block.states)),
                (actions, candidates.actions, list(block.actions)),
            ):
                values[..., entries] = _take(old[..., entries], chosen)
        return Candidates(states, actions)


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Returns rows `[..., E, H, X]` of values `[..., P, H, X]` at indices `[..., E]`."""
    wide = index[..., None, None].expand(*index.shape, *values.shape[-2:])
    return values.gather(-3, wide)
