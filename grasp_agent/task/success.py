"""The success radius of a goal: from a sparse reward, or estimated from changes of `info["is_success"]`."""

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

from grasp_agent.task.observation import ObservationError

Distance = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float32]]
# All values below are chosen by hand.
_KEPT = 100  # latest changes that are kept
_ENOUGH = 10  # changes that are needed for an estimate
_SURE = 0.25  # quantile of the distances at which changes occur: a conservative estimate, as distances have errors


def reported_success(info: Mapping[str, Any]) -> bool | None:
    """Returns success as an environment reports it, in `is_success` or `success`; None where it does not, also for NaN.

    Raises:
        ValueError: if what it reports is no truth value.
    """
    reported = info.get("is_success", info.get("success"))
    if reported is None:
        return None
    array = np.asarray(reported)
    if array.dtype.kind not in "biuf" or array.size != 1:
        raise ObservationError(f"info: expected is_success as true or false, got {str(reported)[:80]!r}")
    return None if np.isnan(array).any() else bool(array.any())


def success_radius(env: VecEnv) -> float | None:
    """Returns the distance from the goal within which a goal environment gives the same reward as at the goal.

    It evaluates `compute_reward` along each axis of the goal. The reward must be sparse: one value near the goal,
    another one far from it.

    Returns:
        The smallest radius of all axes [goal units], with a relative error of 0.001; None if rewards are dense, raise
        an error, or do not change between 1e-6 and 1e6.
    """
    assert isinstance(env.observation_space, spaces.Dict)
    size = int(np.prod(env.observation_space["desired_goal"].shape or ()))
    directions = np.concatenate([np.eye(size), -np.eye(size)])

    def rewards_at(distances: NDArray[np.float64]) -> NDArray[np.float64]:
        achieved = (distances[:, None, None] * directions).reshape(-1, size)
        infos = np.array([{} for _ in achieved])
        rewards = env.env_method("compute_reward", achieved, np.zeros_like(achieved), infos, indices=[0])[0]
        return np.asarray(rewards, np.float64).reshape(len(distances), -1)

    try:
        grid = np.geomspace(1e-6, 1e6, 121)
        rewards = rewards_at(grid)
        near = (rewards == rewards[0, 0]).all(-1)
        if len(np.unique(rewards)) != 2 or not near[0]:
            return None
        low, high = grid[near.argmin() - 1], grid[near.argmin()]
        while high / low > 1.001:
            middle = (low + high) / 2
            low, high = (middle, high) if (rewards_at(np.array([middle])) == rewards[0, 0]).all() else (low, middle)
    except Exception:  # foreign code may raise anything: the radius stays unknown
        return None
    return float(low)


class SuccessRadius:
    """An estimator of the success radius from changes of `info["is_success"]`.

    It keeps the achieved goals just before and after each change, and the goal. These may be vectors or images.
    """

    def __init__(self) -> None:
        self._changes = deque[NDArray[Any]](maxlen=_KEPT)
        self._last: dict[int, tuple[NDArray[Any], NDArray[Any], bool]] = {}

    def __len__(self) -> int:
        """Returns the number of recorded changes."""
        return len(self._changes)

    def record(self, env: int, achieved: NDArray[Any], goal: NDArray[Any], success: bool, done: bool) -> None:
        """Records a step of one of several environments; `achieved` and `goal` have the same shape."""
        if env in self._last:
            before, target, reached = self._last[env]
            if reached != success and np.array_equal(target, goal):
                self._changes.append(np.stack([before, achieved, goal]))
        self._last[env] = achieved.copy(), goal.copy(), success
        if done:
            del self._last[env]

    def radius(self, distance: Distance) -> float | None:
        """Returns a conservative estimate of the distance at which success changes; None with too few changes.

        Args:
            distance: returns distances `[n]` of achieved goals `[n, ...]` to goals.
        """
        if len(self._changes) < _ENOUGH:
            return None
        before, after, goals = np.stack(self._changes, 1)
        return float(np.quantile((distance(before, goals) + distance(after, goals)) / 2, _SURE))

    def tensors(self) -> dict[str, Tensor]:
        """Returns the tensors to save."""
        return {"success_changes": torch.from_numpy(np.stack(self._changes))} if self._changes else {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores the changes from `tensors`."""
        if "success_changes" in tensors:
            self._changes.extend(tensors["success_changes"].cpu().numpy())
