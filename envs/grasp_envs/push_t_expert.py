"""A scripted policy for Push-T that solves most episodes: for data, and as a reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from grasp_envs.push_t import ANGLE_TOLERANCE, POSITION_TOLERANCE
from grasp_envs.push_t_physics import AGENT_RADIUS, BARS, REACH, SIZE, Board, touches

_CLEAR = AGENT_RADIUS + 8.0  # distance of the disc's centre from the block before a push [u]
_AROUND = 150.0  # radius of the arc around the block [u]
_PUSH_STEPS = 14  # longest push [steps]
_MIDDLE = np.array([0.0, 45.0])  # of the block, in its own frame [u]


class _Push(NamedTuple):
    begin: NDArray[np.float64]
    """Position of the disc before it [2]."""
    direction: NDArray[np.float64]
    """Direction of the push, of length 1 [2]."""
    steps: int
    cost: float


class PushTExpert:
    """Simulates random straight pushes, moves around the block to the best one and executes it.

    Args:
        seed: seed of the simulated pushes.
        tries: number of simulated pushes; few make a poor and fast policy, whose pushes are diverse.
    """

    def __init__(self, seed: int = 0, tries: int = 40) -> None:
        self._tries = tries
        self._rng = np.random.default_rng(seed)
        self._board = Board()
        self._actions: Iterator[NDArray[np.float64]] = iter(())
        self._state = np.zeros(7)

    def __call__(self, observation: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float32]:
        """Returns the next action [2] for an observation of `grasp/PushT-v0`; call `forget` where an episode begins."""
        vector, goal = observation["observation"], observation["desired_goal"]
        self._state = np.array([*vector[:6], np.arctan2(vector[7], vector[6])])
        action = next(self._actions, None)
        if action is None:
            self._actions = self._play(goal)
            action = next(self._actions)
        return action.astype(np.float32)

    def forget(self) -> None:
        """Discards the push in progress."""
        self._actions = iter(())

    def _play(self, goal: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
        """Yields the actions of the best push, or a step of rest where the block is well within its goal."""
        if self._distance(self._state, goal) < 0.5 * POSITION_TOLERANCE:
            yield np.zeros(2)
            return
        push = min((self._try(goal) for _ in range(self._tries)), key=lambda one: one.cost)
        for _ in range(40):
            gap = self._waypoint(push.begin) - self._state[:2]
            if np.linalg.norm(push.begin - self._state[:2]) < 6.0 and np.linalg.norm(self._state[2:4]) < 40.0:
                break
            yield np.clip(gap / REACH, -1.0, 1.0)
        for _ in range(push.steps):
            yield 0.5 * push.direction

    def _try(self, goal: NDArray[np.float64]) -> _Push:
        """Simulates a random push through the block's outline, and returns it with its cost."""
        pose = self._state[4:]
        turn = np.array([[np.cos(pose[2]), np.sin(pose[2])], [-np.sin(pose[2]), np.cos(pose[2])]])
        point, inward = self._outline_point()
        spread = self._rng.normal(0.0, 0.25)
        lean = np.array([[np.cos(spread), np.sin(spread)], [-np.sin(spread), np.cos(spread)]])
        begin, direction = (point - _CLEAR * inward) @ turn + pose[:2], inward @ lean @ turn
        margin = AGENT_RADIUS + 2.0
        if touches(begin, pose) or not ((begin > margin) & (begin < SIZE - margin)).all():
            return _Push(begin, direction, 0, np.inf)
        self._board.state = [*begin, 0.0, 0.0, *pose]
        costs = []
        for _ in range(_PUSH_STEPS):
            self._board.push(self._board.state[:2] + 0.5 * REACH * direction)
            costs.append(self._distance(self._board.state, goal))
        best = int(np.argmin(costs))
        walk = float(np.linalg.norm(begin - self._state[:2])) / REACH
        return _Push(begin, direction, best + 1, costs[best] + 2.0 * walk)

    def _outline_point(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns a point of a bar's edge and the direction into the bar, in the block's frame."""
        x_low, y_low, x_high, y_high = BARS[self._rng.integers(2)]
        side, fraction = self._rng.integers(4), self._rng.uniform(0.1, 0.9)
        x, y = x_low + fraction * (x_high - x_low), y_low + fraction * (y_high - y_low)
        points = ((x, y_low), (x, y_high), (x_low, y), (x_high, y))
        inward = ((0.0, 1.0), (0.0, -1.0), (1.0, 0.0), (-1.0, 0.0))
        return np.array(points[side]), np.array(inward[side])

    def _waypoint(self, target: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the next waypoint to a target: the target itself, or one around the block if that is between."""
        here, pose = self._state[:2], self._state[4:]
        line = here + np.linspace(0.0, 1.0, 24)[:, None] * (target - here)
        if not any(touches(point, pose) for point in line[1:]):
            return target
        turn = np.array([[np.cos(pose[2]), np.sin(pose[2])], [-np.sin(pose[2]), np.cos(pose[2])]])
        centre = _MIDDLE @ turn + pose[:2]
        now, then = (np.arctan2(*(point - centre)[::-1]) for point in (here, target))
        ahead = (then - now + np.pi) % (2 * np.pi) - np.pi
        if abs(ahead) < 0.35:
            return target
        angle = now + np.sign(ahead) * 0.7
        around = centre + _AROUND * np.array([np.cos(angle), np.sin(angle)])
        return np.clip(around, AGENT_RADIUS + 2.0, SIZE - AGENT_RADIUS - 2.0)

    def _distance(self, state: NDArray[np.float64], goal: NDArray[np.float64]) -> float:
        x, y, angle = state[4:]
        pose = np.array([x, y, np.cos(angle), np.sin(angle)])
        distance = np.linalg.norm(pose[:2] - goal[:2])
        turned = np.arccos(np.clip((pose[2:] * goal[2:]).sum(), -1.0, 1.0))
        return float(distance + turned * POSITION_TOLERANCE / ANGLE_TOLERANCE)
