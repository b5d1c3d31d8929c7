"""Checks of spaces and Dict goal observations, and their conversion to vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from grasp_agent.task.actions import check_actions

Array = NDArray[np.floating[Any]]
"""float32, or float64 where the environment's numbers have more digits."""
KEYS = ("observation", "achieved_goal", "desired_goal")


def check_spaces(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    """Checks that the agent can plan in these spaces.

    Raises:
        ValueError: unless observations are a Dict of vectors with the keys of a goal environment, and actions a bounded
            Box of one axis.
    """
    check_actions(action_space)
    if not isinstance(observation_space, spaces.Dict) or set(KEYS) - set(observation_space.spaces):
        raise ValueError(
            f"observation space: expected a Dict with the keys {', '.join(KEYS)} (a goal environment), "
            f"or a Box and a goal (goal=Goal.at(...); grasp train: --goal), got {observation_space}"
        )
    for key in KEYS:
        space = observation_space[key]
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"observation space: expected a vector under {key!r}, got {space}")


def of_vectors(space: spaces.Space[Any]) -> bool:
    """Returns whether observations are a Dict in which observation, achieved_goal and desired_goal are vectors."""
    if not isinstance(space, spaces.Dict):
        return False
    parts = [space.spaces.get(key) for key in KEYS]
    return all(isinstance(part, spaces.Box) and len(part.shape) == 1 for part in parts)


def raw_vectors(observation: Mapping[str, Any]) -> Array:
    """Returns observation and achieved goal concatenated, `[n, O + G]`."""
    return np.concatenate([numbers(observation[key], key) for key in KEYS[:2]], axis=-1)


class ObservationError(ValueError):
    """An observation that an agent cannot use."""


def array_of(values: Any, name: str) -> NDArray[Any]:
    """Returns arrays, tensors or lists of real numbers as an array.

    Raises:
        ValueError: if they are of another kind (text, objects, complex numbers, truth values) or rows differ in length.
    """
    expected = f"observation: expected real numbers under {name!r}"
    try:
        if hasattr(values, "detach"):  # a tensor; NumPy has no bfloat16
            values = values.detach().cpu()
            values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
        array = np.asarray(values)
    except Exception as error:  # foreign classes may raise anything
        reason = " ".join(str(error).split())
        raise ObservationError(f"{expected}, in rows of one length, got {type(values).__name__}: {reason}") from error
    if array.dtype.kind not in "fiu":
        found = type(values).__name__ if array.dtype.kind == "O" else f"an array of {array.dtype}"
        raise ObservationError(f"{expected}, got {found}")
    return array


def numbers(values: Any, name: str) -> Array:
    """Returns a copy of values, see `array_of`, as float32; as float64 where float32 has too few digits.

    Raises:
        ValueError: also if they are not finite in single precision.
    """
    array = array_of(values, name)
    kind = np.result_type(array.dtype, np.float32)
    array = array.astype(kind if kind.itemsize <= 8 else np.float64)
    bad = ~(np.abs(array) <= np.finfo(np.float32).max)
    if bad.any():
        index = tuple(map(int, np.argwhere(bad)[0]))
        where = f"entry {index[-1]}" + (f" of row {index[0]}" if len(index) == 2 else "") if index else "it"
        raise ObservationError(
            f"observation: {name!r} holds values that are not finite in single precision: {where} is {array[index]}"
        )
    return array


def batched(observation: Any, space: spaces.Dict) -> tuple[dict[str, Array], bool]:
    """Checks an observation and gives its arrays a batch axis.

    Returns:
        Copies of the arrays, each `[n, size]`, and whether the observation came as a batch.

    Raises:
        ValueError: if it is a `(obs, info)` pair (with the message of Stable-Baselines3), misses a key, has a wrong
            shape or values that are not finite.
    """
    if isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict):
        raise ValueError(
            "You have passed a tuple to the predict() function instead of a Numpy array or a Dict. "
            "You are probably mixing Gym API with SB3 VecEnv API: `obs, info = env.reset()` (Gym) vs "
            "`obs = vec_env.reset()` (SB3 VecEnv)."
        )
    if not isinstance(observation, Mapping):
        raise ValueError(
            f"observation: expected a dict with the keys {', '.join(KEYS)}, got {type(observation).__name__}"
        )
    missing = [key for key in KEYS if key not in observation]
    if missing:
        raise ValueError(f"observation: missing key {missing[0]!r}; expected {', '.join(KEYS)}")
    arrays, batches = {}, set()
    for key in KEYS:
        array = numbers(observation[key], key)
        shape = space[key].shape or ()
        if array.shape == shape:
            batches.add(None)
        elif array.ndim == len(shape) + 1 and array.shape[1:] == shape:
            batches.add(len(array))
        else:
            raise ValueError(
                f"Error: Unexpected observation shape {array.shape} for {key!r}: "
                f"expected {shape} or (n_env, {', '.join(map(str, shape))})"
            )
        arrays[key] = array[None] if array.shape == shape else array
    if len(batches) > 1:
        raise ValueError("Error: Unexpected observation shape: the keys have different numbers of rows")
    return arrays, batches.pop() is not None
