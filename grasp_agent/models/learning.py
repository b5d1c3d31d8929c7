"""How a world is learned from data: a model is fitted, from fresh weights or known ones; the rest is derived."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from grasp_agent.models import EnsembleMLP, MLPConfig
from grasp_agent.models.dynamics.fitting import FitReport, TrainConfig, fit
from grasp_agent.models.replay_index import ReplayIndex
from grasp_agent.models.world import World, check_blocks, fresh_model
from grasp_agent.planners import ReplayWindows
from grasp_agent.replay.episodes import Dataset
from grasp_agent.task.state_map import StateMap
from grasp_agent.task.structure import Structure

_TRIAL, _TRIAL_STEPS = 0.25, 300  # share of a fit, and most steps, after which one kind of network is preferred
_FEW = 0.25  # share of new transitions up to which a warm start is made wherever the data lie
_STILL, _MANY = 0.2, 20  # what varies by less than this share of what moves, in each of so many episodes, does not move
_SAME = 1e-6  # least spread [the environment's units]


class Earlier(NamedTuple):
    """An earlier fit, from which another one starts where its model still fits the data (warm start)."""

    model: EnsembleMLP
    """Its model."""
    owed: int
    """Transitions that have not been fitted in full, which decides the number of gradient steps."""
    unseen: int
    """Transitions that the model has not been fitted to at all."""
    least_error: float
    """The world's error is not taken for less [model units]: data may stem from the model itself."""


def learn_world(
    data: Dataset,
    state_map: StateMap,
    *,
    model: MLPConfig | None,
    train: TrainConfig,
    tolerance: float | None,
    structure: Structure,
    seed: int,
    device: torch.device,
    earlier: Earlier | None = None,
    unit_groups: Sequence[Sequence[int]] = (),
    progress_bar: bool = False,
) -> tuple[World, FitReport]:
    """Fits a model and derives support and roadmap.

    Args:
        data: episodes of raw vectors, observation and achieved goal side by side.
        state_map: their entries that make up the state.
        model: shape of the networks; None takes the kind, sharp or smooth, that predicts held-out data better.
        train: how the model is fitted.
        tolerance: success radius [the environment's units]; None takes a twentieth of the spread of the goals.
        structure: what is known of the task beforehand.
        seed: of weights and batches.
        device: where the model lives.
        earlier: what was fitted before; its model is left as it is.
        unit_groups: groups of the state's entries that are measured in the same unit, and scaled alike.
        progress_bar: show progress of the fit.

    Returns:
        The world, and what came of the fit.
    """
    data = data.select(state_map.columns)
    known, owed = (None, None) if earlier is None else (earlier.model, earlier.owed)
    few = earlier is not None and earlier.unseen <= _FEW * len(data)
    size, fixed = data.episodes[0].actions.shape[1], known.unchanging if known and few else unchanging(data)
    check_blocks(structure.blocks, state_map, size)
    settings = {"frame": structure.frame, "fixed": fixed, "unit_groups": unit_groups, "seed": seed}
    made = partial(fresh_model, state_map, size, **settings)
    afresh = len(data) >= train.full_at and owed in (None, len(data))
    fits = _Fit(made, device, data, train, seed, progress_bar)
    network, report = fits.run(model, None if afresh else known, owed, allow_drift=few)
    memory = ReplayIndex.build(
        network,
        network.encode(torch.from_numpy(data.states).to(device)),
        torch.from_numpy(data.origins),
        blocks=structure.blocks,
        named=state_map.goal_index,
        replay=_pieces(network, data),
        error=report.error_mean,
        seed=seed,
    )
    if not math.isfinite(report.error_high):
        raise FloatingPointError("fit: the model diverged; expected a smaller lr or weight_decay, or more data")
    radius = tolerance or _radius(data, state_map, structure, greatest=bool(unit_groups))
    error = report.error_high if earlier is None else max(report.error_high, earlier.least_error)
    return World(network, memory, state_map, radius, structure, error), report


def _radius(data: Dataset, state_map: StateMap, structure: Structure, *, greatest: bool) -> float:
    """A twentieth of the spread of the goals, of the entry that varies most or of all [the environment's units]."""
    spread = data.states[:, list(state_map.goal_index)].std(0)
    weighted = spread * (structure.goal_weights or 1)
    return 0.05 * float(weighted.max() if greatest else weighted.mean()) or 1e-3


class _Fit(NamedTuple):
    """A fit of one of several kinds of networks."""

    made: Callable[[MLPConfig], EnsembleMLP]
    device: torch.device
    data: Dataset
    train: TrainConfig
    seed: int
    progress_bar: bool

    def run(
        self, model: MLPConfig | None, known: EnsembleMLP | None, owed: int | None, *, allow_drift: bool
    ) -> tuple[EnsembleMLP, FitReport]:
        """A network of a kind, or of the preferred one, from a known one's weights where these still fit the data."""
        config, tried = self.train.for_data(len(self.data)), 0
        if model is None:
            network, tried = self._preferred(config)
        else:
            network = self.made(model).to(self.device)
        warm = None
        if known is not None:
            warm = self._warm_started(self.made(network.config).to(self.device), known, allow_drift=allow_drift)
        if warm is not None:
            network, config = warm, self.train.for_data(len(self.data), owed)
        else:
            config = replace(config, gradient_steps=max(1, config.gradient_steps - tried))
        with tqdm(total=config.gradient_steps, desc="fitting", leave=False, disable=not self.progress_bar) as bar:
            fresh = warm is None and not tried
            return network, fit(network, self.data, config, fresh=fresh, seed=self.seed, on_step=bar.update)

    def _preferred(self, config: TrainConfig) -> tuple[EnsembleMLP, int]:
        """A network of the kind that predicts held-out data better after some gradient steps, and how many it had."""
        trial = replace(config, gradient_steps=max(1, min(_TRIAL_STEPS, int(_TRIAL * config.gradient_steps))))
        rivals = [self.made(kind).to(self.device) for kind in (MLPConfig.sharp(), MLPConfig.smooth())]
        errors = [fit(rival, self.data, trial, seed=self.seed).error_mean for rival in rivals]
        return rivals[int(np.argmin(errors))], trial.gradient_steps

    def _warm_started(self, network: EnsembleMLP, known: EnsembleMLP, *, allow_drift: bool) -> EnsembleMLP | None:
        """The network with the weights of a known one; None where these do not fit the data any more."""
        states, actions = (torch.from_numpy(array).to(known.scale.device) for array in self.data.windows(1))
        network.adapt(states[:, 0], actions[:, 0], states[:, 1])
        return network if network.warm_start_from(known, allow_drift=allow_drift) else None


def unchanging(data: Dataset) -> tuple[int, ...]:
    """Entries of the state that differ from episode to episode, but in none by more than noise: nothing moves them.

    Episodes may be too short for anything to get far: what moves most in them tells how much that is.
    """
    whole = data.states.std(0)
    if len(data.episodes) < _MANY:
        return ()
    share = np.max([episode.states.std(0) for episode in data.episodes], 0) / np.maximum(whole, _SAME)
    return tuple(map(int, np.flatnonzero((share < _STILL * share.max()) & (whole > _SAME))))


def _pieces(model: EnsembleMLP, data: Dataset) -> ReplayWindows:
    """Pieces of the data, as long as half of the episodes allow and up to 50 steps, overlapping by half."""
    length = int(min(50, np.median([len(episode.actions) for episode in data.episodes])))
    pieces = [
        (episode.states[first : first + length + 1], episode.actions[first : first + length])
        for episode in data.episodes
        for first in range(0, len(episode.actions) - length + 1, max(1, length // 2))
    ]
    states, actions = (torch.from_numpy(np.stack(values)) for values in zip(*pieces, strict=True))
    device = model.scale.device
    return ReplayWindows(model.encode(states.to(device)), actions.to(device))
