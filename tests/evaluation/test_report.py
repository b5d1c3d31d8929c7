"""The report of a comparison: figures, files, the command."""

from __future__ import annotations

import csv
import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contestants import ENV, STRAIGHT
from PIL import Image
from rich.console import Console

from grasp_agent.cli.console import table
from grasp_agent.cli.main import main
from grasp_agent.evaluation import report, seeds_report
from grasp_agent.evaluation.compare import Comparison, _compared
from grasp_agent.evaluation.evaluate import Episode, Evaluation
from grasp_agent.evaluation.participants import Participant


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
    image = np.asarray(Image.open(paths[3]).convert("RGB"))
    assert image.shape[1] > 900 and image.std() > 10


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
        {},
    )
    first, other = (dict(zip(report.HEADERS, cells, strict=True)) for cells in report.cells(found))
    assert (first["steps learned from"], first["training"], first["model"]) == ("1,000", "12 s", "0.50 MB")
    assert (first["success at the end"], other["success at the end"]) == ("25 % (5-70)", "75 % (30-95)")
    assert (first["at any step"], first["difference to the first"], first["steps"], first["path"]) == (
        "100 % (51-100)",
        "-",
        "10",
        "5",
    )
    assert first["ms per action"] == "6 / 1 / 201"  # mean, half of all, 99 % of all
    assert first["return"] == "-10.0 (-10.0 to -10.0)"
    assert other["steps"] == "5" and other["path"] == "2.75" and other["return"].startswith("-5.5 (-6.")
    # McNemar's exact: both of the two episodes that one alone has solved are the second's.
    assert other["difference to the first"].startswith("+50 % (") and other["difference to the first"].endswith(
        "), p .500"
    )
    low, high = (float(text) for text in other["difference to the first"].split("(")[1].split(")")[0].split(" to "))
    assert low < 0 < 50 < high
    assert found.same_starts and "seeds 0 to 3" in report.caption(found)


def test_the_command_prints_the_table_and_writes_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    assert main(["compare", ENV, "--agents", "random,contestants:Straight_", "--out", str(out)]) == 2
    assert "contestants:Straight_" in capsys.readouterr().err
    command = ["compare", ENV, "--agents", "random,contestants:STRAIGHT", "--episodes", "3", "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "STRAIGHT" in printed and "difference to the first" in printed
    assert {path.name for path in out.iterdir()} == {
        "episodes",
        *(f"report.{s}" for s in ("md", "csv", "json", "png")),
    }


def test_reports_that_this_comparison_does_not_have_are_removed(tmp_path: Path):
    stale = ["seeds.md", "seeds.csv", "seeds.json", "seeds.png", "curves.png"]
    for name in (*stale, "seeds.txt"):
        (tmp_path / name).write_text("of another comparison")
    assert main(["compare", ENV, "--agents", "random", "--episodes", "1", "--out", str(tmp_path)]) == 0
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"seeds.txt", "episodes", *(f"report.{suffix}" for suffix in ("md", "csv", "json", "png"))}


def test_no_table_is_wider_than_a_terminal():
    """With longest figures of successes: no column is cut where names are short enough."""
    rows = [f"sac@50000 #{place}" for place in range(2)]
    scores = {name: [0.25, 0.75] for name in rows}
    assert set(chain(*report.TABLES.values())) == set(range(len(report.HEADERS)))
    longest = {
        "steps learned from": "50,000",
        "training": "12345 s",
        "success at the end": "100 % (100-100)",
        "at any step": "100 % (100-100)",
        "difference to the first": "+100 % (-100 to +100), p < .001",
        "return": "-100.0 (-100.0 to -100.0)",
        "steps": "100",
        "path": "1.23",
        "ms per action": "0.061 / 0.057 / 0.11",
        "model": "12.34 MB",
    }
    cells = ["sac@50000 #0", *longest.values()]
    parts = [
        [[report.HEADERS[column] for column in part], [cells[column] for column in part]]
        for part in report.TABLES.values()
    ]
    for header, *body in (*parts, *seeds_report.tables(scores).values()):
        shown = table(*header)
        for line in body:
            shown.add_row(*line)
        assert shown.__rich_measure__(Console(), Console(width=200).options).maximum <= 80


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
