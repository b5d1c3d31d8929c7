"""Atomic writing of videos, at frame rates that viewers support."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
from PIL import Image

from grasp_agent.files import atomic_write, named
from grasp_agent.video.config import VideoConfig
from grasp_agent.video.encoding import ENCODERS, Encoder
from grasp_agent.video.overlay import even

_MAX_FPS = {".mp4": 240.0, ".gif": 50.0}
"""Largest frame rate of each file type [frames per second]."""


class VideoWriter:
    """A video in writing.

    Args:
        path: the final file.
        encoder: of its frames.
    """

    def __init__(self, path: Path, encoder: Encoder) -> None:
        self.path, self.fps = path, encoder.fps
        self._encoder = encoder
        self._size: tuple[int, int] | None = None

    @property
    def frames(self) -> int:
        """Number of frames so far."""
        return self._encoder.frames

    def add(self, image: Image.Image) -> None:
        """Adds a frame.

        Raises:
            ValueError: if its size is not that of the first one.
            OSError: if it cannot be written.
        """
        self._size = self._size or image.size
        if image.size != self._size:
            raise ValueError(
                f"render(): expected images of one size, {self._size}, got {image.size} at frame {self.frames}"
            )
        self._encoder.add(even(image))


@contextmanager
def open_video(path: str | Path, fps: float, *, force: bool) -> Iterator[VideoWriter]:
    """Writes a video to a temporary file, and moves it to `path` when it is complete and can be read.

    Raises:
        ValueError: if the suffix is unknown or the file exists.
        OSError: if it cannot be written; see `atomic_write`.
    """
    path = named(path)
    if path.suffix.lower() not in _MAX_FPS:
        raise ValueError(f"path: expected a name that ends in {' or '.join(_MAX_FPS)}, got {path.name!r}")
    if path.exists() and not force:
        raise ValueError(f"path: {path} exists; choose another name or force=True")
    with atomic_write(path) as aside:
        encoder = ENCODERS[path.suffix.lower()](aside, fps)
        try:
            yield VideoWriter(path, encoder)
            encoder.finish()
        finally:
            encoder.stop()


def rate(env: gym.Env[Any, Any], path: str | Path, config: VideoConfig) -> float:
    """Returns frames per second: the configured rate, or else the environment's.

    Args:
        env: the recorded environment.
        path: the file; GIFs store durations in hundredths of a second.
        config: settings of the video.

    Raises:
        ValueError: if the rate exceeds that of the file type.
    """
    suffix = Path(path).suffix.lower()
    max_fps = _MAX_FPS.get(suffix, 240.0)
    wanted = float(min(_render_fps(env), max_fps) if config.fps is None else config.fps) * config.speed
    if wanted > max_fps:
        raise ValueError(f"fps, speed: expected at most {max_fps:.0f} frames per second, got {wanted:g}")
    return 100 / round(100 / wanted) if suffix == ".gif" else wanted


def _render_fps(env: gym.Env[Any, Any]) -> float:
    """Returns the environment's frames per second; 30 where its metadata have no such number."""
    fps = (env.metadata or {}).get("render_fps")
    return float(fps) if isinstance(fps, int | float) and 0 < fps < math.inf else 30.0
