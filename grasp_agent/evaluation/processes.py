"""Calls in several processes, which end with the process that started them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from grasp_agent.interruption import Stopped

Item = TypeVar("Item")
Result = TypeVar("Result")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE = 8.0  # time that a process has to clean up [s]; chosen by hand
_stopped, _idle = threading.Event(), threading.Event()
_idle.set()


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

    Raises:
        ChildProcessError: if a process was killed.
    """
    if jobs == 1:
        for item in items:
            yield item, call(item)
        return
    context = get_context("spawn")
    watched, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(jobs, context, _watch, (watched,))
    try:
        with _signals_blocked():  # in new processes they stay blocked until these can handle them
            futures: dict[Future[Result], Item] = {pool.submit(_called, call, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenExecutor as error:
        held.close()
        raise ChildProcessError("a process ended unexpectedly (killed, or out of memory?)") from error
    except BaseException:
        held.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        held.close()
        watched.close()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _called(call: Callable[[Item], Result], item: Item) -> Result:
    _idle.clear()
    _handle(_interrupt)
    try:
        if _stopped.is_set():
            raise KeyboardInterrupt
        return call(item)
    finally:
        _handle(signal.SIG_IGN)  # a terminal sends its signal to all processes: idle ones ignore it
        _idle.set()


def _handle(handler: Any) -> None:
    for number in _SIGNALS:
        signal.signal(number, handler)


def _interrupt(number: int, _: object) -> None:
    _handle(signal.SIG_IGN)  # only once: a second one from the terminal must not stop the cleanup
    raise Stopped(128 + number)


def _watch(watched: Connection) -> None:
    """Interrupts this process's call when the parent process closes its end of a pipe, and then ends the process."""
    _handle(signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    main = threading.get_ident()

    def wait() -> None:
        with suppress(EOFError, OSError):
            watched.recv()
        _stopped.set()
        signal.pthread_kill(main, signal.SIGINT)  # it also interrupts waiting calls
        _idle.wait(_GRACE)
        os._exit(1)  # also while what a call needs is imported

    threading.Thread(target=wait, daemon=True).start()
