"""The README's code runs as it stands, and its figures are what the scripts wrote."""

import importlib
import json
import re
from pathlib import Path

import pytest
from documents import ROOT, code_blocks

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = code_blocks(README)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


def test_the_ten_lines_run_and_succeed(capsys: pytest.CaptureFixture[str]):
    exec(compile(BLOCKS[0], "README block 0", "exec"), {})
    assert capsys.readouterr().out.strip() == "True"
    assert len(BLOCKS) == 2


@pytest.mark.slow
def test_the_training_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[1], "README block 1", "exec"), {})
    assert (tmp_path / "my-ball.zip").stat().st_size > 10_000


def test_the_rows_are_what_the_script_wrote():
    script = importlib.import_module("evaluate_bundled")
    rows = json.loads((ROOT / "benchmarks" / "results" / "bundled.json").read_text(encoding="utf-8"))
    assert script.in_readme(README, rows) == README
    with pytest.raises(ValueError, match="expected one paragraph after <!-- results"):
        script.in_readme(README.replace("<!-- results:", "<!-- "), rows)
    assert all(f"| `{name}` |" in README for name in script.SHOWN)


def test_the_times_are_those_that_were_measured():
    figures = json.loads((ROOT / "benchmarks" / "results" / "times.json").read_text(encoding="utf-8"))
    assert importlib.import_module("measure_times").paragraph(figures) in README


def test_the_planners_of_the_table_are_exported():
    planners = importlib.import_module("grasp_agent.planners")
    rows = README.split("| class | idea | source |")[1].split("\n\n")[0].splitlines()[2:]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split(" | ")[0])}
    methods = {
        name
        for name in planners.__all__
        if isinstance(getattr(planners, name), type) and planners.Planner in getattr(planners, name).__mro__[1:]
    }
    assert named == methods


def test_every_link_and_image_exists():
    targets = re.findall(r"\]\((?!http)([^)]+)\)", README) + re.findall(r'src="([^"]+)"', README)
    assert len(targets) > 20
    for target in targets:
        assert (ROOT / target).exists(), target


def test_every_script_that_is_named_exists():
    for script in re.findall(r"python (scripts/\w+\.py)", README):
        assert (ROOT / script).is_file(), script
