"""Files that are whole or not there."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path in the same folder: moved to `path` when all went well, removed when not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.stem}-"))
    try:
        yield folder / path.name
        os.replace(folder / path.name, path)
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Removes a folder; a program that may still write into it, such as ffmpeg, is given a second to end."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)
