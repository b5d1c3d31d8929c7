"""The code of the README and of the pages in docs runs as it stands; the README's table is what the script wrote."""

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import grasp_agent

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PLANNERS = (ROOT / "docs" / "planners.md").read_text(encoding="utf-8")
OWN = (ROOT / "docs" / "your_environment.md").read_text(encoding="utf-8")
PIXELS = (ROOT / "docs" / "pixels.md").read_text(encoding="utf-8")
COMPARING = (ROOT / "docs" / "comparing.md").read_text(encoding="utf-8")
BLOCKS, PLANNER_BLOCKS, OWN_BLOCKS, COMPARING_BLOCKS = (
    re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) for text in (README, PLANNERS, OWN, COMPARING)
)


def test_there_are_code_blocks():
    assert (len(BLOCKS), len(PLANNER_BLOCKS), len(OWN_BLOCKS), len(COMPARING_BLOCKS)) == (3, 2, 4, 2)


@pytest.mark.parametrize("block", [0, 2])
def test_a_block_runs(block: int, capsys: pytest.CaptureFixture[str]):
    exec(compile(BLOCKS[block], f"README block {block}", "exec"), {})
    if block == 0:
        assert capsys.readouterr().out.strip() == "True"


def test_the_page_on_images_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    planning, learning = re.findall(r"```python\n(.*?)```", PIXELS, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(planning, "docs/pixels.md", "exec"), names)
    assert names["env"].action_space.contains(names["action"])
    quick = {
        "12_000": "120",
        "=800": "=5",
        ", progress_bar=True": "",
        "EncoderConfig, G": "EncoderConfig, MLPConfig, G",
    }
    for long, short in {**quick, "seed=0": "seed=0, model=MLPConfig(members=2, width=16)"}.items():
        assert long in learning
        learning = learning.replace(long, short)
    exec(compile(learning, "docs/pixels.md", "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} == {"run.zip", "run.zip.pictures", "my-wall.zip"}


def test_the_planners_composed_on_the_page_are_built():
    exec(compile(PLANNER_BLOCKS[0], "docs/planners.md block 0", "exec"), {})


def test_the_custom_planner_plans():
    names: dict[str, Any] = {"__name__": "planners_page"}
    exec(compile(PLANNER_BLOCKS[1], "docs/planners.md block 1", "exec"), names)
    agent, env = names["agent"], gym.make("grasp/BallNav-v0")
    assert type(agent.planner) is names["RandomSearch"]
    observation, _ = env.reset(seed=0)
    action, _ = agent.predict(observation, episode_start=np.array([True]), deterministic=True)
    env.close()
    assert agent.action_space.contains(action)
    assert agent.last_plan.fresh
    assert len(agent.last_plan.virtual) == 0  # its state knows no virtual states


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Evaluation environment is not wrapped with a ``Monitor`` wrapper")
def test_the_page_on_comparing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for index, block in enumerate(COMPARING_BLOCKS):
        brief = block.replace("episodes=3", "episodes=1").replace("episodes=4", "episodes=2")
        exec(compile(brief, f"docs/comparing.md block {index}", "exec"), names)
    assert "| random | 0 |" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"beside.mp4", "grid.mp4", "search.mp4"}


@pytest.mark.slow
def test_the_training_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[1], "README block 1", "exec"), {})
    assert (tmp_path / "my-ball.zip").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
def test_the_block_from_an_environment_to_a_video_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    exec(compile(OWN_BLOCKS[0], "docs/your_environment.md block 0", "exec"), {})
    assert 0 <= float(capsys.readouterr().out.split()[-1]) <= 1
    assert (tmp_path / "swing.mp4").stat().st_size > 10_000


def test_statements_on_push_t_match_the_environment():
    made: list[grasp_agent.GraspAgent] = []

    def keep(*args: Any, **settings: Any) -> None:
        made.append(grasp_agent.GraspAgent(*args, **settings))

    exec(compile(OWN_BLOCKS[1], "docs/your_environment.md block 1", "exec"), {"GraspAgent": keep})
    stated, offered = made[0].structure, grasp_agent.GraspAgent("MultiInputPolicy", "grasp/PushT-v0").structure
    assert stated.frame is not None and offered.frame is not None
    assert replace(stated.frame, lever=1.0) == replace(offered.frame, lever=1.0)
    assert stated.frame.lever == pytest.approx(offered.frame.lever, rel=1e-3)
    assert stated.goal_weights == pytest.approx(offered.goal_weights, rel=1e-3) and stated.rests == offered.rests


def test_the_worked_examples_match_the_measured_ones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    own = importlib.import_module("own_environments")
    asked: dict[str, Any] = {}

    class Agent:
        def __init__(self, policy: str, env: Any, **settings: Any) -> None:
            self.name, self.settings = getattr(env, "name", env), settings

        def learn(self, steps: int, **_: Any) -> None:
            self.settings.pop("seed", None)
            asked[self.name] = (steps, self.settings)

    class Made:
        def __init__(self, name: str, **options: Any) -> None:
            self.name = name
            assert options == own.EXAMPLES[name].options

    fake = SimpleNamespace(make=Made)
    names = {
        "GraspAgent": Agent,
        "gym": fake,
        **{n: getattr(grasp_agent, n) for n in grasp_agent.__all__ if n[0] != "G"},
    }
    names["Goal"] = grasp_agent.Goal
    first = (
        OWN_BLOCKS[0]
        .split("agent = GraspAgent.load")[0]
        .split("from grasp_agent import ExploreConfig, Goal, GraspAgent")[1]
    )
    for block, code in enumerate((first, OWN_BLOCKS[2], OWN_BLOCKS[3])):
        exec(compile(code, f"docs/your_environment.md, example block {block}", "exec"), names)
    for name, (steps, settings) in asked.items():
        example = own.EXAMPLES[name]
        stated, measured = ({**s, "goal": _comparable(s.get("goal"))} for s in (settings, example.settings))
        assert (steps, stated) == (example.steps, measured), name
    assert set(asked) == set(own.EXAMPLES)
    assert (ROOT / "docs" / "own_environments.md").read_text(encoding="utf-8") in OWN


def _comparable(goal: grasp_agent.Goal | None) -> Any:
    """A goal with the values of its function in place of the function."""
    if goal is None or goal.measure is None:
        return goal
    found = goal.measure(np.arange(46, dtype=np.float32).reshape(2, 23) ** 2)
    return replace(goal, measure=None, entries=tuple(range(len(goal.values)))), found.tolist()


def test_the_table_is_what_the_script_wrote():
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") in README


def test_the_page_on_images_shows_the_measured_results():
    docs = ROOT / "docs"
    assert (docs / "push_t_pixels.md").read_text(encoding="utf-8") in (docs / "pixels.md").read_text(encoding="utf-8")


def test_statements_on_time_match_the_measurements():
    figures = json.loads((ROOT / "docs" / "times.json").read_text(encoding="utf-8"))
    assert {"demo", "test", "training"} <= set(figures)
    stated = README.split("<!-- times: ")[1].split("\n", 1)[1].split("\n\n")[0]
    for part, name in (("demo", "`make demo`"), ("test", "`make test`"), ("training", "the training below")):
        assert f"{name} {figures[part] / 60:.1f} minutes" in stated


@pytest.mark.parametrize("name", ["learning_cost", "encoders"])
def test_the_tables_of_studies_are_those_of_their_figures(name: str):
    study = importlib.import_module(f"benchmarks.{name}")
    rows = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    assert study.table(rows).strip() in (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def test_every_bundled_model_has_its_row_and_was_measured_as_it_is():
    results = json.loads((ROOT / "docs" / "results.json").read_text(encoding="utf-8"))
    assert {name: row["sha256"] for name, row in results.items()} == {
        name: model.sha256 for name, model in grasp_agent.bundled().items()
    }


def test_the_duel_is_what_the_script_wrote():
    assert (ROOT / "docs" / "duel.md").read_text(encoding="utf-8") in README


def test_statements_on_learning_match_the_measurements():
    runs = json.loads((ROOT / "videos" / "learning_curve.json").read_text(encoding="utf-8"))
    stated = README.split("From nothing, `learn(N)`")[1].split("## ")[0]

    def measured(task: str, agent: str, steps: int) -> str:
        rates = [run[str(steps)] for run in runs[f"grasp/{task}-v0"][agent].values()]
        assert len(rates) == 5
        return f"{sum(rates) / 5:.2f}".removeprefix("0")

    wall, maze, arm = (
        (lambda agent, steps, task=task: measured(task, agent, steps)) for task in ("Wall", "PointMaze", "Reacher")
    )
    words = " ".join(stated.split())
    assert (
        f"Wall: {wall('grasp', 4000)} after 4,000 steps, where SAC + HER has {wall('sac', 20000)} after 20,000."
        in words
    )
    assert f"PointMaze: {maze('grasp', 1600)} after 1,600 steps, SAC + HER {maze('sac', 8000)} after 8,000." in words
    assert (
        f"Reacher: {arm('grasp', 4000)} after 4,000 and {arm('grasp', 6000)} after 6,000, SAC + HER {arm('sac', 30000)}"
        in words
    )


def test_the_comparison_is_what_the_script_wrote():
    """Every row of the README's tables is a row of the page, with fewer columns."""
    block = README.split("<!-- comparison: ")[1].split("<!-- end of the comparison -->")[0]
    page = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in block.splitlines() if line.startswith("| ")]
    full = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    assert sum(row[0] == "agent" for row in rows) == 3 and len(rows) > 15
    for row in rows:
        assert set(row) == {"---"} or any(set(row) <= set(other) and row[0] == other[0] for other in full), row
    for command in re.findall(r"`(grasp compare [^`]*)`", block):
        assert f"`{command}" in page


def test_every_link_and_image_exists():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_script_that_is_named_exists():
    for script in re.findall(r"python (scripts/\w+\.py)", README):
        assert (ROOT / script).is_file(), script
