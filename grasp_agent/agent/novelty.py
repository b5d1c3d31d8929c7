"""Exploration of unknown states: held actions that lead, by the model, farthest from all visited states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grasp_agent.models.world import World

# All values below are chosen by hand.
_TRIED = 64  # held actions of which the best is taken
_RECENT = 5000  # latest states that are kept


class Visited:
    """Visited states, of which only the entries count that goals name: velocities alone make no state an unknown one.

    Args:
        points: `[P, S]`, states that cover those of earlier experience.
        named: the entries.
    """

    def __init__(self, points: Tensor, named: Sequence[int]) -> None:
        self._named = list(named)
        self._points = points[:, self._named]
        self._recent = self._points[:0]

    def add(self, states: Tensor) -> None:
        """Adds states `[n, S]`."""
        self._recent = torch.cat([self._recent, states[:, self._named]])[-_RECENT:]

    def distance(self, states: Tensor) -> Tensor:
        """Returns the distances `[M]` of states `[M, S]` to the nearest visited ones."""
        return torch.cdist(states[:, self._named], torch.cat([self._points, self._recent])).amin(-1)


def novel_actions(
    world: World,
    state: Tensor,
    visited: Visited,
    refused: NDArray[np.float32],
    longest: int,
    random: np.random.Generator,
) -> tuple[NDArray[np.float32], int]:
    """Returns an action `[A]` in [-1, 1], and the number of steps for which it is held.

    Args:
        world: predicts states.
        state: `[S]`, the present one.
        visited: visited states.
        refused: `[R, 2, S]`, steps that the environment refused, see `PlanState.refused`.
        longest: greatest number of steps.
        random: source of the held actions of which the one is taken that leads farthest from visited states.
    """
    size = world.model.action_size
    lengths = 1 + random.integers(longest, size=_TRIED)
    actions = random.uniform(-1, 1, (_TRIED, size)).astype(np.float32)
    actions /= np.maximum(np.abs(actions).max(-1, keepdims=True), 1e-6) ** random.integers(2, size=(_TRIED, 1))
    held, left = torch.from_numpy(actions).to(state), torch.from_numpy(lengths).to(state.device)
    now, cost = state.expand(_TRIED, -1), state.new_zeros(_TRIED)
    refusals = world.refusals(refused[None])
    for step in range(longest):
        following = torch.where((step < left)[:, None], world.step(now, held), now)
        cost = cost + refusals.crossed(now[None], following[None])[0]
        now = following
    value = torch.where(now.isfinite().all(-1), visited.distance(now.nan_to_num()) / (1 + cost), -torch.inf)
    best = int(value.argmax())
    return actions[best], int(lengths[best])
