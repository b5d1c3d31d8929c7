"""Comparisons of agents: the same starts for all, saved episodes, success by one definition."""

from __future__ import annotations

import importlib
import linecache
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from agents import tiny
from contestants import ENV, EPISODES, Careless, Own, Straight

import grasp_agent
from grasp_agent.evaluation import report
from grasp_agent.evaluation.cache import Store
from grasp_agent.evaluation.compare import Comparison, compare
from grasp_agent.evaluation.participants import participant


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
    assert len(made) == 3  # once as a check, and for each ten episodes
    again = compare(ENV, names, episodes=20, out=out, on_episodes=counts.append)
    assert counts == [40] and len(made) == 4
    more = compare(ENV, names, episodes=23, out=out)
    assert len(made) == 6
    with pytest.raises(ValueError, match="choose another folder"):
        compare(ENV, names, seed=3, out=out)
    (out / "episodes" / "odd.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"odd.json: no episodes of a comparison \(remove the file to play them again\)"
    ):
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
    assert len(list((tmp_path / "episodes").iterdir())) == 2  # episodes of objects are not saved


def test_several_processes_find_the_same_as_one():
    names = ["random", "contestants:Still"]
    one, two = (compare(ENV, names, episodes=20, jobs=jobs) for jobs in (1, 2))
    for a, b in zip(one.entries, two.entries, strict=True):
        drop = {"seconds_per_action_mean": 0.0, "seconds_per_action_max": 0.0}
        rows = [[row._replace(**drop) for row in entry.evaluation.episodes] for entry in (a, b)]
        assert rows[0] == rows[1]


@pytest.mark.slow
def test_an_executor_finds_the_same_as_one_process_also_without_the_users_disk(tmp_path: Path):
    """The agent's file is sent: it is moved away before its episodes are played."""
    file = tmp_path / "agent.zip"
    tiny(ENV).learn(30).save(file)

    class Elsewhere(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            file.rename(tmp_path / "moved.zip")
            try:
                found = fn(*args, **kwargs)
            finally:
                (tmp_path / "moved.zip").rename(file)
            return super().submit(lambda: found)

    with Elsewhere(1) as executor:
        there = compare(ENV, [str(file), f"icem:{file}", "random"], episodes=2, executor=executor)
    here = compare(ENV, [str(file), f"icem:{file}", "random"], episodes=2)
    drop = {"seconds_per_action_mean": 0.0, "seconds_per_action_max": 0.0}
    one, other = (
        [[row._replace(**drop) for row in entry.evaluation.episodes] for entry in found.entries]
        for found in (there, here)
    )
    assert one == other
    assert [entry.participant.name for entry in there.entries] == [entry.participant.name for entry in here.entries]


def test_a_file_with_the_name_of_a_participant_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("grasp.zip", "random.zip", "Still"):
        (tmp_path / name).write_text("a decoy")
    known = [participant(name, ENV) for name in ("grasp", "random", "contestants:Still")]
    assert [who.file for who in known] == [None] * 3


def test_a_list_holds_trainings_of_one_agent():
    found = compare(ENV, {"still": ["contestants:Still", "contestants:StillTwin"], "random": "random"}, episodes=2)
    assert [entry.participant.name for entry in found.entries] == ["still #0", "still #1", "random"]
    assert found.trainings == {"still": (0, 1), "random": (2,)}
    assert found.scores()["still"] == [entry.evaluation.summary()["success_end"] for entry in found.entries[:2]]
    assert all(entry.difference is None for entry in found.entries)
    with pytest.raises(ValueError, match="expected at least one training of still, got none"):
        compare(ENV, {"still": [], "random": "random"})


@pytest.mark.parametrize("agents", [["random", "contestants:Still"], {"a": "random", "b": "contestants:Still"}])
def test_agents_without_several_trainings_have_one_score_each(agents: Any):
    found = compare(ENV, agents, episodes=2)
    assert found.trainings == {}
    assert list(found.scores()) == [entry.participant.name for entry in found.entries]
    assert list(found.scores().values()) == [[entry.evaluation.summary()["success_end"]] for entry in found.entries]


def test_differing_starts_are_reported():
    gym.register("tests/Twice-v0", "contestants:Twice")
    try:
        found = compare("tests/Twice-v0", ["random", "contestants:Still"], episodes=3)
    finally:
        del gym.registry["tests/Twice-v0"]
    assert not found.same_starts
    assert "STARTS DIFFER" in report.markdown(found)
    assert found.compared == "return"  # no success is reported


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="episodes: expected a whole number of at least 1, got 0"):
        compare(ENV, ["random"], episodes=0)
    with pytest.raises(ValueError, match="expected at least one, got none"):
        compare(ENV, [])
    with pytest.raises(ValueError, match="expected different ones"):
        compare(ENV, ["random", "random"])
    with pytest.raises(ValueError, match="expected 1 where agents are given as objects"):
        compare(ENV, [Straight()], jobs=2)
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="executor: expected None where agents"):
        compare(ENV, [Straight()], executor=executor)
    with pytest.raises(ValueError, match="expected a list, or a dict by name, got 'random'"):
        compare(ENV, "random")
    with pytest.raises(ValueError, match="env: expected a Gymnasium id, got TimeLimit"):
        compare(gym.make("Pendulum-v1"), ["random"])  # type: ignore[arg-type]
    with pytest.raises(
        ValueError,
        match=r"Careless in grasp/BallNav-v0: Careless.predict: expected to return an action and a state, got array",
    ):
        compare(ENV, [Careless()], episodes=1)  # type: ignore[list-item]  # pyright: ignore


def test_a_goal_that_an_agent_gets_when_built_defines_success_for_all():
    found = compare("Pendulum-v1", ["random", "contestants:OwnLater"], episodes=1)
    assert [entry.evaluation.episodes[0].success_end for entry in found.entries] == [True, True]


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
    found = compare("Pendulum-v1", ["random", "contestants:Still", "contestants:STILL_TOO"], episodes=12)
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
    played = [compare(ENV, [name], episodes=3).entries[0].evaluation for name in ("random", "contestants:Still")]
    stores = [Store(tmp_path, {"env": ENV}) for _ in played]
    for store, name, evaluation in zip(stores, "ab", played, strict=True):
        store.keep(name, (list(evaluation.episodes), [[0.0] * row.steps for row in evaluation.episodes]))
    both = Store(tmp_path, {"env": ENV})
    for name, evaluation in zip("ab", played, strict=True):
        assert both.evaluation(name, "", ENV, range(10_000, 10_003)).episodes == evaluation.episodes
