"""Calls by any executor: the same results as in this process, whatever order or machine they come from."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from grasp_agent.execution import Content, calls, engine, installation, results
from grasp_agent.execution.processes import in_processes


def double(value: int) -> int:
    if value < 0:
        raise ValueError("expected at least 0")
    return 2 * value


def read(item: tuple[int, Path], places: Mapping[str, Path]) -> tuple[str, str]:
    """What a file holds where the call runs, and its name there."""
    place = places[str(item[1])]
    return place.read_text(), place.name


@pytest.mark.parametrize("jobs", [None, 1, 3])
def test_any_executor_gives_the_same_results(jobs: int | None):
    with ThreadPoolExecutor(2) as executor:
        assert sorted(results(double, range(20), executor=executor, jobs=jobs)) == [(n, 2 * n) for n in range(20)]


def test_what_is_no_executor_is_refused():
    said = r"^executor: expected a concurrent.futures.Executor or None, got 4$"
    with pytest.raises(ValueError, match=said):
        list(results(double, [1], executor=4))  # type: ignore[arg-type]  # pyright: ignore


def test_an_error_of_a_call_is_raised_as_it_is_and_the_others_are_cancelled():
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match=r"^expected at least 0$"):
        list(results(double, [1, -1, *range(100)], executor=executor))


@pytest.mark.parametrize("jobs", [1, 4])
def test_items_are_asked_for_as_calls_finish(jobs: int):
    asked: list[int] = []

    def items():
        for value in range(12):
            asked.append(value)
            yield value

    with ThreadPoolExecutor(2) as executor:
        for finished, _ in enumerate(results(double, items(), executor=executor, jobs=jobs), 1):
            assert len(asked) <= finished + jobs


def test_files_are_sent_by_value_and_left_in_no_place(tmp_path: Path):
    path = tmp_path / "agent.zip"
    path.write_text("weights")
    context = get_context("spawn")
    for executor in (None, ProcessPoolExecutor(1, context)):
        [(_, found)] = results(read, [(0, path)], executor=executor, files=lambda item: [item[1]])
        assert found == ("weights", "agent.zip")
        if executor is not None:
            executor.shutdown()
    place = Content.of(path).place()
    assert place != path and place.read_text() == "weights" and place == Content.of(path).place()


def test_a_file_is_read_once_however_many_calls_need_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, sent, reads = tmp_path / "a.zip", [], []
    of = Content.of
    monkeypatch.setattr(Content, "of", lambda path: reads.append(path) or of(path))
    path.write_text("weights")

    class Recording(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            sent.append(args[-1])
            return super().submit(fn, *args, **kwargs)

    with Recording(1) as executor:
        list(results(read, [(n, path) for n in range(5)], executor=executor, files=lambda item: [item[1]]))
    assert reads == [path]
    assert len(sent) == 5 and len({id(content) for content in sent}) == 1  # one object, which an executor may send once


def test_a_worker_with_other_versions_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch):
    other = {**installation.installation(), "torch": "0.1"}
    monkeypatch.setattr(calls, "installation", lambda: other)
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match=r"^worker .*: expected torch 0\.1, .* got"):
        list(results(double, [1], executor=executor))


def test_a_worker_with_other_files_is_refused(monkeypatch: pytest.MonkeyPatch):
    other = {**installation.installation(), "files": "0123456789ab"}
    monkeypatch.setattr(calls, "installation", lambda: other)
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="expected the files of grasp-agent 0123"):
        list(results(double, [1], executor=executor))


def die(value: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return value


def test_an_executor_that_broke_is_one_clear_error():
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as executor,
        pytest.raises(ChildProcessError, match="a worker ended unexpectedly"),
    ):
        list(results(die, [1], executor=executor))


def die_once(path: Path) -> str:
    """Kills its process, unless it has done that before."""
    if path.name != "0" and not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


def test_calls_of_a_killed_process_are_made_again_by_new_ones(tmp_path: Path):
    paths = [tmp_path / name for name in "01234"]
    found = [result for _, result in in_processes(die_once, paths[:2], 2)]
    assert sorted(found) == ["0", "1"]


def die_when_told(item: tuple[int, Path]) -> int:
    """The first call kills its process as soon as another process has finished the second."""
    number, folder = item
    if number == 0 and not (folder / "killed").exists():
        (folder / "killed").touch()
        while not (folder / "slow").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_no_call_is_lost_where_a_process_is_killed_while_results_are_dealt_with(tmp_path: Path):
    found = []
    for _, result in in_processes(die_when_told, [(number, tmp_path) for number in range(6)], 2):
        found.append(result)
        if result == 1:
            (tmp_path / "slow").touch()
            time.sleep(2)  # the pool breaks meanwhile: the next call cannot be submitted
    assert sorted(found) == list(range(6))


@pytest.mark.parametrize(
    ("name", "address", "said"),
    [("dask", None, "engine: expected one of processes, ray"), ("processes", "auto", "address: expected none")],
)
def test_unknown_engines_and_addresses_are_refused(name: str, address: str | None, said: str):
    with pytest.raises(ValueError, match=said), engine(name, address):
        pass


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ValueError, match=r'pip install "grasp-agent\[ray\]"'), engine("ray"):
        pass
