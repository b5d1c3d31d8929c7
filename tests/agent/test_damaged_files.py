"""Missing, damaged and foreign files are refused in one line, and no code in a file is run."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from saved_contents import WEIGHTS, Content, content, refused, write
from stable_baselines3 import PPO

from grasp_agent import GRASP, GraspAgent, serialization
from grasp_agent.agent.saved_settings import CODEC


@pytest.fixture
def given(request: pytest.FixtureRequest, agent_file: Path) -> Content:
    return content(agent_file)


def test_a_missing_file_is_named(tmp_path: Path):
    assert "nothing-here" in refused(tmp_path / "nothing-here.zip")
    assert "nothing-here" in refused(tmp_path / "nothing-here")
    refused(tmp_path)


def test_a_file_cut_anywhere_is_refused(agent_file: Path, tmp_path: Path):
    whole = agent_file.read_bytes()
    path = tmp_path / "cut.zip"
    for fraction in (0, 0.0001, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999, 0.9999):
        path.write_bytes(whole[: int(fraction * len(whole))])
        assert "cut.zip" in refused(path)
        refused(io.BytesIO(path.read_bytes()))


def test_a_file_with_a_wrong_byte_is_refused(agent_file: Path, tmp_path: Path):
    whole = bytearray(agent_file.read_bytes())
    path = tmp_path / "bent.zip"
    for position in range(len(whole) // 40, len(whole) * 9 // 10, len(whole) // 20):
        bent = bytearray(whole)
        bent[position] ^= 0x55
        path.write_bytes(bent)
        refused(path)


def test_files_of_other_programs_are_refused(tmp_path: Path):
    text = tmp_path / "text.zip"
    text.write_text("not a zip")
    refused(text)
    refused(write(tmp_path / "foreign.zip", {"readme.txt": b"hello"}))
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu")
    model.save(tmp_path / "ppo.zip")
    assert "another program" in refused(tmp_path / "ppo.zip")


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (explode, ())


exploded: list[int] = []


def explode() -> None:
    exploded.append(1)


def test_no_code_in_a_file_is_run(given: Content, tmp_path: Path):
    pickled = pickle.dumps(Bomb())
    stream = io.BytesIO()
    torch.save(Bomb(), stream)
    exploded.clear()
    plain = tmp_path / "plain.zip"
    plain.write_bytes(pickled)
    refused(plain)
    for bomb in (pickled, stream.getvalue()):
        for name in given:
            refused(write(tmp_path / "bomb.zip", {**given, name: bomb}))
        refused(write(tmp_path / "bomb.zip", {**given, "policy.pth": bomb}))
    assert exploded == []
    pickle.loads(pickled)
    assert exploded == [1]  # the bomb was a real one


SHORT_BOX = {"shape": [2], "dtype": "bad", "low": ["0", "0"], "high": ["1", "1"]}

LONG_BOX = {"shape": [3], "dtype": "float32", "low": ["0"] * 3, "high": ["1"] * 3}


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("format", 3, "format 2"),
        ("format", None, "format 2"),
        ("planner", {"type": "Popen"}, "unknown type 'Popen'"),
        ("planner", {"type": ["GRASP"]}, ""),
        ("planner", {"type": "GRASP", "speed": 3}, "speed"),
        ("planner", {"type": "GRASP", "candidates": -1}, "candidates"),
        ("planner", {"type": "MLPConfig"}, ""),
        ("planner", "GRASP", ""),
        ("planner candidates", "many", ""),
        ("planner sync", {"type": "MLPConfig"}, ""),
        ("criteria", {"type": "GRASP"}, ""),
        ("horizon", "long", ""),
        ("horizon", 0, ""),
        ("horizon", float("inf"), ""),
        ("planner candidates", 1.5, "whole number"),
        ("world error", float("nan"), "expected numbers, got NaN"),
        ("world error", 0.0, "positive"),
        ("env_id", "os:Env-v0", "module"),
        ("world tolerance", None, ""),
        ("world state_map", {"type": "StateMap", "columns": [0, 99], "goal_index": [0, 1]}, ""),
        ("world state_map", {"type": "StateMap", "columns": [0, 1], "goal_index": [0, 7]}, ""),
        ("world model", {"type": "TrainConfig"}, ""),
        ("world model width", 65, ""),
        ("world model members", 3, ""),
        ("observation_space", {"dict": {}}, ""),
        ("action_space", SHORT_BOX, ""),
        ("action_space", LONG_BOX, ""),
        ("structure", 5, "expected a Structure"),
        ("structure", {"type": "Structure", "blocks": 5}, ""),
        (
            "structure",
            {"type": "Structure", "blocks": [[[0, 1], [0, 1]], [[1], []]]},
            "each of 2 states in one block",
        ),
        ("structure", {"type": "Structure", "goal_weights": [1.0]}, "goal_weights: expected 2, got 1"),
        (
            "structure",
            {"type": "Structure", "frame": {"type": "Frame", "origin": [0, 1], "heading": [2, 3]}},
            "expected entries below 2 and 2",
        ),
        ("env_kwargs", 5, ""),
        ("explore", ..., "explore"),
    ],
)
def test_a_foreign_config_is_refused(given: Content, tmp_path: Path, where: str, value: Any, words: str):
    config = json.loads(given["config.json"])
    *folders, name = where.split()
    config["planner"] = CODEC.encode(GRASP())
    inner = config
    for folder in folders:
        inner = inner[folder]
    inner[name] = value
    if value is ...:
        del inner[name]
    path = write(tmp_path / "edited.zip", {**given, "config.json": json.dumps(config).encode()})
    assert words in refused(path)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_malformed_config_is_refused(given: Content, tmp_path: Path, data: bytes):
    refused(write(tmp_path / "edited.zip", {**given, "config.json": data}))


def test_weights_that_do_not_fit_are_refused(given: Content, tmp_path: Path):
    tensors = safetensors.torch.load(given[WEIGHTS])
    path = tmp_path / "bent.zip"
    for name, tensor in tensors.items():
        for wrong in (tensor.flatten()[:-1] if tensor.ndim else tensor.expand(2, 2).contiguous(), None):
            changed = {**tensors, name: wrong}
            members = {**given, WEIGHTS: safetensors.torch.save({k: v for k, v in changed.items() if v is not None})}
            optional = ("index.roadmap.0.steps", "index.roadmap.0.error", "index.roadmap.0.reach", "index.linear")
            if name in optional and wrong is None:
                continue  # an agent without a roadmap, older files, one without a linear model
            assert "cannot be loaded: " in refused(write(path, members)), name
    for fraction in (0.0, 0.01, 0.5, 0.999):
        cut = given[WEIGHTS][: int(fraction * len(given[WEIGHTS]))]
        refused(write(path, {**given, WEIGHTS: cut}))


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_scales_that_are_not_positive_are_refused(agent_file: Path, value: float, tmp_path: Path):
    config, tensors = serialization.read(agent_file)
    tensors["model.normalizer.std"][0] = value
    serialization.write(tmp_path / "bent.zip", config, tensors)
    assert "normalizer.std: expected positive numbers" in refused(tmp_path / "bent.zip")


def test_variances_below_zero_are_refused(sharp: Path, tmp_path: Path):
    config, tensors = serialization.read(sharp)
    name = next(name for name in tensors if name.endswith("running_var"))
    tensors[name][0] = -1e-3
    serialization.write(tmp_path / "bent.zip", config, tensors)
    assert "running_var" in refused(tmp_path / "bent.zip")


def test_actions_out_of_bounds_in_the_experience_are_refused(taught: GraspAgent, tmp_path: Path):
    for value, sound in ((1.0, True), (1.1, False), (-3.0, False)):
        config, tensors = taught.snapshot(experience=True).encode()
        tensors["experience.actions"] = tensors["experience.actions"].clone()
        tensors["experience.actions"][0] = value
        serialization.write(tmp_path / "bent.zip", config, tensors)
        if sound:
            GraspAgent.load(tmp_path / "bent.zip", device="cpu")
        else:
            assert "actions in [-1, 1]" in refused(tmp_path / "bent.zip")
