"""The folder of a comparison, which may be somebody else's."""

from __future__ import annotations

import os
from pathlib import Path


def check_no_links(*paths: Path) -> None:
    """Refuses symbolic links at these paths and in folders among them, through which files elsewhere were replaced.

    Args:
        *paths: files and folders that a comparison writes; they need not exist.

    Raises:
        ValueError: that names the link.
    """
    for path in paths:
        inside = (Path(home, name) for home, folders, files in os.walk(path) for name in (*folders, *files))
        for one in (path, *(() if path.is_symlink() else inside)):
            if one.is_symlink():
                raise ValueError(f"{one}: expected no link (remove it, or choose another folder)")
