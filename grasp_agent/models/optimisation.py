"""The one loop by which everything in this folder is fitted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Told = TypeVar("Told")
_FEWEST = 40  # steps of a schedule, at least: with a short rise, torch divides by its length less one


def minimise(
    loss: Callable[[int], tuple[Tensor, Callable[[], Told]]],
    optimiser: torch.optim.Optimizer,
    lr: float | list[float],
    steps: int,
    *,
    rise: float,
    tail: int = 10,
    on_step: Callable[[], object] | None = None,
    enough: Callable[[int], bool] | None = None,
) -> list[Told]:
    """Takes gradient steps whose learning rate rises, then falls to zero (Smith and Topin 2017, arXiv 1708.07120).

    Args:
        loss: from the step's number to the loss of a batch, and a function that tells of it.
        optimiser: holds the parameters.
        lr: highest learning rate, or that of each group of parameters.
        steps: gradient steps.
        rise: fraction of them until the highest rate.
        tail: what is told of the last of so many parts of the steps is returned.
        on_step: called after each step.
        enough: called with each step's number; True ends the fit.

    Returns:
        What was told, of the last steps.
    """
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=max(_FEWEST, steps + 1), pct_start=rise)
    first = (tail - 1) * steps // tail
    told: deque[Told] = deque(maxlen=steps - first)
    for step in range(steps):
        value, tell = loss(step)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
        if step >= first or enough is not None:
            told.append(tell())
        if on_step is not None:
            on_step()
        if enough is not None and enough(step):
            break
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            parameter.grad = None
    return list(told)
