"""The README's code runs as it stands, and its table is the one that the script wrote."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_there_are_code_blocks():
    assert len(BLOCKS) == 3


@pytest.mark.parametrize("block", [0, 2])
def test_a_block_runs(block: int, capsys: pytest.CaptureFixture[str]):
    exec(compile(BLOCKS[block], f"README block {block}", "exec"), {})
    if block == 0:
        assert capsys.readouterr().out.strip() == "True"


@pytest.mark.slow
def test_the_training_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[1], "README block 1", "exec"), {})
    assert (tmp_path / "my-ball.zip").stat().st_size > 10_000


def test_the_table_is_what_the_script_wrote():
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") in README


def test_every_link_and_picture_exists():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_script_that_is_named_exists():
    for script in re.findall(r"python (scripts/\w+\.py)", README):
        assert (ROOT / script).is_file(), script
