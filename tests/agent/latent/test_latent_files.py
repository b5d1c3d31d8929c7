"""Saved agents of given world models."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from worlds import Exact, Point

from grasp_agent import GraspAgent, LatentAgent
from grasp_agent.planners import CEM

OBSERVATION = np.array([0.2, -0.4], np.float32)


@pytest.fixture
def agent() -> LatentAgent:
    model = Exact(2, delay=True).eval()
    made = GraspAgent.from_model(
        Point(), model, frame_skip=2, history=2, horizon=5, planner=CEM(iterations=2, samples=16, elites=3), seed=4
    )
    made.collect(100)
    made.set_goal(np.array([0.5, 0.1], np.float32))
    return made


def test_a_loaded_agent_acts_as_the_saved_one(agent: LatentAgent, tmp_path: Path):
    agent.save(tmp_path / "agent.zip")
    loaded = LatentAgent.load(tmp_path / "agent.zip", Exact(2, delay=True).eval(), Point())
    for name in ("frame_skip", "history", "horizon", "planner", "criteria", "rule", "seed", "goal_tolerance"):
        assert getattr(loaded, name) == getattr(agent, name), name
    assert len(loaded.memory) == len(agent.memory)
    first, state = loaded.predict(OBSERVATION)
    known, _ = agent.predict(OBSERVATION)
    np.testing.assert_array_equal(first, known)
    assert state[3].tolist() == [1]
    assert LatentAgent.load(tmp_path / "agent", Exact(2, delay=True).eval(), Point(), horizon=3).horizon == 3


def test_the_file_holds_no_weights(agent: LatentAgent, tmp_path: Path):
    stream = io.BytesIO()
    agent.save(stream)
    with zipfile.ZipFile(stream) as archive:
        config = json.loads(archive.read("config.json"))
        tensors = safetensors.torch.load(archive.read("weights.safetensors"))
    assert config["kind"] == "latent"
    assert set(tensors) == {"latents", "actions", "lengths", "goal", "trial"}


def test_what_does_not_fit_is_refused(agent: LatentAgent, tmp_path: Path):
    path = tmp_path / "agent.zip"
    agent.save(path)
    with pytest.raises(ValueError, match="env: expected one, as the file has no environment's id"):
        LatentAgent.load(path, Exact(2, delay=True).eval())
    with pytest.raises(ValueError, match=r"model: expected latents of shape \(2, 3\), got \(2,\)"):
        LatentAgent.load(path, lambda z, a: z[:, -1], Point())
    with pytest.raises(ValueError, match=r"agent of a given model: .*LatentAgent.load"):
        GraspAgent.load(path)
    with pytest.raises(ValueError, match="expected an agent of a given world model"):
        LatentAgent.load(Path(grasp_file()), Exact().eval(), Point())


def grasp_file() -> str:
    import grasp_agent

    return str(Path(grasp_agent.__file__).parent / "zoo" / "pretrained" / "ball-nav.zip")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shape", [0, 3]),
        ("shape", "x"),
        ("shape", [7, 3]),
        ("horizon", 10**9),
        ("frame_skip", 10**9),
        ("history", -1),
        ("planner", {"type": "os.system"}),
        ("has_goal_function", True),
    ],
)
def test_damaged_settings_are_one_line(agent: LatentAgent, tmp_path: Path, name: str, value: object):
    path = tmp_path / "agent.zip"
    agent.save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {member: archive.read(member) for member in archive.namelist()}
    parts["config.json"] = json.dumps({**json.loads(parts["config.json"]), name: value}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in parts.items():
            archive.writestr(member, content)
    with pytest.raises(ValueError, match=r"agent\.zip") as caught:
        LatentAgent.load(path, Exact(2, delay=True).eval(), Point())
    assert "\n" not in str(caught.value)


def test_another_model_is_noticed(tmp_path: Path):
    """Its latents have the same shape, so that only its predictions tell."""
    agent = GraspAgent.from_model(Point(), Exact().eval())
    agent.save(tmp_path / "agent.zip")
    other = Exact().eval()
    other.scale.data *= 2
    with pytest.warns(UserWarning, match="predicts otherwise"):
        LatentAgent.load(tmp_path / "agent.zip", other, Point())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LatentAgent.load(tmp_path / "agent.zip", Exact().eval(), Point())
