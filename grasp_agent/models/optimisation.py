"""The training loop of all models in this folder."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Info = TypeVar("Info")
_FEWEST = 40  # least steps of a schedule: torch divides by the length of the warm-up minus one


def minimise(
    loss: Callable[[int], tuple[Tensor, Callable[[], Info]]],
    optimiser: torch.optim.Optimizer,
    lr: float | list[float],
    steps: int,
    *,
    warmup: float,
    tail: int = 10,
    on_step: Callable[[], object] | None = None,
    stop: Callable[[int], bool] | None = None,
) -> list[Info]:
    """Takes gradient steps with the one-cycle learning rate schedule (Smith and Topin 2017, arXiv 1708.07120).

    Args:
        loss: from the step's number to the loss of a batch, and a function that returns diagnostics of it.
        optimiser: holds the parameters.
        lr: peak learning rate, or one for each group of parameters.
        steps: gradient steps.
        warmup: fraction of the steps until the peak.
        tail: diagnostics of the last steps are returned, one in so many of all.
        on_step: called after each step.
        stop: called with each step's number; True ends the fit.

    Returns:
        The diagnostics of the last steps.
    """
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=max(_FEWEST, steps + 1), pct_start=warmup)
    first = (tail - 1) * steps // tail
    infos: deque[Info] = deque(maxlen=steps - first)
    for step in range(steps):
        value, info = loss(step)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
        if step >= first or stop is not None:
            infos.append(info())
        if on_step is not None:
            on_step()
        if stop is not None and stop(step):
            break
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            parameter.grad = None
    return list(infos)
