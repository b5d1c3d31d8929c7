"""How near to a goal is near enough, told by when an environment changes its mind."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Distance = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float32]]
_KEPT = 100  # changes, the latest ones
_ENOUGH = 10
_SURE = 0.25  # share of the changes that may lie nearer than the radius: what is seen there is not exact


class Verdicts:
    """What was achieved just before and just after `info["is_success"]` changed, and the goal.

    What is achieved may be anything that can be compared: vectors, pictures.
    """

    def __init__(self) -> None:
        self._changes = deque[NDArray[Any]](maxlen=_KEPT)
        self._last: dict[int, tuple[NDArray[Any], NDArray[Any], bool]] = {}

    def __len__(self) -> int:
        """Changes that are known."""
        return len(self._changes)

    def record(self, place: int, achieved: NDArray[Any], goal: NDArray[Any], success: bool, done: bool) -> None:
        """What an environment, one of several, says after a step: `achieved` and `goal` have the same shape."""
        if place in self._last:
            before, wanted, reached = self._last[place]
            if reached != success and np.array_equal(wanted, goal):
                self._changes.append(np.stack([before, achieved, goal]))
        self._last[place] = achieved.copy(), goal.copy(), success
        if done:
            del self._last[place]

    def radius(self, distance: Distance) -> float | None:
        """The distance from the goal at which verdicts change, on the safe side; None where too few are known.

        Args:
            distance: tells distances `[n]` of what is achieved, `[n, ...]`, from goals.
        """
        if len(self._changes) < _ENOUGH:
            return None
        before, after, goals = np.stack(self._changes, 1)
        return float(np.quantile((distance(before, goals) + distance(after, goals)) / 2, _SURE))

    def tensors(self) -> dict[str, Tensor]:
        """What has to be saved."""
        return {"verdicts": torch.from_numpy(np.stack(self._changes))} if self._changes else {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`."""
        if "verdicts" in tensors:
            self._changes.extend(tensors["verdicts"].cpu().numpy())
