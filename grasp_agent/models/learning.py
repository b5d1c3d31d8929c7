"""Learning of a world from data: a model is fitted, from fresh or known weights; the replay index is derived."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from grasp_agent.models import EnsembleMLP, MLPConfig
from grasp_agent.models.contact import Contact, find_contact
from grasp_agent.models.dynamics.fitting import FitReport, TrainConfig, fit
from grasp_agent.models.fresh import check_blocks, fresh_model
from grasp_agent.models.replay_index import ReplayIndex
from grasp_agent.models.world import World
from grasp_agent.planners import Refusals, ReplayWindows
from grasp_agent.planners.refusals import refused
from grasp_agent.replay.episodes import Dataset
from grasp_agent.task.state_map import StateMap
from grasp_agent.task.structure import Structure

# All values below are chosen by hand.
_SMALL_UPDATE = 0.25  # fraction of new transitions up to which a warm start is made even if the data have drifted
_STATIC_FRACTION = 0.2  # of the greatest variation within episodes, relative to all: entries below it are static
_STATIC_EPISODES = 20  # episodes that are needed to find static entries
_TOGETHER = 4096  # steps that are predicted at once
_WINDOW, _CONTACT_WINDOW = 50, 100  # steps of recorded windows, without and with contacts
_MOST_REFUSALS = 1000  # steps that are taken as refused, of more of them evenly spread ones
_REFUSAL_WIDTH = 0.5  # see `Refusals`, in mean steps: of many, each stands for little more than itself
_LEAST_SPREAD = 1e-6  # standard deviation of an entry that counts as constant [the environment's units]


class PreviousFit(NamedTuple):
    """A previous fit, whose weights are the start of the next one if they still fit the data (warm start)."""

    model: EnsembleMLP
    """Its model."""
    owed: int
    """Transitions that have not been fitted in full: they determine the number of gradient steps."""
    unseen: int
    """Transitions that the model has not been fitted to at all."""
    least_error: float
    """Lower bound of the world's error [model units]: data may stem from the model itself."""


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
    previous: PreviousFit | None = None,
    unit_groups: Sequence[Sequence[int]] = (),
    progress_bar: bool = False,
) -> tuple[World, FitReport]:
    """Fits a model and derives support and roadmap.

    Args:
        data: episodes of raw vectors, observation and achieved goal concatenated.
        state_map: the entries that make up the state.
        model: shape of the networks; None selects the one, sharp or smooth, that predicts held-out data better.
        train: how the model is fitted.
        tolerance: success radius [the environment's units]; None takes a twentieth of the goals' standard deviation.
        structure: prior knowledge of the task.
        seed: seed of weights and batches.
        device: device of the model.
        previous: the previous fit, if any; its model does not change.
        unit_groups: groups of the state's entries in the same unit, which get the same scale.
        progress_bar: show progress of the fit.

    Returns:
        The world, and a report on the fit.
    """
    data = data.mapped(state_map.select)
    known, owed = (None, None) if previous is None else (previous.model, previous.owed)
    few = previous is not None and previous.unseen <= _SMALL_UPDATE * len(data)
    size, fixed = data.episodes[0].actions.shape[1], known.unchanging if known and few else static_entries_of(data)
    named = structure.counting(state_map.goal_index)
    whole = not (structure.blocks or structure.frame or unit_groups or state_map.origin)  # else it is not looked for
    contact = find_contact(data, named) if whole else None
    pairs = () if contact is None else contact.pairs
    fixed = tuple(entry for entry in fixed if entry not in {moved for _, moved in pairs})  # it moves, if rarely
    check_blocks(structure.blocks, state_map, size)
    settings = {"frame": structure.frame, "fixed": fixed, "unit_groups": unit_groups, "pairs": pairs, "seed": seed}
    make = partial(fresh_model, state_map, size, **settings)
    from_scratch = len(data) >= train.full_at and owed in (None, len(data))
    fits = _Fit(make, device, data, train, seed, progress_bar)
    network, report = fits.run(model, None if from_scratch else known, owed, allow_drift=few)
    index = _index(network, data, contact, blocks=structure.blocks, named=named, error=report.error_mean, seed=seed)
    if not math.isfinite(report.error_high):
        raise FloatingPointError("fit: the model diverged; expected a smaller lr or weight_decay, or more data")
    radius = tolerance or _default_radius(data, state_map, structure, greatest=bool(unit_groups))
    error = report.error_high if previous is None else max(report.error_high, previous.least_error)
    return World(network, index, state_map, radius, structure, error, contact), report


def _default_radius(data: Dataset, state_map: StateMap, structure: Structure, *, greatest: bool) -> float:
    """Returns a twentieth of the goals' standard deviation, the greatest or the mean one [the environment's units]."""
    spread = data.states[:, list(state_map.goal_index)].std(0)
    weighted = spread * (structure.goal_weights or 1)
    return 0.05 * float(weighted.max() if greatest else weighted.mean()) or 1e-3


class _Fit(NamedTuple):
    """A fit of a network, whose shape may have to be selected."""

    make: Callable[[MLPConfig], EnsembleMLP]
    device: torch.device
    data: Dataset
    train: TrainConfig
    seed: int
    progress_bar: bool

    def run(
        self, model: MLPConfig | None, known: EnsembleMLP | None, owed: int | None, *, allow_drift: bool
    ) -> tuple[EnsembleMLP, FitReport]:
        """Fits a network of a given or the selected shape, from known weights if these still fit the data."""
        config, tried = self.train.for_data(len(self.data)), 0
        if model is None:
            network, tried = self._select(config)
        else:
            network = self.make(model).to(self.device)
        warm = None
        if known is not None:
            warm = self._warm_started(self.make(network.config).to(self.device), known, allow_drift=allow_drift)
        if warm is not None:
            network, config = warm, self.train.for_data(len(self.data), owed)
        else:
            config = replace(config, gradient_steps=max(1, config.gradient_steps - tried))
        with tqdm(total=config.gradient_steps, desc="fitting", leave=False, disable=not self.progress_bar) as bar:
            fresh = warm is None and not tried
            return network, fit(network, self.data, config, fresh=fresh, seed=self.seed, on_step=bar.update)

    def _select(self, config: TrainConfig) -> tuple[EnsembleMLP, int]:
        """Returns the network that predicts held-out data better after some gradient steps, and how many it had."""
        steps = max(1, min(config.trial_steps, int(config.trial_fraction * config.gradient_steps)))
        trial = replace(config, gradient_steps=steps)
        networks = [self.make(kind).to(self.device) for kind in (MLPConfig.sharp(), MLPConfig.smooth())]
        errors = [fit(network, self.data, trial, seed=self.seed).error_mean for network in networks]
        return networks[int(np.argmin(errors))], trial.gradient_steps

    def _warm_started(self, network: EnsembleMLP, known: EnsembleMLP, *, allow_drift: bool) -> EnsembleMLP | None:
        """Returns the network with the weights of a known one; None if these do not fit the data any more."""
        states, actions = (torch.from_numpy(array).to(known.scale.device) for array in self.data.windows(1))
        network.adapt(states[:, 0], actions[:, 0], states[:, 1])
        return network if network.warm_start_from(known, allow_drift=allow_drift) else None


def static_entries_of(data: Dataset) -> tuple[int, ...]:
    """Returns the static entries of the state: they differ between episodes, but within each by noise only.

    Episodes may be short, so variation within them is relative to the entry that varies most; no more than to the whole
    variation, which entries that rarely move exceed in single episodes.
    """
    whole = data.states.std(0)
    if len(data.episodes) < _STATIC_EPISODES:
        return ()
    within = np.max([episode.states.std(0) for episode in data.episodes], 0) / np.maximum(whole, _LEAST_SPREAD)
    return tuple(
        map(int, np.flatnonzero((within < _STATIC_FRACTION * min(1.0, within.max())) & (whole > _LEAST_SPREAD)))
    )


def _replay_windows(model: EnsembleMLP, data: Dataset, longest: int) -> ReplayWindows:
    """Returns windows of the data, of the median episode's length and at most `longest` steps, overlapping by half."""
    length = int(min(longest, np.median([len(episode.actions) for episode in data.episodes])))
    windows = [
        (episode.states[first : first + length + 1], episode.actions[first : first + length])
        for episode in data.episodes
        for first in range(0, len(episode.actions) - length + 1, max(1, length // 2))
    ]
    states, actions = (torch.from_numpy(np.stack(values)) for values in zip(*windows, strict=True))
    device = model.scale.device
    return ReplayWindows(model.encode(states.to(device)), actions.to(device))


def _index(model: EnsembleMLP, data: Dataset, contact: Contact | None, **settings: Any) -> ReplayIndex:
    """Returns the index of the data; `settings` are those of `ReplayIndex.build`."""
    windows = _replay_windows(model, data, _WINDOW if contact is None else _CONTACT_WINDOW)
    return ReplayIndex.build(
        model,
        model.encode(torch.from_numpy(data.states).to(model.scale.device)),
        torch.from_numpy(data.origins),
        torch.from_numpy(data.terminal),
        replay=windows,
        preferred=None if contact is None else _contacts(windows, contact),
        refusals=_refusals(model, data),
        **settings,
    )


def _contacts(windows: ReplayWindows, contact: Contact) -> torch.Tensor:
    """Returns how useful windows are as examples of contact, `[M]`: best those in which the object rests at first."""
    moves = windows.moves(contact.object)
    return moves.any(1).to(torch.uint8) * (2 - moves[:, 0].to(torch.uint8))


@torch.no_grad()
def _refusals(model: EnsembleMLP, data: Dataset) -> Refusals:
    """Returns the steps of the data that the environment refused, though the model predicts them."""
    device, found = model.scale.device, []
    before = np.concatenate([episode.states[:-1] for episode in data.episodes])
    after = np.concatenate([episode.states[1:] for episode in data.episodes])
    actions = torch.from_numpy(np.concatenate([episode.actions for episode in data.episodes]))
    states = [model.encode(torch.from_numpy(part).to(device)) for part in (before, after)]
    least = float((states[1] - states[0]).norm(dim=-1).mean()) / 2
    for rows in torch.arange(len(before)).split(_TOGETHER):
        start, end = (part[rows] for part in states)
        everywhere = (model.members, -1, -1)
        predicted = model.step(start.expand(*everywhere), actions[rows].to(device).expand(*everywhere)).mean(0)
        some = refused(start, predicted, end, least)
        found.append(torch.stack([end[some], predicted[some]]))
    reached, predicted = torch.cat(found, 1)
    kept = torch.linspace(0, max(0, len(reached) - 1), min(len(reached), _MOST_REFUSALS)).long()
    return Refusals(reached[None, kept], predicted[None, kept], _REFUSAL_WIDTH * 2 * least)
