"""A search for a plan that is suspended when its share of a call is used up, and goes on in the next one."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch

from grasp_agent.planners.work import Deadline, OutOfTime, metering

Result = TypeVar("Result")
_GRACE = 1.0  # longest wait for a cancelled thread to end [s]; chosen by hand


class _Cancelled(BaseException):
    """Ends the thread of a search that nobody waits for any more."""


class _Channel:
    """What a search and its thread share: one of the two runs while the other waits."""

    def __init__(self, total: float) -> None:
        self.resumed, self.suspended = threading.Semaphore(0), threading.Semaphore(0)
        self.left, self.total = 0.0, total
        self.parallel = torch.get_num_threads()
        self.deadline = Deadline(None)
        self.begun = self.done = self.cancelled = self.exhausted = False
        self.result: Any = None
        self.error: BaseException | None = None

    def spend(self, work: float) -> None:
        """See `Meter`: waits before work that would exceed the share; each share is at least one model call."""
        if self.cancelled:
            raise _Cancelled
        if work > self.total:
            self.exhausted = True
            raise OutOfTime(None)
        if (self.deadline.passed(work) or work > self.left) and self.begun:
            self.suspended.release()
            self._wait()
        self.begun = True
        self.left -= work
        self.total -= work

    def _wait(self) -> None:
        self.resumed.acquire()
        if self.cancelled:
            raise _Cancelled
        self.begun = False

    def run(self, function: Callable[[], Any]) -> None:
        """Runs a function; in the search's thread."""
        try:
            self._wait()
            torch.set_num_threads(self.parallel)  # a new thread would take OpenMP's default
            with torch.no_grad(), metering(self):
                self.result = function()
        except _Cancelled:
            return
        except BaseException as error:
            self.error = error
        self.done = True
        self.suspended.release()


def _cancel(channel: _Channel, thread: threading.Thread) -> None:
    channel.cancelled = True
    channel.resumed.release()
    if thread.is_alive() and thread is not threading.current_thread():
        thread.join(_GRACE)


class Search(Generic[Result]):
    """A function that calls a model, run in shares: the same ones on any machine, if only their work is limited.

    It runs in a thread of its own, which works only while `advance` waits for it. A search that is dropped or
    interrupted is cancelled.

    Args:
        function: calls metered models (see `grasp_agent.planners.work`).
        total: work [rows of a forward pass] at which model calls raise `OutOfTime(None)`: planners then return the best
            plan so far.
    """

    def __init__(self, function: Callable[[], Result], total: float = math.inf) -> None:
        self._channel = _Channel(total)
        self._thread = threading.Thread(target=self._channel.run, args=(function,), name="plan", daemon=True)
        weakref.finalize(self, _cancel, self._channel, self._thread)  # before, as Ctrl-C may end `start`
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether it is complete."""
        return self._channel.done

    @property
    def exhausted(self) -> bool:
        """Whether its total work was not enough."""
        return self._channel.exhausted

    @property
    def alive(self) -> bool:
        """Whether it is complete or can go on: not in a process that was forked from its own."""
        return self.done or self._thread.is_alive()

    def advance(self, work: float, seconds: float | None = None) -> bool:
        """Runs one share; returns whether the search is complete.

        Args:
            work: limit of the share [rows of a forward pass].
            seconds: wall-clock limit of the share [s], None for none.

        Raises:
            BaseException: what the function raises.
        """
        channel = self._channel
        if not self.alive:
            raise RuntimeError("search: its thread is that of the process from which this one was forked")
        if not channel.done:
            channel.left = work
            channel.deadline = Deadline(seconds, channel.deadline.pace)
            try:
                channel.resumed.release()
                channel.suspended.acquire()
            except BaseException:  # Ctrl-C: the thread ends at its next model call
                channel.cancelled = True
                raise
        if channel.error is not None:
            raise channel.error
        return channel.done

    @property
    def result(self) -> Result:
        """What the function returned."""
        return self._channel.result
