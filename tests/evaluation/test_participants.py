"""Participants of a comparison: names, files and objects."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from contestants import ENV, Straight, baseline_file
from sb3_contrib import TQC, TRPO, CrossQ
from stable_baselines3 import A2C, DDPG, PPO, SAC, TD3

import grasp_agent
from grasp_agent import GraspAgent, serialization
from grasp_agent.evaluation.compare import Comparison, compare
from grasp_agent.evaluation.participants import Participant, Random, participant
from grasp_agent.planners import ICEM


class TestContestants:
    def made(self, given: Any, env_id: str = ENV, iterations: int | None = None) -> tuple[Participant, Any]:
        env = gym.make(env_id)
        who = participant(given, env_id)
        agent = who.make(env, 0)
        if iterations is not None:  # the planners' own would take long here
            assert isinstance(agent, GraspAgent)
            agent.planner = replace(agent.planner, iterations=iterations)
        action, _ = agent.predict(env.reset(seed=0)[0], deterministic=True)
        assert env.action_space.contains(action)
        env.close()
        return who, agent

    def test_the_bundled_model_of_an_environment(self):
        who, agent = self.made("grasp")
        known = grasp_agent.bundled()["ball-nav"]
        assert isinstance(agent, GraspAgent) and agent.env_id == ENV
        assert (who.name, who.steps, who.key) == (f"grasp@{known.steps}", known.steps, known.sha256)
        assert participant("push-t", "grasp/PushT-v0").name == "push-t"
        assert participant("grasp", "grasp/PushT-v0").name == "grasp@20000 (ICEM)"
        assert self.made("ball-nav")[0].key == self.made(f"grasp@{known.steps}")[0].key == who.key
        with pytest.raises(ValueError, match=r"no bundled model 'grasp@7' .*choose from grasp@"):
            participant("grasp@7", ENV)
        with pytest.raises(ValueError, match=r"no bundled model 'grasp' for Pendulum-v1"):
            participant("grasp", "Pendulum-v1")

    @pytest.mark.parametrize("name", ["icem", "ilqr", "grasp-paper"])
    def test_another_planner_with_its_model(self, name: str, agent_file: Path):
        own, mine = self.made(f"{name}:{agent_file}", iterations=3)
        assert (own.name, own.steps, mine.num_timesteps) == (f"{name} grasp@800", 800, 800)
        who, agent = self.made(name, iterations=3)
        assert type(mine.planner) is type(agent.planner) and own.key != who.key
        assert who.name == agent.name == name
        with pytest.raises(ValueError, match="expected a saved agent of ours, got"):
            participant(f"{name}:{baseline_file()}", ENV)
        assert type(agent.planner).__name__.lower() == name.split("-")[0]
        assert (agent.planner.proposals is None) == (name == "grasp-paper")

    def test_files_of_ours_and_of_stable_baselines(self, agent_file: Path, tmp_path: Path):
        who, _ = self.made(str(agent_file))
        assert (who.name, who.steps, who.size) == ("grasp@800", 800, agent_file.stat().st_size)
        assert who.seconds is not None and who.seconds > 0
        soft = SAC("MultiInputPolicy", ENV, buffer_size=10, policy_kwargs={"net_arch": [8]}, device="cpu")
        soft.save(tmp_path / "mine.zip")
        who, agent = self.made(str(tmp_path / "mine.zip"))
        assert (who.name, type(agent)) == ("sac mine", SAC)
        assert self.made(tmp_path / "mine.zip")[0].key == self.made(str(tmp_path / "mine"))[0].key == who.key
        assert participant(f"sac:{tmp_path / 'mine'}", ENV).key == who.key
        with pytest.raises(ValueError, match="no such file"):
            participant("sac:nowhere.zip", ENV)
        with pytest.raises(ValueError, match="expected a file of ppo, got one of sac"):
            participant(f"ppo:{tmp_path / 'mine.zip'}", ENV)
        with pytest.raises(ValueError, match="is no saved agent of sac"):
            participant(f"sac:{agent_file}", ENV)

    @pytest.mark.parametrize("kind", [SAC, TD3, DDPG, PPO, A2C, TQC, TRPO, CrossQ])
    def test_the_algorithm_of_stable_baselines_that_wrote_a_file_is_recognised(self, kind: Any, tmp_path: Path):
        quick: dict[str, Any] = {"n_steps": 8} if kind in (PPO, A2C, TRPO) else {"buffer_size": 10}
        quick |= {"batch_size": 8} if kind in (PPO, TRPO) else {}
        kind("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, device="cpu", **quick).save(
            tmp_path / "a.zip"
        )
        _, agent = self.made(str(tmp_path / "a.zip"), "Pendulum-v1")
        assert type(agent) is (TD3 if kind is DDPG else kind)  # DDPG is TD3 with one critic

    def test_a_file_of_an_unknown_algorithm_needs_its_name(self, tmp_path: Path):
        with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
            archive.writestr("data", json.dumps({"gamma": 0.9}))
        with pytest.raises(ValueError, match="say it, for example ppo:"):
            participant(str(tmp_path / "odd.zip"), ENV)

    @pytest.mark.parametrize(
        "config",
        [
            [1],
            {"algorithm": "sac"},
            {"algorithm": ["sac"], "env_id": ENV},
            {"algorithm": "sac", "env_id": ENV, "num_timesteps": 1, "settings": {"gamme": 1}},
            {"algorithm": "sac", "env_id": "grasp/None-v0", "num_timesteps": 1},
        ],
    )
    def test_a_foreign_file_is_refused_in_one_line(self, tmp_path: Path, config: Any):
        import safetensors.torch

        with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
            content = {"format": 1, **config} if isinstance(config, dict) else config
            archive.writestr("config.json", json.dumps(content))
            archive.writestr("weights.safetensors", safetensors.torch.save({}))
        with pytest.raises(ValueError, match="is no saved agent") as caught:
            participant(str(tmp_path / "odd.zip"), ENV)
        assert "\n" not in str(caught.value)

    def test_random_draws_uniformly_and_reproducibly(self):
        env = gym.make(ENV)
        draws = [[Random(env, seed).predict(None)[0].tolist() for _ in range(1)] for seed in (1, 1, 2)]
        assert draws[0] == draws[1] != draws[2]
        one = Random(env, 0)
        actions = np.stack([one.predict(None)[0] for _ in range(400)])
        assert np.abs(actions.mean(0)).max() < 0.15 and actions.std() == pytest.approx(1 / np.sqrt(3), abs=0.05)
        env.close()

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ("nobody", "agents: expected grasp, .*got 'nobody'"),
            ("sac@many", "a number of steps after @"),
            ("none.zip", "no such file none.zip"),
            ("tqc@5", r"no bundled baseline 'tqc@5' for grasp/BallNav-v0 \(choose from"),
            ("no_such_module:Agent", "No module named 'no_such_module'"),
            ("json:loads_", "has no attribute 'loads_'"),
            ("json:__name__", "expected something with predict"),
            (
                "contestants:BAD",
                r"expected predict\(observation, .*unexpected keyword argument 'episode_start'|got an unexpected",
            ),
            (3, "3: expected something with predict, got 3"),
        ],
    )
    def test_unknown_agents_are_named(self, given: Any, words: str):
        with pytest.raises(ValueError, match=words):
            participant(given, ENV)

    def test_an_invalid_file_is_refused(self, tmp_path: Path):
        (tmp_path / "text.zip").write_text("no")
        with pytest.raises(ValueError, match="is no saved agent"):
            participant(str(tmp_path / "text.zip"), ENV)


def test_agents_of_the_same_name_get_distinct_names(comparison: Comparison):
    found = compare(ENV, [Straight("me"), Straight("me", 1.0), "random"], episodes=1)
    assert [entry.participant.name for entry in found.entries] == ["me #1", "me #2", "random"]
    found = compare(ENV, {"good": Straight("me"), "bad": "random"}, episodes=1)
    assert [entry.participant.name for entry in found.entries] == ["good", "bad"]


def test_names_come_before_files_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    PPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, device="cpu").save("sac")
    assert participant("sac", ENV).name.startswith("sac@")
    assert participant("./sac", "Pendulum-v1").name == participant("sac.zip", "Pendulum-v1").name == "ppo sac"


def test_another_planner_plays_with_a_file_whose_own_planner_is_not_of_this_package(taught: GraspAgent, tmp_path: Path):
    config, tensors = taught.snapshot().encode()
    config["planner"] = {"type": "own", "name": "Mine"}
    serialization.write(tmp_path / "own.zip", config, tensors)
    with pytest.raises(ValueError, match="planner Mine is not of this package"):
        GraspAgent.load(tmp_path / "own.zip", device="cpu")
    agent = participant(f"icem:{tmp_path / 'own.zip'}", ENV).make(gym.make(ENV), 0)
    assert isinstance(agent, GraspAgent) and isinstance(agent.planner, ICEM) and agent.name == "icem"
