"""The code of the documentation runs, and its pages of results are what the scripts write."""

import importlib
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from documents import ROOT, code_blocks

import grasp_agent
from grasp_agent.cli import Command
from grasp_agent.cli.main import main as grasp

DOCS = ROOT / "docs"
# What would take too long, and what stands in its place.
SHORTER = {
    "quickstart.md": {"3000, progress_bar=True": "10", "episodes=3": "episodes=1", "episodes=2": "episodes=1"},
    "guides/files.md": {"learn(600,": "learn(10,"},
    "guides/images.md": {
        "12_000": "120",
        ", progress_bar=True": "",
        "=800": "=5",
    },
    "guides/comparing.md": {"episodes=3": "episodes=1"},
    "guides/video.md": {"episodes=4": "episodes=2"},
}
SLOW = {"guides/comparing.md", "guides/video.md"}
OWN_TESTS = {"guides/your_environment.md"}  # has tests of its own
PAGES = sorted(
    str(path.relative_to(DOCS))
    for path in DOCS.rglob("*.md")
    if code_blocks(path.read_text(encoding="utf-8")) and str(path.relative_to(DOCS)) not in OWN_TESTS
)


@pytest.mark.parametrize("page", [pytest.param(page, marks=pytest.mark.slow if page in SLOW else ()) for page in PAGES])
@pytest.mark.filterwarnings("ignore:Evaluation environment is not wrapped with a ``Monitor`` wrapper")
@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
@pytest.mark.usefixtures("brief_fits")
def test_the_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    code = "".join(code_blocks((DOCS / page).read_text(encoding="utf-8")))
    for long, short in SHORTER.get(page, {}).items():
        assert long in code, long
        code = code.replace(long, short)
    exec(compile(code, f"docs/{page}", "exec"), {"__name__": "page"})


def test_pages_with_code_are_found():
    assert {"index.md", "planners/own.md", "guides/images.md", *SHORTER} <= set(PAGES)


@pytest.mark.parametrize("page", sorted({path for path in DOCS.rglob("*.md") if "\ngrasp " in path.read_text()}))
def test_the_commands_of_a_page_are_understood(page: Path, monkeypatch: pytest.MonkeyPatch):
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("grasp ")]
    ran: list[str] = []
    for kind in Command.__subclasses__():
        monkeypatch.setattr(kind, "run", lambda self: ran.append(type(self).__name__))
    assert [grasp(shlex.split(line, comments=True)[1:]) for line in lines] == [0] * len(lines)
    assert len(ran) == len(lines) > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
def test_the_code_from_an_environment_to_a_video_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    first = code_blocks((DOCS / "guides" / "your_environment.md").read_text(encoding="utf-8"))[0]
    exec(compile(first, "docs/guides/your_environment.md block 0", "exec"), {})
    assert 0 <= float(capsys.readouterr().out.split()[-1]) <= 1
    assert (tmp_path / "swing.mp4").stat().st_size > 10_000


def test_what_the_page_says_of_push_t_is_what_push_t_offers():
    made: list[grasp_agent.GraspAgent] = []

    def keep(*args: Any, **settings: Any) -> None:
        made.append(grasp_agent.GraspAgent(*args, **settings))

    block = code_blocks((DOCS / "guides" / "goals.md").read_text(encoding="utf-8"))[1]
    names = {"GraspAgent": keep, "Frame": grasp_agent.Frame, "Structure": grasp_agent.Structure}
    exec(compile(block.split("\n", 1)[1], "docs/guides/goals.md block 1", "exec"), names)
    said, offered = made[0].structure, grasp_agent.GraspAgent("MultiInputPolicy", "grasp/PushT-v0").structure
    assert said.frame is not None and offered.frame is not None
    assert replace(said.frame, lever=1.0) == replace(offered.frame, lever=1.0)
    assert said.frame.lever == pytest.approx(offered.frame.lever, rel=1e-3)
    assert said.goal_weights == pytest.approx(offered.goal_weights, rel=1e-3) and said.rests == offered.rests


def test_the_worked_examples_are_those_that_were_measured():
    own = importlib.import_module("own_environments")
    blocks = code_blocks((DOCS / "guides" / "your_environment.md").read_text(encoding="utf-8"))
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

    public = {name: getattr(grasp_agent, name) for name in grasp_agent.__all__}
    names = {**public, "GraspAgent": Agent, "gym": SimpleNamespace(make=Made)}
    first = blocks[0].split("agent = GraspAgent.load")[0].split("import ExploreConfig, Goal, GraspAgent")[1]
    for block, code in enumerate((first, *blocks[1:])):
        exec(compile(code, f"docs/guides/your_environment.md, example block {block}", "exec"), names)
    for name, (steps, settings) in asked.items():
        example = own.EXAMPLES[name]
        said, measured = ({**s, "goal": _comparable(s.get("goal"))} for s in (settings, example.settings))
        assert (steps, said) == (example.steps, measured), name
    assert set(asked) == set(own.EXAMPLES)


def _comparable(goal: grasp_agent.Goal | None) -> Any:
    """A goal with what its function finds in place of the function."""
    if goal is None or goal.measure is None:
        return goal
    found = goal.measure(np.arange(46, dtype=np.float32).reshape(2, 23) ** 2)
    return replace(goal, measure=None, entries=tuple(range(len(goal.values)))), found.tolist()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("evaluate_bundled", "bundled"),
        ("evaluate_pixels", "wall_pixels"),
        ("evaluate_push_t", "push_t"),
        ("evaluate_push_t_pixels", "push_t_pixels"),
        ("own_environments", "own_environments"),
        ("benchmarks.ablation", "ablation"),
        ("benchmarks.encoders", "encoders"),
        ("benchmarks.learning_cost", "learning_cost"),
        ("benchmarks.learning_curves", "learning_curves"),
    ],
)
def test_a_page_of_results_is_what_its_script_writes(module: str, name: str):
    results = _results(name)
    if name.startswith("push_t"):
        results = results["results"]  # of a ledger, next to the hash of the model
    assert importlib.import_module(module).page(results) == (DOCS / "results" / f"{name}.md").read_text(
        encoding="utf-8"
    )


def test_the_pages_of_the_planner_benchmark_are_what_its_script_writes():
    report = importlib.import_module("benchmarks.report")
    results, peers = _results("benchmark"), _results("peers")
    assert report.page(results, peers) == (DOCS / "results" / "planners.md").read_text(encoding="utf-8")
    assert report.duel_page(results, peers) == (DOCS / "results" / "duel.md").read_text(encoding="utf-8")
    for name, rows in report.PLANNER_PAGES.items():
        table = (DOCS / "_generated" / f"{name}.md").read_text(encoding="utf-8")
        assert report.planner_rows(results, rows) == table
        assert f'--8<-- "_generated/{name}.md"' in (DOCS / "planners" / f"{name}.md").read_text(encoding="utf-8")


def test_every_bundled_model_was_measured_as_it_is():
    assert {name: row["sha256"] for name, row in _results("bundled").items()} == {
        name: model.sha256 for name, model in grasp_agent.bundled().items()
    }


def test_the_model_cards_are_those_of_the_files():
    script = importlib.import_module("write_model_cards")
    assert script.page() == (DOCS / "models.md").read_text(encoding="utf-8")


def test_what_is_said_of_learning_is_what_was_measured():
    runs = _results("learning_curves")
    said = " ".join((DOCS / "results" / "findings.md").read_text(encoding="utf-8").split())
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())

    def of(task: str, agent: str, steps: int) -> str:
        fractions = [run[str(steps)] for run in runs[f"grasp/{task}-v0"][agent].values()]
        assert len(fractions) == 5
        return f"{sum(fractions) / 5:.2f}".removeprefix("0")

    wall, wall_sac = of("Wall", "grasp", 4000), of("Wall", "sac", 20_000)
    maze, maze_sac = of("PointMaze", "grasp", 1600), of("PointMaze", "sac", 8000)
    early, late, arm_sac = of("Reacher", "grasp", 4000), of("Reacher", "grasp", 6000), of("Reacher", "sac", 30_000)
    assert f"Wall {wall} after 4,000 steps, SAC + HER {wall_sac} after 20,000." in said
    assert f"PointMaze {maze} after 1,600 steps, SAC + HER {maze_sac} after 8,000." in said
    assert f"Reacher {early} after 4,000 and {late} after 6,000, SAC + HER {arm_sac} after 30,000." in said
    assert f"Wall {wall} after 4,000 steps (SAC + HER {wall_sac} after 20,000)" in readme
    assert f"PointMaze {maze} after 1,600 ({maze_sac} after 8,000)" in readme


def _results(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def test_every_public_name_has_its_place_in_the_reference():
    """`make docs` checks the built site; this checks the sources, without the site's packages."""
    text = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    listed = set(re.findall(r"^::: (\S+)", text, re.MULTILINE))
    for found in re.finditer(r"^::: (\S+)\n    options:.*?members: \[([^\]]*)\]", text, re.MULTILINE | re.DOTALL):
        listed |= {f"{found[1]}.{name.strip()}" for name in found[2].split(",")}
    for module in ("grasp_agent", "grasp_agent.planners", "grasp_agent.models", "grasp_agent.task"):
        public = importlib.import_module(module)
        for name in public.__all__:
            folder = ".".join(getattr(getattr(public, name), "__module__", module).split(".")[:2])
            assert {f"{module}.{name}", f"grasp_agent.{name}", f"{folder}.{name}"} & listed, f"{module}.{name}"
