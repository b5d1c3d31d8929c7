"""Saved files: one zip of `config.json` and `weights.safetensors`. Loading runs no code from the file."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.torch
from gymnasium import spaces
from torch import Tensor

from grasp_agent import planners
from grasp_agent.explore import ExploreConfig
from grasp_agent.files import written_aside
from grasp_agent.models import EncoderConfig, Frame, MLPConfig
from grasp_agent.observation import StateMap
from grasp_agent.structure import Structure
from grasp_agent.train import TrainConfig

FORMAT = 1
_LARGEST = 512 * 2**20  # bytes of one member of the zip
_CLASSES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        *(getattr(planners, name) for name in planners.__all__),
        MLPConfig,
        EncoderConfig,
        TrainConfig,
        ExploreConfig,
        StateMap,
        Structure,
        Frame,
    )
    if isinstance(cls, type) and is_dataclass(cls)
}


def to_config(value: Any) -> Any:
    """JSON form of settings: dataclasses of this package, numbers, strings, sequences."""
    if is_dataclass(value) and not isinstance(value, type):
        name = type(value).__name__
        if _CLASSES.get(name) is not type(value):
            raise ValueError(f"{name} cannot be saved, as it is no class of this package")
        return {"type": name, **{f.name: to_config(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, (list, tuple)):
        return [to_config(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"{value!r} cannot be saved; expected settings of this package, numbers or strings")


def from_config(config: Any) -> Any:
    """The settings that a JSON form stands for; only dataclasses of this package are made."""
    if isinstance(config, dict):
        kind = _CLASSES.get(config.get("type", ""))
        if kind is None:
            raise ValueError(f"unknown type {config.get('type')!r}; expected one of {', '.join(sorted(_CLASSES))}")
        return kind(**{name: from_config(item) for name, item in config.items() if name != "type"})
    if isinstance(config, list):
        return tuple(from_config(item) for item in config)
    return config


def space_to_config(space: spaces.Space[Any]) -> dict[str, Any]:
    """JSON form of a Box, or of a Dict of Boxes."""
    if isinstance(space, spaces.Dict):
        return {"dict": {key: space_to_config(inner) for key, inner in space.spaces.items()}}
    if isinstance(space, spaces.Box):
        bounds = {name: [str(x) for x in getattr(space, name).ravel()] for name in ("low", "high")}
        return {"shape": list(space.shape), "dtype": str(space.dtype), **bounds}
    raise ValueError(f"space: expected a Box or a Dict of Boxes, got {space}")


def space_from_config(config: Mapping[str, Any]) -> spaces.Space[Any]:
    """The space that a JSON form stands for."""
    if "dict" in config:
        return spaces.Dict({key: space_from_config(inner) for key, inner in config["dict"].items()})
    dtype, shape = np.dtype(config["dtype"]), tuple(config["shape"])
    low, high = (np.array([float(x) for x in config[name]], dtype).reshape(shape) for name in ("low", "high"))
    return spaces.Box(low, high, dtype=dtype.type)


def write(target: str | Path | IO[bytes], config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes a file; a path without suffix gets `.zip`, as in Stable-Baselines3."""
    if isinstance(target, (str, Path)):
        path = Path(target)
        path = path if path.suffix else path.with_suffix(".zip")
        with written_aside(path) as aside, open(aside, "wb") as stream:
            _write(stream, config, tensors)
    else:
        _write(target, config, tensors)


def _write(stream: IO[bytes], config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    contents = {
        "config.json": json.dumps({"format": FORMAT, **config}, indent=1).encode(),
        "weights.safetensors": safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}),
    }
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(
                zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED
            )  # no time stamp: same content, same bytes


def read(source: str | Path | IO[bytes]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads a file.

    Returns:
        Its config and its tensors.

    Raises:
        ValueError: one line that says what is wrong, for a missing, cut, foreign or newer file.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        path = path if path.exists() or path.suffix else path.with_suffix(".zip")
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "no such file (a bundled model? use grasp_agent.load)"
            raise ValueError(f"{path}: {what}")
        return _read(io.BytesIO(path.read_bytes()), str(path))
    return _read(source, getattr(source, "name", "file object"))


def _read(stream: IO[bytes], name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with zipfile.ZipFile(stream) as archive:
            found = {info.filename: info.file_size for info in archive.infolist()}
            if set(found) != {"config.json", "weights.safetensors"}:
                raise ValueError("expected config.json and weights.safetensors (a file of another program?)")
            if max(found.values()) > _LARGEST:
                raise ValueError(f"larger than {_LARGEST // 2**20} MiB")
            config = json.loads(archive.read("config.json"))
            if not isinstance(config, dict) or config.get("format") != FORMAT:
                raise ValueError(f"expected format {FORMAT}, written by this version")
            return config, safetensors.torch.load(archive.read("weights.safetensors"))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{name}: not a saved agent: {error}") from error
    except (ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"{name}: not a saved agent: {error}") from error
