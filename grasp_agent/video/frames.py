"""Images of whatever kind an environment renders."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

_CHANNELS = (1, 3, 4)


def rendered(env: gym.Env[Any, Any]) -> Image.Image:
    """Returns the environment's current image; see `image_of`."""
    return image_of(env.render())


def image_of(frame: Any) -> Image.Image:
    """Returns an RGB image of what an environment rendered.

    Args:
        frame: `[height, width]`, `[height, width, channels]` or channels first, of 1, 3 or 4 channels (the fourth,
            transparency, is dropped); bytes, whole numbers up to 255, or floats, which are in [0, 1] unless one is
            larger.

    Raises:
        ValueError: if it is something else.
    """
    wanted = "render(): expected an image [height, width, 3]"
    if not isinstance(frame, np.ndarray):
        raise ValueError(f"{wanted}, got {type(frame).__name__}")
    channels = frame[..., None] if frame.ndim == 2 else frame
    if channels.ndim == 3 and channels.shape[-1] not in _CHANNELS and channels.shape[0] in _CHANNELS:
        channels = np.moveaxis(channels, 0, -1)
    if channels.ndim != 3 or channels.shape[-1] not in _CHANNELS or 0 in channels.shape:
        raise ValueError(f"{wanted}, got shape {list(frame.shape)}")
    if channels.shape[-1] != 3:
        channels = np.repeat(channels, 3, axis=-1) if channels.shape[-1] == 1 else channels[..., :3]
    return Image.fromarray(np.ascontiguousarray(_bytes(channels, wanted)))


def _bytes(channels: np.ndarray, wanted: str) -> np.ndarray:
    if channels.dtype == np.uint8:
        return channels
    if channels.dtype.kind not in "biuf" or not np.isfinite(channels).all():
        raise ValueError(f"{wanted} of finite numbers, got {channels.dtype}")
    if channels.dtype.kind == "b" or (channels.dtype.kind == "f" and channels.max() <= 1):
        channels = 255.0 * channels
    return np.clip(np.rint(channels), 0, 255).astype(np.uint8)
