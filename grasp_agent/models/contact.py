"""What moves the object of a goal, found in data: the entries that are near the object's when it begins to move."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grasp_agent.planners import Approach, Problem
from grasp_agent.replay.episodes import Dataset

Array = NDArray[np.floating[Any]]

# All values below are chosen by hand.
_SIZES = (3, 2)  # entries of a position, beside all of the goal's
_MOST_MOVING = 0.7  # share of steps in which the goal's entries move: with more, they need no contact
_LEAST_MOVES, _LEAST_EPISODES = 5, 2  # times that they begin to move, and episodes with such steps, that are needed
_REST, _NOISE, _LEAST_MOVE = 0.25, 5.0, 1e-3  # a move is more than 5 times that quantile, and .1 % of the whole spread
_LEAST_CHANCE = 0.9  # that the mover is nearer to the object when that begins to move than at any other time
_LEAST_CHANCE_AT_REST = 0.6  # that it is nearer than when the object rests
_REACH = 0.5  # quantile of the distances when a move begins that counts as in reach
_SAMPLED = 5000  # pairs of any time that are compared
_ASIDE, _TOUCHED = 0.03, 0.5  # weights of deviations of other entries, and of a touched object, in feedback
_HURRY = 1.0  # least `Criteria.running`: else contact is put off


@dataclass(frozen=True)
class Contact:
    """An object that moves where something else is near.

    Attributes:
        mover: `[D]`, entries of the state: the position of what moves the object.
        object: `[D]`, entries of the object's position, in the same unit.
        reach: distance at which it moves [the environment's units].
    """

    mover: tuple[int, ...]
    object: tuple[int, ...]
    reach: float

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Pairs of an entry of the mover and the same one of the object."""
        return tuple(zip(self.mover, self.object, strict=True))

    def tensors(self) -> dict[str, Tensor]:
        """Returns the tensors to save."""
        return {"entries": torch.tensor([self.mover, self.object]), "reach": torch.tensor(self.reach)}

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], size: int) -> Contact | None:
        """Restores a contact between entries of states of a size; None if there is none.

        Raises:
            ValueError: if the tensors do not fit.
        """
        if not tensors:
            return None
        entries, reach = tensors["entries"], float(tensors["reach"])
        if entries.dtype != torch.int64 or entries.ndim != 2 or len(entries) != 2 or not entries.numel():
            raise ValueError(f"contact: expected entries [2, D], got {entries.dtype} {list(entries.shape)}")
        if entries.min() < 0 or entries.max() >= size or not 0 <= reach < math.inf:
            raise ValueError(f"contact: expected entries below {size} and a reach, got {entries.tolist()}, {reach}")
        if len(entries.unique()) < entries.numel():
            raise ValueError(f"contact: expected entries that differ, got {entries.tolist()}")
        mover, moved = entries.tolist()
        return cls(tuple(mover), tuple(moved), reach)


@dataclass(frozen=True)
class Touch:
    """A contact in a model's units, and what follows from it for plans.

    Attributes:
        contact: the contact.
        mean: `[S]`, the state [the environment's units] at 0.
        std: `[S]`, the environment's units per state unit.
        weight: of the object's position in the goal.
    """

    contact: Contact
    mean: Tensor
    std: Tensor
    weight: float

    def deviation(self, difference: Array) -> Array:
        """Returns by how far mover or object are elsewhere, weighted like the goal, for `[n, S]` [model units]."""
        scaled = difference * self.std.cpu().numpy()
        parts = [scaled[:, list(entries)] for entries in (self.contact.mover, self.contact.object)]
        return self.weight * np.max([np.linalg.norm(part, axis=-1) for part in parts], 0)

    def posed(self, problem: Problem, unit: float) -> Problem:
        """Returns problems in which contact is made.

        Args:
            problem: problems of the goal alone.
            unit: the goal's unit [the environment's units, weighted].
        """
        size, unit = problem.start.shape[-1], unit / self.weight
        mover, moved = (
            torch.tensor(part, device=self.std.device) for part in (self.contact.mover, self.contact.object)
        )
        goal = Approach(
            size=size,
            goal=problem.goal,
            mover=mover,
            object=moved,
            scale=torch.stack([self.std[mover], self.std[moved]]) / unit,
            offset=(self.mean[mover] - self.mean[moved]) / unit,
            reach=self.contact.reach / unit,
        )
        weights = self.std.new_full((size,), _ASIDE)
        weights[mover], weights[moved] = 1.0, _TOUCHED
        criteria = replace(problem.criteria, running=max(problem.criteria.running, _HURRY))
        return replace(problem, goal=goal, metric=torch.diag(weights), criteria=criteria)


def find_contact(data: Dataset, goal_index: Sequence[int]) -> Contact | None:
    """Returns what moves the entries of the state that goals name; None if they move by themselves, or never.

    Entries side by side count as a position. Of all, those are taken that are nearest to the object when it begins to
    move, in comparison with the same entries at any other time. They must also be nearer than when it rests: what
    only tells where the object is, or was, is always near.

    Args:
        data: episodes of states `[T + 1, S]` [the environment's units].
        goal_index: `[G]`, entries of the state.
    """
    before = np.concatenate([episode.states[:-1] for episode in data.episodes])
    change = np.concatenate([np.diff(episode.states, axis=0) for episode in data.episodes])
    episodes = np.repeat(np.arange(len(data.episodes)), [len(episode.actions) for episode in data.episodes])
    named = list(goal_index)
    size = np.linalg.norm(change[:, named], axis=-1)
    least = max(_NOISE * float(np.quantile(size, _REST)), _LEAST_MOVE * float(np.linalg.norm(before[:, named].std(0))))
    moving = size > least
    # What slides on may be far away: only the steps count with which the object begins to move.
    moves = np.append(False, moving[1:] & ~moving[:-1] & (episodes[1:] == episodes[:-1]))
    enough = moves.sum() >= _LEAST_MOVES and len(np.unique(episodes[moves])) >= _LEAST_EPISODES
    if not enough or moving.mean() > _MOST_MOVING:
        return None
    random = np.random.default_rng(0)
    placed, elsewhere = (random.choice(rows, _SAMPLED) for rows in (np.flatnonzero(moves), len(before)))
    still = random.choice(np.flatnonzero(~moving), _SAMPLED)
    best, found = _LEAST_CHANCE, None
    for count in sorted({len(named), *(size for size in _SIZES if size < len(named))}, reverse=True):
        moved = named[:count]
        for first in range(before.shape[1] - count + 1):
            mover = list(range(first, first + count))
            if set(mover) & set(named):
                continue
            near = np.linalg.norm(before[moves][:, mover] - before[moves][:, moved], axis=-1)
            far = np.linalg.norm(before[elsewhere][:, mover] - before[placed][:, moved], axis=-1)
            rest = np.linalg.norm(before[still][:, mover] - before[still][:, moved], axis=-1)
            chance = _nearer(near, far)
            if chance > best and _nearer(near, rest) > _LEAST_CHANCE_AT_REST:
                best, found = chance, Contact(tuple(mover), tuple(moved), float(np.quantile(near, _REACH)))
    return found


def _nearer(near: Array, far: Array) -> float:
    """Returns the probability that a distance of `near` `[N]` is less than one of `far` `[M]`."""
    return 1 - float((np.searchsorted(np.sort(far), near, side="right") / len(far)).mean())
