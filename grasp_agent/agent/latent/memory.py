"""Recorded experience in latents, and what it says: distances, tolerance, the model's error, and a roadmap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from grasp_agent.agent.latent.model import LatentDynamics
from grasp_agent.models.temporal_distance import TemporalDistance, fit_temporal_distance
from grasp_agent.planners import Recording
from grasp_agent.planners.distance_goal import Distance, root_mean_square
from grasp_agent.planners.roadmap.recorded import RecordedRoadmap

_MOMENTS = 256  # recorded moments at which steps and errors are measured; chosen by hand
_LEARNED = 0.5  # of a step: the tolerance of the learned distance, chosen on `grasp/Wall-v0` from images
_FAR = 0.99  # quantile of the one-step error that counts as the model's error, as for learned models


class LatentEpisode(NamedTuple):
    """One recorded episode of T environment steps."""

    latents: Tensor
    """`[T + 1, S]`."""
    actions: NDArray[np.float32]
    """`[T, A]`, in [-1, 1]."""


class LatentMemory:
    """Episodes in the latents of a model.

    Args:
        dynamics: the model.
        frame_skip: environment steps of a model step.
        tolerance: distance at which goals count as reached; None to measure it.

    Attributes:
        episodes: the episodes.
        given_tolerance: the given one.
        tolerance: the distance at which goals count as reached; None while it is not known.
        error: one-step error of the model; None while it is not known.
        learned_distance: the temporal distance; None while none has been learned.
    """

    def __init__(self, dynamics: LatentDynamics, frame_skip: int, tolerance: float | None) -> None:
        self._dynamics, self._frame_skip, self.given_tolerance = dynamics, frame_skip, tolerance
        self.episodes: list[LatentEpisode] = []
        self.tolerance, self.error = tolerance, None
        self.learned_distance: TemporalDistance | None = None
        self._combined: Distance | None = None
        self._recording: Recording | None = None
        self._roadmap: RecordedRoadmap | None = None

    def __len__(self) -> int:
        """Returns the number of environment steps."""
        return sum(len(episode.actions) for episode in self.episodes)

    def add(self, episodes: Sequence[LatentEpisode]) -> None:
        """Adds episodes.

        Raises:
            ValueError: if none, of all, is as long as a model step, or actions have another size than before.
        """
        everything = [*self.episodes, *episodes]
        if not any(len(episode.actions) >= self._frame_skip for episode in everything):
            raise ValueError(f"replay: expected an episode of at least {self._frame_skip} steps")
        sizes = {(episode.latents.shape[1], episode.actions.shape[1]) for episode in everything}
        if len(sizes) > 1:
            raise ValueError(f"replay: expected latents and actions of one size, got {sorted(sizes)}")
        device = self._dynamics.device
        everything = [episode._replace(latents=episode.latents.to(device)) for episode in everything]
        parts = [self._rows(episode) for episode in everything if len(episode.actions) >= self._frame_skip]
        states, actions, left = (torch.cat(part) for part in zip(*parts, strict=True))
        recording = Recording(states, actions, left, self._frame_skip)
        self.tolerance, self.error = self._measured(recording, self._combined)
        self.episodes, self._recording, self._roadmap = everything, recording, None

    def learn_distance(self, steps: int, seed: int, *, progress_bar: bool) -> None:
        """Learns the temporal distance from all episodes, and from the first model's predictions along them.

        Raises:
            ValueError: if there are no episodes.
        """
        record = self._recording
        if record is None:
            raise ValueError("distance: expected recorded episodes to learn it from, got none: replay= or collect")
        with tqdm(total=steps, desc="distance", leave=False, disable=not progress_bar) as bar:
            self.use_distance(
                fit_temporal_distance(
                    record, self._dynamics, history=self._dynamics.history, steps=steps, seed=seed, on_step=bar.update
                )
            )

    def use_distance(self, distance: TemporalDistance | None) -> None:
        """Takes a temporal distance, or returns to the model's own.

        Raises:
            ValueError: if there are no episodes, or distances of them are not finite.
        """
        if distance is not None:
            distance = distance.to(self._dynamics.device, self._dynamics.dtype)
        combined = None
        if distance is not None:
            if self._recording is None:
                raise ValueError("distance: expected recorded episodes")
            combined = _combined(distance, self._dynamics.distance or root_mean_square, self._recording)
        if self._recording is not None:
            self.tolerance, self.error = self._measured(self._recording, combined)
        self.learned_distance, self._combined, self._roadmap = distance, combined, None

    @property
    def distance(self) -> Distance | None:
        """The distance of latents: the model's own, with a learned one added to it; None for `root_mean_square`."""
        return self._dynamics.distance if self._combined is None else self._combined

    @property
    def recording(self) -> Recording | None:
        """The episodes as planners take them; None while there are none."""
        return self._recording

    @property
    def roadmap(self) -> RecordedRoadmap | None:
        """The roadmap by the temporal distance; None while none has been learned."""
        if self._roadmap is None and self._recording is not None and self.learned_distance is not None:
            self._roadmap = RecordedRoadmap(self._recording, self.learned_distance)
        return self._roadmap

    @torch.no_grad()
    def _measured(self, recording: Recording, learned: Distance | None) -> tuple[float | None, float | None]:
        """Returns tolerance and error in a distance.

        Raises:
            ValueError: if they are not finite.
        """
        distance = learned or self._dynamics.distance or root_mean_square
        steps, errors = step_distances(recording, distance), step_errors(recording, self._dynamics, distance)
        if not (steps.isfinite().all() and errors.isfinite().all()):
            raise ValueError("distance: expected finite distances of recorded and predicted latents")
        share = 1.0 if learned is None else _LEARNED
        tolerance = share * float(steps.median()) if self.given_tolerance is None else self.given_tolerance
        return tolerance, float(errors.quantile(_FAR)) if len(errors) else None

    def _rows(self, episode: LatentEpisode) -> tuple[Tensor, Tensor, Tensor]:
        """Returns states, actions and steps left of one episode, see `Recording`."""
        skip, count = self._frame_skip, len(episode.latents)
        actions = torch.from_numpy(episode.actions).to(episode.latents)
        blocks = torch.zeros(count, skip * actions.shape[1]).to(actions)
        blocks[: count - skip] = actions.unfold(0, skip, 1).transpose(1, 2).flatten(1)
        left = torch.arange(count - 1, -1, -1, device=actions.device) // skip
        return episode.latents, blocks, left


def _combined(temporal: TemporalDistance, own: Distance, recording: Recording) -> Distance:
    """Returns a temporal distance plus the own one, which is the more accurate at the goal, up to that of a step."""
    with torch.no_grad():
        scale = step_distances(recording, own).median().clamp_min(1e-9)
    return lambda states, targets: temporal(states, targets) + (own(states, targets) / scale).clamp_max(1)


def step_distances(recording: Recording, distance: Distance) -> Tensor:
    """Returns distances between some recorded latents one model step apart, `[m]`."""
    begins = _spread(recording.begins(1))
    return distance(recording.states[begins], recording.states[begins + recording.stride])


def step_errors(recording: Recording, dynamics: LatentDynamics, distance: Distance) -> Tensor:
    """Returns distances of some predictions of one step from the recorded latents, the greatest of the members, `[m]`.

    Only moments with h - 1 model steps before them are predicted.
    """
    begins = _spread(recording.begins(dynamics.history))
    if not len(begins):
        return recording.states.new_zeros(0)
    context = recording.contexts(begins, dynamics.history).expand(dynamics.members, -1, -1)
    with torch.no_grad():
        predicted = dynamics(context, recording.actions[begins].expand(dynamics.members, -1, -1))
    return torch.stack([distance(part, recording.states[begins + recording.stride]) for part in predicted]).amax(0)


def _spread(rows: Tensor) -> Tensor:
    """Returns some rows, evenly spread."""
    return rows[torch.linspace(0, len(rows) - 1, min(_MOMENTS, len(rows))).long()]
