"""Hooks of the documentation's build: media of other folders, and a check that every public name is documented."""

from __future__ import annotations

import importlib
import zlib
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
MEDIA = {"videos": (".gif",), "envs/images": (".png",)}
PUBLIC = ("grasp_agent", "grasp_agent.planners", "grasp_agent.models", "grasp_agent.task")


def on_files(files: Any, config: Any) -> Any:
    """Adds the videos and images that lie outside `docs/`."""
    for folder, suffixes in MEDIA.items():
        for path in sorted((ROOT / folder).iterdir()):
            if path.suffix in suffixes:
                files.append(File.generated(config, f"media/{path.name}", abs_src_path=str(path)))
    return files


def on_post_build(config: Any) -> None:
    """Refuses a site that lacks a public name.

    Raises:
        PluginError: where a name of an `__all__` has no entry in the API reference.
    """
    found = documented(Path(config["site_dir"]) / "objects.inv")
    missing = sorted(name for name, home in public().items() if not {name, home} & found)
    if missing:
        raise PluginError(f"public names without an entry in docs/api: {', '.join(missing)}")


def public() -> dict[str, str]:
    """Returns every public name, as it is imported, and where it is defined."""
    names: dict[str, str] = {}
    for module in map(importlib.import_module, PUBLIC):
        for name in module.__all__:
            home = getattr(getattr(module, name), "__module__", module.__name__)
            names[f"{module.__name__}.{name}"] = f"{home}.{name}"
    return names


def documented(inventory: Path) -> set[str]:
    """Returns the names of an `objects.inv` (the format of Sphinx, version 2: four lines, then zlib)."""
    lines = zlib.decompress(inventory.read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    return {line.split(" ", 1)[0] for line in lines}
