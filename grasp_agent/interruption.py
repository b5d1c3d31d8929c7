"""Signals that ask a process to stop: what is running stops cleanly and keeps what was done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class Stopped(SystemExit, KeyboardInterrupt):
    """Raised at a signal. A process that does not catch it ends with status 128 + its number, without a traceback."""

    def __init__(self, code: int) -> None:
        super().__init__(code)


@contextmanager
def stoppable(*numbers: int) -> Iterator[None]:
    """Raises `Stopped`, a `KeyboardInterrupt`, at a signal: SIGTERM by default.

    Only in the main thread, and where a signal has its default action, which is restored at the end. A second SIGTERM
    does not disturb the cleanup.
    """
    in_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in numbers or (signal.SIGTERM,)}
    ours = [number for number, handler in before.items() if in_main and handler in _DEFAULTS]
    for number in ours:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _stop(number: int, _: object) -> None:
    if number == signal.SIGTERM:
        signal.signal(number, signal.SIG_IGN)
    raise Stopped(128 + number)
