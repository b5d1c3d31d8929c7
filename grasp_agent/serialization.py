"""Archives of JSON settings and safetensors, which run no code when read; they are written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import IO, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import safetensors.torch
from gymnasium import spaces
from torch import Tensor

from grasp_agent.files import atomic_write, named
from grasp_agent.reading import LARGEST_MEMBER, open_zip, opened, parse_json, parse_tensors, read_member, reading

__all__ = ["FORMAT", "Codec", "read", "space_from_config", "space_to_config", "write"]

FORMAT, _KNOWN_FORMATS = 2, (1, 2)  # version of the files that are written, those that are read
_MEMBERS = ("config.json", "weights.safetensors")
_GREATEST_WHOLE, _GREATEST = 10**7, 1e12  # numbers in settings of files, without limits of their own; chosen by hand
_MOST_ENTRIES = 2**22  # of a space, images included; chosen by hand
_MOST_PARTS = 64  # of a Dict space; chosen by hand
_MOST_ITEMS = 20_000  # of a setting with several values; chosen by hand
_NUMBERS = ("float16", "float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
_WORDS = {int: "a whole number", float: "a number", bool: "true or false"}


class Codec:
    """JSON form of settings: dataclasses of a table, numbers, strings, sequences.

    Args:
        classes: the dataclasses that files may hold, each known by its name; others are left out.
        limits: greatest values of some whole numbers in files, by the names of their settings.
    """

    def __init__(self, classes: Iterable[object], limits: Mapping[str, int] | None = None) -> None:
        kinds = (kind for kind in classes if isinstance(kind, type) and is_dataclass(kind))
        self._classes: dict[str, type] = {kind.__name__: kind for kind in kinds}
        self._limits = dict(limits or {})

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
            ValueError: for an unknown class or setting, a value of another type than its setting's, or a number above
                its limit.
        """
        if isinstance(config, dict):
            kind = self._classes.get(str(config.get("type", "")))
            if kind is None:
                known = ", ".join(sorted(self._classes))
                raise ValueError(f"unknown type {config.get('type')!r}; expected one of {known}")
            found = {name: self.decode(item) for name, item in config.items() if name != "type"}
            names = [known.name for known in fields(kind) if known.init]
            unknown = next((name for name in found if name not in names), None)
            if unknown is not None:
                raise ValueError(f"unknown setting {unknown!r} of {kind.__name__}; expected some of {', '.join(names)}")
            hints = get_type_hints(kind)
            for name, value in found.items():
                if name in hints and not _fits(value, hints[name]):
                    wanted = _WORDS.get(hints[name], str(hints[name]))
                    raise ValueError(f"{name}: expected {wanted}, got {str(value)[:80]}")
                self.check_limit(name, value)
            return kind(**found)
        if isinstance(config, list):
            if len(config) > _MOST_ITEMS:
                raise ValueError(f"expected at most {_MOST_ITEMS} values of a setting in a file, got {len(config)}")
            return tuple(self.decode(item) for item in config)
        return config

    def check_limit(self, name: str, value: Any) -> None:
        """Refuses a setting of a file, or of a tuple in it, above its limit, before anything is made as large as it.

        Raises:
            ValueError: that names the setting and its limit.
        """
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, tuple):
                self.check_limit(name, part)
            whole = isinstance(part, int)
            limit = self._limits.get(name, _GREATEST_WHOLE) if whole else _GREATEST
            if isinstance(part, (int, float)) and abs(part) > limit and (whole or not math.isinf(part)):
                raise ValueError(f"{name}: expected at most {limit:g} in a file, got {part:g}")


def _fits(value: Any, hint: Any) -> bool:
    """Returns whether a decoded value is of the type of its setting; objects of other classes check themselves."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if hint in (int, float):
        return isinstance(value, int if hint is int else (int, float)) and not isinstance(value, bool)
    if origin is tuple:
        inner = get_args(hint)
        kinds = inner[:1] * len(value) if isinstance(value, tuple) and inner[-1:] == (...,) else inner
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_fits, value, kinds))
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, tuple):
        return isinstance(value, tuple)
    if kind is bool or kind is type(None):
        return isinstance(value, kind)
    if isinstance(kind, type) and not getattr(kind, "_is_protocol", False):
        return isinstance(value, kind)
    return is_dataclass(value)


def space_to_config(space: spaces.Space[Any]) -> dict[str, Any]:
    """Returns the JSON form of a Box or of another plain space, or of a Dict of them."""
    if isinstance(space, spaces.Dict):
        return {"dict": {key: space_to_config(inner) for key, inner in space.spaces.items()}}
    if isinstance(space, spaces.Box):
        bounds = {name: [str(x) for x in _shortened(getattr(space, name))] for name in ("low", "high")}
        return {"shape": list(space.shape), "dtype": str(space.dtype), **bounds}
    if isinstance(space, spaces.Discrete):
        return {"discrete": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiBinary):
        return {"binary": list(space.shape) if isinstance(space.n, tuple | np.ndarray | list) else int(space.n)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"counts": space.nvec.tolist(), "start": space.start.tolist(), "dtype": str(space.dtype)}
    raise ValueError(f"space: expected a Box, Discrete, MultiBinary, MultiDiscrete, or a Dict of them, got {space}")


def _shortened(values: np.ndarray) -> np.ndarray:
    """Returns values as one axis; equal ones of an image as a single value."""
    flat = values.ravel()
    return flat[:1] if values.ndim == 3 and (flat == flat[:1]).all() else flat


def space_from_config(config: Mapping[str, Any]) -> spaces.Space[Any]:
    """Returns the space of a JSON form.

    Raises:
        ValueError: for a space that `space_to_config` does not write, or one of too many entries.
    """
    if "dict" in config:
        parts: dict[str, Any] = config["dict"]
        sizes = [
            int(np.prod(_axes(part.get("shape", part.get("binary", [1]))), dtype=float)) for part in parts.values()
        ]
        if len(parts) > _MOST_PARTS or any("dict" in part for part in parts.values()) or sum(sizes) > _MOST_ENTRIES:
            raise ValueError(f"space: expected at most {_MOST_PARTS} parts of {_MOST_ENTRIES} entries together")
        return spaces.Dict({key: space_from_config(inner) for key, inner in parts.items()})
    if "discrete" in config:
        return spaces.Discrete(_whole(config["discrete"]), start=_whole(config["start"], least=-(2**53)))
    if "binary" in config:
        return spaces.MultiBinary(
            list(_axes(config["binary"])) if isinstance(config["binary"], list) else config["binary"]
        )
    if config["dtype"] not in _NUMBERS:
        raise ValueError(f"space: expected a type of numbers, got {config['dtype']!r}")
    dtype = np.dtype(config["dtype"])
    if "counts" in config:
        return spaces.MultiDiscrete(
            np.array(config["counts"], dtype), dtype=dtype.type, start=np.array(config["start"])
        )
    shape = _axes(config["shape"])
    low, high = (_bounds(config[name], dtype, shape) for name in ("low", "high"))
    if not (low <= high).all():
        raise ValueError("space: expected lower bounds that are not above the upper ones")
    return spaces.Box(low, high, dtype=dtype.type)


def _whole(value: Any, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 2**53:
        raise ValueError(f"space: expected a whole number from {least}, got {str(value)[:80]}")
    return value


def _axes(shape: Any) -> tuple[int, ...]:
    """Returns the shape of a space of at most `_MOST_ENTRIES` entries."""
    axes = tuple(_whole(axis) for axis in (shape if isinstance(shape, list) else [shape]))
    if len(axes) > 8 or math.prod(axes) > _MOST_ENTRIES:
        raise ValueError(f"space: expected at most {_MOST_ENTRIES} entries, got the shape {str(shape)[:80]}")
    return axes


def _bounds(values: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    if not isinstance(values, list) or len(values) not in (1, math.prod(shape)):
        raise ValueError(f"space: expected bounds of the shape {list(shape)}, got {str(values)[:80]}")
    flat = np.array([float(x) for x in values]).astype(dtype)
    return np.array(np.broadcast_to(flat, shape)) if len(flat) == 1 else flat.reshape(shape)


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


def read(source: str | Path | IO[bytes], *, largest: int = LARGEST_MEMBER) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads a file.

    Args:
        source: path of the file, or the opened file.
        largest: greatest size of its tensors [bytes].

    Returns:
        Its config and its tensors.

    Raises:
        ValueError: one line that says what is wrong, for a missing, cut, foreign or newer file.
    """
    if not isinstance(source, (str, Path)):
        return _read(source, name_of(source), largest)
    path = resolved(source)
    with opened(path) as stream:
        return _read(stream, path, largest)


def name_of(source: str | Path | IO[bytes]) -> str:
    """Returns the name of a file, given by its path or opened, for messages."""
    return str(source if isinstance(source, (str, Path)) else getattr(source, "name", "file object"))


def resolved(source: str | Path) -> Path:
    """Returns the path of a file that is given with or without its `.zip`.

    Raises:
        ValueError: if there is none.
    """
    path = Path(source)
    path = path if os.path.lexists(path) or path.suffix or not path.name else path.with_suffix(".zip")
    if not os.path.lexists(path):
        raise ValueError(f"{path}: no such file (a bundled model? use grasp_agent.load)")
    return path


def _read(stream: IO[bytes], name: object, largest: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with reading(name, "not a saved agent"), open_zip(stream, largest=largest) as archive:
        if sorted(archive.namelist()) != sorted(_MEMBERS):
            raise ValueError("expected config.json and weights.safetensors (a file of another program?)")
        with reading(_MEMBERS[0], "expected settings"):
            config = parse_json(read_member(archive, _MEMBERS[0]))
            if not isinstance(config, dict) or config.get("format") not in _KNOWN_FORMATS:
                raise ValueError(f"expected format {FORMAT}, or an older one")
        with reading(_MEMBERS[1], "expected tensors"):
            return config, parse_tensors(read_member(archive, _MEMBERS[1]))
