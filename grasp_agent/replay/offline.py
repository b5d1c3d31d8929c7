"""Offline data: replay buffers of Stable-Baselines3, Minari datasets, `.npz` files, also those of OGBench."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile, ZipInfo

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from grasp_agent.reading import open_zip, opened, reading
from grasp_agent.replay.episodes import Episode
from grasp_agent.task.actions import from_space

Array = NDArray[np.float32]
_ENDS = ("terminations", "terminals")
_ARRAYS = ("observations", "next_observations", "actions", *_ENDS, "achieved_goal", "next_achieved_goal")
_LARGEST = 64 * 2**30  # of one array, which is read where memory suffices [bytes]; chosen by hand
_LONGEST_HEADER = 2**16  # of an array's description [bytes]; numpy's own limit is lower
_OUTSIDE = 1e-3  # tolerance of actions in [-1, 1]
Raw = Callable[[Any], NDArray[Any]]
"""From recorded observations, `[n, ...]`, to the raw vectors of the agent's dataset, `[n, R]`."""
AtGoal = Callable[[Any], NDArray[np.bool_]]
"""From recorded observations, `[n, ...]`, to whether they may be at their goal, `[n]`."""


class Transitions(NamedTuple):
    """Steps in the order in which they were taken."""

    before: Array
    """`[M, O + G]`, observation and achieved goal concatenated."""
    actions: Array
    """`[M, A]`, in [-1, 1]."""
    after: Array
    """`[M, O + G]`."""
    ends: NDArray[np.bool_]
    """`[M]`, True where an episode ends; one ends, too, if the next step begins in another state."""
    terminated: NDArray[np.bool_]
    """`[M]`, True where it ends for good, see `Episode`."""

    def without(self, lost: NDArray[np.bool_]) -> Transitions:
        """Returns the other steps; episodes end where one is removed."""
        ends = self.ends | np.append(lost[1:], False)
        return self._make(values[~lost] for values in self._replace(ends=ends))

    def episodes(self) -> Iterator[Episode]:
        """Yields the episodes of the steps."""
        if not len(self.actions):
            return
        broken = (self.after[:-1] != self.before[1:]).any(-1) | self.ends[:-1]
        cuts = [0, *(np.flatnonzero(broken) + 1), len(self.actions)]
        for first, last in pairwise(cuts):
            states = np.concatenate([self.before[first : first + 1], self.after[first:last]])
            yield Episode(states, self.actions[first:last], bool(self.terminated[last - 1]))


def episodes_of(source: Any, action_space: spaces.Box, raw: Raw, at_goal: AtGoal | None = None) -> list[Episode]:
    """Returns the episodes of a source of data.

    Args:
        source: a `ReplayBuffer`, `DictReplayBuffer` or `HerReplayBuffer` as Stable-Baselines3's algorithms fill them
            (actions scaled to [-1, 1]); a Minari dataset; the path of an `.npz` file; or `Episode`s. A file holds
            `actions` `[M, A]` in the environment's units, and the steps' `observations` and `next_observations`
            `[M, O]`; of a goal environment also `achieved_goal` and `next_achieved_goal` `[M, G]`; optionally
            `terminations` `[M]`, 1 where an episode ended for good, without success. Or it is one of OGBench (Park et
            al. 2024, arXiv 2410.20092): trajectories one after another, `observations`, `actions` and `terminals`
            `[M]`, 1 at the last state of each, whose action has no next state; for goal environments whose achieved
            goal is the observation.
        action_space: of the environment.
        raw: returns the raw vectors of recorded observations.
        at_goal: returns whether recorded observations may be at their goal: then an end is not terminal. None takes
            no end of buffers and Minari datasets as terminal.

    Raises:
        ValueError: if the source is of another kind, has no step, or does not fit.
    """
    if isinstance(source, ReplayBuffer):
        episodes = [episode for steps in _of_buffer(source, raw, at_goal) for episode in steps.episodes()]
    elif isinstance(source, (str, Path)):
        with reading(source, "not a dataset of this environment"):
            episodes = _of_file(Path(source), action_space, raw)
    elif hasattr(source, "iterate_episodes"):
        with reading("dataset", "not one of this environment"):
            episodes = [_of_minari(recorded, action_space, raw, at_goal) for recorded in source.iterate_episodes()]
    elif isinstance(source, (list, tuple)) and all(isinstance(item, Episode) for item in source):
        episodes = list(source)
    else:
        raise ValueError(
            "dataset: expected a replay buffer of Stable-Baselines3, a Minari dataset, the path of an .npz file or "
            f"episodes, got {type(source).__name__}"
        )
    if not sum(len(episode.actions) for episode in episodes):
        raise ValueError("dataset: expected at least one step, got none")
    return episodes


def _of_buffer(buffer: ReplayBuffer, raw: Raw, at_goal: AtGoal | None) -> Iterator[Transitions]:
    """Yields a buffer's steps, one environment after the other."""
    size = buffer.buffer_size
    order = (np.arange(size) + (buffer.pos if buffer.full else 0)) % size
    order = order if buffer.full else order[: buffer.pos]
    if buffer.optimize_memory_usage and buffer.full:
        # Only states are kept: the newest step's end stands in place of the oldest step's begin.
        order = order[1:]
    for env in range(buffer.n_envs):
        if isinstance(buffer, DictReplayBuffer):
            before = {key: values[order, env] for key, values in buffer.observations.items()}
            after = {key: values[order, env] for key, values in buffer.next_observations.items()}
        else:
            before = buffer.observations[order, env]
            kept = buffer.optimize_memory_usage
            after = buffer.observations[(order + 1) % size, env] if kept else buffer.next_observations[order, env]
        ends = buffer.dones[order, env].astype(bool)
        actions = buffer.actions[order, env].astype(np.float32)
        if len(actions) and np.abs(actions).max() > 1 + _OUTSIDE:
            raise ValueError(
                "dataset: expected actions in [-1, 1], as Stable-Baselines3's algorithms put them into a buffer, got "
                f"{actions.min():g} to {actions.max():g}; scale them by policy.scale_action, or give an .npz "
                "file, whose "
                "actions are in the environment's units"
            )
        terminated = ends & ~buffer.timeouts[order, env].astype(bool)
        terminated = terminated & ~at_goal(after) if at_goal is not None else np.zeros_like(ends)
        steps = Transitions(raw(before), actions, raw(after), ends, terminated)
        # With `optimize_memory_usage`, the last state of an episode is overwritten by the first of the next one.
        yield steps.without(ends) if buffer.optimize_memory_usage else steps


def _of_file(path: Path, action_space: spaces.Box, raw: Raw) -> list[Episode]:
    held = _held(path)
    if "terminals" in held and "next_observations" not in held:
        return list(_of_trajectories(held, action_space, raw))
    return list(_of_steps(path, held, action_space, raw).episodes())


def _held(path: Path) -> dict[str, NDArray[Any]]:
    """Returns the arrays of a file that are known by name."""
    with opened(path) as stream, reading(path, "not an .npz file of arrays"):
        if stream.read(6) == b"\x93NUMPY":
            raise ValueError("it holds a single array without a name")
        with open_zip(stream, largest=_LARGEST, densest=math.inf) as archive:
            names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            present = [name for name in _ARRAYS if name in names]
            shapes = {name: _shape(archive, name, names[name]) for name in present}
            wrong = [name for name, shape in shapes.items() if name not in _ENDS and (len(shape) < 2 or 0 in shape[1:])]
            if wrong or len({shape[:1] for shape in shapes.values()}) > 1:  # before any array is read
                raise ValueError(f"expected arrays of one length, of two or more axes, none empty, got {shapes}")
            return {name: _array(archive, names[name]) for name in present}


def _of_steps(path: Path, held: dict[str, NDArray[Any]], action_space: spaces.Box, raw: Raw) -> Transitions:
    """Returns the steps of a file of steps."""
    missing = {"observations", "next_observations", "actions"} - set(held)
    if missing:
        raise ValueError(f"{path}: expected arrays observations, next_observations and actions, misses {missing.pop()}")

    def part(prefix: str) -> Any:
        if "achieved_goal" not in held:
            return held[f"{prefix}observations"]
        achieved = held.get(f"{prefix}achieved_goal")
        if achieved is None:
            raise ValueError(f"{path}: expected next_achieved_goal with achieved_goal")
        return {"observation": held[f"{prefix}observations"], "achieved_goal": achieved}

    actions = scaled_actions(held["actions"], action_space)
    ends = np.asarray(held.get("terminations", np.zeros(len(actions))))
    if ends.shape != (len(actions),) or not np.isin(ends, (0, 1)).all():
        raise ValueError(f"{path}: expected terminations of 0 or 1, one for each action, got shape {ends.shape}")
    steps = Transitions(raw(part("")), actions, raw(part("next_")), ends.astype(bool), ends.astype(bool))
    if not len(steps.before) == len(steps.actions) == len(steps.after):
        lengths = [len(values) for values in steps[:3]]
        raise ValueError(f"{path}: expected observations, actions and next_observations of one length, got {lengths}")
    return steps


def _of_trajectories(held: dict[str, NDArray[Any]], action_space: spaces.Box, raw: Raw) -> Iterator[Episode]:
    """Yields the episodes of a file of OGBench; a time limit ended them, so that no state is terminal."""
    missing = {"observations", "actions"} - set(held)
    if missing:
        raise ValueError(f"expected arrays observations, actions and terminals, misses {missing.pop()}")
    ends = held["terminals"]
    if ends.ndim != 1 or not np.isin(ends, (0, 1)).all() or not len(ends) or not ends[-1]:
        raise ValueError("expected terminals of 0 or 1, the last of them 1 (else a trajectory is cut off)")
    observations = held["observations"]
    rows = raw({"observation": observations, "achieved_goal": observations})
    actions = scaled_actions(held["actions"], action_space)
    cuts = [0, *(np.flatnonzero(ends) + 1)]
    for first, end in pairwise(cuts):
        if end - first > 1:
            yield Episode(rows[first:end], actions[first : end - 1])


def _shape(archive: ZipFile, name: str, member: ZipInfo) -> tuple[int, ...]:
    """Returns the shape of one array of an `.npz` file, which fits the member's size."""
    with archive.open(member) as packed:
        stream = BytesIO(packed.read(_LONGEST_HEADER))  # a header that says it is longer is not decompressed further
        version = np.lib.format.read_magic(stream)
        reader = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}.get(version[0])
        if reader is None:
            raise ValueError(f"{name}: expected an array of version 1 or 2, got {version}")
        shape, _, dtype = reader(stream)
        if dtype.kind not in "biuf" or math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError(f"{name}: expected numbers, as many as its shape says, got {dtype} {list(shape)}")
        return shape


def _array(archive: ZipFile, member: ZipInfo) -> NDArray[Any]:
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _of_minari(recorded: Any, action_space: spaces.Box, raw: Raw, at_goal: AtGoal | None) -> Episode:
    ended = bool(np.any(getattr(recorded, "terminations", False))) and at_goal is not None
    terminated = ended and not at_goal(recorded.observations)[-1]  # type: ignore[misc]
    return Episode(raw(recorded.observations), scaled_actions(recorded.actions, action_space), terminated)


def scaled_actions(actions: Any, space: spaces.Box) -> Array:
    """Returns actions [the environment's units] scaled to [-1, 1]."""
    array = np.asarray(actions)
    if array.ndim != 2 or array.shape[1] != space.shape[0]:
        raise ValueError(f"dataset: expected actions of shape [M, {space.shape[0]}], got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError("dataset: expected finite actions")
    scaled = from_space(array, space)
    outside = float((np.abs(scaled) > 1 + _OUTSIDE).any(-1).mean()) if len(scaled) else 0.0
    if outside:
        warnings.warn(f"dataset: {100 * outside:.2g} % of its actions are out of bounds, and are clipped", stacklevel=5)
    return np.clip(scaled, -1, 1)
