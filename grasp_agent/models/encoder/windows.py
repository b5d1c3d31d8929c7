"""Windows of consecutive images and actions for the training of an encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_EFFECT_STEPS = 4  # steps over which the effect of actions is measured; chosen by hand


class ImageWindows:
    """W windows of T steps; images are loaded when a batch needs them.

    Args:
        images: `[M, height, width, channels]`, uint8; may be a memory map. If there are more channels than a frame has,
            the last ones are used.
        rows: `[W, T + 1]`, indices of the windows' images.
        actions: `[W, T, A]`, in [-1, 1], taken between them.
        episodes: `[W]`, the episode of each window; None if unknown.
        channels: channels of a frame.
        device: device of the batches.
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
        """Returns the newest frames `[*rows, height, width, channels]` of stacked images."""
        return torch.from_numpy(np.ascontiguousarray(self._images[rows][..., -self._channels :])).to(self._device)

    def subset(self, chosen: NDArray[np.int64] | slice, first: int = 0) -> ImageWindows:
        """Returns the chosen windows, without their steps before `first`."""
        episodes = None if self.episodes is None else self.episodes[chosen]
        known = self._images, self.rows[chosen, first:], self.actions[chosen, first:]
        return ImageWindows(*known, episodes, self._channels, self._device)

    def action_effects(
        self, now: int, moments: list[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Returns images and actions that show the effect of actions.

        Args:
            now: step at which the effect begins.
            moments: further steps whose images are needed.

        Returns:
            Indices of distinct images `[M']`; each window's positions in them, `[W, T']`, at `moments` and some steps
            after `now`; sums of the actions in between, `[W, A]`.
        """
        later = min(now + _EFFECT_STEPS, self.rows.shape[1] - 1)
        index, position = np.unique(self.rows[:, [*moments, later]], return_inverse=True)
        return index, position.reshape(len(self.rows), -1), self.actions[:, now:later].sum(1)
