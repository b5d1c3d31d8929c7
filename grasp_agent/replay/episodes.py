"""Episodes of states and actions, and windows of them for the training of world models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Episode:
    """One episode.

    Attributes:
        states: `[T + 1, S]` [the environment's units].
        actions: `[T, A]`, scaled to [-1, 1].
        terminated: whether the last state is terminal without success: no step can be taken from it.

    Raises:
        ValueError: if lengths do not fit or a value is not finite.
    """

    states: Array
    actions: Array
    terminated: bool = False

    def __post_init__(self) -> None:
        if self.states.ndim != 2 or self.actions.ndim != 2 or len(self.states) != len(self.actions) + 1:
            raise ValueError(
                f"episode: expected states [T + 1, S] and actions [T, A], "
                f"got {list(self.states.shape)} and {list(self.actions.shape)}"
            )
        if not (np.isfinite(self.states).all() and np.isfinite(self.actions).all()):
            raise ValueError("episode: expected finite states and actions")


class Dataset:
    """Episodes, kept in order of arrival."""

    def __init__(self) -> None:
        self.episodes: list[Episode] = []

    def add(self, episode: Episode) -> None:
        """Appends an episode, unless it has no step."""
        if len(episode.actions):
            self.episodes.append(episode)

    def add_all(self, episodes: Iterable[Episode]) -> None:
        """Appends episodes."""
        for episode in episodes:
            self.add(episode)

    def mapped(self, function: Callable[[Array], Array]) -> Dataset:
        """Returns the same episodes with a function of their states `[T + 1, S]`."""
        chosen = Dataset()
        chosen.add_all(replace(e, states=function(e.states)) for e in self.episodes)
        return chosen

    def __len__(self) -> int:
        """Returns the number of transitions."""
        return sum(len(episode.actions) for episode in self.episodes)

    @property
    def states(self) -> Array:
        """All states, `[M, S]`."""
        return np.concatenate([episode.states for episode in self.episodes])

    @property
    def origins(self) -> NDArray[np.int64]:
        """The episode of each of `states`, `[M]`."""
        return np.repeat(np.arange(len(self.episodes)), [len(episode.states) for episode in self.episodes])

    @property
    def terminal(self) -> NDArray[np.bool_]:
        """Whether each of `states` is terminal, `[M]`."""
        ends = [len(episode.states) for episode in self.episodes]
        terminal = np.zeros(sum(ends), np.bool_)
        terminal[np.cumsum(ends, dtype=np.int64) - 1] = [episode.terminated for episode in self.episodes]
        return terminal

    def windows(self, length: int) -> tuple[Array, Array]:
        """Returns all windows of `length` steps within an episode.

        Returns:
            States `[M, length + 1, S]` and actions `[M, length, A]`; shorter episodes give none.

        Raises:
            ValueError: if no episode is long enough.
        """
        long_enough = [episode for episode in self.episodes if len(episode.actions) >= length]
        if not long_enough:
            raise ValueError(
                f"windows: expected an episode of at least {length} steps, got {len(self.episodes)} shorter"
            )
        windows = [(_windows(e.states, length + 1), _windows(e.actions, length)) for e in long_enough]
        states, actions = zip(*windows, strict=True)
        return np.concatenate(states), np.concatenate(actions)


class Recorder:
    """Recorder of the running episode of one environment."""

    def __init__(self) -> None:
        self._states: list[Array] = []
        self._actions: list[Array] = []

    def __len__(self) -> int:
        """Returns the number of recorded steps."""
        return len(self._actions)

    def step(self, before: Array, action: Array, after: Array) -> None:
        """Records a transition: states `[S]`, action `[A]`."""
        if not self._states:
            self._states.append(before)
        self._states.append(after)
        self._actions.append(action)

    def so_far(self, *, terminated: bool = False) -> Iterator[Episode]:
        """Yields the running episode, if any."""
        if self._actions:
            yield Episode(np.stack(self._states), np.stack(self._actions), terminated)

    def flush(self, *, terminated: bool = False) -> Iterator[Episode]:
        """Yields the running episode, if any, and starts a new one."""
        yield from self.so_far(terminated=terminated)
        self._states, self._actions = [], []


def _windows(values: Array, length: int) -> Array:
    view = np.lib.stride_tricks.sliding_window_view(values, length, axis=0)
    return np.moveaxis(view, -1, 1)
