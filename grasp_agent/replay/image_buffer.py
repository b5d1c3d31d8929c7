"""Experience in images: kept in a file that is mapped into memory, so that it may be larger than that."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grasp_agent.task.pixels import Array, Bytes, PixelObservation


class ImageEpisode(NamedTuple):
    """One episode."""

    rows: NDArray[np.int64]
    """`[T + 1]`, where its images stand in the buffer."""
    vectors: Array
    """`[T + 1, V]`."""
    actions: Array
    """`[T, A]`, in [-1, 1]."""


class ImageReplayBuffer:
    """Images in the order in which they came, and the episodes that they belong to.

    Args:
        shape: `(height, width, channels)` of an image.
        path: the file that holds the images; None for one that vanishes with the buffer.
        count: images that are in that file already and stay; what comes after them is cut off.

    Raises:
        ValueError: if the file holds fewer, or is not there.
    """

    def __init__(self, shape: tuple[int, int, int], path: Path | None = None, count: int = 0) -> None:
        self.shape, self.episodes = shape, list[ImageEpisode]()
        self._size, self._count = int(np.prod(shape)), count
        mode = "r+b" if count else "w+b"
        if count and path is not None and not path.exists():
            raise ValueError(f"{path}: expected {count} images that belong to a checkpoint; there is no such file")
        self._path = path
        self._file: IO[bytes] = tempfile.TemporaryFile() if path is None else open(path, mode)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        if self._file.seek(0, 2) < count * self._size:
            raise ValueError(f"{path}: expected {count} images, the file is shorter")
        self._file.truncate(count * self._size)
        self._file.seek(0, 2)
        self._running: dict[int, tuple[list[int], list[Array], list[Array]]] = {}

    def lies_in(self, path: Path) -> bool:
        """Whether its images are in this file."""
        return self._path is not None and path.exists() and path.samefile(self._path)

    def __len__(self) -> int:
        """Number of transitions, without those of running episodes."""
        return sum(len(shots.actions) for shots in self.episodes)

    @property
    def images(self) -> Bytes:
        """`[M, height, width, channels]`, all images, read from the file where they are asked for."""
        self._file.flush()
        if not self._count:
            return np.zeros((0, *self.shape), np.uint8)
        return np.memmap(self._file, np.uint8, "r", shape=(self._count, *self.shape))  # type: ignore[call-overload]

    def record(self, place: int, before: PixelObservation, action: Array, after: PixelObservation, done: bool) -> None:
        """One transition of the environment at a place among several; observations of one row each."""
        if place not in self._running:
            self._running[place] = ([self._add(before.images[0])], [before.vectors[0]], [])
        rows, vectors, actions = self._running[place]
        rows.append(self._add(after.images[0]))
        vectors.append(after.vectors[0])
        actions.append(action)
        if done:
            self.episodes.append(self._so_far(place))
            del self._running[place]

    def add(self, images: Bytes, vectors: Array, actions: Array) -> None:
        """A whole episode: `[T + 1, ...]`, `[T + 1, V]` and `[T, A]`."""
        rows = np.array([self._add(image) for image in images], np.int64)
        self.episodes.append(ImageEpisode(rows, np.asarray(vectors, np.float32), np.asarray(actions, np.float32)))

    def end(self) -> None:
        """Keeps the episodes that are still running."""
        self.episodes += [self._so_far(place) for place in self._running]
        self._running.clear()

    def windows(self, length: int) -> tuple[NDArray[np.int64], Array, NDArray[np.int64]]:
        """All windows of `length` steps: images `[W, length + 1]`, actions `[W, length, A]`, their episodes `[W]`."""
        long_enough = [shots for shots in self.episodes if len(shots.actions) >= length]
        if not long_enough:
            raise ValueError(f"images: expected an episode of at least {length} steps, got none")
        view = np.lib.stride_tricks.sliding_window_view
        rows = [view(shots.rows, length + 1) for shots in long_enough]
        actions = [np.moveaxis(view(shots.actions, length, axis=0), -1, 1) for shots in long_enough]
        episodes = np.repeat(np.arange(len(rows)), [len(windows) for windows in rows])
        return np.concatenate(rows), np.concatenate(actions), episodes

    def tensors(self) -> dict[str, Tensor]:
        """What belongs to the images, those of running episodes too, and how many images there are."""
        self._file.flush()
        known = [*self.episodes, *(self._so_far(place) for place in self._running)]
        if not known:
            return {}
        return {
            "count": torch.tensor(self._count),
            "lengths": torch.tensor([len(shots.actions) for shots in known]),
            **{
                name: torch.from_numpy(np.concatenate([getattr(shots, name) for shots in known]))
                for name in ImageEpisode._fields
            },
        }

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], shape: tuple[int, int, int], path: Path) -> ImageReplayBuffer:
        """The inverse of `tensors`, with the images in a file; raises where they do not fit."""
        buffer = cls(shape, path, int(tensors["count"]))
        lengths = tensors["lengths"].tolist()
        longer = [length + 1 for length in lengths]
        parts = [tensors[name].cpu().split(lengths if name == "actions" else longer) for name in ImageEpisode._fields]
        buffer.episodes += [ImageEpisode(*(part.numpy() for part in shots)) for shots in zip(*parts, strict=True)]
        if any(shots.rows.max() >= buffer._count or shots.rows.min() < 0 for shots in buffer.episodes):
            raise ValueError(f"{path}: expected more images")
        return buffer

    def pieces(self, size: int = 512) -> Iterator[Bytes]:
        """All images in order, some at a time."""
        images = self.images
        for first in range(0, len(images), size):
            yield np.asarray(images[first : first + size])

    def _add(self, image: Bytes) -> int:
        self._file.write(np.ascontiguousarray(image, np.uint8).tobytes())
        self._count += 1
        return self._count - 1

    def _so_far(self, place: int) -> ImageEpisode:
        rows, vectors, actions = self._running[place]
        return ImageEpisode(np.array(rows, np.int64), np.stack(vectors), np.stack(actions))
