"""Gathers experience and fits worlds to it, in turns; knows nothing of callbacks and logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from grasp_agent.data import Dataset, Episode, Recorder
from grasp_agent.explore import ExploreConfig, Explorer
from grasp_agent.models import MLPConfig
from grasp_agent.observation import StateMap
from grasp_agent.policy import WorldModelPolicy
from grasp_agent.structure import Structure
from grasp_agent.train import FitReport, TrainConfig
from grasp_agent.verdicts import Verdicts
from grasp_agent.world import World, learn_world

Array = NDArray[np.float32]
_PASSES, _LAST_PASSES = 300, 5000  # through the data, at most, in a fit on the way and in the last one


class Learner:
    """What an agent's learning keeps from one call of `learn` to the next.

    Args:
        explore: how experience is gathered.
        train: how models are fitted.
        model: shape of the networks, None to choose by held-out error.
        structure: what is known of the task beforehand.
        seed: of everything random.

    Attributes:
        dataset: the experience, episodes of raw vectors.
        verdicts: what environments say of success, where that is asked for.
        report: what came of the last fit.
        fitted_at: transitions that the last fit saw.
    """

    def __init__(
        self,
        explore: ExploreConfig,
        train: TrainConfig,
        model: MLPConfig | None,
        structure: Structure,
        seed: int,
    ) -> None:
        self.dataset, self.verdicts = Dataset(), Verdicts()
        self.report: FitReport | None = None
        self._explore, self._train, self._model, self._seed = explore, train, model, seed
        self._structure = structure
        self._kind = model
        self._random = np.random.default_rng(seed)
        self.fitted_at = 0
        self._recorders: list[Recorder] = []
        self._explorer = Explorer(0, 0, explore, seed)

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
                self.dataset.add_all(policy.world.imagined(observation_size, seed=self._seed))
                self.fitted_at = len(self.dataset)
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

    def see_anew(self, episodes: Iterable[Episode]) -> None:
        """Takes the same experience as it looks now, in place of what it looked like."""
        self._recorders = [Recorder() for _ in self._recorders]
        self.dataset = Dataset()
        self.dataset.add_all(episodes)

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
            "experience.states": torch.from_numpy(np.concatenate([episode.states for episode in episodes])),
            "experience.actions": torch.from_numpy(np.concatenate([episode.actions for episode in episodes])),
            "experience.lengths": torch.tensor([len(episode.actions) for episode in episodes]),
        }

    def restore(self, tensors: Mapping[str, Tensor], fitted_at: int) -> None:
        """The inverse of `tensors`; raises where they do not fit."""
        lengths = tensors["experience.lengths"].tolist()
        states, actions = (tensors[f"experience.{name}"].cpu() for name in ("states", "actions"))
        pieces = states.split([length + 1 for length in lengths]), actions.split(lengths)
        self.dataset.add_all(Episode(s.numpy(), a.numpy()) for s, a in zip(*pieces, strict=True))
        self.verdicts.restore(tensors)
        self.fitted_at = fitted_at

    def resume(self, other: Learner) -> None:
        """Takes over another one's experience; its random choices will be others than those that led there."""
        self.dataset, self.verdicts, self.fitted_at = other.dataset, other.verdicts, other.fitted_at
        self._random = np.random.default_rng((self._seed, len(self.dataset)))

    @property
    def due(self) -> bool:
        """Whether the data have grown enough for another fit."""
        seen = len(self.dataset) + sum(map(len, self._recorders))
        return seen >= max(self._explore.learning_starts, self.fitted_at * self._explore.refit_growth)

    @property
    def behind(self) -> bool:
        """Whether there are data that no fit has seen."""
        return len(self.dataset) > self.fitted_at

    def refit(
        self,
        policy: WorldModelPolicy,
        tolerance: float | None,
        *,
        last: bool,
        progress_bar: bool,
        alike: Sequence[Sequence[int]] = (),
    ) -> World:
        """Fits a fresh model on all data and hands it to the policy.

        Fits on the way are shorter than the last, as befits few data, and stay with the kind of network that the first
        one preferred.
        """
        self.end()
        train, known = self._train, policy.world
        steps = train.gradient_steps if last else train.gradient_steps // 3
        passes = (_LAST_PASSES if last else _PASSES) * len(self.dataset) // train.batch_size
        train = replace(train, gradient_steps=max(1, min(steps, passes)))
        goal_size = policy.observation_space["achieved_goal"].shape[0]  # type: ignore[index]
        with tqdm(total=train.gradient_steps, desc="fitting", leave=False, disable=not progress_bar) as bar:
            world, self.report = learn_world(
                self.dataset,
                known.state_map if known else StateMap.discover(self.dataset.states, goal_size),
                model=self._model if last else self._kind,
                train=train,
                tolerance=tolerance,
                structure=self._structure,
                seed=self._seed + len(self.dataset),
                device=policy.device,
                alike=alike,
                on_step=bar.update,
            )
        self._kind = world.model.config
        policy.learned(world)
        self._explorer.learned(policy, world.encode(self.dataset.states))
        self.fitted_at = len(self.dataset)
        return world
