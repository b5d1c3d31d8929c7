"""The scripts of `examples/` run, briefly."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from documents import ROOT

from grasp_agent import EncoderConfig

EXAMPLES = ROOT / "examples"


pytestmark = pytest.mark.usefixtures("brief_fits")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(name: str, **brief: Any) -> Any:
    """What `main` of an example returns."""
    return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="example")["main"](**brief)


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
def test_train_and_save(folder: Path):
    assert 0 <= run("train_and_save", steps=10, episodes=1) <= 1
    assert {path.name for path in folder.iterdir()} == {"ball-run.zip", "ball.zip"}


def test_compare_with_sac(folder: Path):
    written = run("compare_with_sac", episodes=2)
    assert [line.split(" | ")[0] for line in written.splitlines() if line.startswith("| ")][1:] == [
        "| GRASP",
        "| SAC",
        "| random",
    ]
    assert (folder / "trap" / "report.md").read_text(encoding="utf-8") == written


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
def test_your_environment(folder: Path):
    assert 0 <= run("your_environment", steps=30, episodes=1) <= 1
    assert {path.name for path in folder.iterdir()} == {"cart.zip", "cart.mp4"}


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
def test_images(folder: Path):
    assert 0 <= run("images", steps=120, episodes=1, encoder=EncoderConfig(gradient_steps=5)) <= 1
    assert (folder / "wall-images.zip").stat().st_size > 10_000


@pytest.mark.slow
def test_own_world_model(folder: Path):
    assert 0 <= run("own_world_model", episodes=20, seconds=2, tests=1) <= 1
    assert {path.name for path in folder.iterdir()} == {"token-model.pt", "own-world-model.mp4"}


def test_other_models():
    found = run("other_models", seconds=1, episodes=1, updates=5)
    assert set(found) == {"physics", "flat latents"}


@pytest.mark.filterwarnings("ignore")
def test_dask_cluster():
    written = run("dask_cluster", episodes=2)
    assert written.count("2 episodes") == 1 and "| random |" in written


@pytest.mark.slow
def test_video(folder: Path):
    run("video", size=120, episodes=2)
    assert {path.name for path in folder.iterdir()} == {"trap.mp4", "beside.mp4", "grid.mp4", "search.mp4"}


def test_every_example_is_in_the_list_and_has_a_test():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert {f"test_{name}" for name in names} <= {name for name, value in globals().items() if callable(value)}
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"({name}.py)" in readme for name in names)
