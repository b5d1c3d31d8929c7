"""Calls in several processes end with the one that asked for them, and clean up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from grasp_agent.processes import in_processes

ITEMS = 6


def double(value: int) -> int:
    if value < 0:
        raise ValueError("expected at least 0")
    return 2 * value


def wait(path: Path) -> None:
    """Writes who it is, and waits; tidies up when it is interrupted."""
    path.write_text(str(os.getpid()))
    try:
        time.sleep(0 if path.name == "0" else 60)
    except KeyboardInterrupt:
        path.with_suffix(".tidy").touch()
        raise


def paths(folder: Path) -> list[Path]:
    return [folder / str(number) for number in range(ITEMS)]


def until(condition: Iterator[bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    for fulfilled in condition:
        if fulfilled:
            return
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")  # where there is one, it tells of those that have ended
    return not (status.exists() and ") Z " in status.read_text())


def told(folder: Path) -> bool:
    """Whether each call that was begun and has not come to its end has tidied up."""
    begun = {path.name for path in folder.iterdir() if not path.suffix and path.name != "0"}
    return begun == {path.stem for path in folder.glob("*.tidy")}


@pytest.mark.parametrize("jobs", [1, 2])
def test_items_come_with_their_results(jobs: int):
    assert sorted(in_processes(double, range(5), jobs)) == [(value, 2 * value) for value in range(5)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_is_raised_where_it_is_iterated(jobs: int):
    with pytest.raises(ValueError, match="expected at least 0"):
        list(in_processes(double, [1, -1], jobs))


def test_who_stops_interrupts_the_calls_that_run_and_begins_no_other(tmp_path: Path):
    with closing(in_processes(wait, paths(tmp_path), 2)) as calls:
        assert next(calls)[0].name == "0"
        until((tmp_path / "1").exists() and (tmp_path / "2").exists() for _ in iter(int, 1))
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert told(tmp_path)
    assert len([path for path in tmp_path.iterdir() if not path.suffix]) < ITEMS


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_calls_end_with_the_process_that_asked_for_them(tmp_path: Path, signum: signal.Signals):
    here = Path(__file__)
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(here.parent)!r})
from {here.stem} import in_processes, paths, wait
if __name__ == "__main__":
    list(in_processes(wait, paths(Path({str(tmp_path)!r})), 2))
"""
    file = tmp_path.parent / "asks.py"
    file.write_text(script)
    asking = subprocess.Popen([sys.executable, str(file)], stderr=subprocess.DEVNULL)
    until((tmp_path / "1").exists() and (tmp_path / "2").exists() for _ in iter(int, 1))
    asking.send_signal(signum)
    asking.wait(10)
    working = [int((tmp_path / name).read_text()) for name in ("1", "2")]
    until(not any(map(alive, working)) for _ in iter(int, 1))
    assert told(tmp_path)
