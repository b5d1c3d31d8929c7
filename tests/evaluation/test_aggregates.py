"""Aggregates over training seeds, against values by hand and definitions of their own."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from grasp_agent.evaluation import aggregates, seeds_report
from grasp_agent.evaluation.aggregates import scores_of


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end_over_all_environments():
    values = scores_of(np.arange(8.0).reshape(4, 2))
    assert aggregates.iqm(values) == np.mean([2, 3, 4, 5])
    far = values.copy()
    far[-1, -1] = 1e6
    assert aggregates.iqm(scores_of(far)) == aggregates.iqm(values)


def test_probability_of_improvement_counts_pairs_of_trainings_with_ties_as_half():
    first, second = scores_of([[1.0, 5.0], [3.0, 5.0]]), scores_of([[2.0, 5.0], [1.0, 4.0], [0.0, 6.0]])
    wins = [
        np.mean([np.sign(a - b) / 2 + 0.5 for a, b in product(first[:, task], second[:, task])]) for task in range(2)
    ]
    assert aggregates.probability_of_improvement(first, second) == pytest.approx(np.mean(wins))


def test_the_bootstrap_draws_trainings_within_each_environment_and_agent():
    """The exact distribution of two trainings: each mean is one of three values."""
    values = scores_of([[0.0, 10.0], [1.0, 10.0]])
    drawn = []

    def mean(one: np.ndarray) -> np.ndarray:
        drawn.append(one)
        return one.mean((-2, -1))

    found = aggregates.interval(mean, values)
    assert found.value == 5.25 and (found.low, found.high) == (5.0, 5.5)
    every = drawn[0]
    assert (every[..., 1] == 10).all() and set(every[..., 0].ravel()) == {0.0, 1.0}
    assert np.mean(every[..., 0].mean(1) == 0.5) == pytest.approx(0.5, abs=0.05)


def test_intervals_hold_the_true_value_about_as_often_as_they_say():
    random = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        found = aggregates.interval(aggregates.iqm, scores_of(random.normal(0.0, 1.0, (10, 3))))
        held += found.low <= 0 <= found.high
    assert 0.85 < held / 200 <= 1


def test_profiles_are_fractions_of_trainings_above_each_threshold():
    values = scores_of([[0.2, 0.9], [0.6, 0.5]])
    assert aggregates.profile(values, [0.0, 0.2, 0.55, 1.0]).tolist() == [1.0, 0.75, 0.5, 0.0]


@pytest.mark.parametrize(
    ("effect", "spread", "other"), [(0.2, 0.1, 0.1), (0.1, 0.1, 0.1), (1.0, 0.7, 0.7), (1.5, 1.0, 1e-3)]
)
def test_so_many_seeds_find_a_difference_in_four_of_five_comparisons(effect: float, spread: float, other: float):
    """Simulated comparisons with Welch's test have that power, and with a third fewer seeds they have less."""
    shape = np.array([-1.0, 1.0])  # standard deviation 1 without Bessel's correction, sqrt(2) with it
    first = scores_of(effect + spread / np.sqrt(2) * shape)
    count = aggregates.seeds_needed(first, scores_of(other / np.sqrt(2) * shape))
    assert count is not None
    random = np.random.default_rng(0)

    def power(seeds: int) -> float:
        one, two = random.normal(effect, spread, (4000, seeds)), random.normal(0, other, (4000, seeds))
        return float(np.mean(np.asarray(stats.ttest_ind(one, two, axis=1, equal_var=False)[1]) < 0.05))

    assert power(count) > 0.76
    assert power(max(2, count * 2 // 3)) < 0.8


def test_no_number_of_seeds_without_a_difference_or_with_one_training():
    assert aggregates.seeds_needed(scores_of([1.0, 0.0]), scores_of([0.0, 1.0])) is None
    assert aggregates.seeds_needed(scores_of([0.7] * 3), scores_of([0.7] * 4)) is None  # means differ by rounding
    assert aggregates.seeds_needed(scores_of([1.0]), scores_of([0.0, 1.0])) is None
    assert aggregates.seeds_needed(scores_of([1.0, 1.0]), scores_of([0.0, 0.0])) == 2
    assert aggregates.seeds_needed(scores_of([0.0, 1.0]), scores_of([0.001, 1.0])) is None


@pytest.mark.parametrize("wrong", [[], [[0.1, np.nan]], [[[0.1]]]])
def test_scores_that_are_none_are_refused(wrong: list[object]):
    with pytest.raises(ValueError, match="scores: expected"):
        scores_of(wrong)  # type: ignore[arg-type]


def test_agents_of_different_environments_are_not_compared():
    with pytest.raises(ValueError, match="as many environments of both, got 1 and 2"):
        aggregates.improvement([0.1, 0.2], [[0.1, 0.2], [0.3, 0.4]])


SCORES = {"grasp": [0.9, 0.95, 1.0, 0.85], "sac": [0.2, 0.9, 0.6, 0.4], "random": [0.0]}


def test_the_report_compares_with_the_first_and_says_how_many_seeds_are_missing():
    rows = {row["agent"]: row for row in seeds_report.rows(SCORES)}
    assert rows["grasp"]["difference"] is None and rows["grasp"]["trainings"] == 4
    assert rows["sac"]["difference"] == pytest.approx(0.5 - 0.925)
    assert rows["sac"]["improvement"] == pytest.approx(1.5 / 16)  # .9 beats .85, and ties with .9
    needed = rows["sac"]["seeds_needed"]
    said = seeds_report.advice(SCORES)
    assert needed is not None and needed > 4
    assert f"{needed} trainings of each, {needed - 4} more" in said[0]
    assert len(said) == 1  # of random actions, which are not trained, nothing can be said
    assert rows["random"]["iqm_low"] is None and rows["random"]["difference_high"] is None
    table = {cells[0]: cells for cells in seeds_report.table(SCORES)}
    assert table["random"][2] == "0.00" and table["random"][5] == "-0.93"


def test_the_report_is_written_with_its_figure(tmp_path):
    curves = {"grasp": [[(10, 0.5), (20, 0.9)], [(10, 0.7), (20, 1.0)]]}
    points = {name: [[seeds_report.Point(*point) for point in run] for run in runs] for name, runs in curves.items()}
    paths = seeds_report.write(SCORES, tmp_path, curves=points, title="env")
    assert [path.name for path in paths] == ["seeds.md", "seeds.csv", "seeds.json", "seeds.png"]
    text, table = paths[0].read_text(), paths[1].read_text().splitlines()
    assert len(table) == 4 and table[0].startswith("agent,trainings,iqm")
    assert "| sac | 4 | 0.50 (" in text
    assert paths[3].stat().st_size > 5000


def test_narrower_tables_hold_all_columns():
    shown = seeds_report.tables(SCORES)
    assert {header for part in shown.values() for header in part[0]} == set(seeds_report.HEADERS)
    assert all([cells[0] for cells in part[1:]] == list(SCORES) for part in shown.values())


def test_a_report_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"^scores: expected those of at least one agent, got none$"):
        seeds_report.markdown({})
