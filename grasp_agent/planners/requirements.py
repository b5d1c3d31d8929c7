"""Which planners can plan with large states, with models that depend on earlier states, or for rewards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

_LARGEST_STATE = 256  # of which derivatives by the state are formed; chosen by hand


def is_small(size: int, *, has_history: bool) -> bool:
    """Returns whether derivatives `[S, S]` by states of that size can be formed."""
    return not has_history and size <= _LARGEST_STATE


def check_gradients(planner: Any) -> None:
    """Checks that a planner and its parts do without derivatives of the model.

    Raises:
        ValueError: if a part needs them.
    """
    wrong = sorted(set(_parts_with(planner, "needs_gradients")))
    if wrong:
        raise ValueError(
            f"planner: expected one that does without derivatives, as the model has none by its actions, got "
            f"{_said(planner, wrong)}; CEM, ICEM and MPPI do"
        )


def check_size(planner: Any, size: int, *, has_history: bool) -> None:
    """Checks that a planner and its parts can plan where derivatives by the state are not formed.

    Args:
        planner: a planner, whose parts are dataclasses.
        size: S, entries of the state.
        has_history: whether the model depends on earlier states.

    Raises:
        ValueError: if a part forms matrices `[S, S]`, or linearises a model of the present state only.
    """
    wrong = sorted(set(_parts_with(planner, "needs_small_states")))
    if wrong:
        of = "of models with a history" if has_history else f"of {size} entries"
        raise ValueError(
            f"planner: expected one that can plan with states {of}, got {_said(planner, wrong)}; CEM, ICEM, MPPI, "
            "GradientShooting, GRASP.paper() and GRASP(proposals=None, sync=GradientShooting.sync()) can"
        )


def check_objective(planner: Any) -> None:
    """Checks that a planner and its parts can plan for rewards, where there is no goal.

    Raises:
        ValueError: if a part needs a goal.
    """
    wrong = sorted(set(_parts_with(planner, "needs_goal")))
    if wrong:
        raise ValueError(
            f"planner: expected one that plans for rewards, without a goal, got {_said(planner, wrong)}; CEM, ICEM, "
            "MPPI and GradientShooting do"
        )


def _said(planner: Any, wrong: list[str]) -> str:
    """Returns a planner's name, with those of its parts that do not fit."""
    name = type(planner).__name__
    parts = [part for part in wrong if part != name]
    return f"{name} with {', '.join(parts)}" if parts else name


def _parts_with(part: Any, need: str) -> Iterator[str]:
    """Yields the names of a planner's parts, itself included, whose class has a need."""
    if getattr(type(part), need, False):
        yield type(part).__name__
    if is_dataclass(part) and not isinstance(part, type):
        for field in fields(part):
            yield from _parts_with(getattr(part, field.name), need)
