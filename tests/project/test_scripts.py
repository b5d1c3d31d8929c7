"""The studies' own parts: one episode of each kind, and the statistics, against known answers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium as gym
import pytest

from benchmarks import planners, report, trials
from benchmarks.ledger import Ledger


@pytest.mark.parametrize("mode", ["open", "closed"])
def test_a_cell_of_the_benchmark_is_measured(mode: str):
    setting = trials.Setting("near ball", "GRASP", 15, mode, 0.5)
    cell = planners.measure(setting, 2)
    assert set(cell) == {"end", "any", "steps", "seconds", "accepted", "iterations"}
    assert cell["any"] == [1, 1]
    assert all(0 < seconds < 30 for seconds in cell["seconds"])
    assert all(0 < steps <= 15 for steps in cell["steps"]) == (mode == "open" or cell["end"] == [1, 1])


def test_starts_and_goals_of_the_short_task_are_near_each_other_and_the_same_for_a_seed():
    task = trials.SHORT_TASKS["near ball"]
    env = task.wrapper(gym.make(task.env_id))
    for seed in range(20):
        first, second = env.reset(seed=seed)[0], env.reset(seed=seed)[0]
        assert (first["desired_goal"] == second["desired_goal"]).all()
        assert (abs(first["desired_goal"] - first["achieved_goal"]) <= 0.3 + 1e-9).all()
        assert first["achieved_goal"][0] > 0.1


@pytest.mark.parametrize("study", planners.STUDIES)
def test_every_cell_of_a_study_names_a_task_and_a_planner_and_has_a_key_of_its_own(study: str):
    settings, counts = planners.STUDIES[study]()
    assert len({setting.key for setting in settings}) == len(settings)
    for setting in settings:
        assert setting.planner in trials.PLANNERS
        assert trials.task_of(setting).model
        assert setting.mode in counts


def test_a_success_rate_has_wilsons_interval():
    assert report.rate([1] * 90 + [0] * 10) == "0.90 (0.83-0.94)"
    assert report.rate([0] * 200) == "0.00 (0.00-0.02)"


def test_mcnemar_counts_the_pairs_that_differ():
    assert report.mcnemar([1, 1, 0, 0], [1, 1, 0, 0]) == 1.0
    assert report.mcnemar([1] * 10, [0] * 10) == pytest.approx(2 * 0.5**10)
    assert report.mcnemar([1, 0] * 5, [0, 1] * 5) == 1.0


def test_a_ledger_keeps_concurrent_rows_and_drops_those_of_another_model(tmp_path: Path):
    path = tmp_path / "measured.json"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda step: Ledger(path, "one").add(f"part {step % 2}", {"step": step}), range(40)))
    found = Ledger(path, "one").read()
    assert {name: sorted(row["step"] for row in rows) for name, rows in found.items()} == {
        "part 0": [*range(0, 40, 2)],
        "part 1": [*range(1, 40, 2)],
    }
    other = Ledger(path, "other")
    assert other.read() == {}
    other.add("part 0", {"step": 0})
    assert other.read() == {"part 0": [{"step": 0}]} and Ledger(path, "one").read() == {}
