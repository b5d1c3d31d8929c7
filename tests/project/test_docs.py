"""The code of the documentation runs, and its pages of results are what the scripts write."""

import importlib
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
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
    "guides/many_machines.md": {"steps=300": "steps=30", "episodes=5": "episodes=1"},
    "guides/rewards.md": {
        "learn(1500)": "learn(50)",
        "learning_starts=200, seed=0).learn(400)": "learning_starts=20, first_steps=5, seed=0).learn(30)",
    },
    "guides/video.md": {"episodes=4": "episodes=2"},
}
FILES = {
    "quickstart.md": {"my-ball.zip", "ball.mp4"},
    "guides/files.md": {"mine.zip", "run.zip"},
    "guides/images.md": {"run.zip", "run.zip.pictures", "my-wall.zip"},
    "guides/many_machines.md": {"trainings"},
    "guides/offline_data.md": {"from-sac.zip"},
    "guides/rewards.md": {"swing-up.zip"},
    "guides/video.md": {"ball.mp4", "beside.mp4", "grid.mp4", "search.mp4"},
}
SLOW = {"guides/comparing.md", "guides/many_machines.md", "guides/video.md"}
OWN_TESTS = {"guides/your_environment.md", "guides/ogbench.md"}  # have tests of their own


def prints_success(names: dict[str, Any], printed: str) -> None:
    assert printed.strip() == "True"


def compares(names: dict[str, Any], printed: str) -> None:
    assert "| random | 0 |" in printed


def acts_on_an_image(names: dict[str, Any], printed: str) -> None:
    assert gym.make("grasp/Wall-v0").action_space.contains(names["action"])


def plans_with(kind: str) -> Callable[[dict[str, Any], str], None]:
    """The agent of the page plans with the page's own code."""

    def outcome(names: dict[str, Any], printed: str) -> None:
        agent, env = names["agent"], gym.make("grasp/BallNav-v0")
        made = agent.planner if kind == "RandomSearch" else agent.planner.proposals
        assert made is names[kind] or type(made) is names[kind]
        observation, _ = env.reset(seed=0)
        action, _ = agent.predict(observation, episode_start=np.array([True]), deterministic=True)
        env.close()
        assert agent.action_space.contains(action)
        assert agent.last_plan.fresh
        assert (len(agent.last_plan.virtual) == 0) == (kind == "RandomSearch")  # its state has no virtual states

    return outcome


OUTCOMES = {
    "index.md": prints_success,
    "quickstart.md": compares,
    "guides/comparing.md": compares,
    "guides/images.md": acts_on_an_image,
    "planners/own.md": plans_with("RandomSearch"),
    "planners/proposals.md": plans_with("zeros"),
}
PAGES = sorted(
    str(path.relative_to(DOCS))
    for path in DOCS.rglob("*.md")
    if code_blocks(path.read_text(encoding="utf-8")) and str(path.relative_to(DOCS)) not in OWN_TESTS
)


@pytest.mark.parametrize("page", [pytest.param(page, marks=pytest.mark.slow if page in SLOW else ()) for page in PAGES])
@pytest.mark.filterwarnings("ignore:Evaluation environment is not wrapped with a ``Monitor`` wrapper")
@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
@pytest.mark.usefixtures("brief_fits")
def test_the_code_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    code = "".join(code_blocks((DOCS / page).read_text(encoding="utf-8")))
    for long, short in SHORTER.get(page, {}).items():
        assert long in code, long
        code = code.replace(long, short)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(code, f"docs/{page}", "exec"), names)
    if page in OUTCOMES:
        OUTCOMES[page](names, capsys.readouterr().out)
    assert {path.name for path in tmp_path.iterdir()} == FILES.get(page, set())


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
        ("benchmarks.cluster", "cluster"),
        ("benchmarks.encoders", "encoders"),
        ("benchmarks.image_planners", "image_planners"),
        ("benchmarks.latency", "latency"),
        ("benchmarks.latent_plans", "latent_plans"),
        ("benchmarks.latent_ablation", "latent_ablation"),
        ("benchmarks.learning_cost", "learning_cost"),
        ("benchmarks.learning_curves", "learning_curves"),
        ("benchmarks.peers.near", "peers_near"),
        ("benchmarks.training_seeds", "training_seeds"),
        ("benchmarks.tuned", "tuned"),
        ("benchmarks.unseen_mazes", "unseen_mazes"),
        ("benchmarks.ogbench_mazes", "ogbench_mazes"),
        ("benchmarks.exploration", "exploration"),
        ("benchmarks.contacts", "contacts"),
        ("benchmarks.rewards", "rewards"),
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
    documented = [found for name in listed if (found := _found(name)) is not None]
    for module in ("grasp_agent", "grasp_agent.planners", "grasp_agent.models", "grasp_agent.task"):
        for name in (public := importlib.import_module(module)).__all__:
            assert f"{module}.{name}" in listed or getattr(public, name) in documented, f"{module}.{name}"


def _found(name: str) -> Any:
    """The object of a dotted name; None for a module."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError):
        return None


def test_the_comparison_is_that_of_its_figures():
    results = _results("comparison")
    page = (DOCS / "results" / "comparison.md").read_text(encoding="utf-8")
    for env_id, rows in results.items():
        part = page.split(f"`grasp compare {env_id} --agents ")[1].split("`grasp compare")[0]
        lines = {line.split(" | ")[0].strip("| "): line for line in part.splitlines() if line.startswith("| ")}
        assert [*lines][1:] == [row["agent"] for row in rows]
        for row in rows:
            low, high = (round(100 * row[f"success_end_{end}"]) for end in ("low", "high"))
            assert f" {100 * row['success_end']:.0f} % ({low}-{high}) " in lines[row["agent"]]
    success = {(env_id, row["agent"]): row["success_end"] for env_id, rows in results.items() for row in rows}
    trap, maze = "grasp/BallNavTrap-v0", "grasp/PointMaze-v0"  # what the README says of ten times the steps
    assert success[trap, "sac@300000"] == success[trap, "grasp@30000"]
    assert success[maze, "sac@20000"] > success[maze, "grasp@2000"]


def test_every_document_that_the_code_names_exists():
    files = [
        path
        for folder in ("grasp_agent", "envs", "scripts", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.py")
    ]
    named = {name for path in files for name in re.findall(r"docs/[\w/]+\.md", path.read_text(encoding="utf-8"))}
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).exists() and "NAME" not in name] == []
