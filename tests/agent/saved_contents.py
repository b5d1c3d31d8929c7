"""Contents of saved agents, as the tests change them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from grasp_agent import GraspAgent

Content = dict[str, bytes]

WEIGHTS = "weights.safetensors"


def content(path: Path) -> Content:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, members: Content) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def refused(path: Any) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(ValueError, match=r".") as caught:
        GraspAgent.load(path, device="cpu")
    assert type(caught.value) is ValueError
    line = str(caught.value)
    assert "\n" not in line
    return line
