"""Choices as actions: corners of a simplex, with entries 1 for what is chosen and -1 for the others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot


def check_choices(choices: tuple[int, ...], low: Tensor, high: Tensor, objective: object) -> None:
    """Checks that choices fit the bounds `[A]` of actions; raises ValueError where not, or where there is a goal."""
    if min(choices) < 1 or sum(choices) != len(low) or objective is None:
        raise ValueError(f"choices: expected numbers from 1, {len(low)} in sum, and an objective, got {choices}")
    if not bool((low == -1).all() and (high == 1).all()):
        raise ValueError(f"choices: expected bounds -1 and 1, got {low.tolist()} and {high.tolist()}")


def relaxed(actions: Tensor, choices: tuple[int, ...]) -> Tensor:
    """Returns actions `[..., A]` projected to the nearest mixtures of choices (Duchi et al. 2008, figure 1).

    Args:
        actions: vectors.
        choices: how many entries belong to each choice, A in sum.
    """
    return _each(actions, choices, _nearest_mixture)


def rounded(actions: Tensor, choices: tuple[int, ...]) -> Tensor:
    """Returns actions `[..., A]` as choices: the greatest entry of each; see `relaxed`."""
    return _each(actions, choices, lambda part: 2 * one_hot(part.argmax(-1), part.shape[-1]).to(part.dtype) - 1)


def _each(actions: Tensor, choices: tuple[int, ...], function: Callable[[Tensor], Tensor]) -> Tensor:
    if len(set(choices)) == 1:  # as usual: all in one call
        return function(actions.unflatten(-1, (len(choices), choices[0]))).flatten(-2)
    return torch.cat([function(part) for part in actions.split(choices, -1)], -1)


def _nearest_mixture(part: Tensor) -> Tensor:
    """Returns the nearest point to vectors `[..., n]` of the simplex with corners `2 e_i - 1`."""
    weights = (part + 1) / 2
    falling = weights.sort(-1, descending=True).values
    excess = falling.cumsum(-1) - 1
    count = torch.arange(1, part.shape[-1] + 1, device=part.device)
    active = (falling * count > excess).sum(-1, keepdim=True).clamp_min(1)
    level = excess.gather(-1, active - 1) / active
    return 2 * (weights - level).clamp_min(0) - 1
