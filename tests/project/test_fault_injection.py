"""Processes that are killed and disks that are full leave files that are whole; the long run is slow."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from benchmarks.fault_injection import FAULTS, JOBS, WRITERS, kill, refuse, run, whole


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_training_that_is_killed_leaves_nothing_behind_after_the_next_run(number: signal.Signals, tmp_path: Path):
    assert kill(JOBS[0], number, 0.5, tmp_path) == set()
    assert [path.name for path in tmp_path.iterdir()] == ["run.zip"]


@pytest.mark.parametrize("name", ["train --resume", "compare", "plan"])
def test_a_full_disk_leaves_the_old_files(name: str, tmp_path: Path):
    (writer,) = (one for one in WRITERS if one.name == name)
    assert refuse(writer, tmp_path, 200) == set()


def test_damaged_files_are_recognised(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    assert not whole(tmp_path)
    (tmp_path / "a.mp4").unlink()
    assert whole(tmp_path)
    (tmp_path / "a.zip").write_bytes(b"no agent")
    assert not whole(tmp_path)


@pytest.mark.slow
def test_no_fault_is_found_in_many_kills_and_on_full_disks():
    assert run(12, [0, 200, 5_000, 60_000], seed=1).total() == 0
    assert len(FAULTS) == 7
