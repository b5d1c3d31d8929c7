"""Calls of a function for many items, and the engines that make them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
ENGINES = ("processes",)
"""Names of engines."""


def results(
    call: Callable[[Item], Result], items: Iterable[Item], *, executor: Executor | None = None, jobs: int | None = None
) -> Generator[tuple[Item, Result], None, None]:
    """Calls a function once for each item, one after the other; an item is asked for when the one before is done."""
    for item in items:
        yield item, call(item)


@contextmanager
def engine(name: str, address: str | None = None) -> Iterator[Executor | None]:
    """Yields the executor of an engine; None for processes of this machine.

    Raises:
        ValueError: if there is no such engine.
    """
    if name not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {name!r}")
    yield None
