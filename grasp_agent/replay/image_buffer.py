"""A replay buffer of images in a memory-mapped file, which may be larger than memory."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grasp_agent.files import explained
from grasp_agent.reading import check_regular
from grasp_agent.task.pixels import Array, Bytes, PixelObservation


def _opened(path: Path | None, *, new: bool) -> IO[bytes]:
    """Opens a file of images, unbuffered; an old one, which others may have mapped, is left to them."""
    if path is None:
        return tempfile.TemporaryFile(buffering=0)
    if new:
        path.unlink(missing_ok=True)
    return open(path, "w+b" if new else "r+b", buffering=0)


class ImageEpisode(NamedTuple):
    """One episode."""

    rows: NDArray[np.int64]
    """`[T + 1]`, indices of its images in the buffer."""
    vectors: Array
    """`[T + 1, V]`."""
    actions: Array
    """`[T, A]`, in [-1, 1]."""
    terminated: bool = False
    """See `grasp_agent.replay.episodes.Episode`."""


_ARRAYS = ("rows", "vectors", "actions")  # fields of an `ImageEpisode`


class ImageReplayBuffer:
    """Images in the order of arrival, and their episodes.

    Args:
        shape: `(height, width, channels)` of an image.
        path: the file of the images; None for a temporary one, which is deleted with the buffer.
        count: number of images in that file to keep; the rest of the file is cut off.

    Raises:
        ValueError: if the file holds fewer images, does not exist, or is no regular file but, for example, a link: it
            would be overwritten where it leads.
    """

    def __init__(self, shape: tuple[int, int, int], path: Path | None = None, count: int = 0) -> None:
        self.shape, self.episodes = shape, list[ImageEpisode]()
        self._size, self._count = int(np.prod(shape)), count
        if count < 0:
            raise ValueError(f"count: expected at least 0 images, got {count}")
        if count and path is not None and not os.path.lexists(path):
            raise ValueError(f"{path}: expected {count} images that belong to a checkpoint; there is no such file")
        if path is not None and os.path.islink(path):
            raise ValueError(f"{path}: expected a file of images, it is a link")
        if path is not None and path.exists():
            check_regular(path)
        self._path = path
        with self._named():
            self._file = _opened(path, new=not count)
            weakref.finalize(self, self._file.close)
            if self._file.seek(0, 2) < count * self._size:
                raise ValueError(f"{path}: expected {count} images, the file is shorter")
            self._file.truncate(count * self._size)
        self._running: dict[int, tuple[list[int], list[Array], list[Array]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Returns the content, with all images, for copies and pickles; a copy is in a temporary file of its own."""
        episodes = (self.episodes, self._running)
        return {"shape": self.shape, "images": np.array(self.images), "episodes": episodes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["shape"])
        for image in state["images"]:
            self._add(image)
        self.episodes, self._running = state["episodes"]

    def is_stored_in(self, path: Path | None) -> bool:
        """Returns whether the images are in this file; None for a temporary one."""
        if path is None or self._path is None:
            return path is self._path
        return path.exists() and os.path.samestat(path.stat(), os.fstat(self._file.fileno()))

    def _named(self) -> AbstractContextManager[None]:
        """Names the file in errors."""
        return explained(self._path or Path(tempfile.gettempdir()))

    def __len__(self) -> int:
        """Returns the number of transitions, without those of running episodes."""
        return sum(len(episode.actions) for episode in self.episodes)

    @property
    def images(self) -> Bytes:
        """`[M, height, width, channels]`, all images, read from the file on access."""
        if not self._count:
            return np.zeros((0, *self.shape), np.uint8)
        return np.memmap(self._file, np.uint8, "r", shape=(self._count, *self.shape))  # type: ignore[call-overload]

    def record(
        self,
        env: int,
        before: PixelObservation,
        action: Array,
        after: PixelObservation,
        done: bool,
        terminated: bool = False,
    ) -> None:
        """Records a transition of one of several environments, by its index; observations have one row each."""
        if env not in self._running:
            self._running[env] = ([self._add(before.images[0])], [before.vectors[0]], [])
        rows, vectors, actions = self._running[env]
        rows.append(self._add(after.images[0]))
        vectors.append(after.vectors[0])
        actions.append(action)
        if done:
            self.episodes.append(self._so_far(env)._replace(terminated=terminated))
            del self._running[env]

    def add(self, images: Bytes, vectors: Array, actions: Array, terminated: bool = False) -> None:
        """Adds a whole episode: `[T + 1, ...]`, `[T + 1, V]` and `[T, A]`."""
        rows = np.array([self._add(image) for image in images], np.int64)
        arrays = np.asarray(vectors, np.float32), np.asarray(actions, np.float32)
        self.episodes.append(ImageEpisode(rows, *arrays, terminated))

    def end(self) -> None:
        """Ends the running episodes and keeps them."""
        self.episodes += [self._so_far(env) for env in self._running]
        self._running.clear()

    def windows(self, length: int) -> tuple[NDArray[np.int64], Array, NDArray[np.int64]]:
        """Returns windows of `length` steps: image rows `[W, length + 1]`, actions `[W, length, A]`, episodes `[W]`."""
        long_enough = [episode for episode in self.episodes if len(episode.actions) >= length]
        if not long_enough:
            raise ValueError(f"images: expected an episode of at least {length} steps, got none")
        view = np.lib.stride_tricks.sliding_window_view
        rows = [view(episode.rows, length + 1) for episode in long_enough]
        actions = [np.moveaxis(view(episode.actions, length, axis=0), -1, 1) for episode in long_enough]
        episodes = np.repeat(np.arange(len(rows)), [len(windows) for windows in rows])
        return np.concatenate(rows), np.concatenate(actions), episodes

    def tensors(self) -> dict[str, Tensor]:
        """Returns all but the images, with running episodes, and the number of images."""
        if self._path is not None:
            with self._named():
                os.fsync(self._file.fileno())  # the checkpoint that follows counts on them
        known = [*self.episodes, *(self._so_far(env) for env in self._running)]
        if not known:
            return {}
        return {
            "count": torch.tensor(self._count),
            "lengths": torch.tensor([len(episode.actions) for episode in known]),
            "terminated": torch.tensor([episode.terminated for episode in known]),
            **{
                name: torch.from_numpy(np.concatenate([getattr(episode, name) for episode in known]))
                for name in _ARRAYS
            },
        }

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], shape: tuple[int, int, int], path: Path) -> ImageReplayBuffer:
        """Restores a buffer from `tensors` and a file of images; raises if they do not fit."""
        kinds = {"rows": torch.int64, "vectors": torch.float32, "actions": torch.float32}
        for name, kind in kinds.items():
            tensor = tensors[name]
            if tensor.dtype != kind or tensor.ndim != (1 if name == "rows" else 2) or not bool(tensor.isfinite().all()):
                raise ValueError(f"images.{name}: expected finite numbers, {kind}, got {list(tensor.shape)}")
        if any(tensors[name].is_floating_point() for name in ("count", "lengths")):
            raise ValueError("images.count, images.lengths: expected whole numbers")
        buffer = cls(shape, path, int(tensors["count"]))
        lengths = tensors["lengths"].tolist()
        longer = [length + 1 for length in lengths]
        parts = [tensors[name].cpu().split(lengths if name == "actions" else longer) for name in _ARRAYS]
        terminated = tensors["terminated"].tolist() if "terminated" in tensors else [False] * len(lengths)
        for *own, end in zip(*parts, terminated, strict=True):
            buffer.episodes.append(ImageEpisode(*(part.numpy() for part in own), terminated=bool(end)))
        if any(episode.rows.max() >= buffer._count or episode.rows.min() < 0 for episode in buffer.episodes):
            raise ValueError(f"{path}: expected more images")
        return buffer

    def batches(self, size: int = 512) -> Iterator[Bytes]:
        """Yields all images in order, in batches."""
        images = self.images
        for first in range(0, len(images), size):
            yield np.asarray(images[first : first + size])

    def _add(self, image: Bytes) -> int:
        data = memoryview(np.ascontiguousarray(image, np.uint8).tobytes())
        start = self._count * self._size  # a failed attempt is overwritten by the next one
        with self._named():
            while len(data):
                written = os.pwrite(self._file.fileno(), data, start)
                start, data = start + written, data[written:]
        self._count += 1
        return self._count - 1

    def _so_far(self, env: int) -> ImageEpisode:
        rows, vectors, actions = self._running[env]
        return ImageEpisode(np.array(rows, np.int64), np.stack(vectors), np.stack(actions))
