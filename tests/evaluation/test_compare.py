"""Agents beside each other: the same starts for all, nothing played twice, a report that says what was found."""

from __future__ import annotations

import csv
import importlib
import json
import linecache
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image
from sb3_contrib import TQC, TRPO, CrossQ
from stable_baselines3 import A2C, DDPG, PPO, SAC, TD3

import grasp_agent
from grasp_agent import GraspAgent
from grasp_agent.cli.main import main
from grasp_agent.evaluation import report
from grasp_agent.evaluation.cache import Store
from grasp_agent.evaluation.compare import Comparison, _compared, compare
from grasp_agent.evaluation.evaluate import Episode, Evaluation
from grasp_agent.evaluation.participants import Participant, Random, participant
from grasp_agent.zoo import baselines

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


LAZY = """
import numpy as np
MADE = []
class Lazy:
    def __init__(self, env): MADE.append(1)
    def predict(self, *_, **__): return np.zeros(2, np.float32), None
"""


def test_played_episodes_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "random_policy.py").write_text(LAZY)
    made = importlib.import_module("random_policy").MADE
    counts: list[int] = []
    names, out = ["random", "random_policy:Lazy"], tmp_path / "out"
    first = compare(ENV, names, episodes=20, out=out)
    assert len(made) == 3  # once to see whether it can play, and for each ten episodes
    again = compare(ENV, names, episodes=20, out=out, on_episodes=counts.append)
    assert counts == [40] and len(made) == 4
    more = compare(ENV, names, episodes=23, out=out)
    assert len(made) == 6
    with pytest.raises(ValueError, match="choose another folder"):
        compare(ENV, names, seed=3, out=out)
    (out / "episodes" / "odd.json").write_text("{}")
    with pytest.raises(ValueError, match="no episodes of a comparison"):
        compare(ENV, names, out=out)
    for one, two, three in zip(first.entries, again.entries, more.entries, strict=True):
        assert one.evaluation.episodes == two.evaluation.episodes == three.evaluation.episodes[:20]
        np.testing.assert_array_equal(one.evaluation.seconds, two.evaluation.seconds)


def test_a_stopped_comparison_keeps_its_episodes(tmp_path: Path):
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
    assert len(list((tmp_path / "episodes").iterdir())) == 2  # what an object plays is not kept


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


class StillToo(Still):
    """The same under another name."""

    def __init__(self) -> None:
        self._size = (1,)


STILL_TOO = StillToo()


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


def test_differing_starts_are_reported():
    gym.register("tests/Twice-v0", "test_compare:Twice")
    try:
        found = compare("tests/Twice-v0", ["random", "test_compare:Still"], episodes=3)
    finally:
        del gym.registry["tests/Twice-v0"]
    assert not found.same_starts
    assert "STARTS DIFFER" in report.markdown(found)
    assert found.compared == "return"  # no success is reported


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
    assert f"| straight | - | {100 * straight['success_end']:.0f} % (" in text
    assert "the same starts and goals for all" in text
    picture = np.asarray(Image.open(paths[3]).convert("RGB"))
    assert picture.shape[1] > 900 and picture.std() > 10


def test_the_report_states_whether_starts_were_equal():
    """Of four episodes the first agent solves one, the second the same and two others."""

    def row(seed: int, success: bool, steps: int, return_: float) -> Episode:
        waits = steps if success else None
        return Episode(seed, success, True, return_, steps, waits, 0.0, 0.0, None, 0.0, 0.5 * steps, "start")

    one = [row(seed, seed == 0, 10, -10.0) for seed in range(4)]
    two = [row(seed, seed != 3, 4 + seed, -4.0 - seed) for seed in range(4)]
    seconds = np.array([0.001] * 98 + [0.2, 0.301])
    who = [
        Participant("first", lambda *_: STRAIGHT, None, 1000, 12.4, 2**19),
        Participant("other", lambda *_: STRAIGHT, None),
    ]
    found = _compared(
        "env",
        who,
        [Evaluation("env", w.name, 0, tuple(rows), seconds, 0.0) for w, rows in zip(who, (one, two), strict=True)],
    )
    first, other = (dict(zip(report.HEADERS, cells, strict=True)) for cells in report.cells(found))
    assert (first["steps learned from"], first["training"], first["model"]) == ("1,000", "12 s", "0.50 MB")
    assert (first["success at the end"], other["success at the end"]) == ("25 % (5-70)", "75 % (30-95)")
    assert (first["at any step"], first["difference to the first"], first["steps"], first["way"]) == (
        "100 % (51-100)",
        "-",
        "10",
        "5",
    )
    assert first["ms per action"] == "6 / 1 / 201"  # mean, half of all, 99 % of all
    assert first["return"] == "-10.0 (-10.0 to -10.0)"
    assert other["steps"] == "5" and other["way"] == "2.75" and other["return"].startswith("-5.5 (-6.")
    # McNemar's exact: both of the two episodes that one alone has solved are the second's.
    assert other["difference to the first"].startswith("+50 % (") and other["difference to the first"].endswith(
        "), p .500"
    )
    low, high = (float(text) for text in other["difference to the first"].split("(")[1].split(")")[0].split(" to "))
    assert low < 0 < 50 < high
    assert found.same_starts and "seeds 0 to 3" in report.caption(found)


def test_the_command_prints_the_table_and_writes_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    assert main(["compare", ENV, "--agents", "random,test_compare:Straight_", "--out", str(out)]) == 2
    assert "test_compare:Straight_" in capsys.readouterr().err
    command = ["compare", ENV, "--agents", "random,test_compare:STRAIGHT", "--episodes", "3", "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "STRAIGHT" in printed and "difference to the first" in printed
    assert {path.name for path in out.iterdir()} == {
        "episodes",
        *(f"report.{s}" for s in ("md", "csv", "json", "png")),
    }


STRAIGHT = Straight()


class Curt:
    """Knows less than its callers want."""

    def predict(self, observation: Any):
        return np.zeros(2, np.float32), None


BAD = Curt()


def baseline_file() -> str:
    entry = baselines.find("sac", ENV)
    return str(Path(str(baselines.__file__)).parent / entry.file)


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
                "test_compare:BAD",
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


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="episodes: expected a whole number of at least 1, got 0"):
        compare(ENV, ["random"], episodes=0)
    with pytest.raises(ValueError, match="expected at least one, got none"):
        compare(ENV, [])
    with pytest.raises(ValueError, match="expected different ones"):
        compare(ENV, ["random", "random"])
    with pytest.raises(ValueError, match="expected 1 where agents are given as objects"):
        compare(ENV, [Straight()], jobs=2)
    with pytest.raises(ValueError, match="expected a list, or a dict by name, got 'random'"):
        compare(ENV, "random")
    with pytest.raises(ValueError, match="env: expected a Gymnasium id, got TimeLimit"):
        compare(gym.make("Pendulum-v1"), ["random"])  # type: ignore[arg-type]
    with pytest.raises(
        ValueError,
        match=r"Careless in grasp/BallNav-v0: Careless.predict: expected to return an action and a state, got array",
    ):
        compare(ENV, [Careless()], episodes=1)  # type: ignore[list-item]  # pyright: ignore


class Careless:
    """Forgets the second half of its answer."""

    def predict(self, *_: Any, **__: Any):
        return np.zeros(2, np.float32)


def test_agents_of_the_same_name_get_distinct_names(comparison: Comparison):
    found = compare(ENV, [Straight("me"), Straight("me", 1.0), "random"], episodes=1)
    assert [entry.participant.name for entry in found.entries] == ["me #1", "me #2", "random"]
    found = compare(ENV, {"good": Straight("me"), "bad": "random"}, episodes=1)
    assert [entry.participant.name for entry in found.entries] == ["good", "bad"]


class Own:
    """Has a goal where the environment has none, which its first action reaches."""

    goal = grasp_agent.Goal.at({0: 0.0, 1: 0.0, 2: 0.0}, tolerance=100)
    name = "own"

    def predict(self, *_: Any, **__: Any):
        return np.zeros(1, np.float32), None


class OwnLater(Own):
    """Gets its goal when it is made."""

    goal = None  # type: ignore[assignment]

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.goal = grasp_agent.Goal.at({0: 0.0, 1: 0.0, 2: 0.0}, tolerance=100)


def test_a_goal_that_an_agent_gets_when_built_defines_success_for_all():
    found = compare("Pendulum-v1", ["random", "test_compare:OwnLater"], episodes=1)
    assert [entry.evaluation.episodes[0].success_end for entry in found.entries] == [True, True]


def test_names_come_before_files_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    PPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, device="cpu").save("sac")
    assert participant("sac", ENV).name.startswith("sac@")
    assert participant("./sac", "Pendulum-v1").name == participant("sac.zip", "Pendulum-v1").name == "ppo sac"


def test_the_goal_of_one_agent_defines_success_for_all(tmp_path: Path):
    for agents in (["random", Own()], [Own(), "random"]):
        found = compare("Pendulum-v1", agents, episodes=2, out=tmp_path / "kept")
        assert found.compared == "success"
        for entry in found.entries:
            assert [(row.success_end, row.steps_to_success) for row in entry.evaluation.episodes] == [(True, 1)] * 2
    assert len(list((tmp_path / "kept" / "episodes").iterdir())) == 1
    with pytest.raises(ValueError, match="choose another folder"):
        compare("Pendulum-v1", ["random"], episodes=2, out=tmp_path / "kept")


def test_episodes_scored_by_a_function_are_not_saved(tmp_path: Path):
    own = Own()
    own.goal = grasp_agent.Goal.of(lambda obs: obs[:, :1], [0.0], tolerance=0.1)
    compare("Pendulum-v1", [own, "random"], episodes=1, out=tmp_path)
    assert not (tmp_path / "episodes").exists()


def test_returns_are_compared_where_success_is_not_reported(tmp_path: Path):
    found = compare("Pendulum-v1", ["random", "test_compare:Still", "test_compare:STILL_TOO"], episodes=12)
    assert found.compared == "return"
    returns = [np.array([row.return_ for row in entry.evaluation.episodes]) for entry in found.entries]
    assert found.entries[0].difference is None
    for entry, own in zip(found.entries[1:], returns[1:], strict=True):
        assert entry.difference is not None
        value, low, high = entry.difference.difference
        assert value == pytest.approx((own - returns[0]).mean()) and low < value < high
    report.write(found, tmp_path)
    header, _, first, second, _ = (tmp_path / "report.md").read_text().splitlines()[2:7]
    assert "success" not in header and "difference to the first" in header
    assert f"| {found.entries[1].difference.difference.value:+.1f} (" in second  # type: ignore[union-attr]
    assert first.startswith("| random | 0 | - |")
    assert (tmp_path / "report.png").stat().st_size > 10_000


def test_a_module_is_reloaded_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    keys = []
    for code in (LAZY, LAZY.replace("zeros", "ones")):
        (tmp_path / "changing.py").write_text(code)
        sys.modules.pop("changing", None)
        importlib.invalidate_caches()
        linecache.clearcache()
        keys.append(participant("changing:Lazy", ENV).key)
    assert None not in keys and keys[0] != keys[1]


def test_two_comparisons_share_a_folder(tmp_path: Path):
    """Each began before the other had written."""
    played = [compare(ENV, [name], episodes=3).entries[0].evaluation for name in ("random", "test_compare:Still")]
    stores = [Store(tmp_path, {"env": ENV}) for _ in played]
    for store, name, evaluation in zip(stores, "ab", played, strict=True):
        store.keep(name, (list(evaluation.episodes), [[0.0] * row.steps for row in evaluation.episodes]))
    both = Store(tmp_path, {"env": ENV})
    for name, evaluation in zip("ab", played, strict=True):
        assert both.evaluation(name, "", ENV, range(10_000, 10_003)).episodes == evaluation.episodes


def test_the_command_keeps_an_earlier_video_and_explains_how_to_continue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    command = ["compare", ENV, "--agents", "random", "--episodes", "1", "--out", str(tmp_path)]
    (tmp_path / "video.mp4").write_text("mine")
    assert main(command) == 0
    assert (tmp_path / "video.mp4").read_text() == "mine"
    assert "1 episode, seeds 10000 to 10000" in capsys.readouterr().out

    def interrupted(*_: Any, **__: Any):
        raise KeyboardInterrupt

    monkeypatch.setattr("grasp_agent.evaluation.compare.compare", interrupted)
    assert main(command) == 130
    assert f"kept in {tmp_path}: the same command continues" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main([*command[:-1], str(tmp_path / "file")]) == 2
    assert "--out: expected a folder, got the file" in capsys.readouterr().err
