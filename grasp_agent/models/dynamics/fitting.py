"""Fitting a world model to a dataset."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from grasp_agent.models import EnsembleMLP
from grasp_agent.models.optimisation import minimise
from grasp_agent.replay.episodes import Dataset
from grasp_agent.validation import at_least, more_than, whole

_BLOCK = 10  # windows
_PASSES, _LEAST = 20, 50  # most gradient steps for each transition, and least that learn anything


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is fitted.

    Attributes:
        gradient_steps: optimiser steps of a fit to `full_at` transitions or more.
        full_at: fits to fewer transitions take fewer steps, in proportion to the square root of their number. Where a
            model has been fitted to a part of them, its weights are the start (warm start), and a fit takes the share
            of these steps that the new transitions have in all. A fit that owes `gradient_steps` in full begins afresh.
        batch_size: windows in a batch, for each ensemble member its own.
        lr: peak learning rate of AdamW; it falls to zero along a cosine.
        weight_decay: AdamW's at 10,000 windows, in inverse proportion to their number, as the weight of a prior would
            be. The linear path is free of it: motion is taken for linear where the data do not say otherwise. None is
            0.5 for networks with features of positions, whose free motion is linear between walls, and 0.1 without.
        unroll: steps that the model is rolled out in the loss; more than 1 trains it on its own predictions.
        holdout: share of the windows, about, that is kept back to measure the model's error.
        patience: a fit ends, with the weights that were best on what is kept back, when they have not become better for
            this many gradient steps; None goes on to the end and takes the last weights. Worth its noise where data are
            plenty and time is short: the learning rate falls to zero, and the last weights are most often the best.

    Raises:
        ValueError: if a number is out of range.
    """

    gradient_steps: int = 4000
    full_at: int = 4000
    batch_size: int = 256
    lr: float = 2e-3
    weight_decay: float | None = None
    unroll: int = 1
    holdout: float = 0.05
    patience: int | None = None

    def __post_init__(self) -> None:
        names = ("gradient_steps", "full_at", "batch_size", "unroll")
        whole(1, **{name: getattr(self, name) for name in names})
        more_than(0, lr=self.lr)
        if self.weight_decay is not None:
            at_least(0, weight_decay=self.weight_decay)
        if self.patience is not None:
            whole(1, patience=self.patience)
        more_than(0, holdout=self.holdout)
        if self.holdout >= 1:
            raise ValueError(f"holdout: expected less than 1, got {self.holdout}")

    def for_data(self, total: int, new: int | None = None) -> TrainConfig:
        """The settings of one fit.

        Args:
            total: transitions that it is fitted to, at least 1.
            new: those of them that have not been fitted in full before; None for all.
        """
        share = 1.0 if new is None else new / total
        steps = share * min(math.sqrt(min(1.0, total / self.full_at)) * self.gradient_steps, _PASSES * total)
        return replace(self, gradient_steps=min(self.gradient_steps, max(_LEAST, round(steps))))


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """What came of a fit.

    Attributes:
        loss: mean training loss over the last steps, a tenth of all.
        error_mean: mean one-step error on held-out transitions, worst member [state units].
        error_high: its 99 % quantile.
    """

    loss: float
    error_mean: float
    error_high: float


def fit(
    model: EnsembleMLP,
    dataset: Dataset,
    config: TrainConfig,
    *,
    fresh: bool = True,
    seed: int = 0,
    on_step: Callable[[], object] | None = None,
) -> FitReport:
    """Fits a model in place.

    Args:
        model: the model; its weights are the start.
        dataset: at least one episode of `config.unroll` steps.
        config: how.
        fresh: whether the model first learns normalisation from the dataset; False where it has been fitted before.
        seed: of the batches.
        on_step: called after each gradient step.

    Returns:
        Losses and held-out errors.
    """
    device = model.scale.device
    generator = torch.Generator().manual_seed(seed)
    raw, actions = (torch.from_numpy(array).to(device) for array in dataset.windows(config.unroll))
    if fresh:
        model.adapt(raw[:, 0], actions[:, 0], raw[:, 1])
    usable = model.usable(raw)
    out = _held_out(len(raw), config.holdout).to(device)[usable]
    states, actions = model.encode(raw[usable]), actions[usable]
    if not out.any():  # of what can be used, nothing was to be kept back
        out = _held_out(len(states), config.holdout).to(device)
    held, train = out.nonzero()[:, 0], (~out if len(out) > 1 else out).nonzero()[:, 0]

    def loss(_: int) -> tuple[Tensor, Callable[[], Tensor]]:
        rows = train[torch.randint(len(train), (model.members, config.batch_size), generator=generator).to(device)]
        value = model.loss(states[rows], actions[rows])
        return value, value.detach

    best = None if config.patience is None else _Best(model, states[held], actions[held], config.patience)
    enough = None if best is None else best.enough
    optimiser = _optimiser(model, config, len(states))
    tail = minimise(loss, optimiser, config.lr, config.gradient_steps, rise=0.05, on_step=on_step, enough=enough)
    if best is not None:
        best.restore()
    errors = _errors(model, states[held], actions[held])
    return FitReport(
        loss=float(torch.stack(tail).mean()),
        error_mean=float(errors.mean()),
        error_high=float(errors.quantile(0.99)),
    )


def _optimiser(model: EnsembleMLP, config: TrainConfig, windows: int) -> torch.optim.Optimizer:
    """AdamW with a weight decay for so many windows."""
    decay = config.weight_decay
    if decay is None:
        decay = 0.5 if model.config.octaves and model.positions else 0.1
    decay = min(decay * 10_000 / windows, 0.1 / config.lr)  # more would overshoot zero
    return torch.optim.AdamW(
        [
            {"params": [*model.weights], "weight_decay": decay},
            {"params": [*model.biases, model.skip], "weight_decay": 0.0},
        ],
        lr=config.lr,
        fused=model.scale.device.type in ("cpu", "cuda"),
    )


def _held_out(count: int, share: float) -> Tensor:
    """Which of `count` windows are kept back, `[count]`: whole blocks, since neighbouring windows overlap.

    From 100 windows on, whether one is kept back depends on its place alone: it still is when more data have come
    behind it, so that a warm start has not been fitted to what its error is measured on. Blocks are those whose
    multiple of the golden ratio has a small fractional part: as many as the share says, at no period of the episodes.
    """
    size = _BLOCK if count >= 10 * _BLOCK else 1
    fractions = (np.arange(-2, -(-count // size) - 2) * (math.sqrt(5) - 1) / 2) % 1  # 0 for the third block
    chosen = fractions < share
    if chosen.all():  # but one, which is trained on
        chosen[fractions.argmax()] = False
    if not chosen.any():
        chosen[-1] = True
    return torch.from_numpy(chosen).repeat_interleave(size)[:count]


class _Best:
    """The weights that were best on what was kept back."""

    def __init__(self, model: EnsembleMLP, states: Tensor, actions: Tensor, patience: int) -> None:
        self._model, self._held, self._patience = model, (states, actions), patience
        self._every = max(1, patience // 10)
        self._error, self._step, self._weights = math.inf, 0.0, model.state_dict()

    def enough(self, step: int) -> bool:
        """Looks at the model now and then; True when it has not become better for too long."""
        if (step + 1) % self._every == 0:
            self._look(step)
        return step - self._step >= self._patience

    def _look(self, step: float) -> None:
        error = float(_errors(self._model, *self._held).mean())
        if error < self._error:
            self._error, self._step = error, step
            self._weights = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}

    def restore(self) -> None:
        """Looks a last time, and gives the model its best weights."""
        self._look(math.inf)
        self._model.load_state_dict(self._weights)


@torch.no_grad()
def _errors(model: EnsembleMLP, states: Tensor, actions: Tensor) -> Tensor:
    """One-step error of the worst member, `[M]`."""
    rows = (model.members, -1, -1)
    predicted = model.step(states[:, 0].expand(*rows), actions[:, 0].expand(*rows))
    return (predicted - states[:, 1]).norm(dim=-1).amax(0)
