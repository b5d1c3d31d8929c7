"""Points that cover a set of states."""

from __future__ import annotations

import torch
from torch import Tensor


def farthest_points(states: Tensor, count: int) -> tuple[Tensor, float]:
    """Returns points that cover states: each is the state farthest from those before it (Gonzalez 1985).

    Args:
        states: `[M, S]`.
        count: number of points; fewer are returned if there are fewer distinct states.

    Returns:
        Indices `[P]`, and the covering radius: no state is farther than that from its nearest point.
    """
    nearest = (states - states.mean(0)).square().sum(-1)
    index = nearest.argmin()  # the first is nearest to the mean, whatever the order of the states
    nearest = torch.full_like(nearest, torch.inf)
    chosen = []
    for _ in range(min(count, states.shape[0])):
        chosen.append(index)
        nearest = torch.minimum(nearest, (states - states[index]).square().sum(-1))
        index = nearest.argmax()
        if not nearest[index] > 0:
            break
    return torch.stack(chosen), float(nearest.max().sqrt())
