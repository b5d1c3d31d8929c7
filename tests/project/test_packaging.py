import ast
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AGENT = ROOT / "grasp_agent"
ENVS = ROOT / "envs" / "grasp_envs"

HEAVY = {"torch", "stable_baselines3", "gymnasium", "mujoco", "scipy", "imageio", "numpy"}
DISTRIBUTIONS = {"PIL": "pillow", "stable_baselines3": "stable-baselines3"}
OPTIONAL = {"yaml", "optuna", "ray", "ogbench"}  # comes with RL Zoo, of which it reads a file; extras
# imageio loads its ffmpeg, and Stable-Baselines3 its progress bar, from packages without an import here.
INDIRECT = {"imageio-ffmpeg", "tqdm"}


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imports(path: Path, top_level: bool = False) -> Iterator[str]:
    """Full names of all that a file imports when it runs, wherever in it, or only what importing the file loads."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    of_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in block.body
    }
    for node in tree.body if top_level else ast.walk(tree):
        if id(node) in of_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(AGENT / "cli"), ids=lambda path: path.name)
def test_the_command_line_loads_no_heavy_module_before_it_knows_the_command(path):
    loaded = {module.split(".")[0] for module in imports(path, top_level=True)}
    assert not loaded & HEAVY


def test_importing_has_no_side_effects():
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules(AGENT)]
    script = f"""
import os, sys
import torch, stable_baselines3, gymnasium, scipy.stats, safetensors.torch
import imageio, PIL.ImageFont, rich.progress, tyro
before, touched = dict(os.environ), []
def watch(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.system")):
        touched.append((event, arguments))
    if event == "open" and str(arguments[0]).startswith({str(ROOT)!r}):
        if not str(arguments[0]).endswith((".py", ".pyc")) and "__pycache__" not in str(arguments[0]):
            touched.append((event, arguments))
sys.addaudithook(watch)
import grasp_envs, {", ".join(names)}
assert not touched, touched
assert dict(os.environ) == before
assert not torch.cuda.is_initialized()
assert "mujoco" not in sys.modules
"""
    path = f"{ROOT}:{ROOT / 'envs'}"
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": path, "PATH": ""}, timeout=120)


def declared(group: str) -> set[str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(rf"^{group} = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    return set(re.findall(r'"([a-z0-9-]+)>=', block[1]))


def test_the_package_depends_exactly_on_its_imports():
    paths = [*modules(AGENT), *modules(ENVS)]
    names = {name.split(".")[0] for path in paths for name in imports(path)}
    foreign = names - set(sys.stdlib_module_names) - {"grasp_agent", "grasp_envs"} - OPTIONAL
    assert {DISTRIBUTIONS.get(name, name) for name in foreign} | INDIRECT == declared("dependencies")


def test_every_dependency_is_pinned_and_torch_comes_first():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins[0] == "torch==2.13.0"
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+( ; python_version [<>=]+ \"[\d.]+\")?", pin) for pin in pins)
    pinned = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    groups = ("dependencies", "dev", "docs", "tune", "ogbench")
    assert set().union(*map(declared, groups)) <= pinned


def test_the_wheel_holds_every_file_of_both_packages(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {
        str(path.relative_to(package.parent))
        for package in (AGENT, ENVS)
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == files
    assert {"grasp_agent/py.typed", "grasp_envs/py.typed"} <= packed
