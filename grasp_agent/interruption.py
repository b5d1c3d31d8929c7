"""SIGTERM as Ctrl-C: what is running stops cleanly and keeps what was done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(SystemExit, KeyboardInterrupt):
    """Raised at a SIGTERM. A process that does not catch it ends with status 143, without a traceback."""

    def __init__(self, code: int = 128 + signal.SIGTERM) -> None:
        super().__init__(code)


@contextmanager
def terminable() -> Iterator[None]:
    """Raises `Terminated`, a `KeyboardInterrupt`, at the first SIGTERM; later ones do not disturb the cleanup.

    Only in the main thread, and where the signal has its default action, which is restored at the end.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated
