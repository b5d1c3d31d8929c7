"""Seeded damages of files: of their bytes, and of the structure of zips, JSON texts and tensors."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

Generator = np.random.Generator
Mutation = Callable[[bytes, Generator], bytes]

_VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 1.5, 10**3, 10**6, 2**31, 2**63, 10**30, 10**400, 1e308, -1e308),
    *(float("nan"), float("inf"), "", "x", "\x00", "os:Env-v0", "CartPole-v1", "é" * 1000, [], {}, [[]], [0], ["x"]),
    *({"type": "GRASP"}, {"type": "Problem"}, {"dict": {}}, [10**9] * 3, [1] * 10_000, {"a": {"b": 1}}),
)
_DEEP, _BROAD = "[" * 100_000, "[" + "{}," * 200_000 + "{}]"
_TYPES = (torch.float64, torch.float16, torch.int64, torch.int16, torch.uint8, torch.bool)


def bytes_damaged(data: bytes, random: Generator) -> bytes:
    """Returns a file after one to four damages of its bytes."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 5))):
        size = max(1, len(changed))
        first, count = int(random.integers(size)), int(random.integers(1, 64))
        kind = random.integers(7)
        if kind == 0 and changed:
            changed[first % len(changed)] ^= 1 << int(random.integers(8))
        elif kind == 1:
            del changed[first:]
        elif kind == 2:
            changed[first:first] = random.bytes(count)
        elif kind == 3:
            changed[first:first] = changed[first : first + count * 16]
        elif kind == 4:
            changed[first : first + count] = bytes(len(changed[first : first + count]))
        elif kind == 5:
            changed[first : first + count] = random.bytes(count)
        else:  # near the end, where a zip has its directory
            place = max(0, len(changed) - int(random.integers(1, 200)))
            changed[place : place + 4] = random.bytes(4)
    return bytes(changed)


def json_damaged(text: bytes, random: Generator) -> bytes:
    """Returns a JSON text in which some values are replaced by others, deleted or added."""
    held = json.loads(text)
    kind = random.integers(20)
    if kind == 0:
        return (_DEEP, _BROAD, '{"format": 2, "format": 3}', "1e999", "", "\ufeff{}")[random.integers(6)].encode()
    if kind == 1:
        return text[:-1] + b', "note": "' + b"x" * int(random.integers(1, 30)) * 2**20 + b'"}'
    for _ in range(1 if kind < 14 else 3):
        places = list(_places(held))
        if not places:
            break
        container, key = places[random.integers(len(places))]
        action = random.integers(8)
        if action == 0:
            del container[key]
        elif action == 1 and isinstance(container, dict):
            container[f"{key}_"] = container.pop(key)
        elif action == 2:
            container[key] = [container[key]]
        elif action == 3 and isinstance(container[key], (int, float)) and not isinstance(container[key], bool):
            container[key] = container[key] * (10, 1000, -1, 0.5, 10**6)[random.integers(5)]
        else:
            container[key] = deepcopy(_VALUES[random.integers(len(_VALUES))])
    return json.dumps(held).encode()


def _places(held: Any) -> Any:
    """Yields all places of a JSON value, as containers and keys; of long lists the first ones."""
    items = held.items() if isinstance(held, dict) else enumerate(held[:4]) if isinstance(held, list) else ()
    for key, value in items:
        yield held, key
        yield from _places(value)


def tensors_damaged(data: bytes, random: Generator) -> bytes:
    """Returns a safetensors file in which one tensor has other shapes, types or values, is missing or additional."""
    tensors = safetensors.torch.load(data)
    if random.integers(8) == 0:
        return _header_damaged(data, random)
    for _ in range(int(random.integers(1, 3))):
        name = sorted(tensors)[random.integers(len(tensors))]
        changed = _tensor_damaged(tensors[name], random)
        if changed is None:
            del tensors[name]
        else:
            tensors[name if random.integers(12) else f"{name}.more"] = changed.contiguous().clone()
        if not tensors:
            break
    return safetensors.torch.save(tensors)


def _tensor_damaged(tensor: Tensor, random: Generator) -> Tensor | None:
    kind, flat = random.integers(13), tensor.flatten()
    if kind == 0:
        return None
    if kind == 1:
        return flat[:-1]
    if kind == 2:
        return tensor[None]
    if kind == 3:
        return torch.zeros((0, *tensor.shape[1:]), dtype=tensor.dtype)
    if kind == 4:
        return tensor.to(_TYPES[random.integers(len(_TYPES))])
    if kind == 5:
        return torch.cat([tensor, tensor]) if tensor.ndim else flat
    if kind == 6:
        return tensor[:1] if tensor.ndim else flat
    if kind == 7:
        return tensor.mT if tensor.ndim > 1 else flat[:0]
    if kind == 8:
        return torch.zeros((0, 2**40), dtype=tensor.dtype)
    changed = tensor.double() if kind != 9 else tensor.clone()
    if kind == 9 and tensor.is_floating_point() and tensor.numel():
        changed.view(-1)[int(random.integers(tensor.numel()))] = (torch.nan, torch.inf)[random.integers(2)]
        return changed
    scales = (0.0, -1.0, 1e3, 1e10, 1e30)
    changed = changed * scales[random.integers(len(scales))]
    if not tensor.is_floating_point():
        changed = changed.clamp(-(2**62), 2**62)
    return changed.to(tensor.dtype)


def _header_damaged(data: bytes, random: Generator) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = json_damaged(data[8 : 8 + length], random)
    size = len(header) if random.integers(4) else int(random.integers(2**63))
    return size.to_bytes(8, "little") + header + data[8 + length :]


def arrays_damaged(data: bytes, random: Generator) -> bytes:
    """Returns an `.npz` file in which one array has another shape, type or value, is missing or additional."""
    arrays = dict(np.load(io.BytesIO(data)))
    name = sorted(arrays)[random.integers(len(arrays))]
    array = arrays[name]
    kinds: tuple[Any, ...] = (
        array[:-1],
        array[None],
        array[..., :0],
        array.astype(complex),
        array.astype(str),
        np.array([{}]),
        array * np.nan,
        array * 1e30,
        array.astype(np.int16),
        array.flat[0],
        np.zeros((3, 0, 5)),
        np.zeros(30 * 2**20, np.uint8),
        np.concatenate([array, array]),
        None,
    )
    changed = kinds[random.integers(len(kinds))]
    arrays = {key: value for key, value in {**arrays, name: changed}.items() if value is not None}
    stream = io.BytesIO()
    (np.savez_compressed if random.integers(2) else np.savez)(stream, **arrays)
    if random.integers(5):
        return stream.getvalue()
    members = members_of(stream.getvalue())
    head = members.get(f"{name}.npy", b"")
    members[f"{name}.npy"] = head.replace(b"(", b"(9999999", 1)  # a shape of many more rows
    return zip_of(members)


def members_of(data: bytes) -> dict[str, bytes]:
    """Returns the members of a zip by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zip_of(members: Mapping[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    """Returns a zip of members by name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def zip_that_lies(members: Mapping[str, bytes], name: str, size: int, claimed: int = 1000) -> bytes:
    """Returns a zip in which one member is of so many zeros, and says that it is of fewer."""
    others = {key: data for key, data in members.items() if key != name}
    packed = bytearray(zip_of({**others, name: bytes(size)}, zipfile.ZIP_DEFLATED))
    place = packed.rfind(b"PK\1\2")  # of the last member in the directory
    packed[place + 24 : place + 28] = claimed.to_bytes(4, "little")
    return bytes(packed)


def zip_damaged(data: bytes, random: Generator) -> bytes:
    """Returns a zip packed in another way: encrypted, bombs, false sizes, more or fewer members, two of one name."""
    members, kind = members_of(data), random.integers(9)
    name = sorted(members)[random.integers(len(members))]
    if kind == 0:
        return zip_of(members, (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)[random.integers(2)])
    if kind == 1:
        return zip_of({**members, name: bytes(int(random.integers(1, 400)) * 2**20)}, zipfile.ZIP_DEFLATED)
    if kind == 2:
        return zip_of({**members, "policy.pth": members[name], "data": b"{}"})
    if kind == 3:
        return zip_of({key: value for key, value in members.items() if key != name})
    if kind == 4:
        stream = io.BytesIO(data)
        with zipfile.ZipFile(stream, "a") as archive:
            for number in range(30_000 if random.integers(2) else 1):
                archive.filelist.append(archive.filelist[0]) if number else archive.filelist.append(
                    archive.filelist[-1]
                )
            archive._didModify = True  # type: ignore[attr-defined]
        return stream.getvalue()
    if kind == 8:
        return zip_that_lies(members, name, 400 * 2**20, int(random.integers(1, 10_000)))
    packed = bytearray(zip_of(members))
    place = packed.rfind(b"PK\1\2")
    if kind == 5:
        packed[place + 8] |= 1  # encrypted
    elif kind == 6:
        packed[place + 24 : place + 28] = int(random.integers(2**32)).to_bytes(4, "little")  # the declared size
    else:
        packed[place + 10 : place + 12] = int(random.integers(2**16)).to_bytes(2, "little")  # the compression
    return bytes(packed)


def agent_damaged(data: bytes, random: Generator) -> bytes:
    """Returns a saved agent with damaged settings, tensors, zip or bytes."""
    kind = random.integers(10)
    if kind < 3:
        return bytes_damaged(data, random)
    if kind == 3:
        return zip_damaged(data, random)
    members = members_of(data)
    if kind < 7:
        return zip_of({**members, "config.json": json_damaged(members["config.json"], random)})
    return zip_of({**members, "weights.safetensors": tensors_damaged(members["weights.safetensors"], random)})


def dataset_damaged(data: bytes, random: Generator) -> bytes:
    """Returns an `.npz` file with damaged arrays, zip or bytes."""
    kind = random.integers(4)
    return (bytes_damaged, zip_damaged, arrays_damaged, arrays_damaged)[kind](data, random)


def text_damaged(data: bytes, random: Generator) -> bytes:
    """Returns a JSON file with damaged values or bytes."""
    return (bytes_damaged if random.integers(3) == 0 else json_damaged)(data, random)
