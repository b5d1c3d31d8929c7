"""Where images, vectors and goals stand in observations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from grasp_agent.validation import whole

Bytes = NDArray[np.uint8]
Array = NDArray[np.float32]
_GOALS = ("achieved_goal", "desired_goal")


class PixelObservation(NamedTuple):
    """What n observations show."""

    images: Bytes
    """`[n, height, width, colours * frames]`, the newest frame last."""
    vectors: Array
    """`[n, V]`, what is felt beside it, such as joint angles."""
    goals: Bytes | None
    """`[n, height, width, colours]`, images of the goals; None where there are none."""


@dataclass(frozen=True)
class PixelLayout:
    """Where images, vectors and goals stand in observations.

    Attributes:
        shape: `(height, width, colours)` of one frame.
        frames: how many of them an observation shows, side by side on the axis of colours, the newest last.
        picture: the key of the images; None where observations are nothing else.
        vectors: keys of vectors beside them (proprioception), but for goals.
        sizes: their lengths.
        goal: the key of the goals' images; None where the environment shows none.
        shares: whether all values are in [0, 1]; otherwise floats are where none is greater.
        goal_frames: how many of them a goal's image shows; the newest one counts.
    """

    shape: tuple[int, int, int]
    frames: int
    picture: str | None
    vectors: tuple[str, ...]
    sizes: tuple[int, ...]
    goal: str | None
    shares: bool = False
    goal_frames: int = 1

    @classmethod
    def of(cls, space: spaces.Space[Any], frames: int | None = None) -> PixelLayout | None:
        """The layout of a space; None where there is no image in it.

        Args:
            space: of the observations.
            frames: how many an observation shows, and a goal, where it has as many channels; None for as many as the
                goals' colours say, or else three colours each where that is possible, or one.

        Raises:
            ValueError: if there are several images, things that are neither image nor vector, or not so many
                frames.
        """
        if frames is not None:
            whole(1, frames=frames)
        inner: dict[Any, spaces.Space[Any]] = dict(space.spaces) if isinstance(space, spaces.Dict) else {None: space}
        for part in inner.values():
            if isinstance(part, spaces.Box) and part.dtype == np.uint8 and len(part.shape) in (2, 4):
                wanted = "[height, width, channels] or [channels, height, width], frames one behind the other"
                raise ValueError(f"observation space: expected images {wanted}, got {part.shape}")
        shapes = {key: _image_shape(part) for key, part in inner.items()}
        found = [key for key, shape in shapes.items() if shape is not None and key not in _GOALS]
        if not found:
            return None
        if len(found) > 1:
            raise ValueError(f"observation space: expected one image, got {', '.join(map(str, found))}")
        shape = shapes[found[0]]
        assert shape is not None
        goal = "desired_goal" if shapes.get("desired_goal") is not None else None
        vectors = [key for key in inner if key not in (*found, *_GOALS)]
        for key in vectors:
            if not isinstance(inner[key], spaces.Box) or len(inner[key].shape or ()) != 1:
                raise ValueError(f"observation space: expected images and vectors, got {inner[key]} under {key!r}")
        height, width, channels = shape
        wanted = shapes["desired_goal"] if goal else None
        if frames is not None and channels % frames:
            raise ValueError(f"frames: expected a divisor of the {channels} channels of {shape}, got {frames}")
        usual = frames or (channels // 3 if channels % 3 == 0 else channels)
        stacked = wanted == shape and usual > 1 and (frames is not None or channels % 3 == 0)
        colours = channels // usual if wanted is None or stacked else wanted[2]
        if channels % colours or (wanted is not None and wanted[:2] != (height, width)):
            raise ValueError(f"observation space: expected goals that look like observations, {shape}, got {wanted}")
        if frames is not None and colours * frames != channels:
            raise ValueError(f"frames: expected {channels // colours}, as goals have {colours} channels, got {frames}")
        sizes = tuple(int(inner[key].shape[0]) for key in vectors)  # type: ignore[index]
        box, frames = inner[found[0]], channels // colours
        shares = box.dtype != np.uint8 and bool(np.max(box.high) <= 1)  # type: ignore[attr-defined]
        size = (height, width, colours)
        return cls(size, frames, found[0], tuple(map(str, vectors)), sizes, goal, shares, frames if stacked else 1)

    @property
    def stacked(self) -> tuple[int, int, int]:
        """`(height, width, colours * frames)`."""
        return (*self.shape[:2], self.shape[2] * self.frames)

    def read(self, observation: Any, *, goals: bool = True) -> tuple[PixelObservation, bool]:
        """What observations show, and whether they came as a batch.

        Colours may come first, as Stable-Baselines3 has them, or last, as environments do. Without `goals`, these are
        not looked for, and images may stand alone where nothing else is beside them.

        Raises:
            ValueError: for a missing key, a wrong shape or images that are not of bytes or shares.
        """
        if isinstance(observation, Mapping):
            goal = self.goal if goals else None
            wanted = [key for key in (self.picture, *self.vectors, goal) if key is not None]
            missing = [key for key in wanted if key not in observation]
            if missing:
                raise ValueError(f"observation: missing key {missing[0]!r}; expected {', '.join(wanted)}")
            shown = observation if self.picture is None else observation[self.picture]
        elif self.picture is None or not (goals or self.vectors):
            shown = observation
        else:
            raise ValueError(f"observation: expected a dict, got {type(observation).__name__}")
        images = self.as_bytes(shown, self.stacked)
        batch = images.ndim == 4
        images = images.reshape(-1, *self.stacked)
        parts = [np.zeros((len(images), 0), np.float32)]
        for key, size in zip(self.vectors, self.sizes, strict=True):
            vector = _plain(observation[key]).astype(np.float32)
            if vector.size != len(images) * size:
                raise ValueError(f"Error: Unexpected observation shape {vector.shape} for {key!r}: expected ({size},)")
            parts.append(vector.reshape(-1, size))
        aims = None
        if goals and self.goal is not None:
            shape = (*self.shape[:2], self.shape[2] * self.goal_frames)
            aims = self.as_bytes(observation[self.goal], shape).reshape(-1, *shape)[..., -self.shape[2] :]
            if len(aims) != len(images):
                raise ValueError("Error: Unexpected observation shape: the keys have different numbers of rows")
        return PixelObservation(images, np.concatenate(parts, -1), aims), batch

    def as_bytes(self, image: Any, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        """Images `[height, width, C]`, or a batch of them, uint8; colours may come first, and values in [0, 1].

        Raises:
            ValueError: if they have another shape.
        """
        array = _plain(image)
        first = (shape[2], *shape[:2])
        if array.ndim in (3, 4) and array.shape[-3:] != shape and array.shape[-3:] == first:
            array = np.moveaxis(array, -3, -1)
        if array.ndim not in (3, 4) or array.shape[-3:] != shape:
            raise ValueError(
                f"Error: Unexpected observation shape {array.shape} for images: expected {shape} or {first}, "
                f"or (n_env, {', '.join(map(str, shape))})"
            )
        if array.dtype == np.uint8:
            return array
        if not np.isfinite(array).all() or (array.size and not (array.min() >= 0 and array.max() <= 255)):
            span = f"{array.min()} to {array.max()}"
            raise ValueError(f"observation: expected images of finite values in [0, 255], got {span}")
        if self.shares and array.size and array.max() > 1:
            raise ValueError(f"observation: expected images of values in [0, 1], got {array.min()} to {array.max()}")
        shares = self.shares or (np.issubdtype(array.dtype, np.floating) and array.size and array.max() <= 1)
        return np.round(255 * array if shares else array).astype(np.uint8)


def _image_shape(space: spaces.Space[Any]) -> tuple[int, int, int] | None:
    """`(height, width, channels)` of a space of images; None for another one."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 3:
        return None
    one, two, three = space.shape
    return (two, three, one) if one < min(two, three) else (one, two, three)


def _plain(values: Any) -> NDArray[Any]:
    return np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)
