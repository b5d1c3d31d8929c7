"""Models on which the cases of conformance run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kinds
import numpy as np
import pytest
from agents import CHOICES, FLAT, PIXELS, tiny, tiny_choices, tiny_reward, tiny_seer
from kinds import Kind, Observation, observations, sac
from rewarding import small
from stable_baselines3 import SAC

from grasp_agent import GraspAgent
from grasp_agent.agent.reward.agent import RewardAgent


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


@pytest.fixture(scope="session")
def rewarded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reward") / "tiny.zip"
    tiny_reward().learn(60).save(path)
    return path


@pytest.fixture(scope="session")
def choosing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("choices") / "tiny.zip"
    tiny_choices().learn(60).save(path)
    return path


_ENVS = {"grasp from pixels": PIXELS, "grasp for rewards": FLAT, "grasp with choices": CHOICES}


@pytest.fixture(scope="session")
def trained() -> RewardAgent:
    return small().learn(400)


@pytest.fixture(params=["grasp", *_ENVS, "sac"])
def kind(
    request: pytest.FixtureRequest,
    agent_file: Path,
    soft: Path,
    sharp: Path,
    rewarded: Path,
    choosing: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Kind:
    if request.param in _ENVS:
        for module in (kinds, request.module):  # the environment of the helpers and of the test
            monkeypatch.setattr(module, "ENV", _ENVS[request.param], raising=False)
    return {
        "grasp": Kind(GraspAgent, tiny, agent_file),
        "grasp from pixels": Kind(GraspAgent, tiny_seer, sharp),
        "grasp for rewards": Kind(GraspAgent, tiny_reward, rewarded, foreign="Pendulum-v1"),
        "grasp with choices": Kind(GraspAgent, tiny_choices, choosing, (), np.int64, "CartPole-v1"),
        "sac": Kind(SAC, sac, soft, other={"gamma": 0.5}),
    }[request.param]


@pytest.fixture
def model(kind: Kind) -> Any:
    return kind.load()


@pytest.fixture
def obs(kind: Kind) -> Observation:
    assert kind.file.exists()
    return observations(1, first=1, single=True)
