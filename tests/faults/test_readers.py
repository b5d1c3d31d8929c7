"""Files of strangers: what their readers do with damaged, hostile and unusual ones."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from readers import ENV, READERS, refused
from stable_baselines3 import PPO

import grasp_agent
from benchmarks import fuzz_files
from benchmarks.mutations import members_of, zip_of
from grasp_agent import GraspAgent, reading, serialization
from grasp_agent.cli.main import main
from grasp_agent.evaluation import training
from grasp_agent.evaluation.participants import OwnFile, participant, participants
from grasp_agent.replay.image_buffer import ImageReplayBuffer
from grasp_agent.zoo import baselines

SOUND = {kind.name: kind for kind in fuzz_files.KINDS}


@pytest.fixture(scope="session")
def canary() -> fuzz_files.Canary:
    return fuzz_files.Canary()


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (exec, ("exploded = True",))


@pytest.mark.parametrize("kind", fuzz_files.KINDS, ids=lambda kind: kind.name)
def test_damaged_files_are_refused_or_work(kind: fuzz_files.Kind, canary: fuzz_files.Canary):
    counts, lines = fuzz_files.fuzz(kind, 3, 0, canary)
    assert not lines, lines
    assert counts["refused"] + counts["works"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", fuzz_files.KINDS, ids=lambda kind: kind.name)
def test_many_damaged_files_are_refused_or_work(kind: fuzz_files.Kind, canary: fuzz_files.Canary):
    counts, lines = fuzz_files.fuzz(kind, 100, 1, canary)
    assert not lines, lines
    assert counts["refused"] > 10


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_the_fuzzer_sees_what_it_looks_for(canary: fuzz_files.Canary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def found(read: Callable[[Path], object]) -> str:
        kind = fuzz_files.Kind("probe", lambda folder: folder, read, lambda data, _: data)  # type: ignore[arg-type]
        return fuzz_files.outcome(kind, tmp_path, canary)[0]

    def fail(error: Exception) -> None:
        raise error

    assert found(lambda _: pickle.loads(pickle.dumps(Bomb()))) == "ran code"
    assert found(lambda _: __import__("this_module_does_not_exist")) == "ran code"
    assert found(lambda _: fail(KeyError("x"))) == "other exception"
    assert found(lambda _: fail(ValueError("x"))) == "unnamed"
    assert found(lambda path: fail(ValueError(f"{path}:\nx"))) == "unnamed"
    assert found(lambda path: fail(ValueError(f"{path}: x"))) == "refused"
    assert found(lambda _: fail(AssertionError())) == "non-finite"
    with monkeypatch.context() as patient:
        patient.setattr(fuzz_files, "SECONDS", 60.0)  # a slow machine takes a second to clear so much memory
        assert found(lambda _: np.ones(2**28, np.uint8).size) == "large"
    assert found(lambda _: burn(fuzz_files.SECONDS + 0.2)) == "slow"
    assert found(lambda _: None) == "works"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", ["folder", "pipe", "socket", "dangling", "device", "missing", "closed"])
def test_what_is_no_file_is_refused_at_once(reader: str, what: str, tmp_path: Path):
    path = tmp_path / "one.json"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)  # in the folder where tests run: the whole path may be too long for it
    elif what == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "closed":
        path.write_bytes(b"x")
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
    elif reader in ("checkpoint", "episodes"):
        pytest.skip("none is expected there")
    began = time.monotonic()
    refused(lambda: READERS[reader](path), str(path))
    assert time.monotonic() - began < 1


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


class TestAgents:
    @pytest.fixture
    def members(self, agent_file: Path) -> dict[str, bytes]:
        return members_of(agent_file.read_bytes())

    def edited(self, members: dict[str, bytes], tmp_path: Path, **changes: Any) -> Path:
        config = json.loads(members["config.json"])
        path = tmp_path / "edited.zip"
        path.write_bytes(zip_of({**members, "config.json": json.dumps({**config, **changes}).encode()}))
        return path

    @pytest.mark.parametrize(
        "changes",
        [
            {"horizon": 10**6},
            {"horizon": 10.5},
            {"horizon": 1e999},
            {"planner": {"type": "GRASP", "candidates": 10**9}},
            {"planner": {"type": "CEM", "samples": 60_000}, "horizon": 10_000},
            {"planner": {"type": "GRASP", "sigma": "x"}},
            {"planner": {"type": "GRASP", "anneal": 3}},
            {"planner": {"type": "GRASP", "noise": {"type": "GRASP"}}},
            {"observation_space": {"shape": [2**40], "dtype": "float32", "low": ["0"], "high": ["1"]}},
            {"observation_space": {"shape": [2000, 2000, 3], "dtype": "uint8", "low": ["0"], "high": ["1"]}},
            {"action_space": {"shape": [1], "dtype": "O", "low": ["0"], "high": ["1"]}},
            {"action_space": {"shape": [1], "dtype": "float32", "low": ["1"], "high": ["nan"]}},
            {"num_timesteps": -1},
            {"num_timesteps": "7"},
            {"seed": [1]},
            {"env_id": ["os:Env-v0"]},
            {"env_id": "os:Env-v0"},
            {"training_seconds": float("inf")},
            {"env_kwargs": [1]},
            {"env_kwargs": {"inner": [{"env_id": "evil_module:Env-v0"}]}},
            {"note": "x" * reading.LARGEST_JSON},
            {"note": [[]] * 100_000},
        ],
        ids=lambda changes: str(changes)[:60],
    )
    def test_settings_are_checked_before_anything_is_made(self, members: Any, tmp_path: Path, changes: Any):
        path = self.edited(members, tmp_path, **changes)
        began = time.process_time()
        refused(lambda: GraspAgent.load(path, device="cpu"), str(path))
        assert time.process_time() - began < 1

    def test_networks_are_as_large_as_the_tensors(self, members: Any, tmp_path: Path):
        tensors = reading.parse_tensors(members["weights.safetensors"])
        tensors["model.weights.1"] = torch.zeros(2, 0, 4096)
        config = json.loads(members["config.json"])
        config["world"]["model"] |= {"width": 4096, "members": 2}
        serialization.write(tmp_path / "a.zip", config, tensors)
        refused(lambda: GraspAgent.load(tmp_path / "a.zip", device="cpu"), "do not fit")

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"planner": {"type": "GRASP", "iterations": 10**6}}, "iterations: expected at most 10000 in a file"),
            (
                {"observation_space": {"shape": [2000, 2000, 3], "dtype": "uint8", "low": ["0"], "high": ["1"]}},
                "at most 4194304 entries, got the shape",
            ),
        ],
    )
    def test_limits_are_said(self, members: Any, tmp_path: Path, changes: Any, words: str):
        path = self.edited(members, tmp_path, **changes)
        refused(lambda: GraspAgent.load(path, device="cpu"), str(path), words)

    def test_bombs_are_refused_unread(self, members: Any, tmp_path: Path):
        path = tmp_path / "bomb.zip"
        path.write_bytes(zip_of({**members, "weights.safetensors": bytes(100 * 2**20)}, zipfile.ZIP_DEFLATED))
        refused(lambda: GraspAgent.load(path, device="cpu"), str(path), "is compressed to less than 1/50")

    def test_a_zip_of_many_members_is_refused_by_the_size_of_its_directory(self, members: Any, tmp_path: Path):
        path = tmp_path / "many.zip"
        path.write_bytes(zip_of({f"{'n' * 200}{number}": b"" for number in range(2000)}))
        refused(lambda: GraspAgent.load(path, device="cpu"), "at most 64 members")

    def test_infinite_and_missing_numbers_are_refused(self, members: Any, tmp_path: Path):
        for value in (torch.nan, torch.inf):
            tensors = reading.parse_tensors(members["weights.safetensors"])
            tensors["model.weights.0"].view(-1)[5] = value
            serialization.write(tmp_path / "a.zip", json.loads(members["config.json"]), tensors)
            refused(lambda: GraspAgent.load(tmp_path / "a.zip", device="cpu"), "model.weights.0", str(tmp_path))

    def test_the_command_line_says_in_one_line_what_is_wrong(self, members: Any, tmp_path: Path, capsys: Any):
        path = self.edited(members, tmp_path, horizon="x")
        for arguments in (["evaluate", str(path)], ["record", str(path), "a.gif"], ["plan", str(tmp_path)]):
            assert main(arguments) == 2
            err = capsys.readouterr().err
            assert err.count("\n") == 1 and arguments[1] in err

    def test_wrong_options_of_the_environment_are_one_line(self, members: Any, tmp_path: Path, capsys: Any):
        path = self.edited(members, tmp_path, env_kwargs={"colour": "red"})
        assert main(["evaluate", str(path), "--episodes", "1"]) != 0
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "colour" in err and ENV in err


class TestComparisons:
    def finished(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder with a finished training of PPO, as `grasp compare --train 40` leaves it."""
        monkeypatch.setattr(training, "_EPISODES", 1)
        return training.train_agent(training.TrainingTask("ppo", "Pendulum-v1", 20), folder / "models").files[0]

    def test_no_pickle_in_a_folder_is_loaded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, canary: fuzz_files.Canary, capsys: Any
    ):
        ours = self.finished(tmp_path, monkeypatch)
        PPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, device="cpu").save(tmp_path / "theirs")
        shutil.copy(tmp_path / "theirs.zip", ours)
        table = json.loads((ours.parent / "schooled.json").read_text())
        table["files"] = [str(tmp_path / "theirs.zip")] * 2
        (ours.parent / "schooled.json").write_text(json.dumps(table))
        command = ["compare", "Pendulum-v1", "--agents", "ppo,random", "--train", "20", "--episodes", "1"]
        canary.arm()
        assert main([*command, "--out", str(tmp_path)]) == 2
        assert not [event for event in [canary.disarm() and canary.seen] if event and "find_class" in str(event)]
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and str(ours) in err and "expected a file of this package" in err

    @pytest.mark.filterwarnings("always")
    def test_a_pickle_that_is_named_is_announced(self, tmp_path: Path, recwarn: Any):
        PPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, device="cpu").save(tmp_path / "theirs")
        participants([str(tmp_path / "theirs.zip")], "Pendulum-v1")
        said = [str(warning.message) for warning in recwarn if "pickle" in str(warning.message)]
        assert len(said) == 1 and "theirs.zip" in said[0] and "runs the code" in said[0]
        refused(lambda: participant(OwnFile(tmp_path / "theirs.zip"), "Pendulum-v1"), "expected a file of this package")

    def test_a_training_that_was_kept_is_used_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        ours = self.finished(tmp_path, monkeypatch)
        steps: list[int] = []
        again = training.train_agent(
            training.TrainingTask("ppo", "Pendulum-v1", 20), tmp_path / "models", on_steps=steps.append
        )
        assert not steps
        assert again.files[0] == ours and participant(OwnFile(ours), "Pendulum-v1").name.startswith("ppo@")

    def test_changed_episodes_are_refused_and_those_without_a_checksum_read(self, tmp_path: Path):
        path = SOUND["episodes"].write(tmp_path)
        whole = json.loads(path.read_text())
        whole["episodes"][0][0][3] = 1e6
        path.write_text(json.dumps(whole))
        refused(lambda: SOUND["episodes"].read(path), str(path), "checksum")
        del whole["sha256"]
        path.write_text(json.dumps(whole))
        SOUND["episodes"].read(path)


def test_a_link_in_place_of_the_images_is_not_overwritten(tmp_path: Path):
    victim, link = tmp_path / "victim", tmp_path / "a.zip.pictures"
    victim.write_bytes(b"x" * 100)
    link.symlink_to(victim)
    for count in (0, 3):
        refused(lambda count=count: ImageReplayBuffer((2, 2, 3), link, count), str(link), "link")
    assert victim.read_bytes() == b"x" * 100


def test_settings_of_a_baseline_do_not_size_memory(tmp_path: Path):
    path = SOUND["baseline"].write(tmp_path)
    config, tensors = serialization.read(path)
    for settings in ({"policy_kwargs": {"net_arch": [60_000, 60_000]}}, {"n_steps": 10**12}, {"device": "cuda"}, ["x"]):
        serialization.write(path, {**config, "settings": settings}, tensors)
        refused(lambda: baselines.read(path), str(path), "settings")
    serialization.write(path, {**config, "settings": {**config.get("settings", {}), "buffer_size": 10**11}}, tensors)
    assert baselines.read(path).replay_buffer.buffer_size == 1  # type: ignore[attr-defined]


def test_entries_of_a_goal_that_the_weights_do_not_have_are_refused_before_memory_is_allocated(tmp_path: Path):
    agent = grasp_agent.load("ball-nav", device="cpu")
    config, tensors = agent.snapshot().encode()
    config["world"]["state_map"]["goal_index"] = [1] * 10_000
    serialization.write(tmp_path / "agent.zip", config, tensors)
    refused(lambda: GraspAgent.load(tmp_path / "agent.zip"), "goal_index: 10000 entries do not fit the weights")
