"""Gathers experience and fits worlds to it, in turns; knows nothing of callbacks and logs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grasp_agent.agent.exploration import Explorer
from grasp_agent.agent.policy import WorldModelPolicy
from grasp_agent.agent.settings import AgentSettings
from grasp_agent.models.dynamics.fitting import FitReport
from grasp_agent.models.learning import PreviousFit, learn_world
from grasp_agent.models.world import World
from grasp_agent.replay.episodes import Dataset, Episode, Recorder
from grasp_agent.task.state_map import StateMap
from grasp_agent.task.success import SuccessRadius

Array = NDArray[np.float32]
_AGAIN = 2  # growth of the data, after which the kind of network is chosen again


@dataclass(frozen=True, kw_only=True)
class Fits:
    """What has been fitted so far, in transitions.

    Attributes:
        seen: those that the latest fit saw.
        completed: those that the latest fit at the end of a training saw.
        kind_chosen: those from which the kind of network was chosen.
        rehearsed: those, the first of all, that are what the model of a file says.
        least_error: that model's error [model units]: on what it says itself, later ones look better than they are.
    """

    seen: int = 0
    completed: int = 0
    kind_chosen: int = 0
    rehearsed: int = 0
    least_error: float = 0.0

    @classmethod
    def imagined(cls, count: int, error: float) -> Fits:
        """Those of a model whose data are not there, but `count` transitions as it says them."""
        return cls(seen=count, completed=count, kind_chosen=count, rehearsed=count, least_error=error)


class ModelTrainer:
    """What an agent's learning keeps from one call of `learn` to the next.

    Args:
        settings: how experience is gathered and models are fitted.
        seed: of everything random.

    Attributes:
        dataset: the experience, episodes of raw vectors.
        verdicts: what environments say of success, where that is asked for.
        report: what came of the last fit.
        fits: what has been fitted so far.
    """

    def __init__(self, settings: AgentSettings, seed: int) -> None:
        assert settings.explore is not None and settings.train is not None and settings.structure is not None
        self.dataset, self.verdicts = Dataset(), SuccessRadius()
        self.report: FitReport | None = None
        self._explore, self._train, self._structure = settings.explore, settings.train, settings.structure
        self._model, self._kind, self._seed = settings.model, settings.model, seed
        self.fits = Fits()
        self._random = np.random.default_rng(seed)
        self._recorders: list[Recorder] = []
        self._explorer = Explorer(0, 0, self._explore, seed)

    def reseed(self, seed: int) -> None:
        """Draws everything random from another seed."""
        self._seed, self._random = seed, np.random.default_rng(seed)

    def begin(self, policy: WorldModelPolicy, count: int) -> None:
        """Begins to gather in `count` environments.

        Goes on from the policy's world; one without its data, from a file, is rehearsed by what its model says.
        """
        size = policy.action_space.shape[0]
        self._explorer = Explorer(count, size, self._explore, int(self._random.integers(2**31)))
        self._recorders = [Recorder() for _ in range(count)]
        if policy.world is not None:
            self._kind = self._model or policy.world.model.config
            if not len(self.dataset):
                observation_size = policy.observation_space["observation"].shape[0]  # type: ignore[index]
                self.dataset.add_all(policy.world.rehearsal_episodes(observation_size, seed=self._seed))
                self.fits = Fits.imagined(len(self.dataset), policy.world.error)
            self._explorer.learned(policy, policy.world.encode(self.dataset.states))

    def act(self, policy: WorldModelPolicy, raw: Array, achieved: Array, desired: Array) -> Array:
        """Exploring actions `[n, A]` in [-1, 1] for observations `[n, O + G]` and goals `[n, G]`."""
        return self._explorer.act(policy, raw, achieved, desired)

    def record(self, row: int, before: Array, action: Array, after: Array, done: bool) -> None:
        """One transition of one environment, raw vectors `[O + G]`."""
        self._recorders[row].step(before, action, after)
        if done:
            self.dataset.add_all(self._recorders[row].flush())
            self._explorer.begin(row)

    def replace(self, episodes: Iterable[Episode]) -> None:
        """Replaces the experience by its re-encoding; what was imagined stays before it."""
        self._recorders = [Recorder() for _ in self._recorders]
        ends = np.cumsum([len(episode.actions) for episode in self.dataset.episodes])
        imagined = self.dataset.episodes[: int((ends <= self.fits.rehearsed).sum())]
        self.dataset = Dataset()
        self.dataset.add_all([*imagined, *episodes])

    def end(self) -> None:
        """Keeps the episodes that are still running."""
        for recorder in self._recorders:
            self.dataset.add_all(recorder.flush())

    def tensors(self) -> dict[str, Tensor]:
        """The experience, with that of the episodes that are still running."""
        episodes = [*self.dataset.episodes, *(e for recorder in self._recorders for e in recorder.so_far())]
        if not episodes:
            return {}
        return {
            **self.verdicts.tensors(),
            "states": torch.from_numpy(np.concatenate([episode.states for episode in episodes])),
            "actions": torch.from_numpy(np.concatenate([episode.actions for episode in episodes])),
            "lengths": torch.tensor([len(episode.actions) for episode in episodes]),
        }

    def restore(self, tensors: Mapping[str, Tensor], fits: Fits) -> None:
        """The inverse of `tensors`; raises where they do not fit."""
        lengths = tensors["lengths"].tolist()
        states, actions = tensors["states"].cpu(), tensors["actions"].cpu()
        segments = states.split([length + 1 for length in lengths]), actions.split(lengths)
        dataset, verdicts = Dataset(), SuccessRadius()
        dataset.add_all(Episode(s.numpy(), a.numpy()) for s, a in zip(*segments, strict=True))
        verdicts.restore(tensors)
        self.dataset, self.verdicts, self.fits = dataset, verdicts, fits

    def resume(self, tensors: Mapping[str, Tensor], fits: Fits) -> None:
        """Goes on from a checkpoint's experience; random choices will be others than those that led there."""
        if tensors:
            self.restore(tensors, fits)
        else:
            self.dataset, self.verdicts, self.fits = Dataset(), SuccessRadius(), fits
        self._random = np.random.default_rng((self._seed, len(self.dataset)))

    @property
    def due(self) -> bool:
        """Whether the data have grown enough for another fit."""
        seen = len(self.dataset) + sum(map(len, self._recorders))
        return seen >= max(self._explore.learning_starts, self.fits.seen * self._explore.refit_growth)

    @property
    def behind(self) -> bool:
        """Whether there are data that no last fit has seen."""
        return len(self.dataset) > self.fits.completed

    def fit(
        self,
        policy: WorldModelPolicy,
        tolerance: float | None,
        *,
        last: bool,
        progress_bar: bool,
        unit_groups: Sequence[Sequence[int]] = (),
    ) -> World:
        """Fits a model to all data and hands it to the policy.

        The model before is the start, as long as it knows such data. For a fit on the way, what has come since the
        latest fit is new; for the last one, all that has come since the last training.
        """
        self.end()
        count, known, fits = len(self.dataset), policy.world, self.fits
        goal_size = policy.observation_space["achieved_goal"].shape[0]  # type: ignore[index]
        choose = self._model is None and (self._kind is None or count >= _AGAIN * fits.kind_chosen)
        earlier = None
        if known is not None:
            owed = count - (fits.completed if last else fits.seen)
            least_error = fits.least_error if 2 * fits.rehearsed > count else 0.0
            earlier = PreviousFit(known.model, owed, count - fits.seen, least_error)
        world, self.report = learn_world(
            self.dataset,
            known.state_map if known else StateMap.discover(self.dataset.states, goal_size),
            model=None if choose else self._kind,
            train=self._train,
            tolerance=tolerance,
            structure=self._structure,
            seed=self._seed + count,
            device=policy.device,
            previous=earlier,
            unit_groups=unit_groups,
            progress_bar=progress_bar,
        )
        self._kind = world.model.config
        policy.learned(world)
        self._explorer.learned(policy, world.encode(self.dataset.states))
        self.fits = dataclasses.replace(
            fits,
            seen=count,
            completed=count if last else fits.completed,
            kind_chosen=count if choose else fits.kind_chosen,
        )
        return world
