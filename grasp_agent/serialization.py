"""Archives of JSON settings and safetensors, which run no code when read; they are written whole or not at all."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.torch
from gymnasium import spaces
from torch import Tensor

from grasp_agent.files import atomic_write, named

__all__ = ["FORMAT", "Codec", "atomic_write", "read", "space_from_config", "space_to_config", "write"]

FORMAT, _KNOWN_FORMATS = 2, (1, 2)  # version of the files that are written, those that are read
_LARGEST = 512 * 2**20  # largest accepted size of one member of the zip [bytes]


class Codec:
    """JSON form of settings: dataclasses of a table, numbers, strings, sequences.

    Args:
        classes: the dataclasses that files may hold, each known by its name; others are left out.
    """

    def __init__(self, classes: Iterable[object]) -> None:
        kinds = (kind for kind in classes if isinstance(kind, type) and is_dataclass(kind))
        self._classes: dict[str, type] = {kind.__name__: kind for kind in kinds}

    def encode(self, value: Any) -> Any:
        """Returns the JSON form of settings.

        Raises:
            ValueError: for a class that is not in the table, or any other value that JSON cannot represent.
        """
        if is_dataclass(value) and not isinstance(value, type):
            name = type(value).__name__
            if self._classes.get(name) is not type(value):
                raise ValueError(f"{name} cannot be saved, as it is no class of this package")
            return {"type": name, **{f.name: self.encode(getattr(value, f.name)) for f in fields(value)}}
        if isinstance(value, (list, tuple)):
            return [self.encode(item) for item in value]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise ValueError(f"{value!r} cannot be saved; expected settings of this package, numbers or strings")

    def decode(self, config: Any) -> Any:
        """Returns the settings of a JSON form; only dataclasses of the table are constructed.

        Raises:
            ValueError: for an unknown class.
        """
        if isinstance(config, dict):
            kind = self._classes.get(config.get("type", ""))
            if kind is None:
                known = ", ".join(sorted(self._classes))
                raise ValueError(f"unknown type {config.get('type')!r}; expected one of {known}")
            return kind(**{name: self.decode(item) for name, item in config.items() if name != "type"})
        if isinstance(config, list):
            return tuple(self.decode(item) for item in config)
        return config


def space_to_config(space: spaces.Space[Any]) -> dict[str, Any]:
    """Returns the JSON form of a Box or of another plain space, or of a Dict of them."""
    if isinstance(space, spaces.Dict):
        return {"dict": {key: space_to_config(inner) for key, inner in space.spaces.items()}}
    if isinstance(space, spaces.Box):
        bounds = {name: [str(x) for x in getattr(space, name).ravel()] for name in ("low", "high")}
        return {"shape": list(space.shape), "dtype": str(space.dtype), **bounds}
    if isinstance(space, spaces.Discrete):
        return {"discrete": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiBinary):
        return {"binary": list(space.shape) if isinstance(space.n, tuple | np.ndarray | list) else int(space.n)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"counts": space.nvec.tolist(), "start": space.start.tolist(), "dtype": str(space.dtype)}
    raise ValueError(f"space: expected a Box, Discrete, MultiBinary, MultiDiscrete, or a Dict of them, got {space}")


def space_from_config(config: Mapping[str, Any]) -> spaces.Space[Any]:
    """Returns the space of a JSON form."""
    if "dict" in config:
        return spaces.Dict({key: space_from_config(inner) for key, inner in config["dict"].items()})
    if "discrete" in config:
        return spaces.Discrete(int(config["discrete"]), start=int(config["start"]))
    if "binary" in config:
        return spaces.MultiBinary(config["binary"])
    if "counts" in config:
        counts, start, kind = config["counts"], config["start"], np.dtype(config["dtype"]).type
        return spaces.MultiDiscrete(np.array(counts), dtype=kind, start=np.array(start))
    dtype, shape = np.dtype(config["dtype"]), tuple(config["shape"])
    low, high = (np.array([float(x) for x in config[name]], dtype).reshape(shape) for name in ("low", "high"))
    return spaces.Box(low, high, dtype=dtype.type)


def write(target: str | Path | IO[bytes], config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes a file; a path without suffix gets `.zip`, as in Stable-Baselines3.

    Raises:
        ValueError: for a name that no file can have.
        OSError: if the file cannot be written; see `atomic_write`.
    """
    if hasattr(target, "write"):
        _write(target, config, tensors)  # type: ignore[arg-type]
        return
    with atomic_write(named(target, ".zip")) as aside, open(aside, "wb") as stream:  # type: ignore[arg-type]
        _write(stream, config, tensors)


def _write(stream: IO[bytes], config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    contents = {
        "config.json": json.dumps({"format": FORMAT, **config}, indent=1).encode(),
        "weights.safetensors": safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}),
    }
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            member = zipfile.ZipInfo(name)  # without a time stamp: same content, same bytes
            archive.writestr(member, data, zipfile.ZIP_DEFLATED)


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
            if not isinstance(config, dict) or config.get("format") not in _KNOWN_FORMATS:
                raise ValueError(f"expected format {FORMAT}, or an older one")
            return config, safetensors.torch.load(archive.read("weights.safetensors"))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{name}: not a saved agent: {error}") from error
    except (ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"{name}: not a saved agent: {error}") from error
