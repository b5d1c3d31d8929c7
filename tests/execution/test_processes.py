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

from grasp_agent.execution.processes import _GRACE, in_processes

ITEMS = 6


def double(value: int) -> int:
    if value < 0:
        raise ValueError("expected at least 0")
    return 2 * value


def wait(path: Path) -> None:
    """Writes who it is, and waits; tidies up, which takes a while, when it is interrupted."""
    try:
        aside = path.with_suffix(".aside")
        aside.write_text(str(os.getpid()))
        aside.rename(path)
        time.sleep(0 if path.name == "0" else 60)
    except KeyboardInterrupt:
        time.sleep(0.3)
        path.with_suffix(".tidy").touch()
        raise


def paths(folder: Path) -> list[Path]:
    return [folder / str(number) for number in range(ITEMS)]


def until(condition: Iterator[bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    for fulfilled in condition:
        if fulfilled:
            return
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()  # it tells of those that have ended
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # no /proc here, or just gone
        return not Path("/proc/self").exists()


def stop_reported(folder: Path) -> bool:
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


def test_stopping_interrupts_running_calls_and_starts_no_others(tmp_path: Path):
    with closing(in_processes(wait, paths(tmp_path), 2)) as calls:
        assert next(calls)[0].name == "0"
        until((tmp_path / "1").exists() and (tmp_path / "2").exists() for _ in iter(int, 1))
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert stop_reported(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if not path.suffix} == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("signum", "terminal"),
    [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGKILL, False)],
)
def test_calls_end_with_the_process_that_started_them(tmp_path: Path, signum: signal.Signals, terminal: bool):
    """A terminal sends its interrupt to all of a command's processes."""
    here = Path(__file__)
    script = f"""
import signal, sys
from pathlib import Path
sys.path.insert(0, {str(here.parent)!r})
from {here.stem} import in_processes, paths, wait
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    list(in_processes(wait, paths(Path({str(tmp_path)!r})), 2))
"""
    file = tmp_path.parent / "asks.py"
    file.write_text(script)
    asking = subprocess.Popen([sys.executable, str(file)], stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        until((tmp_path / "1").exists() and (tmp_path / "2").exists() for _ in iter(int, 1))
        if terminal:
            os.killpg(asking.pid, signum)
        else:
            asking.send_signal(signum)
        asking.wait(20)
    finally:
        asking.kill()
        asking.wait()
    working = [int((tmp_path / name).read_text()) for name in ("1", "2")]
    until(
        (not any(map(alive, working)) for _ in iter(int, 1)), seconds=_GRACE - 1
    )  # at once, not after a time of grace
    assert stop_reported(tmp_path)


def die(value: int) -> int:
    if value:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def test_a_killed_process_is_one_clear_error():
    with pytest.raises(ChildProcessError, match="a process ended unexpectedly"):
        list(in_processes(die, range(4), 2))
