"""Recorded experience in latents: what plans are proposed from, and how far a model step goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grasp_agent.agent.latent.model import LatentDynamics
from grasp_agent.planners import Recording
from grasp_agent.planners.distance_goal import Distance

_MOMENTS = 256  # recorded moments at which steps and errors are measured; chosen by hand


class LatentEpisode(NamedTuple):
    """One recorded episode of T environment steps."""

    latents: Tensor
    """`[T + 1, S]`."""
    actions: NDArray[np.float32]
    """`[T, A]`, in [-1, 1]."""


class LatentMemory:
    """Episodes in the latents of one encoder.

    Args:
        frame_skip: environment steps of a model step.
        device: where latents are kept.
    """

    def __init__(self, frame_skip: int, device: torch.device) -> None:
        self.frame_skip, self.device = frame_skip, device
        self.episodes: list[LatentEpisode] = []
        self._recording: Recording | None = None

    def __len__(self) -> int:
        """Returns the number of environment steps."""
        return sum(len(episode.actions) for episode in self.episodes)

    def add(self, episodes: Sequence[LatentEpisode]) -> None:
        """Adds episodes.

        Raises:
            ValueError: if none, of all, is as long as a model step, or actions have another size than before.
        """
        everything = [*self.episodes, *episodes]
        if not any(len(episode.actions) >= self.frame_skip for episode in everything):
            raise ValueError(f"replay: expected an episode of at least {self.frame_skip} steps")
        sizes = {(episode.latents.shape[1], episode.actions.shape[1]) for episode in everything}
        if len(sizes) > 1:
            raise ValueError(f"replay: expected latents and actions of one size, got {sorted(sizes)}")
        self.episodes += [episode._replace(latents=episode.latents.to(self.device)) for episode in episodes]
        self._recording = None

    @property
    def recording(self) -> Recording | None:
        """The episodes as planners take them; None while none is as long as a model step."""
        if self._recording is None and any(len(e.actions) >= self.frame_skip for e in self.episodes):
            parts = [self._rows(e) for e in self.episodes if len(e.actions) >= self.frame_skip]
            states, actions, left = (torch.cat(part) for part in zip(*parts, strict=True))
            self._recording = Recording(states, actions, left, self.frame_skip)
        return self._recording

    def _rows(self, episode: LatentEpisode) -> tuple[Tensor, Tensor, Tensor]:
        """Returns states, actions and steps left of one episode, see `Recording`."""
        skip, count = self.frame_skip, len(episode.latents)
        actions = torch.from_numpy(episode.actions).to(episode.latents)
        blocks = torch.zeros(count, skip * actions.shape[1]).to(actions)
        blocks[: count - skip] = actions.unfold(0, skip, 1).transpose(1, 2).flatten(1)
        left = torch.arange(count - 1, -1, -1, device=actions.device) // skip
        return episode.latents, blocks, left


def step_distances(recording: Recording, distance: Distance) -> Tensor:
    """Returns distances between some recorded latents one model step apart, `[m]`."""
    begins = _spread(recording)
    return distance(recording.states[begins], recording.states[begins + recording.stride])


def step_errors(recording: Recording, dynamics: LatentDynamics, distance: Distance) -> Tensor:
    """Returns distances of some predictions of one step from the recorded latents, the greatest of the members, `[m]`.

    Only moments with h - 1 model steps before them are predicted.
    """
    back, stride = dynamics.history - 1, recording.stride
    begins = _spread(recording)
    enough = begins - back * stride >= 0
    begins = begins[enough & (recording.left[(begins - back * stride).clamp_min(0)] == recording.left[begins] + back)]
    if not len(begins):
        return recording.states.new_zeros(0)
    times = begins[:, None] + stride * torch.arange(-back, 1, device=begins.device)
    states, actions = recording.states[times], recording.actions[times]
    context = torch.cat([states.flatten(1), actions[:, :-1].flatten(1)], 1).expand(dynamics.members, -1, -1)
    with torch.no_grad():
        predicted = dynamics(context, actions[:, -1].expand(dynamics.members, -1, -1))
    return torch.stack([distance(part, recording.states[begins + stride]) for part in predicted]).amax(0)


def _spread(recording: Recording) -> Tensor:
    """Returns the indices of some moments that are followed by a whole step, evenly spread, `[m]`."""
    whole = (recording.left > 0).nonzero()[:, 0]
    return whole[torch.linspace(0, len(whole) - 1, min(_MOMENTS, len(whole))).long()]
