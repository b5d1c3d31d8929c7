"""Windows of consecutive images and actions that an encoder is fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_PUSH = 4  # steps after which one sees what actions have moved


class ImageWindows:
    """W windows of T steps; images stay where they are until a batch needs them.

    Args:
        images: `[M, height, width, channels]`, uint8; may be a memory map. Of more channels than a frame has, the last
            ones count.
        rows: `[W, T + 1]`, the windows' images.
        actions: `[W, T, A]`, in [-1, 1], taken between them.
        episodes: `[W]`, the episode that each window belongs to, where that is known.
        channels: of a frame.
        device: where batches go.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        rows: NDArray[np.int64],
        actions: NDArray[np.float32],
        episodes: NDArray[np.int64] | None,
        channels: int,
        device: torch.device,
    ) -> None:
        if episodes is not None and len(episodes) != len(rows):
            raise ValueError(f"episodes: expected one for each of {len(rows)} windows, got {len(episodes)}")
        self.rows, self.actions, self.episodes = rows, actions, episodes
        self._images, self._channels, self._device = images, channels, device

    def __len__(self) -> int:
        """W."""
        return len(self.rows)

    def frames(self, rows: NDArray[Any]) -> Tensor:
        """Frames `[*rows, height, width, channels]`, without those that are stacked before them."""
        return torch.from_numpy(np.ascontiguousarray(self._images[rows][..., -self._channels :])).to(self._device)

    def some(self, chosen: NDArray[np.int64] | slice, first: int = 0) -> ImageWindows:
        """Some of the windows, from a step on."""
        episodes = None if self.episodes is None else self.episodes[chosen]
        known = self._images, self.rows[chosen, first:], self.actions[chosen, first:]
        return ImageWindows(*known, episodes, self._channels, self._device)

    def pushed(self, now: int, moments: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """What is needed to see what actions move.

        Returns:
            Distinct images `[M']`; where those of each window stand among them, `[W, T']`, at `moments` and some steps
            after `now`; and sums of actions until then, `[W, A]`.
        """
        later = min(now + _PUSH, self.rows.shape[1] - 1)
        index, place = np.unique(self.rows[:, [*moments, later]], return_inverse=True)
        return index, place.reshape(len(self.rows), -1), self.actions[:, now:later].sum(1)
