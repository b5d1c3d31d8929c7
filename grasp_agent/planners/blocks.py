"""Problems that fall apart into blocks: plans put together from the best of each block."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.problem import Problem


def gather_parts(problem: Problem, samples: Tensor, index: Tensor) -> Tensor:
    """Plans put together from samples, block by block.

    Args:
        problem: the problem, whose blocks are the parts.
        samples: `[..., P, H, A]`.
        index: `[..., E, G]`, which sample each of E plans takes each block from; G = 1 takes all from one.

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
    """After a sync, each candidate's blocks are drawn anew from the best candidates for that block.

    What one candidate found for one block and another for the next come together in one plan; without blocks it is
    selection. The first plan is the best of every block.

    Attributes:
        share: share of the candidates, the best for a block, that are drawn from.

    Raises:
        ValueError: if it is not in (0, 1].
    """

    share: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share: expected a share in (0, 1], got {self.share}")

    def __call__(self, problem: Problem, candidates: Candidates, costs: Tensor) -> Candidates:
        """Candidates from the best parts, given costs `[B, N, G]` of the old ones' parts; N stays.

        A part's member changes with the candidate that it moves to, so its rollout changes a little, too.
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
    """Rows `[..., E, H, X]` of values `[..., P, H, X]` at indices `[..., E]`."""
    wide = index[..., None, None].expand(*index.shape, *values.shape[-2:])
    return values.gather(-3, wide)
