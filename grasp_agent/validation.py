"""Checks of settings: values of another type or out of range are refused when a settings object is built."""

from __future__ import annotations

import math
from numbers import Integral


def instance(kind: type, **settings: object) -> None:
    """Refuses values of another type; None stands for a default.

    Raises:
        ValueError: that names the setting.
    """
    for name, value in settings.items():
        if not (value is None or isinstance(value, kind)):
            article = "an" if kind.__name__[0] in "AEIOU" else "a"
            raise ValueError(f"{name}: expected {article} {kind.__name__}, got {value!r}")


def at_least(least: float, **settings: float) -> None:
    """Refuses numbers below a minimum.

    Raises:
        ValueError: that names the setting.
    """
    for name, value in settings.items():
        if not (_number(value) and value >= least):
            raise ValueError(f"{name}: expected at least {least}, got {_shown(value)}")


def finite(**settings: float) -> None:
    """Refuses what is no finite number.

    Raises:
        ValueError: that names the setting.
    """
    for name, value in settings.items():
        if not _number(value):
            raise ValueError(f"{name}: expected a finite number, got {_shown(value)}")


def more_than(least: float, **settings: float) -> None:
    """Refuses numbers that do not exceed a bound.

    Raises:
        ValueError: that names the setting.
    """
    for name, value in settings.items():
        if not (_number(value) and value > least):
            raise ValueError(f"{name}: expected more than {least}, got {_shown(value)}")


def whole(least: int, **settings: int) -> None:
    """Refuses values that are no integers, or are below a minimum.

    Raises:
        ValueError: that names the setting.
    """
    for name, value in settings.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}: expected a whole number of at least {least}, got {_shown(value)}")


def as_whole(least: int, **settings: object) -> int:
    """Returns a whole number, also of NumPy, as an int.

    Raises:
        ValueError: that names the setting, for another value or one below the minimum.
    """
    ((name, value),) = settings.items()
    number = int(value) if isinstance(value, Integral) else value
    whole(least, **{name: number})  # type: ignore[arg-type]
    return number  # type: ignore[return-value]


def fraction(**settings: float) -> None:
    """Refuses numbers outside [0, 1].

    Raises:
        ValueError: that names the setting.
    """
    for name, value in settings.items():
        if not (_number(value) and 0 <= value <= 1):
            raise ValueError(f"{name}: expected a fraction in [0, 1], got {_shown(value)}")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf


def _shown(value: object) -> str:
    """Returns a value as text; of a number of NumPy also what to write."""
    hint = f"; write {name}(...)" if (name := {"i": "int", "u": "int", "f": "float"}.get(_kind(value))) else ""
    return f"{value!r}{hint}"


def _kind(value: object) -> str:
    return getattr(getattr(value, "dtype", None), "kind", "")
