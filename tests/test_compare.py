"""Agents beside each other: the same starts for all, nothing played twice, a report that says what was found."""

from __future__ import annotations

import csv
import json
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image
from stable_baselines3 import PPO, SAC

import grasp_agent
from grasp_agent import GraspAgent, report
from grasp_agent.cli import main
from grasp_agent.comparison import Comparison, compare
from grasp_agent.contestants import Contestant, Random, contestant

ENV = "grasp/BallNav-v0"
EPISODES = 12


class Straight:
    """Heads for the goal."""

    def __init__(self, name: str = "straight", gain: float = 4.0) -> None:
        self.name, self.gain, self.calls = name, gain, 0

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
        self.calls += 1
        return np.clip(self.gain * (observation["desired_goal"] - observation["achieved_goal"]), -1, 1), None


@pytest.fixture
def comparison() -> Comparison:
    return compare(ENV, [Straight(), "random", Straight("still", 0.0)], episodes=EPISODES)


def test_all_play_the_same_starts_and_goals(comparison: Comparison):
    assert comparison.same_starts
    first, *others = [entry.evaluation.episodes for entry in comparison.entries]
    env = gym.make(ENV)
    assert [row.seed for row in first] == list(range(10_000, 10_000 + EPISODES))
    for rows in others:
        assert [(row.seed, row.start) for row in rows] == [(row.seed, row.start) for row in first]
    assert len({row.start for row in first}) == EPISODES
    moves = [entry.evaluation.episodes[0].path_length for entry in comparison.entries]
    assert moves[2] == 0.0 and min(moves[:2]) > 0.5  # type: ignore[type-var]
    env.close()


def test_differences_are_to_the_first_on_the_same_episodes(comparison: Comparison):
    first, other = (entry.evaluation.episodes for entry in comparison.entries[::2])
    assert comparison.entries[0].difference is None
    found = comparison.entries[2].difference
    assert found is not None
    won = [bool(a.success_end) - bool(b.success_end) for a, b in zip(other, first, strict=True)]
    assert found.difference.value == pytest.approx(np.mean(won)) and np.mean(won) < 0


def test_what_was_played_is_not_played_again(tmp_path: Path):
    counts: list[int] = []
    names = ["random", "random_policy:Lazy"]
    module = types.ModuleType("random_policy")
    made: list[int] = []

    class Lazy(Still):
        def __init__(self, env: gym.Env[Any, Any]) -> None:
            made.append(1)
            super().__init__(env)

    module.Lazy = Lazy  # type: ignore[attr-defined]
    sys.modules["random_policy"] = module
    try:
        first = compare(ENV, names, episodes=20, out=tmp_path)
        assert len(made) == 2
        again = compare(ENV, names, episodes=20, out=tmp_path, on_episodes=counts.append)
        assert counts == [40] and len(made) == 2
        more = compare(ENV, names, episodes=23, out=tmp_path)
        assert len(made) == 3
        with pytest.raises(ValueError, match="choose another folder"):
            compare(ENV, names, seed=3, out=tmp_path)
        (tmp_path / "episodes.json").write_text("{}")
        with pytest.raises(ValueError, match="no episodes of a comparison"):
            compare(ENV, names, out=tmp_path)
    finally:
        del sys.modules["random_policy"]
    for one, two, three in zip(first.entries, again.entries, more.entries, strict=True):
        assert one.evaluation.episodes == two.evaluation.episodes == three.evaluation.episodes[:20]
        np.testing.assert_array_equal(one.evaluation.seconds, two.evaluation.seconds)


def test_a_comparison_that_is_stopped_keeps_what_was_played(tmp_path: Path):
    class Stops(Straight):
        def predict(self, *arguments: Any, **options: Any):
            if self.calls == 1500:
                raise KeyboardInterrupt
            return super().predict(*arguments, **options)

    with pytest.raises(KeyboardInterrupt):
        compare(ENV, ["random", Stops()], episodes=20, out=tmp_path)
    counts: list[int] = []
    compare(ENV, ["random"], episodes=20, out=tmp_path, on_episodes=counts.append)
    assert counts[0] == 20
    assert [path.name for path in tmp_path.iterdir()] == ["episodes.json"]


def test_several_processes_find_the_same_as_one():
    names = ["random", "test_compare:Still"]
    one, two = (compare(ENV, names, episodes=20, jobs=jobs) for jobs in (1, 2))
    for a, b in zip(one.entries, two.entries, strict=True):
        drop = {"seconds_per_action_mean": 0.0, "seconds_per_action_max": 0.0}
        rows = [[row._replace(**drop) for row in entry.evaluation.episodes] for entry in (a, b)]
        assert rows[0] == rows[1]


class Still:
    """Does nothing."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._size = env.action_space.shape or ()

    def predict(self, *_: Any, **__: Any):
        return np.zeros(self._size, np.float32), None


class Twice(gym.Env[Any, Any]):
    """Starts elsewhere each time, whatever the seed."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))
    count = 0

    def reset(self, *, seed: int | None = None, options: Any = None):
        Twice.count += 1
        return np.array([self.count], np.float32), {}

    def step(self, action: Any):
        return np.zeros(1, np.float32), 1.0, True, False, {}


def test_starts_that_differ_are_told():
    gym.register("tests/Twice-v0", "test_compare:Twice")
    try:
        found = compare("tests/Twice-v0", ["random", "test_compare:Still"], episodes=3)
    finally:
        del gym.registry["tests/Twice-v0"]
    assert not found.same_starts
    assert "STARTS DIFFER" in report.markdown(found)
    assert found.entries[1].difference is None  # no success is reported


def test_the_report_holds_the_figures_of_every_agent(comparison: Comparison, tmp_path: Path):
    paths = report.write(comparison, tmp_path / "new")
    assert [path.name for path in paths] == ["report.md", "report.csv", "report.json", "report.png"]
    content = json.loads(paths[2].read_text())
    assert [row["agent"] for row in content["agents"]] == ["straight", "random", "still"]
    with paths[1].open() as file:
        table = list(csv.DictReader(file))
    for row, line, entry in zip(content["agents"], table, comparison.entries, strict=True):
        summary = entry.evaluation.summary()
        assert row["success_end"] == summary["success_end"] == float(line["success_end"])
        assert row["return_low"] <= row["return_mean"] <= row["return_high"]
        assert row["return_mean"] == pytest.approx(summary["return_mean"])
    text = paths[0].read_text()
    straight = content["agents"][0]
    assert f"| straight | - | - | {100 * straight['success_end']:.0f} % (" in text
    assert "the same starts and goals for all" in text
    picture = np.asarray(Image.open(paths[3]).convert("RGB"))
    assert picture.shape[1] > 900 and picture.std() > 10


def test_the_command_prints_the_table_and_writes_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    assert main(["compare", ENV, "--agents", "random,test_compare:Straight_", "--out", str(out)]) == 2
    assert "test_compare:Straight_" in capsys.readouterr().err
    command = ["compare", ENV, "--agents", "random,test_compare:STRAIGHT", "--episodes", "3", "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "STRAIGHT" in printed and "difference to the first" in printed
    assert {path.name for path in out.iterdir()} == {
        "episodes.json",
        *(f"report.{s}" for s in ("md", "csv", "json", "png")),
    }


STRAIGHT = Straight()


class TestContestants:
    def made(self, given: Any, env_id: str = ENV) -> tuple[Contestant, Any]:
        env = gym.make(env_id)
        who = contestant(given, env_id)
        agent = who.make(env, 0)
        action, _ = agent.predict(env.reset(seed=0)[0], deterministic=True)
        assert env.action_space.contains(action)
        env.close()
        return who, agent

    def test_the_bundled_model_of_an_environment(self):
        who, agent = self.made("grasp")
        known = grasp_agent.bundled()["ball-nav"]
        assert isinstance(agent, GraspAgent) and agent.env_id == ENV
        assert (who.name, who.steps, who.key) == (f"grasp@{known.steps}", known.steps, known.sha256)
        assert self.made("ball-nav")[0].key == self.made(f"grasp@{known.steps}")[0].key == who.key
        with pytest.raises(ValueError, match=r"no bundled model 'grasp@7' .*choose from grasp@"):
            contestant("grasp@7", ENV)
        with pytest.raises(ValueError, match=r"no bundled model 'grasp' for Pendulum-v1"):
            contestant("grasp", "Pendulum-v1")

    @pytest.mark.parametrize("name", ["icem", "ilqr", "grasp-paper"])
    def test_another_planner_with_its_model(self, name: str):
        who, agent = self.made(name)
        assert who.name == agent.name == name
        assert type(agent.policy.planner).__name__.lower() == name.split("-")[0]
        assert (agent.policy.planner.proposals is None) == (name == "grasp-paper")

    def test_files_of_ours_and_of_stable_baselines(self, agent_file: Path, tmp_path: Path):
        who, _ = self.made(str(agent_file))
        assert (who.name, who.steps, who.size) == ("grasp@800", 800, agent_file.stat().st_size)
        assert who.seconds is not None and who.seconds > 0
        soft = SAC("MultiInputPolicy", ENV, buffer_size=10, policy_kwargs={"net_arch": [8]}, device="cpu")
        soft.save(tmp_path / "mine.zip")
        who, agent = self.made(str(tmp_path / "mine.zip"))
        assert (who.name, type(agent)) == ("sac mine", SAC)
        PPO("MultiInputPolicy", ENV, n_steps=8, batch_size=8, device="cpu").save(tmp_path / "on.zip")
        with pytest.raises(ValueError, match=r"say it, for example ppo:"):
            contestant(str(tmp_path / "on.zip"), ENV)
        assert isinstance(self.made(f"ppo:{tmp_path / 'on.zip'}")[1], PPO)

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
    def test_a_strangers_file_is_refused_in_one_line(self, tmp_path: Path, config: Any):
        import safetensors.torch

        with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
            content = {"format": 1, **config} if isinstance(config, dict) else config
            archive.writestr("config.json", json.dumps(content))
            archive.writestr("weights.safetensors", safetensors.torch.save({}))
        with pytest.raises(ValueError, match="is no saved agent") as caught:
            contestant(str(tmp_path / "odd.zip"), ENV)
        assert "\n" not in str(caught.value)

    def test_random_draws_evenly_and_as_its_seed_says(self):
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
        ],
    )
    def test_who_is_not_meant_is_named(self, given: str, words: str):
        with pytest.raises(ValueError, match=words):
            contestant(given, ENV)

    def test_a_file_that_is_none_is_refused(self, tmp_path: Path):
        (tmp_path / "text.zip").write_text("no")
        with pytest.raises(ValueError, match="is no saved agent"):
            contestant(str(tmp_path / "text.zip"), ENV)


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="expected at least 1"):
        compare(ENV, ["random"], episodes=0)
    with pytest.raises(ValueError, match="expected at least one, got none"):
        compare(ENV, [])
    with pytest.raises(ValueError, match="expected different ones"):
        compare(ENV, ["random", "random"])
    with pytest.raises(ValueError, match="expected 1 where agents are given as objects"):
        compare(ENV, [Straight()], jobs=2)


def test_agents_of_the_same_name_are_told_apart(comparison: Comparison):
    found = compare(ENV, [Straight("me"), Straight("me", 1.0), "random"], episodes=1)
    assert [entry.contestant.name for entry in found.entries] == ["me #1", "me #2", "random"]


def test_an_agent_with_a_goal_of_its_own_stands_beside_one_without(tmp_path: Path):
    class Own:
        goal = grasp_agent.Goal.at({0: 1.0}, tolerance=0.1)
        name = "own"

        def predict(self, *_: Any, **__: Any):
            return np.zeros(1, np.float32), None

    found = compare("Pendulum-v1", [Own(), "random"], episodes=2)
    assert [entry.evaluation.episodes[0].success_end is None for entry in found.entries] == [False, True]
    report.write(found, tmp_path)
    assert "| random | 0 | - | - | - | - |" in (tmp_path / "report.md").read_text()
