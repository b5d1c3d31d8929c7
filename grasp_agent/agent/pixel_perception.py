"""Perception of images: an encoder, the replay buffer that it is trained on, and the goal image."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from grasp_agent.agent.perception import Perception
from grasp_agent.models.encoder.cached import CachedEncoder
from grasp_agent.models.encoder.encoder import EncoderConfig, PixelEncoder
from grasp_agent.models.encoder.fitting import EncoderReport
from grasp_agent.models.encoder.learning import learn_encoder
from grasp_agent.models.encoder.rigid_body import RigidBody
from grasp_agent.replay.episodes import Dataset, Episode
from grasp_agent.replay.image_buffer import ImageReplayBuffer
from grasp_agent.task.pixels import PixelLayout, PixelObservation
from grasp_agent.task.structure import Frame, Structure

Array = NDArray[np.float32]
_REFIT_GROWTH = 1.5  # growth of the buffer after which a final fit trains the encoder from scratch; chosen by hand
_AGENT_WEIGHT = 0.01  # goal weight of the agent's position, that of the body's pose is 1; chosen by hand, almost 0


class PixelPerception(Perception):
    """Encodes images as the latents of a goal environment, and trains the encoder.

    The observation consists of the newest frame's latent, its difference to the oldest frame's latent where there are
    several (it encodes velocities, more accurately with more frames), and the observation's vectors. The achieved goal
    is the newest frame's latent, the desired goal that of the goal image. Before training, latents are empty.

    Args:
        layout: positions of images in observations.
        config: architecture and training of the encoder.
        seed: of everything random.
        device: where the encoder lives.

    Attributes:
        report: the figures of the encoder's last training.
        buffer: the experience.
    """

    def __init__(
        self, layout: PixelLayout, config: EncoderConfig | None, seed: int, device: torch.device | str
    ) -> None:
        self.layout, self.config = layout, config or EncoderConfig()
        self.config.check(layout.shape)
        self.report: EncoderReport | None = None
        self.buffer = ImageReplayBuffer(layout.stacked)
        self.names_goals = layout.goal is not None
        self._cached: CachedEncoder | None = None
        self._seed, self._device = seed, device
        self._fitted_to, self._frozen = 0, False  # transitions; whether the encoder is kept unchanged
        self._goal: NDArray[np.uint8] | None = None

    @property
    def encoder(self) -> PixelEncoder | None:
        """The encoder; None before training."""
        return None if self._cached is None else self._cached.encoder

    @property
    def space(self) -> spaces.Dict:
        """See `Perception.space`."""
        size, vectors = self._size, sum(self.layout.sizes)
        sizes = {"observation": self._parts * size + vectors, "achieved_goal": size, "desired_goal": size}
        return spaces.Dict({key: spaces.Box(-np.inf, np.inf, (length,), np.float32) for key, length in sizes.items()})

    @property
    def unit_groups(self) -> tuple[range, ...]:  # type: ignore[override]
        """Groups of the observation's entries that share a unit: the latent's, the difference's."""
        size = self._size
        return tuple(range(first * size, (first + 1) * size) for first in range(self._parts))

    @property
    def _size(self) -> int:
        """Size of a latent; 0 while it is not known."""
        if self._cached is not None:
            return self._cached.latent
        return RigidBody.size if self.config.body else 0

    @property
    def _parts(self) -> int:
        """Number of latents in an observation."""
        return min(2, self.layout.frames)

    @staticmethod
    def structure(layout: PixelLayout, config: EncoderConfig, *, actions: int, rests: bool) -> Structure:
        """Returns the known structure of latents: of a rigid body, the frame in which the dynamics are invariant.

        Raises:
            ValueError: if the encoder fits a body and actions do not have two entries.
        """
        if not config.body:
            return Structure(rests=rests)
        if actions != 2:
            raise ValueError(f"body: expected actions of 2 entries, which push right and down, got {actions}")
        frame = Frame(
            origin=(2, 3),
            heading=(4, 5),
            points=((0, 1),),
            vectors=((6, 7), (8, 9), (10, 11)) if layout.frames > 1 else (),
            actions=((0, 1),),
        )
        return Structure(frame=frame, goal_weights=(_AGENT_WEIGHT, _AGENT_WEIGHT, 1, 1, 1, 1), rests=rests)

    def check_goal(self) -> None:
        """See `Perception.check_goal`."""
        if self._goal is None and not self.names_goals:
            raise ValueError("goal: expected an image, by set_goal, or as 'desired_goal' of the observation")

    def set_goal(self, image: Any) -> None:
        """See `GraspAgent.set_goal`."""
        if image is None:
            self._goal = None
            return
        goal = self.layout.as_bytes(image, self.layout.shape)
        if goal.ndim != 3:
            raise ValueError(f"goal: expected one image {self.layout.shape}, got {goal.shape}")
        self._goal = goal

    def to_goal_dict(self, observation: Any) -> Any:
        """See `Perception.to_goal_dict`; without a goal, the desired goal is the achieved one."""
        if isinstance(observation, tuple):
            return observation
        pixels, batch = self.layout.read(observation)
        observed, achieved = self._states(pixels, self.encoded)
        if self._goal is not None:
            desired = np.broadcast_to(self.encoded(self._goal[None]), achieved.shape)
        else:
            desired = achieved if pixels.goals is None else self.encoded(pixels.goals)
        found = {"observation": observed, "achieved_goal": achieved, "desired_goal": desired}
        return {key: np.array(value if batch else value[0], np.float32) for key, value in found.items()}

    def encoded(self, goals: NDArray[np.uint8]) -> Array:
        """Returns latents `[n, D]` of frames `[n, height, width, channels]`."""
        if self._cached is None:
            return np.zeros((len(goals), self._size), np.float32)
        return self._cached(goals)

    def decode(self, latents: Array) -> NDArray[np.uint8]:
        """Returns images `[..., height, width, channels]` of latents `[..., D]`: for display."""
        if self.encoder is None:
            raise RuntimeError("expected a learned encoder")
        return self.encoder.decode(torch.from_numpy(latents).to(self.encoder.device)).cpu().numpy()

    def record(
        self, before: Any, actions: Array, after: Any, lasts: Mapping[int, Any], terminated: Collection[int]
    ) -> None:
        """See `Perception.record`."""
        (earlier, _), (later, _) = self.layout.read(before), self.layout.read(after)
        for row, action in enumerate(actions):
            following = self.layout.read(lasts[row])[0] if row in lasts else _row(later, row)
            self.buffer.record(row, _row(earlier, row), action, following, row in lasts, row in terminated)

    def outcome(self, row: int, before: Any, after: Any, last: Any | None) -> tuple[NDArray[Any], NDArray[Any]]:
        """See `Perception.outcome`: images `[height, width, channels]`."""
        (later, batch), (earlier, _) = self.layout.read(after if last is None else last), self.layout.read(before)
        assert earlier.goals is not None
        return later.images[row if batch else 0][..., -self.layout.shape[2] :], earlier.goals[row]

    def rows(self, observations: Any) -> NDArray[np.uint8]:
        """See `Perception.rows`: bytes `[n, R]`, first of images, then of vectors."""
        pixels, _ = self.layout.read(observations, goals=False)
        count = len(pixels.images)
        return np.concatenate([pixels.images.reshape(count, -1), pixels.vectors.view(np.uint8).reshape(count, -1)], -1)

    def store(self, episodes: Iterable[Episode], dataset: Dataset, action_size: int) -> None:
        """See `Perception.store`: adds them to the image replay buffer, from which they are encoded later."""
        size = int(np.prod(self.layout.stacked))
        for episode in episodes:
            rows: NDArray[Any] = episode.states
            vectors = np.ascontiguousarray(rows[:, size:]).view(np.float32)
            self.buffer.add(
                rows[:, :size].reshape(-1, *self.layout.stacked), vectors, episode.actions, episode.terminated
            )

    def fit(self, *, last: bool, progress_bar: bool) -> bool:
        """See `Perception.fit`: due at the first fit, and at a final one where the buffer has grown enough."""
        self.buffer.end()
        grown = not self._frozen and len(self.buffer) >= _REFIT_GROWTH * max(1, self._fitted_to)
        if self._cached is not None and not (last and grown):
            return False
        encoder, self.report = learn_encoder(
            self.buffer,
            self.layout.shape,
            self.config,
            velocities=self.layout.frames > 1,
            seed=self._seed,
            device=self._device,
            progress_bar=progress_bar,
        )
        self._cached, self._fitted_to = CachedEncoder(encoder), len(self.buffer)
        return True

    def figures(self) -> dict[str, float]:
        """See `Perception.figures`."""
        assert self._cached is not None
        report = {} if self.report is None else self.report._asdict()
        return {**report, "latent": self._cached.latent}

    def episodes(self, known: int) -> list[Episode] | None:
        """See `Perception.episodes`: of raw vectors, observation and achieved goal; each image is encoded once."""
        cached = self._cached
        assert cached is not None
        if known >= len(self.buffer):
            return None
        parts = []
        for images in self.buffer.batches():
            seen = PixelObservation(images, np.zeros((len(images), 0), np.float32), None)
            parts.append(np.concatenate(self._states(seen, cached.batch), -1))
        states, size = np.concatenate(parts), self._parts * cached.latent
        return [
            Episode(
                np.concatenate([states[episode.rows, :size], episode.vectors, states[episode.rows, size:]], -1),
                episode.actions,
                episode.terminated,
            )
            for episode in self.buffer.episodes
        ]

    def _states(self, pixels: PixelObservation, encode: Any) -> tuple[Array, Array]:
        """Returns observations `[n, O]` and achieved goals `[n, D]`."""
        frames = np.split(pixels.images, self.layout.frames, axis=-1)[::-1]
        newest, oldest = encode(frames[0]), frames[0]
        for frame in frames[1:]:
            blank = np.asarray(frame.max((1, 2, 3)) == 0)  # before an episode's first step, some wrappers stack zeros
            oldest = np.where(np.expand_dims(blank, (1, 2, 3)), oldest, frame)
        parts = [newest] if len(frames) == 1 else [newest, newest - encode(oldest)]
        return np.concatenate([*parts, pixels.vectors], -1), newest

    def tensors(self) -> dict[str, Tensor]:
        """See `Perception.tensors`."""
        return {} if self.encoder is None else dict(self.encoder.state_dict())

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Perception.restore`; raises where weights do not fit."""
        try:
            encoder = PixelEncoder.restore(self.layout.shape, self.config, tensors)
        except RuntimeError as error:
            raise ValueError(f"encoder: expected one of {self.config}, got one of another shape") from error
        self._cached, self._frozen = CachedEncoder(encoder.to(self._device)), True  # its training data are not here

    def buffer_tensors(self) -> dict[str, Tensor]:
        """See `Perception.buffer_tensors`."""
        return self.buffer.tensors()

    def open_buffer(self, path: Path | None, tensors: Mapping[str, Tensor]) -> None:
        """See `Perception.open_buffer`."""
        if path is not None and tensors:
            self.buffer = ImageReplayBuffer.restore(tensors, self.layout.stacked, path)
            self._fitted_to, self._frozen = len(self.buffer), False
            return
        if self.buffer.is_stored_in(path):
            return
        known, self.buffer = self.buffer, ImageReplayBuffer(self.layout.stacked, path)
        images = known.images
        for episode in known.episodes:
            self.buffer.add(images[episode.rows], episode.vectors, episode.actions, episode.terminated)


def _row(pixels: PixelObservation, row: int) -> PixelObservation:
    return PixelObservation(pixels.images[row : row + 1], pixels.vectors[row : row + 1], None)
