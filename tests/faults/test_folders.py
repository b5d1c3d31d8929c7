"""Folders of strangers in which a comparison continues: nothing outside them is written, and no code in them runs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from grasp_agent.cli.main import main
from grasp_agent.evaluation import report, training
from grasp_agent.evaluation.cache import Store
from grasp_agent.evaluation.compare import Comparison, compare

ENV = "grasp/BallNav-v0"
NAMES = ["report.md", "report.png", "curves.png", "episodes", "models", "episodes/0.json", "models/a/checkpoint.zip"]


def command(*arguments: str, folder: Path) -> list[str]:
    return ["compare", ENV, "--episodes", "1", "--out", str(folder), *arguments]


@pytest.fixture(scope="session")
def played() -> Comparison:
    return compare(ENV, ["random"], episodes=1)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder, in which there is one file."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "file").write_text("old")
    return folder


def linked(tmp_path: Path, victim: Path, name: str) -> Path:
    """A folder in which a name leads to the victim."""
    link = tmp_path / "theirs" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(victim / "file" if link.suffix else victim)
    return link


@pytest.mark.parametrize("name", NAMES)
def test_a_link_in_a_folder_is_refused_before_anything_is_played(
    name: str, victim: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    link = linked(tmp_path, victim, name)
    assert main(command("--agents", "random", folder=tmp_path / "theirs")) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(link) in said and "expected no link" in said
    assert [(path.name, path.read_text()) for path in victim.iterdir()] == [("file", "old")]
    assert [path for path in (tmp_path / "theirs").rglob("*") if path.is_file() and not path.is_symlink()] == []


def test_the_library_refuses_links_too(victim: Path, tmp_path: Path, played: Comparison):
    theirs = tmp_path / "theirs"
    uses: dict[str, Any] = {
        "episodes": lambda: Store(theirs / "episodes", {}),
        "report.csv": lambda: report.write(played, theirs),
        "models/ppo-20-0/20.zip": lambda: training.train_agent(
            training.TrainingTask("ppo", "Pendulum-v1", 20), theirs / "models"
        ),
    }
    for name, use in uses.items():
        link = linked(tmp_path, victim, name)
        with pytest.raises(ValueError, match="expected no link") as refused:
            use()
        assert str(link) in str(refused.value)
        shutil.rmtree(theirs)
    assert [(path.name, path.read_text()) for path in victim.iterdir()] == [("file", "old")]


def test_a_folder_that_is_itself_a_link_is_the_users_own_choice(tmp_path: Path):
    (tmp_path / "large-disk").mkdir()
    (tmp_path / "comparison").symlink_to("large-disk")
    assert main(command("--agents", "random", folder=tmp_path / "comparison")) == 0
    assert (tmp_path / "large-disk" / "report.md").is_file()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The current folder, with a module that hides one of the standard library."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part not in ("", ".")])
    (tmp_path / "antigravity.py").write_text("raise SystemExit('ran code')\n")
    return tmp_path


def test_a_file_with_a_planner_lets_no_code_in_the_folder_run(here: Path, agent_file: Path):
    shutil.copy(agent_file, here / "their.zip")
    assert main(command("--agents", "icem:their.zip", folder=here / "out")) == 0
    assert not {"", "."} & set(sys.path)


def test_an_object_in_the_folder_is_found_behind_installed_modules(here: Path):
    (here / "my_agents.py").write_text(
        "class Still:\n"
        "    def __init__(self, env): self.space = env.action_space\n"
        "    def predict(self, observation, state=None, episode_start=None, deterministic=False):\n"
        "        return 0 * self.space.sample(), None\n"
    )
    assert main(command("--agents", "my_agents:Still", folder=here / "out")) == 0
    assert sys.path[-1] == "" and "" not in sys.path[:-1]
