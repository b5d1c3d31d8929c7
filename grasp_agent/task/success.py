"""How near to a goal is near enough: read off a sparse reward, or estimated from flips of `info["is_success"]`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

Distance = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float32]]
_KEPT = 100  # changes, the latest ones
_ENOUGH = 10
_SURE = 0.25  # share of the changes that may lie nearer than the radius: what is seen there is not exact


def success_radius(env: VecEnv) -> float | None:
    """The distance from its goal within which a goal environment pays as much as at the goal itself.

    Asks its `compute_reward` along each axis of the goal, which must be sparse: pay one sum near the goal, another one
    far from it.

    Returns:
        The smallest radius of all axes [goal units], good to a thousandth; None where rewards are dense, fail, or do
        not change from a millionth to a million.
    """
    assert isinstance(env.observation_space, spaces.Dict)
    size = int(np.prod(env.observation_space["desired_goal"].shape or ()))
    directions = np.concatenate([np.eye(size), -np.eye(size)])

    def pays(distances: NDArray[np.float64]) -> NDArray[np.float64]:
        achieved = (distances[:, None, None] * directions).reshape(-1, size)
        infos = np.array([{} for _ in achieved])
        rewards = env.env_method("compute_reward", achieved, np.zeros_like(achieved), infos, indices=[0])[0]
        return np.asarray(rewards, np.float64).reshape(len(distances), -1)

    try:
        grid = np.geomspace(1e-6, 1e6, 121)
        rewards = pays(grid)
        near = (rewards == rewards[0, 0]).all(-1)
        if len(np.unique(rewards)) != 2 or not near[0]:
            return None
        low, high = grid[near.argmin() - 1], grid[near.argmin()]
        while high / low > 1.001:
            middle = (low + high) / 2
            low, high = (middle, high) if (pays(np.array([middle])) == rewards[0, 0]).all() else (low, middle)
    except Exception:  # it is another's code and may raise anything: the radius stays unknown
        return None
    return float(low)


class SuccessRadius:
    """What was achieved just before and just after `info["is_success"]` changed, and the goal.

    What is achieved may be anything that can be compared: vectors, images.
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
        return {"success_changes": torch.from_numpy(np.stack(self._changes))} if self._changes else {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`."""
        if "success_changes" in tensors:
            self._changes.extend(tensors["success_changes"].cpu().numpy())
