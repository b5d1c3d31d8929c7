"""Keywords, reset options and actions of the environments: their types and checks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

OBSERVATIONS = ("state", "pixels")
GOALS = ("state", "pixels")
REWARD_TYPES = ("sparse", "dense")
RENDER_MODES = (None, "rgb_array")

_MIN_RENDER_SIZE = 16  # smallest `render_size` [pixels]


class EnvOptions(TypedDict, total=False):
    """Keywords that all environments of this package take; see `GoalEnv` for what they mean."""

    observation: str
    goal: str
    frames: int
    reward_type: str
    terminate_on_success: bool
    render_mode: str | None
    render_size: int


def check_known(kind: type, unknown: Mapping[str, object]) -> None:
    """Refuses keywords that an environment's class does not take.

    Raises:
        TypeError: If there is one.
    """
    if unknown:
        own = inspect.signature(kind).parameters.values()
        names = [keyword.name for keyword in own if keyword.kind is keyword.KEYWORD_ONLY]
        choices = ", ".join([*names, *EnvOptions.__annotations__])
        raise TypeError(f"{kind.__name__} takes the keywords {choices}, got {next(iter(unknown))!r}")


def check_keywords(
    observation: object, goal: object, frames: object, reward_type: object, render_mode: object, render_size: object
) -> None:
    """Refuses keywords of `GoalEnv` that are not among their choices, or do not fit together.

    Raises:
        ValueError: That names the keyword.
    """
    _check_choice("observation", observation, OBSERVATIONS)
    _check_choice("goal", goal, GOALS)
    if goal == "pixels" and observation != "pixels":
        raise ValueError(f'goal="pixels" needs observation="pixels", got {observation!r}')
    if not isinstance(frames, int | np.integer) or frames < 1:
        raise ValueError(f"frames must be an integer of at least 1, got {frames!r}")
    if frames > 1 and observation != "pixels":
        raise ValueError(f'frames={frames} needs observation="pixels", got {observation!r}')
    _check_choice("reward_type", reward_type, REWARD_TYPES)
    check_render(render_mode, render_size)


def check_render(render_mode: object, render_size: object) -> None:
    """Refuses keywords of rendering that are not among their choices.

    Raises:
        ValueError: That names the keyword.
    """
    _check_choice("render_mode", render_mode, RENDER_MODES)
    if not isinstance(render_size, int | np.integer) or render_size < _MIN_RENDER_SIZE:
        raise ValueError(f"render_size must be an integer of at least {_MIN_RENDER_SIZE}, got {render_size!r}")


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_vector(name: str, value: ArrayLike, size: int) -> NDArray[np.float64]:
    """Returns a reset option as a vector [size].

    Raises:
        ValueError: If its shape is another one, or it is not finite.
    """
    vector = np.array(value, dtype=np.float64)
    if vector.shape != (size,):
        raise ValueError(f"option {name} must have shape ({size},), got {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError(f"option {name} must be finite, got {vector}")
    return vector


def refuse(name: str, value: NDArray[np.float64], reason: str | None) -> None:
    """Refuses a reset option for a reason, if there is one.

    Raises:
        ValueError: If the reason is not None.
    """
    if reason is not None:
        raise ValueError(f"option {name} {reason}, got {value}")


def check_action(action: ArrayLike, size: int) -> NDArray[np.float64]:
    """Returns an action [size], clipped to [-1, 1].

    Raises:
        ValueError: If its shape is another one, or it is not finite.
    """
    vector = np.asarray(action, dtype=np.float64)
    if vector.shape != (size,):
        raise ValueError(f"an action must have shape ({size},), got {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError(f"an action must be finite, got {vector}")
    return np.clip(vector, -1.0, 1.0)
