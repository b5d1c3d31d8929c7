"""What an agent that sees pictures knows of them: encoder, album, goal."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from grasp_agent.models import EncoderConfig, EncoderReport, PixelEncoder, fit_encoder
from grasp_agent.models.encoder.fitting import training_steps
from grasp_agent.models.encoder.rigid_body import Body
from grasp_agent.replay.episodes import Episode
from grasp_agent.replay.image_buffer import Album
from grasp_agent.task.pixels import PictureLayout, Seen
from grasp_agent.task.structure import Frame, Structure

Array = NDArray[np.float32]
_REMEMBERED = 256  # pictures whose latents are kept at hand
_GROWTH = 1.5  # of the album, since the encoder has learned, after which it learns anew with the last fit
_AGENT = 0.01  # what it weighs where the agent is in a goal's picture, beside the body: next to nothing
_COLLAPSED, _TELLING = 0.05, 50  # spread of latents that tell of nothing, after so many steps
_PASSES = 30  # through the album, at most: 700 gradient steps from 1,100 images on


class Vision:
    """Turns pictures into the latents of a goal environment, and learns how.

    The observation is the newest frame's latent, by how much it differs from the oldest one's where there are several
    (it tells speeds, with more frames the better), and what vectors there are beside; the achieved goal is the newest
    frame's latent, the desired goal that of the goal's picture. As long as nothing has been learned, all are empty.

    Args:
        layout: where pictures stand in observations.
        config: how the encoder looks and learns.
        seed: of everything random.
        device: where it lives.

    Attributes:
        encoder: None before anything has been learned.
        report: what came of its last training.
        album: the experience.
    """

    def __init__(
        self, layout: PictureLayout, config: EncoderConfig | None, seed: int, device: torch.device | str
    ) -> None:
        self.layout, self.config = layout, config or EncoderConfig()
        self.encoder: PixelEncoder | None = None
        self.report: EncoderReport | None = None
        self.album = Album(layout.stacked)
        self._seed, self._device = seed, device
        self._learned_from = 0
        self._goal: NDArray[np.uint8] | None = None
        self._latents: OrderedDict[bytes, Array] = OrderedDict()

    @property
    def space(self) -> spaces.Dict:
        """The space of what `dressed` returns."""
        size, beside = self._size, sum(self.layout.sizes)
        sizes = {"observation": self._parts * size + beside, "achieved_goal": size, "desired_goal": size}
        return spaces.Dict({key: spaces.Box(-np.inf, np.inf, (length,), np.float32) for key, length in sizes.items()})

    @property
    def alike(self) -> tuple[range, ...]:
        """Entries of the observation that share a unit: those of a latent, of a difference."""
        size = self._size
        return tuple(range(first * size, (first + 1) * size) for first in range(self._parts))

    @property
    def _size(self) -> int:
        """Entries of a latent; 0 as long as it is not known how many there will be."""
        if self.encoder is not None:
            return self.encoder.latent
        return Body.size if self.config.body else 0

    @property
    def _parts(self) -> int:
        """Latents in an observation."""
        return min(2, self.layout.frames)

    @staticmethod
    def structure(layout: PictureLayout, config: EncoderConfig, *, actions: int, rests: bool) -> Structure:
        """What is known of latents beforehand: that of a body, the frame in which pushes look the same everywhere.

        Raises:
            ValueError: if a body is sought in pictures of an environment whose actions do not have two entries.
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
        return Structure(frame=frame, goal_weights=(_AGENT, _AGENT, 1, 1, 1, 1), rests=rests)

    @property
    def has_goal(self) -> bool:
        """Whether it is known what to aim at."""
        return self._goal is not None or self.layout.goal is not None

    def set_goal(self, picture: Any) -> None:
        """Aims at what a picture shows, whatever environments say; None: at what they show again.

        Raises:
            ValueError: if it does not look like the observations.
        """
        if picture is None:
            self._goal = None
            return
        goal = self.layout.as_bytes(picture, self.layout.shape)
        if goal.ndim != 3:
            raise ValueError(f"goal: expected one picture {self.layout.shape}, got {goal.shape}")
        self._goal = goal

    def dressed(self, observation: Any) -> dict[str, Array]:
        """Observations as those of a goal environment; without a goal, what is achieved is desired."""
        seen, batch = self.layout.read(observation)
        observed, achieved = self._states(seen)
        if self._goal is not None:
            desired = np.broadcast_to(self.encode(self._goal[None]), achieved.shape)
        else:
            desired = achieved if seen.goals is None else self.encode(seen.goals)
        found = {"observation": observed, "achieved_goal": achieved, "desired_goal": desired}
        return {key: np.array(value if batch else value[0], np.float32) for key, value in found.items()}

    def encode(self, pictures: NDArray[np.uint8]) -> Array:
        """Latents `[n, D]` of frames `[n, height, width, colours]`.

        Each is looked at once, and alone: what is seen in it must not depend on others, not even in the last digit.
        """
        encoder = self.encoder
        if encoder is None:
            return np.zeros((len(pictures), self._size), np.float32)
        keys = [picture.tobytes() for picture in pictures]
        new = {key: place for place, key in enumerate(keys) if key not in self._latents}
        found = {key: self._latents[key] for key in keys if key not in new}
        if new:
            with torch.inference_mode(False), torch.no_grad():
                chosen = torch.from_numpy(pictures[list(new.values())]).to(encoder.device)
                found |= {key: encoder(one[None])[0].cpu().numpy() for key, one in zip(new, chosen, strict=True)}
        for key, latent in found.items():
            self._latents[key] = latent
            self._latents.move_to_end(key)
        while len(self._latents) > _REMEMBERED:
            self._latents.popitem(last=False)
        return np.stack([found[key] for key in keys]) if keys else np.zeros((0, encoder.latent), np.float32)

    def decode(self, latents: Array) -> NDArray[np.uint8]:
        """What latents `[..., D]` look like, `[..., height, width, colours]`: for display."""
        if self.encoder is None:
            raise RuntimeError("expected a learned encoder")
        return self.encoder.decode(torch.from_numpy(latents).to(self.encoder.device)).cpu().numpy()

    def record(self, before: Any, actions: Array, after: Any, lasts: Mapping[int, Any]) -> None:
        """One step of n environments: observations, actions `[n, A]`, and the last ones of episodes that ended."""
        (earlier, _), (later, _) = self.layout.read(before), self.layout.read(after)
        for place, action in enumerate(actions):
            following = self.layout.read(lasts[place])[0] if place in lasts else _row(later, place)
            self.album.record(place, _row(earlier, place), action, following, place in lasts)

    def compared(self, after: Any, before: Any, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Pictures `[height, width, colours]` of what was achieved in a step and of its goal, where there are goals.

        Args:
            after: observations after the step, or this environment's only.
            before: observations before it.
            row: the environment.
        """
        (later, batch), (earlier, _) = self.layout.read(after), self.layout.read(before)
        assert earlier.goals is not None
        return later.pictures[row if batch else 0][..., -self.layout.shape[2] :], earlier.goals[row]

    def raw(self, observations: Any) -> NDArray[np.uint8]:
        """Observations as rows of bytes `[n, R]`: pictures, then vectors."""
        seen, _ = self.layout.read(observations, goals=False)
        count = len(seen.pictures)
        return np.concatenate([seen.pictures.reshape(count, -1), seen.vectors.view(np.uint8).reshape(count, -1)], -1)

    def take(self, episodes: Iterable[Episode]) -> None:
        """Puts episodes of such rows into the album."""
        size = int(np.prod(self.layout.stacked))
        for episode in episodes:
            rows: NDArray[Any] = episode.states
            vectors = np.ascontiguousarray(rows[:, size:]).view(np.float32)
            self.album.add(rows[:, :size].reshape(-1, *self.layout.stacked), vectors, episode.actions)

    @property
    def due(self) -> bool:
        """Whether the encoder should learn before a last fit."""
        return self.encoder is None or len(self.album) >= _GROWTH * max(1, self._learned_from)

    def learn(self, *, progress_bar: bool = False) -> None:
        """Trains a fresh encoder on the album; where episodes are short, it looks less far ahead."""
        lengths = [len(shots.actions) for shots in self.album.episodes]
        typical = float(np.median(lengths)) if lengths else 0.0  # at least half of the episodes are as long
        speeds = self.layout.frames > 1
        far = max(1, typical - speeds)
        config = replace(self.config, ahead=tuple(steps for steps in self.config.ahead if steps <= far))
        rows, actions, episodes = self.album.windows(speeds + config.ahead[-1])
        encoder = PixelEncoder(self.layout.shape, config, seed=self._seed).to(self._device)
        steps = min(config.gradient_steps, max(1, _PASSES * len(rows) // config.batch_size))
        total = training_steps(config, steps)
        with tqdm(total=total, desc="looking", leave=False, disable=not progress_bar) as bar:
            report = self.report = fit_encoder(
                encoder,
                self.album.pictures,
                rows,
                actions,
                episodes=episodes,
                speeds=speeds,
                steps=steps,
                seed=self._seed,
                on_step=bar.update,
            )
        if steps >= _TELLING and not report.spread > _COLLAPSED:
            told = f"rank {report.rank:.1f}, spread {report.spread:.2f}"
            warnings.warn(f"pictures: found nothing in them that moves ({told}); do they show it?", stacklevel=2)
        self.see(encoder)
        self._learned_from = len(self.album)

    def see(self, encoder: PixelEncoder) -> None:
        """Takes over an encoder."""
        self.encoder = encoder.requires_grad_(False).eval()
        self._latents.clear()

    def episodes(self) -> list[Episode]:
        """The album's episodes of raw vectors, observation and achieved goal side by side; each picture seen once."""
        encoder = self.encoder
        assert encoder is not None
        parts = []
        for pictures in self.album.pieces():
            seen = Seen(pictures, np.zeros((len(pictures), 0), np.float32), None)
            parts.append(np.concatenate(self._states(seen, keep=False), -1))
        states, size = np.concatenate(parts), self._parts * encoder.latent
        return [
            Episode(
                np.concatenate([states[shots.rows, :size], shots.vectors, states[shots.rows, size:]], -1),
                shots.actions,
            )
            for shots in self.album.episodes
        ]

    def _states(self, seen: Seen, *, keep: bool = True) -> tuple[Array, Array]:
        """Observations `[n, O]` and achieved goals `[n, D]`."""
        frames = np.split(seen.pictures, self.layout.frames, axis=-1)[::-1]
        encode = self.encode if keep else self._encode_all
        newest, oldest = encode(frames[0]), frames[0]
        for frame in frames[1:]:
            blank = np.asarray(frame.max((1, 2, 3)) == 0)  # before an episode's first step, some stack nothing
            oldest = np.where(np.expand_dims(blank, (1, 2, 3)), oldest, frame)
        parts = [newest] if len(frames) == 1 else [newest, newest - encode(oldest)]
        return np.concatenate([*parts, seen.vectors], -1), newest

    def _encode_all(self, pictures: NDArray[np.uint8]) -> Array:
        assert self.encoder is not None
        with torch.no_grad():
            chosen = torch.from_numpy(np.array(pictures)).to(self.encoder.device)
            return self.encoder(chosen).cpu().numpy()

    def tensors(self) -> dict[str, Tensor]:
        """What has to be saved."""
        if self.encoder is None:
            return {}
        return {f"encoder.{name}": tensor for name, tensor in self.encoder.state_dict().items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`; raises where they do not fit. The encoder stays as it is from now on."""
        weights = {k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")}
        try:
            encoder = PixelEncoder.restore(self.layout.shape, self.config, weights)
        except RuntimeError as error:
            raise ValueError(f"encoder: expected one of {self.config}, got one of another shape") from error
        self.see(encoder.to(self._device))
        self._learned_from = 2**62  # pictures that it has learned from are gone: it stays

    def keep_in(self, path: Path, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Keeps the pictures in a file, with those known so far; with an album's tensors, those that are there."""
        if tensors is not None:
            self.album = Album.restore(tensors, self.layout.stacked, path)
            self._learned_from = len(self.album)
            return
        if self.album.lies_in(path):
            return
        known, self.album = self.album, Album(self.layout.stacked, path)
        pictures = known.pictures
        for shots in known.episodes:
            self.album.add(pictures[shots.rows], shots.vectors, shots.actions)


def _row(seen: Seen, place: int) -> Seen:
    return Seen(seen.pictures[place : place + 1], seen.vectors[place : place + 1], None)
