"""Readers for files of strangers: regular files only, limited sizes, and one error for everything that is wrong."""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from torch import Tensor

LARGEST_JSON = 8 * 2**20  # of a JSON text [bytes]; chosen by hand, as are all limits in this module
LARGEST_MEMBER = 512 * 2**20  # of one member of a zip [bytes]
_DEEPEST, _MOST_CONTAINERS = 32, 50_000  # levels of a JSON text, and lists and dicts in it
_LARGEST_HEADER = 2**20  # of the description of tensors in a safetensors file [bytes]
_MOST_MEMBERS, _LARGEST_ENTRY = 64, 1024  # members of a zip, and mean size of their entries in its directory [bytes]
_SMALL, _DENSEST = 8 * 2**20, 50  # members up to this size [bytes] may be compressed by more than this factor
_LONGEST_REASON = 400  # of an error [characters]
_DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")
_MOST_AXES, _LONGEST_AXIS = 8, 2**31  # of a tensor
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def reading(place: object, problem: str) -> Iterator[None]:
    """Raises a ValueError of one line for any exception that a damaged or foreign file causes.

    Args:
        place: the file, and where useful the place in it, with which the line begins.
        problem: what the file is not, or cannot be.
    """
    name = _on_one_line(str(place))
    try:
        yield
    except Exception as error:  # what a reader of foreign data raises cannot be listed
        known = reason(error)
        if isinstance(error, ValueError) and known.startswith(f"{name}: "):  # of a reader that was called here
            known = known.removeprefix(f"{name}: ").removeprefix(f"{problem}: ")
        raise ValueError(f"{name}: {problem}: {known}") from error


def reason(error: Exception) -> str:
    """Returns an exception's message on one line; where it says too little, with what it means."""
    text = _on_one_line(str(error))
    if isinstance(error, KeyError):
        text = f"it misses {text}"
    elif isinstance(error, MemoryError):
        text = "it is larger than the memory"
    elif isinstance(error, RecursionError):
        text = "it is nested too deeply"
    return text[:_LONGEST_REASON] or type(error).__name__


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


@contextmanager
def opened(path: str | Path) -> Iterator[IO[bytes]]:
    """Opens a file for reading in binary; never waits for another program, as the reader of a pipe would.

    Raises:
        ValueError: of one line that names the path, unless it is a regular file that may be read.
    """
    name = _on_one_line(str(path))
    try:
        check_regular(path)  # first: merely opening a device may have effects
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        stream = os.fdopen(os.open(path, flags), "rb")
    except OSError as error:
        raise ValueError(f"{name}: cannot be read: {reason(error)}") from error
    with stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ValueError(f"{name}: expected a file, it has just been replaced")
        yield stream


def check_regular(path: str | Path) -> None:
    """Refuses a path that is no regular file, or a link to one.

    Raises:
        ValueError: of one line that names the path and says what it is.
    """
    name = _on_one_line(str(path))
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError as error:
        what = "is a link to a file that does not exist" if os.path.islink(path) else "no such file"
        raise ValueError(f"{name}: {what}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: cannot be read: {reason(error)}") from error
    if kind != stat.S_IFREG:
        raise ValueError(f"{name}: expected a file, it is {_KINDS.get(kind, 'something else')}")


def sha256(path: str | Path) -> str:
    """Returns the SHA-256 of a file's content, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with opened(path) as stream:
        while part := stream.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def read_json(path: str | Path, problem: str) -> Any:
    """Returns the content of a JSON file; `problem` says what a file is not that cannot be read.

    Raises:
        ValueError: of one line that names the path, if it is no file, too large, or no JSON.
    """
    with opened(path) as stream, reading(path, problem):
        return parse_json(stream.read(LARGEST_JSON + 1))


def parse_json(text: bytes, largest: int = LARGEST_JSON) -> Any:
    """Returns the value of a JSON text of at most so many bytes.

    Raises:
        ValueError: if it is no JSON, holds NaN, or more, longer or deeper parts than any file of this package.
    """
    if len(text) > largest:
        raise ValueError(f"expected at most {largest} bytes of JSON, got more")
    if text.count(b"[") + text.count(b"{") > _MOST_CONTAINERS:
        raise ValueError(f"expected at most {_MOST_CONTAINERS} lists and objects, got more")
    value = json.loads(text.decode("utf-8"), parse_constant=_constant)
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"expected at most {_DEEPEST} levels, got more")
        parts = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, (dict, list))]
        level = [item for part in parts for item in part if isinstance(item, (dict, list))]
    return value


def _constant(name: str) -> float:
    if name == "NaN":
        raise ValueError("expected numbers, got NaN")
    return math.inf if name == "Infinity" else -math.inf


def open_zip(stream: IO[bytes], *, largest: int = LARGEST_MEMBER, densest: float = _DENSEST) -> zipfile.ZipFile:
    """Opens a zip archive after a check of what reading its members would cost.

    Args:
        stream: the file.
        largest: greatest size of one member [bytes].
        densest: greatest factor by which it may be compressed.

    Raises:
        ValueError: if it has too many members, two of one name, too large or encrypted ones.
        zipfile.BadZipFile: if it is no zip archive.
    """
    end = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, end - 22 - 2**16))
    tail = stream.read()
    place = len(tail) - 22 if tail[-22:].startswith(b"PK\5\6") else tail.rfind(b"PK\5\6")
    if place >= 0:  # the directory's own size, before it is read
        size = int.from_bytes(tail[place + 12 : place + 16], "little")
        if size > _MOST_MEMBERS * _LARGEST_ENTRY or tail[max(0, place - 20) :].startswith(b"PK\6\7"):
            raise ValueError(f"expected at most {_MOST_MEMBERS} members in the zip, got more")
    stream.seek(0)
    archive = zipfile.ZipFile(stream)
    found = archive.infolist()
    names = [info.filename for info in found]
    if len(found) > _MOST_MEMBERS or len(set(names)) < len(names):
        raise ValueError(f"expected at most {_MOST_MEMBERS} different members in the zip, got {len(names)}")
    for info in found:
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{info.filename!r} is encrypted, or compressed in an unknown way")
        if info.file_size > largest:
            raise ValueError(f"{info.filename!r} is larger than {largest // 2**20} MiB")
        if info.file_size > max(_SMALL, densest * info.compress_size):
            raise ValueError(f"{info.filename!r} is compressed to less than 1/{densest} of {info.file_size} bytes")
    return archive


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Returns a member of a zip archive; of one that is larger than it says, no more than that is decompressed.

    Raises:
        ValueError: if it is larger or smaller than it says.
        zipfile.BadZipFile: if it does not fit its checksum.
    """
    info = archive.getinfo(name)
    with archive.open(info) as member:
        data = member.read(info.file_size + 1)  # `archive.read` decompresses everything before it compares
    if len(data) != info.file_size:
        raise ValueError(f"{name!r} is not of {info.file_size} bytes, as the zip says")
    return data


def parse_tensors(data: bytes) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file by name, after a check of its header.

    Raises:
        ValueError: for a header that is damaged or too large, unknown types of numbers, or NaN.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_LARGEST_HEADER, len(data) - 8):
        raise ValueError(f"expected a header of at most {_LARGEST_HEADER} bytes and the tensors that it describes")
    header = parse_json(data[8 : 8 + length])
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        shape = entry["shape"]
        if entry["dtype"] not in _DTYPES or len(shape) > _MOST_AXES:
            raise ValueError(f"{name}: expected numbers of a known type, got {entry['dtype']}")
        if not all(isinstance(axis, int) and 0 <= axis < _LONGEST_AXIS for axis in shape):
            raise ValueError(f"{name}: expected a shape, got {shape}")
    tensors = safetensors.torch.load(data)
    wrong = next(
        (name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.isnan().any()), None
    )
    if wrong is not None:
        raise ValueError(f"{wrong}: expected numbers, got NaN")
    return tensors


def check_finite(tensors: Mapping[str, Tensor], *, unless: tuple[str, ...] = ()) -> None:
    """Refuses infinite numbers in tensors, unless their name ends with one of `unless`.

    Raises:
        ValueError: that names the tensor.
    """
    for name, tensor in tensors.items():
        if unless and name.endswith(unless):
            continue
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name}: expected finite numbers")
