"""Saved agents: saving and loading is the identity, and no file that is not one gets further than a ValueError."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import safetensors.torch
import torch
from saved_contents import content

import grasp_agent
from grasp_agent import GRASP, Criteria, GraspAgent, serialization
from grasp_agent.agent.saved_settings import CODEC
from grasp_agent.planners import (
    CEM,
    ICEM,
    Adam,
    Coloured,
    Descent,
    GaussNewton,
    Gradient,
    GradientShooting,
    LiftedNewton,
    Line,
    Planner,
    Portfolio,
    Recombination,
    Relaxation,
    Replay,
    Roadmap,
    RoadmapGraph,
    Rollout,
    Tracking,
)


def observations(count: int = 3) -> list[dict[str, Any]]:
    env = gym.make("grasp/BallNav-v0")
    drawn = [env.reset(seed=seed)[0] for seed in range(count)]
    env.close()
    return drawn


def answers(agent: GraspAgent) -> list[list[float]]:
    return [agent.predict(o, episode_start=np.array([True]), deterministic=True)[0].tolist() for o in observations()]


def test_a_loaded_agent_plans_as_the_one_that_learned_bit_for_bit(taught: GraspAgent, agent: GraspAgent):
    assert taught.policy.world is not None
    assert agent.policy.world is not None
    assert answers(agent) == answers(taught)
    one, other = taught.policy.world.index, agent.policy.world.index
    for known, loaded in zip(one.roadmaps, other.roadmaps, strict=True):
        assert isinstance(known, RoadmapGraph)
        assert isinstance(loaded, RoadmapGraph)
        assert torch.equal(known.steps, loaded.steps)
    assert one.replay is not None
    assert other.replay is not None
    assert all(torch.equal(a, b) for a, b in zip(one.replay, other.replay, strict=True))


@pytest.mark.parametrize("form", ["path", "string", "without suffix", "file object"])
def test_a_saved_agent_predicts_the_same_bit_for_bit(agent: GraspAgent, tmp_path: Path, form: str):
    expected = answers(agent)
    path = tmp_path / "copy.zip"
    if form == "file object":
        stream = io.BytesIO()
        agent.save(stream)
        stream.seek(0)
        assert answers(GraspAgent.load(stream, device="cpu")) == expected
        return
    target = {"path": path, "string": str(path), "without suffix": str(tmp_path / "copy")}[form]
    agent.save(target)
    assert [p.name for p in tmp_path.iterdir()] == ["copy.zip"]
    assert answers(GraspAgent.load(target, device="cpu")) == expected
    assert answers(GraspAgent.load(path, device="cpu")) == expected


def test_the_same_content_gives_the_same_bytes(agent_file: Path, agent: GraspAgent, tmp_path: Path):
    agent.save(tmp_path / "a.zip")
    GraspAgent.load(tmp_path / "a.zip", device="cpu").save(tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == agent_file.read_bytes()
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


PLANNERS = [
    GRASP(),
    GRASP.paper(iterations=7, sigma=0.125),
    GRASP(
        candidates=3,
        budget=0.25,
        initial=Portfolio(
            first=Roadmap(stretch=2.0, tracking=Tracking(damping=0.5)), second=Line(sigma=0.3), share=0.25
        ),
        update=Relaxation(
            states=Adam(lr=0.5, beta1=0.25), actions=Gradient(optimiser=Descent(lr=2.0)), goal_weight=0.5, anneal=True
        ),
        noise=Coloured(beta=1.5),
        sync=GradientShooting(iterations=2, optimiser=Adam(lr=0.75), hold=2),
        anneal=False,
    ),
    GRASP(
        proposals=None,
        initial=Rollout(shape=Coloured(beta=0.5)),
        update=Relaxation(actions=GaussNewton(damping=0.125)),
        sync=Tracking(),
    ),
    GRASP(update=LiftedNewton(damping=0.5), sync=CEM(samples=8, elites=2), recombination=Recombination(share=0.5)),
    ICEM(proposals=Replay(), factored=True),
]


@pytest.mark.parametrize("planner", PLANNERS)
def test_planner_and_settings_survive(agent: GraspAgent, planner: Planner[Any], tmp_path: Path):
    agent.planner = planner
    agent.criteria = Criteria(hold=2, accept=0.5, feedback=False)
    agent.save(tmp_path / "other.zip")
    loaded = GraspAgent.load(tmp_path / "other.zip", device="cpu")
    assert loaded.planner == planner
    assert loaded.criteria == agent.criteria
    assert loaded.horizon == agent.horizon
    assert loaded.settings.train == agent.settings.train
    assert loaded.settings.explore == agent.settings.explore
    assert (loaded.num_timesteps, loaded.env_id, loaded.seed) == (800, "grasp/BallNav-v0", 0)
    assert loaded.observation_space == agent.observation_space
    assert loaded.action_space == agent.action_space
    assert CODEC.decode(json.loads(json.dumps(CODEC.encode(planner)))) == planner
    other = replace(planner, candidates=2)
    assert GraspAgent.load(tmp_path / "other.zip", device="cpu", planner=other).planner == other


def test_settings_that_were_not_set_are_left_to_the_reader(agent_file: Path, agent: GraspAgent, tmp_path: Path):
    config = json.loads(content(agent_file)["config.json"])
    assert (config["planner"], config["criteria"]) == (None, None)
    assert (agent.planner, agent.criteria) == (GRASP(), Criteria())
    for planner, criteria in ((GRASP(candidates=3), Criteria()), (GRASP(), Criteria(excursion=2.0))):
        given = GraspAgent.load(agent_file, device="cpu", planner=planner, criteria=criteria)
        given.save(tmp_path / "given.zip")
        config = json.loads(content(tmp_path / "given.zip")["config.json"])
        assert CODEC.decode(config["planner"]) == (planner if planner != GRASP() else None)
        assert CODEC.decode(config["criteria"]) == (criteria if criteria != Criteria() else None)
        loaded = GraspAgent.load(tmp_path / "given.zip", device="cpu")
        assert (loaded.planner, loaded.criteria) == (planner, criteria)


def test_a_loaded_agent_takes_an_environment(agent_file: Path):
    env = gym.make("grasp/BallNav-v0")
    agent = GraspAgent.load(agent_file, env=env, device="cpu")
    assert agent.get_env() is not None
    env.close()


def test_files_are_written_atomically(agent: GraspAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "kept.zip"
    agent.save(path)
    before = path.read_bytes()

    def full(*_: Any, **__: Any) -> bytes:
        raise OSError("no space left on device")

    monkeypatch.setattr(safetensors.torch, "save", full)
    for target in (path, tmp_path / "new.zip"):
        with pytest.raises(OSError, match="no space left"):
            agent.save(target)
    assert [p.name for p in tmp_path.iterdir()] == ["kept.zip"]
    assert path.read_bytes() == before


def test_names_of_older_files_are_read(tmp_path: Path):
    """An encoder's weight of the reconstruction was `picture`, its decoder `painter`."""
    path, old = tmp_path / "new.zip", tmp_path / "old.zip"
    agent = grasp_agent.load("wall-pixels", device="cpu")
    agent.save(path)
    config, tensors = serialization.read(path)
    del config["encoder"]["reconstruction"]
    config["encoder"]["picture"] = 2.0
    renamed = {name.replace("encoder.decoder.", "encoder.painter."): value for name, value in tensors.items()}
    assert set(renamed) != set(tensors)
    serialization.write(old, config, renamed)
    again = GraspAgent.load(old, device="cpu")
    assert again.settings.encoder is not None and again.settings.encoder.reconstruction == 2.0
    for name, tensor in agent.snapshot().encoder.items():
        assert torch.equal(tensor, again.snapshot().encoder[name])
