"""Files that are replaced whole or not at all: their names, locks, and the reasons why they cannot be written."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from grasp_agent.locks import lock, release

_PREFIX = ".grasp-agent-"
_OURS = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8}")  # names of temporary folders, by `tempfile`
_LOCKS = re.compile(re.escape(_PREFIX) + r".+\.lock", re.DOTALL)
_LONGEST = 255  # largest length of a file name on the usual file systems [bytes]
_CLEARING = 0.2  # time for which another process may hold a lock to see whether it is abandoned [s]
_REASONS = {
    errno.EFBIG: "the file is larger than the limit of this process (ulimit -f)",
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.ELOOP: "its symbolic links lead in a circle",
    errno.EROFS: "the file system is read-only",
}
_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


def named(path: str | os.PathLike[str], suffix: str = "") -> Path:
    """Returns the path of a file to be written.

    Args:
        path: its name.
        suffix: appended to a name that has none, for example ".zip"; not to that of a device.

    Raises:
        ValueError: for a name that no file can have.
    """
    try:
        text = os.fspath(path)
        name = os.path.basename(text)
        os.fsencode(name)
    except (TypeError, ValueError) as error:
        raise ValueError(f"path: expected the name of a file, got {path!r}") from error
    if not isinstance(text, str) or name in ("", ".", "..") or "\0" in text:
        raise ValueError(f"path: expected the name of a file, got {path!r}")
    path = Path(text)
    is_device = os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)
    path = path if path.suffix or is_device else path.with_name(path.name + suffix)
    length = len(os.fsencode(path.name))
    if length > _LONGEST:
        raise ValueError(f"path: expected a name of at most {_LONGEST} bytes, got one of {length}: {name[:20]}...")
    return path


def followed(path: Path) -> Path:
    """Returns the file that a symbolic link names; another path as it is.

    Raises:
        OSError: if links lead in a circle.
    """
    if not path.is_symlink():
        return path
    found = Path(os.path.realpath(path))
    if found.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return found


def reason(error: OSError) -> str:
    """Returns why an operation on a file failed, in plain words on one line."""
    if error.errno is None or error.strerror is None:
        return " ".join(str(error).split())
    words = error.strerror
    return _REASONS.get(error.errno, words[:1].lower() + words[1:])


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Names the file in errors of the operating system, which say only a number and a part of what was done."""
    try:
        yield
    except OSError as error:
        raise failure(path, error) from error


def failure(path: Path, error: OSError) -> OSError:
    """Returns an error of the same kind and number whose message is one line: the path and the reason."""
    kind = type(error) if type(error).__module__ == "builtins" else OSError
    found = kind(f"{path}: cannot be written: {reason(error)}")
    found.errno = error.errno
    return found


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuses a file that cannot be written, before the work starts; nothing is made.

    Raises:
        ValueError: for a name that no file can have.
        OSError: for a folder, a file or folder without permission, a part of the path that is a file.
    """
    path = named(path)
    with explained(path):
        target = followed(path)
        if not _check(target):
            return
        folder = target.absolute().parent
        while not os.path.lexists(folder):
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass


def _check(target: Path) -> bool:
    """Refuses folders and files without permission; returns False for a device or a pipe, which is never replaced."""
    try:
        kind = target.stat().st_mode
    except FileNotFoundError:
        return True
    for refused, number in ((stat.S_ISDIR(kind), errno.EISDIR), (not os.access(target, os.W_OK), errno.EACCES)):
        if refused:
            raise OSError(number, os.strerror(number))
    return stat.S_ISREG(kind)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path in the same folder, which is moved to `path` on success and removed on an error.

    A file that is replaced keeps its permissions; of a symbolic link, the file that it names is replaced. A device or a
    pipe gets the content. Missing folders are made. What killed processes left in the folder is removed.

    Args:
        path: the file.

    Raises:
        ValueError: for a name that no file can have.
        OSError: if it cannot be written: the path and the reason on one line. The old file is as it was.
    """
    path = named(path)
    with ExitStack() as stack:
        with explained(path):
            target = followed(path)
            replaced = _check(target)
            folder = stack.enter_context(_aside(target.parent if replaced else Path(tempfile.gettempdir())))
        try:
            yield folder / target.name
        except OSError as error:
            if str(error.filename).startswith(str(folder)) or (not error.filename and error.errno in _OF_WRITING):
                raise failure(path, error) from error
            raise
        with explained(path):
            (_replace if replaced else _pour)(folder / target.name, target)


def _replace(aside: Path, target: Path) -> None:
    """Moves a complete file over another, whose permissions it gets."""
    descriptor = os.open(aside, os.O_RDONLY)
    try:
        with suppress(FileNotFoundError):
            os.fchmod(descriptor, stat.S_IMODE(target.stat().st_mode))
        os.fsync(descriptor)  # a machine that stops keeps one file or the other
    finally:
        os.close(descriptor)
    os.replace(aside, target)


def _pour(source: Path, target: Path) -> None:
    """Writes the content of a file into a device or a pipe."""
    with source.open("rb") as content, target.open("wb") as stream:
        shutil.copyfileobj(content, stream)


@contextmanager
def _aside(parent: Path) -> Iterator[Path]:
    """Yields a temporary folder, locked as long as this process lives; folders made on the way stay only on success."""
    with _made(parent):
        clear_abandoned(parent)
        while True:
            folder = Path(tempfile.mkdtemp(dir=parent, prefix=_PREFIX))
            with suppress(BlockingIOError):
                descriptor = lock(folder, os.O_RDONLY)
                if descriptor is not None:  # else another process has just taken it for an abandoned one
                    break
        try:
            yield folder
        finally:
            _remove(folder)
            release(descriptor)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Makes a folder and those above it; after an error, those that were made and are empty are removed."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):
            for one in missing:
                one.rmdir()
        raise


def clear_abandoned(folder: Path) -> None:
    """Removes temporary folders and locks of processes that were killed: the kernel has released them."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if not is_folder and not entry.is_file(follow_symlinks=False):
                continue
            if not (_OURS if is_folder else _LOCKS).fullmatch(entry.name):
                continue
            with suppress(OSError):
                descriptor = lock(Path(entry.path), os.O_RDONLY, required=True)
                if descriptor is not None:
                    shutil.rmtree(entry.path, ignore_errors=True) if is_folder else os.unlink(entry.path)
                    release(descriptor)


def _remove(folder: Path) -> None:
    """Removes a folder; waits up to a second for a program that still writes into it, such as ffmpeg."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)


@contextmanager
def locked(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Holds the lock of a file, against other processes and other holders in this one.

    The lock is on an empty file next to it, which is removed at the end. One that a killed process left does not lock.

    Args:
        path: the file; it need not exist.
        what: what others are refused for, for example "another training writes it".
        wait: whether to wait for another holder.

    Raises:
        BlockingIOError: if it is locked, and `wait` is False.
        OSError: if the folder cannot be written.
    """
    with explained(path):
        target = followed(path)
    place = target.with_name(f"{_PREFIX}{target.name}.lock")
    with ExitStack() as stack:
        with explained(path):
            stack.enter_context(_made(place.parent))
        descriptor = _taken(place, path, what, wait)
        try:
            clear_abandoned(place.parent)
            yield
        finally:
            with suppress(OSError):
                place.unlink()
            release(descriptor)


def _taken(place: Path, path: Path, what: str, wait: bool) -> int:
    """Returns the descriptor of the lock of `path`; see `locked`."""
    end = time.monotonic() + _CLEARING
    while True:
        try:
            descriptor = lock(place, os.O_RDWR | os.O_CREAT, wait=wait)
        except BlockingIOError:
            if time.monotonic() > end:
                raise BlockingIOError(f"{path}: {what} at this moment (wait for its end, or choose another)") from None
            time.sleep(0.01)
        except OSError as error:
            raise failure(path, error) from error
        else:
            if descriptor is not None:
                return descriptor
