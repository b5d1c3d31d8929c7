"""Zips of strangers: what a member decompresses to is limited by the size that was checked."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from readers import BOX, READERS, refused

from benchmarks import fuzz_files
from benchmarks.mutations import members_of, zip_of, zip_that_lies
from grasp_agent import GraspAgent
from grasp_agent.replay.offline import episodes_of


@pytest.fixture
def members(agent_file: Path) -> dict[str, bytes]:
    return members_of(agent_file.read_bytes())


@pytest.mark.parametrize("member", ["config.json", "weights.safetensors"])
@pytest.mark.parametrize("reader", ["agent", "baseline", "checkpoint", "participant"])
def test_a_member_that_is_larger_than_it_says_is_not_decompressed(
    members: dict[str, bytes], reader: str, member: str, tmp_path: Path
):
    path = tmp_path / "bomb.zip"
    path.write_bytes(zip_that_lies(members, member, 200 * 2**20))
    fuzz_files._memory()
    before = fuzz_files._memory()
    if (reader, member) != ("participant", "weights.safetensors"):  # which reads settings only
        refused(lambda: READERS[reader](path), str(path))
    else:
        READERS[reader](path)
    assert fuzz_files._memory() - before < 100 * 2**20


def test_a_zip_with_a_directory_of_zip64_is_refused(members: dict[str, bytes], tmp_path: Path):
    path = tmp_path / "zip64.zip"
    data = zip_of(members)
    locator = b"PK\6\7" + bytes(16)
    path.write_bytes(data[:-22] + locator + data[-22:])
    refused(lambda: GraspAgent.load(path, device="cpu"), str(path), "at most 64 members")


def test_arrays_that_are_larger_than_they_say_are_not_decompressed(tmp_path: Path):
    stream = io.BytesIO()
    rows = np.zeros((3, 2))
    np.savez(stream, observations=rows, next_observations=rows, actions=rows)
    members = members_of(stream.getvalue())
    path, header = tmp_path / "a.npz", b"\x93NUMPY\2\0" + (2**31 - 1).to_bytes(4, "little")
    others = {name: data for name, data in members.items() if name != "actions.npy"}
    for size in (1000, 2**27):
        bomb = zip_of({**others, "actions.npy": header + bytes(200 * 2**20)}, zipfile.ZIP_DEFLATED)
        place = bomb.rfind(b"PK\1\2") + 24
        path.write_bytes(bomb[:place] + size.to_bytes(4, "little") + bomb[place + 4 :])
        fuzz_files._memory()
        before = fuzz_files._memory()
        refused(lambda: READERS["dataset"](path), str(path))
        assert fuzz_files._memory() - before < 100 * 2**20


def test_a_users_own_dataset_may_be_compressed_well(tmp_path: Path):
    images, path = np.zeros((1500, 64, 64, 3), np.uint8), tmp_path / "a.npz"
    images[:, 20:30, 20:30] = 200
    np.savez_compressed(path, observations=images, next_observations=images, actions=np.zeros((1500, 2)))
    assert 100 * path.stat().st_size < images.nbytes
    (episode,) = episodes_of(path, BOX, lambda rows: rows.reshape(len(rows), -1)[:, :2].astype(np.float32))
    assert len(episode.actions) == 1500
