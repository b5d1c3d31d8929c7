"""Calls of a pure function for many items, by any `concurrent.futures.Executor`."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from grasp_agent.execution.installation import check_installation, installation
from grasp_agent.execution.processes import as_finished, in_processes
from grasp_agent.files import atomic_write

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 1000
"""Calls that are handed to an executor at a time, where their number is not given; chosen by hand."""


class Content(NamedTuple):
    """A file by value, for machines that do not share a disk."""

    name: str
    """Its name, without folders."""
    data: bytes
    """What it holds."""

    @classmethod
    def of(cls, path: str | Path) -> Content:
        """Reads a file."""
        path = Path(path)
        return cls(path.name, path.read_bytes())

    def place(self) -> Path:
        """Returns the path of a file with this content, in a folder that ends with this process."""
        path = _scratch() / hashlib.sha256(self.data).hexdigest()[:24] / self.name
        if not path.exists():
            with atomic_write(path) as aside:
                aside.write_bytes(self.data)
        return path


@cache
def _scratch() -> Path:
    folder = tempfile.mkdtemp(prefix="grasp-agent-")
    # `atexit` would not run in processes that were forked
    Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=0)
    return Path(folder)


class _Outcome(NamedTuple):
    """What a call returned or raised: executors wrap exceptions in their own ways, this one travels as it is."""

    value: Any
    error: Exception | None


def results(
    call: Callable[..., Result],
    items: Iterable[Item],
    *,
    executor: Executor | None = None,
    jobs: int | None = None,
    files: Callable[[Item], Sequence[Path]] | None = None,
) -> Generator[tuple[Item, Result], None, None]:
    """Calls a pure function once for each item, and yields items and results as they finish.

    Items are asked for one by one, as calls finish. Where the iteration ends early, calls that have not begun are
    cancelled.

    Args:
        call: a function that pickle can find by its name; the results must not depend on where it runs.
        items: its arguments; they and the results are pickled.
        executor: runs the calls; None for processes of this machine. On the workers this package has to be installed
            in the same version, with the same bundled files and the same versions of what results depend on.
        jobs: calls at a time: processes, by default 1, which is this one; or with an executor calls that are handed to
            it, by default 1,000.
        files: paths of files that the call for an item reads. Then it is called with the item and a dict from these
            paths, as text, to paths of the same content where it runs.

    Raises:
        ValueError: if `executor` is none, a worker has another version, or what the call raises.
        ChildProcessError: if a process was killed repeatedly, or a worker was lost for good or lacks this package.
    """
    if executor is None:
        local = call if files is None else _Here(call, files)
        yield from in_processes(local, items, 1 if jobs is None else jobs)
        return
    if not isinstance(executor, Executor):
        raise ValueError(f"executor: expected a concurrent.futures.Executor or None, got {executor!r}")
    expected = installation()
    contents: dict[Path, Content] = {}  # one object for each file: an executor may send it once

    def submit(item: Item) -> Future[_Outcome]:
        paths = [] if files is None else list(files(item))
        for path in paths:
            if path not in contents:
                contents[path] = Content.of(path)
        names = None if files is None else tuple(map(str, paths))
        return executor.submit(called, call, item, expected, names, *(contents[path] for path in paths))

    running: dict[Future[_Outcome], Item] = {}
    try:
        for item, outcome in as_finished(submit, iter(items), AHEAD if jobs is None else jobs, running):
            if outcome.error is not None:
                raise outcome.error
            yield item, outcome.value
    except BrokenExecutor as error:
        raise ChildProcessError(f"a worker ended unexpectedly ({_last_line(error)})") from error
    finally:
        for future in running:
            future.cancel()


class _Here(NamedTuple):
    """A call on this machine, where all files are in their places."""

    call: Callable[..., Any]
    files: Callable[[Any], Sequence[Path]]

    def __call__(self, item: Any) -> Any:
        return self.call(item, {str(path): path for path in self.files(item)})


def called(
    call: Callable[..., Any],
    item: Any,
    expected: Mapping[str, str],
    paths: tuple[str, ...] | None = None,
    *contents: Content,
) -> _Outcome:
    """Makes a call on a worker, after a check of what is installed there."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        check_installation(expected)
        if paths is None:
            return _Outcome(call(item), None)
        places = {path: content.place() for path, content in zip(paths, contents, strict=True)}
        return _Outcome(call(item, places), None)
    except Exception as error:
        return _Outcome(None, error)
    finally:
        torch.set_num_threads(threads)


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
