"""Locks of files and folders, which end with the process that holds them."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

_held: set[int] = set()
"""Descriptors of locks; a forked process closes its copies, which would keep the locks of a parent that has ended."""


def _forget_locks() -> None:
    while _held:
        with suppress(OSError):
            os.close(_held.pop())


os.register_at_fork(after_in_child=_forget_locks)


def lock(path: Path, flags: int, *, wait: bool = False, required: bool = False) -> int | None:
    """Locks a file or folder; the kernel releases the lock when the process ends, however it ends.

    Args:
        path: the file or folder.
        flags: of `os.open`.
        wait: whether to wait for another holder.
        required: whether to raise on file systems that cannot lock; else the descriptor holds no lock there.

    Returns:
        The descriptor that holds the lock; None where the path has been removed meanwhile.

    Raises:
        BlockingIOError: if another holds the lock, and `wait` is False.
    """
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)  # no link, no pipe
    except FileNotFoundError:
        return None
    _held.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException as error:
        if required or isinstance(error, BlockingIOError) or not isinstance(error, OSError):
            release(descriptor)
            raise
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    release(descriptor)
    return None


def release(descriptor: int) -> None:
    """Releases a lock."""
    if descriptor in _held:
        _held.remove(descriptor)
        os.close(descriptor)
