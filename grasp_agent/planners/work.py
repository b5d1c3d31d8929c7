"""The work of planning, counted where a model is called: a search can be limited and suspended there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from torch import Tensor

Result = TypeVar("Result")


PASSES: dict[str, Callable[[int, int], int]] = {
    "dynamics": lambda size, actions: 1,
    "action_jacobian": lambda size, actions: 1 + actions,
    "action_pullback": lambda size, actions: 2,
    "jacobian": lambda size, actions: 1 + size + actions,
}
"""Forward passes of a row whose time a function of a model takes, for S entries of the state and A of the action."""
CALLS = {"dynamics": 1, "action_jacobian": 2, "action_pullback": 2, "jacobian": 2}
"""Calls whose time a call of the function takes, apart from its rows."""

SMALL_STEP = 200.0
"""Work of one step of a serial loop over small matrices [rows of a forward pass]; measured on one core."""
_USED = 0.85  # fraction of a time limit after which no model call begins; chosen by hand


class Effort(NamedTuple):
    """Work of a model's functions, in forward passes of one row of an `EnsembleMLP` of default shape."""

    call: float = 300.0
    """Of a call, with what a planner does around it; measured on one core."""
    row: float = 1.0
    """Of a forward pass of one row."""


class Meter(Protocol):
    """Is told of work before it is done; may wait, or raise to end the search."""

    def spend(self, work: float) -> None:
        """Counts work [rows of a forward pass]."""
        ...


class OutOfTime(BaseException):
    """Ends the search of the `Clock` that it names, or, for None, any; no error, not caught by `except Exception`."""


_active = threading.local()


@contextmanager
def metering(meter: Meter | None) -> Iterator[None]:
    """Reports the model calls of this thread to a meter, instead of the one before; to none for None."""
    before, _active.meter = getattr(_active, "meter", None), meter
    try:
        yield
    finally:
        _active.meter = before


def spend(work: float) -> None:
    """Reports work [rows of a forward pass] to the thread's meter, if there is one."""
    meter = getattr(_active, "meter", None)
    if meter is not None:
        meter.spend(work)


@dataclass(frozen=True)
class Metered(Generic[Result]):
    """A function of a model that reports its work before each call.

    Attributes:
        function: of states `[k, M, S]` and actions `[k, M, A]`.
        kind: one of `PASSES`.
        effort: the model's.
    """

    function: Callable[[Tensor, Tensor], Result]
    kind: str
    effort: Effort

    def __call__(self, state: Tensor, action: Tensor) -> Result:
        """Calls the function."""
        meter = getattr(_active, "meter", None)
        if meter is not None:
            rows = state.shape[0] * state.shape[1]
            passes = PASSES[self.kind](state.shape[2], action.shape[2])
            meter.spend(self.effort.call * CALLS[self.kind] + self.effort.row * rows * passes)
        return self.function(state, action)


def metered(function: Callable[[Tensor, Tensor], Result], kind: str, effort: Effort) -> Metered[Result]:
    """Returns the function metered, once; see `Metered`."""
    return function if isinstance(function, Metered) else Metered(function, kind, effort)


class Deadline:
    """A wall-clock limit, judged at each model call by what the call's work will take, at the pace of those before it.

    Args:
        seconds: the limit, None for none.
        pace: seconds that one row of a forward pass takes, as far as it is known; see `pace`.
    """

    def __init__(self, seconds: float | None, pace: float = 0.0) -> None:
        self._until = None if seconds is None else time.perf_counter() + _USED * seconds
        self.pace = pace
        self._last, self._work = time.perf_counter(), 0.0

    def passed(self, work: float) -> bool:
        """Whether no time is left for a call of that work [rows of a forward pass]; to be asked before each."""
        if self._until is None:
            return False
        now = time.perf_counter()
        if self._work:
            latest = (now - self._last) / self._work
            self.pace = (3 * self.pace + latest) / 4 if self.pace else latest
        self._last, self._work = now, work
        return now + self.pace * work > self._until


class Clock:
    """A time budget: a search ends at the model call for which no time is left.

    Args:
        budget: wall-clock limit [s], None for none.
    """

    def __init__(self, budget: float | None) -> None:
        self._begin = time.perf_counter()
        self._budget, self._deadline = budget, Deadline(budget)
        self._longest: dict[str, float] = {}
        self._outer: Meter | None = None

    @property
    def seconds(self) -> float:
        """Time since the start [s]."""
        return time.perf_counter() - self._begin

    @property
    def over(self) -> bool:
        """Whether the longest parts so far, one of each name, would not fit any more."""
        return self._budget is not None and self.seconds + sum(self._longest.values()) > self._budget

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Times a part of the search."""
        begin = time.perf_counter()
        yield
        self._longest[part] = max(self._longest.get(part, 0.0), time.perf_counter() - begin)

    def spend(self, work: float) -> None:
        """See `Meter`: raises `OutOfTime` where no time is left."""
        if self._outer is not None:
            self._outer.spend(work)
        if self._deadline.passed(work):
            raise OutOfTime(self)

    @contextmanager
    def limiting(self) -> Iterator[None]:
        """Ends the search inside when the time is up."""
        outer = getattr(_active, "meter", None)
        self._outer = outer
        try:
            with metering(outer if self._budget is None else self):
                yield
        except OutOfTime as end:
            if end.args[0] not in (self, None):
                raise
