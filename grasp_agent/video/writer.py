"""Files of videos: whole or not there, at rates that viewers can show."""

from __future__ import annotations

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

_MOST = {".mp4": 240.0, ".gif": 50.0}
"""Pictures per second that are shown at most."""


class Reel:
    """A video that is being written.

    Args:
        path: the file that it will be.
        writer: imageio's.
        fps: pictures per second.
    """

    def __init__(self, path: Path, writer: Any, fps: float) -> None:
        self.path, self.fps, self.frames = path, fps, 0
        self._writer = writer

    def add(self, picture: Image.Image) -> None:
        """One more picture."""
        self._writer.append_data(even(picture))
        self.frames += 1


@contextmanager
def film(path: str | Path, fps: float, *, force: bool) -> Iterator[Reel]:
    """Writes a video aside, and moves it to its place when it is whole.

    Raises:
        ValueError: if the suffix is unknown or the file exists.
    """
    path = Path(path)
    if path.suffix.lower() not in _MOST:
        raise ValueError(f"path: expected a name that ends in {' or '.join(_MOST)}, got {path.name!r}")
    if path.exists() and not force:
        raise ValueError(f"path: {path} exists; choose another name or force=True")
    # imageio's own `with` leaves the writer open after an error, and ffmpeg at work in a folder that is removed
    with atomic_write(path) as aside, closing(_writer(aside, fps)) as writer:
        yield Reel(path, writer, fps)


def _writer(path: Path, fps: float) -> Any:
    if path.suffix.lower() == ".gif":
        return imageio.get_writer(path, mode="I", duration=round(1000 / fps), loop=0)
    return imageio.get_writer(path, mode="I", fps=fps, codec="libx264", quality=8, macro_block_size=2)


def rate(env: gym.Env[Any, Any], path: str | Path, config: VideoConfig) -> float:
    """Pictures per second, those of the environment where nothing is said.

    Args:
        env: what is filmed.
        path: the file; GIFs keep times in hundredths of a second.
        config: what was asked for.

    Raises:
        ValueError: if it is more than can be shown.
    """
    suffix = Path(path).suffix.lower()
    most = _MOST.get(suffix, 240.0)
    wanted = float(min(env.metadata.get("render_fps", 30), most) if config.fps is None else config.fps) * config.speed
    if wanted > most:
        raise ValueError(f"fps, speed: expected at most {most:.0f} pictures per second, got {wanted:g}")
    return 100 / round(100 / wanted) if suffix == ".gif" else wanted
