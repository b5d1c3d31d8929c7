"""Searches that are suspended at model calls."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from agents import threads

from grasp_agent.agent.search import Search
from grasp_agent.planners import work
from grasp_agent.planners.work import OutOfTime, spend


def counting(parts: list[int], to: int, pause: float = 0.0) -> Callable[[], str]:
    def function() -> str:
        for part in range(to):
            spend(10)
            time.sleep(pause)
            parts.append(part)
        return "found"

    return function


def test_shares_have_the_same_work_each_time():
    parts: list[int] = []
    search = Search(counting(parts, 7))
    progress = []
    while not search.advance(35):
        progress.append(len(parts))
    assert progress == [3, 6]
    assert (len(parts), search.result, search.advance(35)) == (7, "found", True)


def test_a_share_smaller_than_a_call_still_advances():
    parts: list[int] = []
    search = Search(counting(parts, 3))
    assert [search.advance(1) for _ in range(3)] == [False, False, True]
    assert len(parts) == 3


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(work.time, "perf_counter", lambda: self.now)


def test_a_wall_clock_limit_is_kept(monkeypatch: pytest.MonkeyPatch):
    clock, parts = Clock(monkeypatch), []

    def function() -> None:
        for part in range(100):
            spend(10)
            clock.now += 0.01
            parts.append(part)

    search = Search(function)
    for share in range(1, 6):
        begun = clock.now
        assert not search.advance(np.inf, 0.05)
        assert 0.02 < clock.now - begun <= 0.05
        assert len(parts) >= 3 * share


def test_a_search_ends_with_the_best_so_far_at_its_total_work():
    parts: list[int] = []

    def function() -> int:
        with contextlib.suppress(OutOfTime):
            counting(parts, 100)()
        return len(parts)

    search = Search(function, 45)
    assert not search.advance(30)
    assert search.advance(30)
    assert search.result == 4


def test_what_the_function_raises_is_raised_by_the_share_that_reaches_it():
    def failing() -> None:
        spend(10)
        spend(10)
        raise KeyError("lost")

    search = Search(failing)
    assert not search.advance(10)
    for _ in range(2):
        with pytest.raises(KeyError, match="lost"):
            search.advance(10)


def test_a_dropped_search_ends_its_thread():
    before = threads()
    search = Search(counting([], 5))
    search.advance(10)
    assert threads() == before + 1
    del search
    assert threads() == before


def test_an_interrupted_search_ends_its_thread(monkeypatch: pytest.MonkeyPatch):
    before, parts = threads(), []
    search = Search(counting(parts, 10**6, pause=0.001))

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(search._channel.suspended, "acquire", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search.advance(10**9)
    search._thread.join(5)
    assert threads() == before


def test_searches_compute_without_gradients_and_leave_the_callers_mode():
    modes = []

    def function() -> None:
        spend(1)
        modes.append(torch.is_grad_enabled())

    with torch.enable_grad():
        assert Search(function).advance(10)
        assert torch.is_grad_enabled()
    assert modes == [False]


def test_a_search_computes_with_its_callers_number_of_threads(monkeypatch: pytest.MonkeyPatch):
    # OpenMP keeps the number for each thread: a new one would start as many as there are cores.
    chosen = {}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: chosen.update({threading.current_thread(): count}))

    search = Search(threading.current_thread)
    search.advance(1)

    assert search.result is not threading.current_thread()
    assert chosen == {search.result: 3}
