"""Training of a world model on a dataset."""

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
from grasp_agent.validation import at_least, fraction, more_than, whole

_HOLDOUT_BLOCK = 10  # neighbouring windows that are held out together; chosen by hand


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is fitted.

    Attributes:
        gradient_steps: optimiser steps of a fit to `full_at` transitions or more.
        full_at: fits to fewer transitions take fewer steps, in proportion to the square root of their number. If a
            model has been fitted to a part of them, its weights are the start (warm start), and a fit takes the
            fraction of these steps that the new transitions are of all. A fit that needs `gradient_steps` in full
            starts from scratch.
        steps_per_transition: most gradient steps of a fit for each of its new transitions.
        least_steps: lower bound of the gradient steps of a fit, up to `gradient_steps`.
        trial_fraction: fraction of a fit after which one of two kinds of networks is selected, if none is given.
        trial_steps: upper bound of the gradient steps before that selection.
        batch_size: windows in a batch, different ones for each ensemble member.
        lr: peak learning rate of AdamW; it falls to zero along a cosine.
        weight_decay: AdamW's at 10,000 windows, in inverse proportion to their number, as the weight of a prior would
            be. The linear path has none: motion is linear where the data do not say otherwise. None is 0.5 for networks
            with features of positions, whose free motion is linear between walls, and 0.1 without.
        unroll: steps that the model is rolled out in the loss; more than 1 trains it on its own predictions.
        holdout: fraction of the windows, about, that is held out to measure the model's error.
        patience: early stopping: a fit ends, with the weights that were best on held-out windows, when these have not
            improved for this many gradient steps; None takes the weights of the last step. It adds noise, and pays if
            data are plenty and time is short: the learning rate falls to zero, so the last weights are most often best.

    Raises:
        ValueError: if a number is out of range.
    """

    gradient_steps: int = 4000
    full_at: int = 16_000
    steps_per_transition: int = 20
    least_steps: int = 50
    trial_fraction: float = 0.25
    trial_steps: int = 300
    batch_size: int = 128
    lr: float = 4e-3
    weight_decay: float | None = None
    unroll: int = 1
    holdout: float = 0.05
    patience: int | None = None

    def __post_init__(self) -> None:
        names = (
            "gradient_steps",
            "full_at",
            "steps_per_transition",
            "least_steps",
            "trial_steps",
            "batch_size",
            "unroll",
        )
        whole(1, **{name: getattr(self, name) for name in names})
        more_than(0, lr=self.lr, trial_fraction=self.trial_fraction)
        fraction(trial_fraction=self.trial_fraction)
        if self.weight_decay is not None:
            at_least(0, weight_decay=self.weight_decay)
        if self.patience is not None:
            whole(1, patience=self.patience)
        more_than(0, holdout=self.holdout)
        if self.holdout >= 1:
            raise ValueError(f"holdout: expected less than 1, got {self.holdout}")

    def for_data(self, total: int, new: int | None = None) -> TrainConfig:
        """Returns the settings of one fit.

        Args:
            total: transitions of the fit, at least 1.
            new: those of them that have not been fitted in full before; None for all.
        """
        new_part = 1.0 if new is None else new / total
        steps = new_part * min(
            math.sqrt(min(1.0, total / self.full_at)) * self.gradient_steps, self.steps_per_transition * total
        )
        return replace(self, gradient_steps=min(self.gradient_steps, max(self.least_steps, round(steps))))


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """Results of a fit.

    Attributes:
        loss: mean training loss over the last tenth of the steps.
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
        fresh: whether the normalisation is fitted to the dataset first; False for a model that has been fitted before.
        seed: seed of the batches.
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
    if not out.any():  # none of the held-out windows is usable
        out = _held_out(len(states), config.holdout).to(device)
    held, train = out.nonzero()[:, 0], (~out if len(out) > 1 else out).nonzero()[:, 0]

    def loss(_: int) -> tuple[Tensor, Callable[[], Tensor]]:
        rows = train[torch.randint(len(train), (model.members, config.batch_size), generator=generator).to(device)]
        value = model.loss(states[rows], actions[rows])
        return value, value.detach

    stopping = None if config.patience is None else _EarlyStopping(model, states[held], actions[held], config.patience)
    stop = None if stopping is None else stopping.stop
    optimiser = _optimiser(model, config, len(states))
    tail = minimise(loss, optimiser, config.lr, config.gradient_steps, warmup=0.05, on_step=on_step, stop=stop)
    if stopping is not None:
        stopping.restore()
    errors = _errors(model, states[held], actions[held])
    return FitReport(
        loss=float(torch.stack(tail).mean()),
        error_mean=float(errors.mean()),
        error_high=float(errors.quantile(0.99)),
    )


def _optimiser(model: EnsembleMLP, config: TrainConfig, windows: int) -> torch.optim.Optimizer:
    """Returns AdamW with the weight decay for this number of windows."""
    decay = config.weight_decay
    if decay is None:
        decay = 0.5 if model.config.octaves and model.positions else 0.1
    decay = min(decay * 10_000 / windows, 0.1 / config.lr)  # a greater one would overshoot zero
    return torch.optim.AdamW(
        [
            {"params": [*model.weights], "weight_decay": decay},
            {"params": [*model.biases, model.skip], "weight_decay": 0.0},
        ],
        lr=config.lr,
        fused=model.scale.device.type in ("cpu", "cuda"),
    )


def _held_out(count: int, fraction: float) -> Tensor:
    """Returns which of `count` windows are held out, `[count]`: whole blocks, since neighbouring windows overlap.

    From 100 windows on, whether one is held out depends on its index alone. It still is after more data, so a warm
    start has not been fitted to the windows on which its error is measured. A block is held out if the fractional part
    of its multiple of the golden ratio is small: that gives the wanted fraction, at no period of the episodes.
    """
    size = _HOLDOUT_BLOCK if count >= 10 * _HOLDOUT_BLOCK else 1
    fractions = (np.arange(-2, -(-count // size) - 2) * (math.sqrt(5) - 1) / 2) % 1  # 0 for the third block
    chosen = fractions < fraction
    if chosen.all():  # one block is needed for training
        chosen[fractions.argmax()] = False
    if not chosen.any():
        chosen[-1] = True
    return torch.from_numpy(chosen).repeat_interleave(size)[:count]


class _EarlyStopping:
    """Early stopping: keeps the weights with the least error on held-out windows."""

    def __init__(self, model: EnsembleMLP, states: Tensor, actions: Tensor, patience: int) -> None:
        self._model, self._held, self._patience = model, (states, actions), patience
        self._every = max(1, patience // 10)
        self._error, self._step, self._weights = math.inf, 0.0, model.state_dict()

    def stop(self, step: int) -> bool:
        """Evaluates the model every few steps; returns True when it has not improved for `patience` steps."""
        if (step + 1) % self._every == 0:
            self._evaluate(step)
        return step - self._step >= self._patience

    def _evaluate(self, step: float) -> None:
        error = float(_errors(self._model, *self._held).mean())
        if error < self._error:
            self._error, self._step = error, step
            self._weights = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}

    def restore(self) -> None:
        """Evaluates the model once more, and restores its best weights."""
        self._evaluate(math.inf)
        self._model.load_state_dict(self._weights)


@torch.no_grad()
def _errors(model: EnsembleMLP, states: Tensor, actions: Tensor) -> Tensor:
    """Returns the one-step error of the worst member, `[M]`."""
    rows = (model.members, -1, -1)
    predicted = model.step(states[:, 0].expand(*rows), actions[:, 0].expand(*rows))
    return (predicted - states[:, 1]).norm(dim=-1).amax(0)
