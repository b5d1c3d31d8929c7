"""Calls in several processes, which end with the process that started them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_GRACE = 5.0  # time that a process has to clean up [s]
_stopped = threading.Event()


def in_processes(
    call: Callable[[Item], Result], items: Iterable[Item], jobs: int
) -> Generator[tuple[Item, Result], None, None]:
    """Calls a function once for each item, and yields items and results as they finish.

    Where the iteration ends early (Ctrl-C, an error, the end of this process), the calls that are running get a
    `KeyboardInterrupt`, so that they can clean up, and the others are not started.

    Args:
        call: a function that pickle can find by its name.
        items: its arguments; they and the results are pickled.
        jobs: number of processes; 1 calls the function in this one.
    """
    if jobs == 1:
        for item in items:
            yield item, call(item)
        return
    context = get_context("spawn")
    watched, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(jobs, context, _watch, (watched,))
    try:
        futures: dict[Future[Result], Item] = {pool.submit(_called, call, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        held.close()
        pool.shutdown(cancel_futures=True)
        watched.close()


def _called(call: Callable[[Item], Result], item: Item) -> Result:
    signal.signal(signal.SIGINT, _interrupt)
    try:
        if _stopped.is_set():
            raise KeyboardInterrupt
        return call(item)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes: idle ones ignore it


def _interrupt(*_: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only once: a second one from the terminal must not stop the cleanup
    raise KeyboardInterrupt


def _watch(watched: Connection) -> None:
    """Interrupts this process's call when the parent process closes its end of a pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main = threading.get_ident()

    def wait() -> None:
        with suppress(EOFError, OSError):
            watched.recv()
        _stopped.set()
        signal.pthread_kill(main, signal.SIGINT)  # it also interrupts waiting calls
        threading.Event().wait(_GRACE)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
