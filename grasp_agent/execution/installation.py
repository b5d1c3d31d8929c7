"""What is installed where a call runs, so that results of several machines are those of one."""

from __future__ import annotations

import hashlib
import platform
import socket
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import grasp_envs

_PACKAGES = ("grasp-agent", "torch", "numpy", "gymnasium", "stable-baselines3", "mujoco")
_HOME = Path(__file__).parent.parent
_SUFFIXES = {".py", ".zip", ".json", ".xml"}


@cache
def installation() -> dict[str, str]:
    """Returns the versions of Python and of the packages that results depend on, and a digest of this one's files."""
    digest = hashlib.sha256()
    for home in (_HOME, Path(grasp_envs.__file__).parent):
        for path in sorted(home.rglob("*")):
            if path.suffix in _SUFFIXES and path.is_file():
                digest.update(path.relative_to(home).as_posix().encode() + path.read_bytes())
    versions = {name: metadata.version(name) for name in _PACKAGES}
    return {"Python": ".".join(platform.python_version_tuple()[:2]), **versions, "files": digest.hexdigest()[:12]}


def check_installation(expected: Mapping[str, str]) -> None:
    """Refuses to go on where other versions or files are installed than expected.

    Raises:
        ValueError: of one line that names this machine and the first difference.
    """
    for name, value in expected.items():
        here = installation().get(name)
        if here != value:
            what = "the files of grasp-agent" if name == "files" else name
            raise ValueError(
                f"worker {socket.gethostname()}: expected {what} {value}, as on the machine that asks; got {here}"
            )
