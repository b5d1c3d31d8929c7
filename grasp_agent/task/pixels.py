"""The layout of observations with images, vectors and goals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from grasp_agent.task.observation import ObservationError, array_of, numbers, of_vectors
from grasp_agent.validation import whole

Bytes = NDArray[np.uint8]
Array = NDArray[np.float32]
_GOALS = ("achieved_goal", "desired_goal")


class PixelObservation(NamedTuple):
    """Images, vectors and goals of n observations."""

    images: Bytes
    """`[n, height, width, channels * frames]`, the newest frame last."""
    vectors: Array
    """`[n, V]`, proprioception, such as joint angles."""
    goals: Bytes | None
    """`[n, height, width, channels]`, images of the goals; None if there are none."""


@dataclass(frozen=True)
class PixelLayout:
    """The layout of observations with images, vectors and goals.

    Attributes:
        shape: `(height, width, channels)` of one frame.
        frames: number of frames that an observation stacks on its channel axis, the newest last.
        image_key: the key of the images; None if observations are images only.
        vectors: keys of vectors (proprioception), without goals.
        sizes: their lengths.
        goal: the key of the goals' images; None if the environment has none.
        unit_range: True if all values are in [0, 1]; otherwise floats are if none is greater.
        goal_frames: number of frames of a goal's image, of which the newest is used.
    """

    shape: tuple[int, int, int]
    frames: int
    image_key: str | None
    vectors: tuple[str, ...]
    sizes: tuple[int, ...]
    goal: str | None
    unit_range: bool = False
    goal_frames: int = 1

    @classmethod
    def of(cls, space: spaces.Space[Any], frames: int | None = None) -> PixelLayout | None:
        """Returns the layout of a space; None if it has no image.

        Args:
            space: the space of observations.
            frames: number of frames of an observation, and of a goal with as many channels; None for as many as the
                goals' channels imply, otherwise frames of three channels if possible, of one if not.

        Raises:
            ValueError: if there are several images, entries that are neither image nor vector, or another number of
                frames.
        """
        if frames is not None:
            whole(1, frames=frames)
        if of_vectors(space):
            return None  # a camera next to vector goals is not used
        inner: dict[Any, spaces.Space[Any]] = dict(space.spaces) if isinstance(space, spaces.Dict) else {None: space}
        for part in inner.values():
            if isinstance(part, spaces.Box) and part.dtype == np.uint8 and len(part.shape) in (2, 4):
                wanted = "[height, width, channels] or [channels, height, width], frames stacked on the channels"
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
        frame_channels = channels // usual if wanted is None or stacked else wanted[2]
        if channels % frame_channels or (wanted is not None and wanted[:2] != (height, width)):
            raise ValueError(f"observation space: expected goals that look like observations, {shape}, got {wanted}")
        if frames is not None and frame_channels * frames != channels:
            expected = f"{channels // frame_channels}, as goals have {frame_channels} channels"
            raise ValueError(f"frames: expected {expected}, got {frames}")
        sizes = tuple(int(inner[key].shape[0]) for key in vectors)  # type: ignore[index]
        box, frames = inner[found[0]], channels // frame_channels
        unit_range = box.dtype != np.uint8 and bool(np.max(box.high) <= 1)  # type: ignore[attr-defined]
        size = (height, width, frame_channels)
        return cls(size, frames, found[0], tuple(map(str, vectors)), sizes, goal, unit_range, frames if stacked else 1)

    @property
    def stacked(self) -> tuple[int, int, int]:
        """`(height, width, channels * frames)`."""
        return (*self.shape[:2], self.shape[2] * self.frames)

    def read(self, observation: Any, *, goals: bool = True) -> tuple[PixelObservation, bool]:
        """Returns the contents of observations, and whether they are a batch.

        Channels may be the first axis, as in Stable-Baselines3, or the last, as in environments. Without `goals`, these
        are not read, and images may be given without a Dict if there are no vectors.

        Raises:
            ValueError: if a key is missing, a shape is wrong, or images are neither bytes nor in [0, 1].
        """
        if isinstance(observation, Mapping):
            goal = self.goal if goals else None
            wanted = [key for key in (self.image_key, *self.vectors, goal) if key is not None]
            missing = [key for key in wanted if key not in observation]
            if missing:
                raise ValueError(f"observation: missing key {missing[0]!r}; expected {', '.join(wanted)}")
            shown = observation if self.image_key is None else observation[self.image_key]
        elif self.image_key is None or not (goals or self.vectors):
            shown = observation
        else:
            raise ValueError(f"observation: expected a dict, got {type(observation).__name__}")
        images = self.as_bytes(shown, self.stacked, self.image_key or "image")
        batch = images.ndim == 4
        images = images.reshape(-1, *self.stacked)
        parts = [np.zeros((len(images), 0), np.float32)]
        for key, size in zip(self.vectors, self.sizes, strict=True):
            vector = numbers(observation[key], key).astype(np.float32)
            if vector.size != len(images) * size:
                raise ValueError(f"Error: Unexpected observation shape {vector.shape} for {key!r}: expected ({size},)")
            parts.append(vector.reshape(-1, size))
        goal_images = None
        if goals and self.goal is not None:
            shape = (*self.shape[:2], self.shape[2] * self.goal_frames)
            goal_images = self.as_bytes(observation[self.goal], shape, self.goal).reshape(-1, *shape)[
                ..., -self.shape[2] :
            ]
            if len(goal_images) != len(images):
                raise ValueError("Error: Unexpected observation shape: the keys have different numbers of rows")
        return PixelObservation(images, np.concatenate(parts, -1), goal_images), batch

    def as_bytes(self, image: Any, shape: tuple[int, int, int], name: str = "goal") -> NDArray[np.uint8]:
        """Returns images `[height, width, C]`, or a batch, as uint8; channels may come first, and values be in [0, 1].

        Args:
            image: the images.
            shape: `(height, width, C)`.
            name: key of the observation, for error messages.

        Raises:
            ValueError: if they have another shape.
        """
        array = array_of(image, name)
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
            raise ObservationError(f"observation: expected images of finite values in [0, 255], got {span}")
        if self.unit_range and array.size and array.max() > 1:
            raise ValueError(f"observation: expected images of values in [0, 1], got {array.min()} to {array.max()}")
        unit_range = self.unit_range or (np.issubdtype(array.dtype, np.floating) and array.size and array.max() <= 1)
        return np.round(255 * array if unit_range else array).astype(np.uint8)


def _image_shape(space: spaces.Space[Any]) -> tuple[int, int, int] | None:
    """Returns `(height, width, channels)` of a space of images; None for another one."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 3:
        return None
    one, two, three = space.shape
    return (two, three, one) if one < min(two, three) else (one, two, three)
