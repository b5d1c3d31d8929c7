"""Calls in several processes, which end with the process that started them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain, islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from grasp_agent.interruption import Stopped

Item = TypeVar("Item")
Result = TypeVar("Result")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE = 8.0  # time that a process has to clean up [s]; chosen by hand
_GLANCE = 0.5  # time between two looks for signals [s]; chosen by hand
_RETRIES = 2  # times that processes are replaced without a finished call in between; chosen by hand
_stopped, _idle = threading.Event(), threading.Event()
_idle.set()


def in_processes(
    call: Callable[[Item], Result], items: Iterable[Item], jobs: int
) -> Generator[tuple[Item, Result], None, None]:
    """Calls a function once for each item, and yields items and results as they finish.

    An item is asked for when a process is free. Where the iteration ends early (Ctrl-C, an error, the end of this
    process), the calls that are running get a `KeyboardInterrupt`, so that they can clean up, and the others are not
    started. Where a process is killed, the unfinished calls are made again in new ones.

    Args:
        call: a function that pickle can find by its name.
        items: its arguments; they and the results are pickled.
        jobs: number of processes; 1 calls the function in this one.

    Raises:
        ChildProcessError: if processes were killed three times without a call that finished in between.
    """
    if jobs == 1:
        for item in items:
            yield item, call(item)
        return
    queue, lost = iter(items), 0
    while True:
        running: dict[Future[Result], Item] = {}
        try:
            for pair in _in_pool(call, queue, jobs, running):
                lost = 0
                yield pair
            return
        except BrokenExecutor as error:
            done = [future for future in running if future.done() and future.exception() is None]
            for future in done:
                lost = 0
                yield running.pop(future), future.result()
            lost += 1
            if lost > _RETRIES:
                raise ChildProcessError("a process ended unexpectedly (killed, or out of memory?)") from error
            queue = chain(running.values(), queue)


def _in_pool(
    call: Callable[[Item], Result], items: Iterator[Item], jobs: int, running: dict[Future[Result], Item]
) -> Iterator[tuple[Item, Result]]:
    context = get_context("spawn")
    watched, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(jobs, context, _watch, (watched,))

    def submit(item: Item) -> Future[Result]:
        with _signals_blocked():  # in new processes they stay blocked until these can handle them
            return pool.submit(_called, call, item)

    try:
        yield from as_finished(submit, items, jobs, running)
    except BaseException:
        held.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        held.close()
        watched.close()


def as_finished(
    submit: Callable[[Item], Future[Result]],
    items: Iterator[Item],
    most: int,
    running: dict[Future[Result], Item],
) -> Iterator[tuple[Item, Result]]:
    """Submits items, and yields them with their results as they finish.

    Args:
        submit: begins a call.
        items: its arguments; one is asked for when fewer than `most` calls are unfinished.
        most: calls that are begun at a time, at most.
        running: filled with the unfinished calls and their items, also where an exception ends the iteration.
    """
    finished: SimpleQueue[Future[Result]] = SimpleQueue()  # `concurrent.futures.wait` takes time for each running call

    def fill() -> None:
        for item in islice(items, most - len(running)):
            try:
                future = submit(item)
            except BrokenExecutor:
                running[Future()] = item
                raise
            running[future] = item
            future.add_done_callback(finished.put)

    fill()
    while running:
        future = _waited_for(finished)
        result = future.result()
        item = running.pop(future)
        try:
            fill()  # nobody waits while the caller deals with the result
        except BrokenExecutor:
            yield item, result
            raise
        yield item, result


def _waited_for(finished: SimpleQueue[Future[Result]]) -> Future[Result]:
    """Returns the next item; Ctrl-C ends the wait, also where another thread of this process gets its signal."""
    while True:
        try:
            return finished.get(timeout=_GLANCE)
        except Empty:
            continue


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
