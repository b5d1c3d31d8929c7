"""Models on which the cases of conformance run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kinds
import pytest
from agents import PIXELS, tiny, tiny_seer
from kinds import Kind, Observation, observations, sac
from stable_baselines3 import SAC

from grasp_agent import GraspAgent


@pytest.fixture(scope="session")
def soft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sac") / "sac.zip"
    sac().learn(60).save(path)
    return path


@pytest.fixture(scope="session")
def sharp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pixels") / "tiny.zip"
    tiny_seer().learn(150).save(path)
    return path


@pytest.fixture(params=["grasp", "grasp from pixels", "sac"])
def kind(
    request: pytest.FixtureRequest, agent_file: Path, soft: Path, sharp: Path, monkeypatch: pytest.MonkeyPatch
) -> Kind:
    if request.param == "grasp from pixels":
        for module in (kinds, request.module):  # the environment of the helpers and of the test
            monkeypatch.setattr(module, "ENV", PIXELS, raising=False)
    return {
        "grasp": Kind(GraspAgent, tiny, agent_file),
        "grasp from pixels": Kind(GraspAgent, tiny_seer, sharp),
        "sac": Kind(SAC, sac, soft),
    }[request.param]


@pytest.fixture
def model(kind: Kind) -> Any:
    return kind.load()


@pytest.fixture
def obs(kind: Kind) -> Observation:
    assert kind.file.exists()
    return observations(1, first=1, single=True)
