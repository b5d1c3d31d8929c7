"""The package's layout: which folder may import which, and how large files and functions may be."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AGENT, ENVS = ROOT / "grasp_agent", ROOT / "envs" / "grasp_envs"

FOLDERS = (
    "cli",
    "video",
    "evaluation",
    "execution",
    "zoo",
    "agent",
    "models",
    "replay",
    "task",
    "planners",
    "serialization",
    "reading",
    "files",
    "locks",
    "interruption",
    "validation",
)
"""Each may import from those behind it, never from those before it; imports for type checkers count."""

MODULES = sorted(AGENT.rglob("*.py"))


def name_of(path: Path) -> str:
    """Dotted name of a module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(path): path for path in MODULES}


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def home(module: str, name: str) -> str:
    """The module that an imported name really comes from: a package's face only hands it on."""
    if f"{module}.{name}" in FILES:
        return f"{module}.{name}"
    if FILES[module].name != "__init__.py":
        return module
    for node in tree(module).body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("grasp_agent"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return home(str(node.module), alias.name)
    return module


def imported(name: str) -> Iterator[str]:
    """Modules of the package that a module imports, wherever in it, for type checkers too."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "grasp_agent":
            yield from (home(str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("grasp_agent.") for alias in node.names), "import names from modules"


def folder(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("name", [name for name in FILES if folder(name)])
def test_folders_import_in_one_direction(name: str):
    assert folder(name) in FOLDERS, f"add {folder(name)} to FOLDERS"
    others = set(imported(name))
    assert folder(name) == "cli" or "grasp_agent" not in others, f"{name} imports the package that imports it"
    wrong = [other for other in others if other != "grasp_agent" and _before(other, name)]
    assert not wrong, f"{name} imports {wrong[0]}"


def _before(other: str, name: str) -> bool:
    return FOLDERS.index(folder(other)) < FOLDERS.index(folder(name))


def test_no_files_import_each_other_in_a_circle():
    faces = {name for name, path in FILES.items() if path.name == "__init__.py" and "zoo." not in name}
    graph = {name: set(imported(name)) - {name} for name in FILES if name not in faces}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("path", sorted((AGENT / "planners").rglob("*.py")), ids=lambda path: path.name)
def test_planners_need_only_torch(path: Path):
    for top in _tops(path):
        assert top in {"torch", "grasp_agent"} or top in sys.stdlib_module_names, top
    assert {folder(other) for other in imported(name_of(path))} <= {"planners", "validation"}


@pytest.mark.parametrize("path", sorted(ENVS.rglob("*.py")), ids=lambda path: path.name)
def test_environments_do_not_import_the_agent(path: Path):
    assert "grasp_agent" not in _tops(path)


def _tops(path: Path) -> set[str]:
    """Top-level packages that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= (250 if path == AGENT / "agent" / "agent.py" else 320)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name
