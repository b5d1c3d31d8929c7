"""Files are replaced whole or not at all, and what stands in the way is said in plain words on one line."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from benchmarks.fault_injection import largest_file
from grasp_agent import serialization
from grasp_agent.files import atomic_write, check_writable, locked, named

NAMES = ["", ".", "..", "folder/", "folder/..", "a\0b", "a" * 300, "ä" * 130]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_no_file_can_have_are_refused(name: str, tmp_path: Path):
    path = os.path.join(tmp_path, name)
    for refuse in (
        check_writable,
        lambda path: serialization.write(path, {}, {}),
        lambda path: atomic_write(path).__enter__(),
    ):
        with pytest.raises(ValueError, match=r"^path: expected .*, got .*"):
            refuse(name or "")
        with pytest.raises(ValueError, match=r"^path: expected .*, got .*"):
            refuse(path)
    assert list(tmp_path.iterdir()) == []


def test_objects_that_are_no_names_are_refused():
    with pytest.raises(ValueError, match="path: expected the name of a file, got 5"):
        serialization.write(5, {}, {})  # type: ignore[arg-type]


def test_a_suffix_is_added_to_a_name_without_one(tmp_path: Path):
    for name, written in (("a", "a.zip"), ("v1.2", "v1.2"), (".hidden", ".hidden.zip")):
        serialization.write(tmp_path / name, {}, {})
        assert (tmp_path / written).is_file()


@pytest.mark.parametrize(("name", "written"), [("a" * 251, 255), ("a" * 251 + ".zip", 255), ("a" * 250 + ".zip", 254)])
def test_the_suffix_counts_only_where_it_is_added(name: str, written: int, tmp_path: Path):
    assert len(named(tmp_path / name, ".zip").name) == written
    with pytest.raises(ValueError, match="at most 255 bytes, got one of 256"):
        named(tmp_path / ("a" * 252), ".zip")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_replaced_file_keeps_its_permissions(mode: int, tmp_path: Path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"old")
    path.chmod(mode)
    serialization.write(path, {}, {})
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.stat().st_size > 3


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_permissions_of_the_umask(mask: int, tmp_path: Path):
    before = os.umask(mask)
    try:
        serialization.write(tmp_path / "a.zip", {}, {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.zip").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_file_is_written(exists: bool, tmp_path: Path):
    target, link = tmp_path / "deep" / "a.zip", tmp_path / "link.zip"
    link.symlink_to(Path("deep") / "a.zip")
    if exists:
        target.parent.mkdir()
        target.write_bytes(b"old")
    serialization.write(link, {"kept": 1}, {"x": torch.ones(2)})
    assert link.is_symlink() and not target.is_symlink()
    assert serialization.read(target)[0]["kept"] == 1
    assert [path.name for path in target.parent.iterdir()] == ["a.zip"]


def test_links_in_a_circle_are_refused(tmp_path: Path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match=r"a: cannot be written: its symbolic links lead in a circle"):
        check_writable(tmp_path / "a")
    with pytest.raises(OSError, match="circle"), atomic_write(tmp_path / "a") as aside:
        aside.touch()


def test_what_stands_in_the_way_is_said_before_the_work_starts(tmp_path: Path):
    (tmp_path / "file").write_text("old")
    for path, said in ((tmp_path, "it is a folder"), (tmp_path / "file" / "a", "a part of the path is a file")):
        with pytest.raises(OSError, match=said) as refused:
            check_writable(path)
        assert "Errno" not in str(refused.value) and "\n" not in str(refused.value)
        with pytest.raises(OSError, match=said):
            atomic_write(path).__enter__()
    check_writable(tmp_path / "new" / "folder" / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(PermissionError, match="cannot be written: permission denied"):
            check_writable(tmp_path / "a")
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize("limit", [0, 100, 10_000])
def test_a_full_disk_leaves_the_old_file(limit: int, tmp_path: Path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"old")
    with largest_file(limit), pytest.raises(OSError, match=r"a\.zip: cannot be written: the file is larger") as failed:
        serialization.write(path, {}, {"x": torch.rand(10_000)})
    assert failed.value.errno == errno.EFBIG
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.zip", b"old")]
    with largest_file(limit), pytest.raises(OSError, match="cannot be written"):
        serialization.write(tmp_path / "new" / "folder" / "a.zip", {}, {"x": torch.rand(10_000)})
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only on Linux")
def test_a_device_gets_the_content_and_stays_one():
    with pytest.raises(OSError, match="/dev/full: cannot be written: no space left on device"):
        serialization.write("/dev/full", {}, {"x": torch.ones(9)})
    serialization.write("/dev/null", {}, {})
    assert Path("/dev/full").is_char_device() and Path("/dev/null").is_char_device()


def test_errors_of_other_files_are_not_renamed(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_write(tmp_path / "a"):
        open(tmp_path / "elsewhere")  # noqa: SIM115


WAIT = """
import sys, time
from pathlib import Path
from grasp_agent.files import atomic_write, locked
with locked(Path(sys.argv[1]), "another"), atomic_write(sys.argv[1]) as aside:
    aside.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("next_run", ["locks", "writes"])
def test_what_a_killed_process_left_is_removed_and_what_a_running_one_uses_stays(next_run: str, tmp_path: Path):
    path = tmp_path / "a"
    process = subprocess.Popen([sys.executable, "-c", WAIT, str(path)], stdout=subprocess.PIPE, text=True)
    with process, (tmp_path / ".grasp-agent-notes").open("w"):
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        with atomic_write(tmp_path / "b") as aside:
            aside.touch()
        assert len(list(tmp_path.glob(".grasp-agent-????????"))) == 1  # of the running process
        with pytest.raises(BlockingIOError, match=r"a: another at this moment"), locked(path, "another"):
            pass
        process.kill()
    if next_run == "locks":
        with locked(path, "another"):  # no stale lock
            assert not list(tmp_path.glob(".grasp-agent-????????"))
    else:
        with atomic_write(tmp_path / "b") as aside:
            aside.touch()
    assert sorted(one.name for one in tmp_path.iterdir()) == [".grasp-agent-notes", "b"]


def test_a_lock_holds_in_one_process_however_the_file_is_named(tmp_path: Path):
    (tmp_path / "link").symlink_to("a")
    with (
        locked(tmp_path / "a", "another"),
        pytest.raises(BlockingIOError, match="another at this moment"),
        locked(tmp_path / "link", "another"),
    ):
        pass
    with locked(tmp_path / "link", "another"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_pipe_or_link_that_is_named_as_a_lock_is_left_alone(tmp_path: Path):
    pipe, link = tmp_path / ".grasp-agent-x.lock", tmp_path / ".grasp-agent-a.lock"
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "elsewhere")
    writing = threading.Thread(target=serialization.write, args=(tmp_path / "b.zip", {}, {}), daemon=True)
    writing.start()
    writing.join(10)
    assert not writing.is_alive() and pipe.is_fifo()
    with pytest.raises(OSError, match="a: cannot be written"), locked(tmp_path / "a", "another"):
        pass
    assert link.is_symlink() and not (tmp_path / "elsewhere").exists()


def test_an_error_under_a_lock_that_cannot_be_removed_is_raised_and_the_lock_released(tmp_path: Path):
    def fail() -> None:
        with locked(tmp_path / "a", "another"):
            (tmp_path / ".grasp-agent-a.lock").unlink()
            (tmp_path / ".grasp-agent-a.lock").mkdir()
            raise RuntimeError("original")

    before = len(os.listdir("/dev/fd"))
    with pytest.raises(RuntimeError, match="original"):
        fail()
    assert len(os.listdir("/dev/fd")) == before


def test_a_lock_that_another_process_only_looks_at_is_waited_for(tmp_path: Path):
    place = tmp_path / ".grasp-agent-a.lock"
    with place.open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_EX)
        threading.Timer(0.05, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        with locked(tmp_path / "a", "another"):
            pass


FORK = """
import os, sys, time
from pathlib import Path
from grasp_agent.files import locked
with locked(Path(sys.argv[1]), "another"):
    child = os.fork()
    if not child:
        sys.stdout.close()
        time.sleep(60)
    print(child, flush=True)
    os._exit(0)
"""


def test_a_forked_process_does_not_keep_the_lock_of_its_parent(tmp_path: Path):
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
    try:
        with locked(tmp_path / "a", "another"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
