"""Atomic writing of videos, at frame rates that viewers support."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio
from PIL import Image

from grasp_agent.serialization import atomic_write
from grasp_agent.video.config import VideoConfig
from grasp_agent.video.overlay import even

_MAX_FPS = {".mp4": 240.0, ".gif": 50.0}
"""Largest frame rate of each file type [frames per second]."""


class VideoWriter:
    """A video in writing.

    Args:
        path: the final file.
        writer: imageio's writer.
        fps: frames per second.
    """

    def __init__(self, path: Path, writer: Any, fps: float) -> None:
        self.path, self.fps, self.frames = path, fps, 0
        self._writer = writer
        self._size: tuple[int, int] | None = None

    def add(self, image: Image.Image) -> None:
        """Adds a frame.

        Raises:
            ValueError: if its size is not that of the first one.
        """
        self._size = self._size or image.size
        if image.size != self._size:
            raise ValueError(
                f"render(): expected images of one size, {self._size}, got {image.size} at frame {self.frames}"
            )
        self._writer.append_data(even(image))
        self.frames += 1


@contextmanager
def open_video(path: str | Path, fps: float, *, force: bool) -> Iterator[VideoWriter]:
    """Writes a video to a temporary file, and moves it to `path` when it is complete.

    Raises:
        ValueError: if the suffix is unknown or the file exists.
    """
    path = Path(path)
    if path.suffix.lower() not in _MAX_FPS:
        raise ValueError(f"path: expected a name that ends in {' or '.join(_MAX_FPS)}, got {path.name!r}")
    if path.exists() and not force:
        raise ValueError(f"path: {path} exists; choose another name or force=True")
    # imageio's own `with` leaves the writer open after an error, and ffmpeg writing into a folder that is removed
    with atomic_write(path) as aside, closing(_writer(aside, fps)) as writer:
        yield VideoWriter(path, writer, fps)


def _writer(path: Path, fps: float) -> Any:
    if path.suffix.lower() == ".gif":
        return imageio.get_writer(path, mode="I", duration=round(1000 / fps), loop=0)
    return imageio.get_writer(path, mode="I", fps=fps, codec="libx264", quality=8, macro_block_size=2)


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
