"""Planners of other libraries on the same frozen models, starts, goals, bounds and objective as ours.

    python -m benchmarks.peers.run                   # all peers and tasks; resumes where it was stopped
    python -m benchmarks.peers.run --tasks trap --peers pytorch-mppi torch-world-cem

Writes `benchmarks/results/peers.json`: per `task/peer/setting/mode` the success of each episode (seeds from 60000; at
the end, and at any step), the median time of a plan [s] and its setting, in how many episodes the peer kept to the
bounds by itself, or the reason why it could not be run. Modes: `open` executes one plan without feedback, `closed`
replans every `commit` steps until the time limit. Settings: `equal-time` has the published number of samples and as
many iterations as fit the task's time per plan; `equal-time-few` has fewer samples and more iterations instead;
`default` is the published setting, whatever time it takes, on fewer episodes. One thread each.

Each library is installed from PyPI into an environment of its own under `runs/peers`. To take torch from elsewhere, set
pip's own variables, for example `PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tyro
from tqdm import tqdm

import grasp_agent
from benchmarks import pages
from benchmarks.peers.adapters import SOLVERS
from benchmarks.peers.worker import MODES, TASKS, SettingName

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
SETTINGS: tuple[SettingName, ...] = ("equal-time", "equal-time-few", "default")
OWN_NEEDS = ("gymnasium", "stable-baselines3", "safetensors", "scipy", "tyro", "tqdm")
# The solvers need no data formats and no torchvision, which must be built for the installed version of torch.
PIP_ARGUMENTS = {
    "stable-worldmodel": (("--no-deps", "stable-worldmodel"), ("loguru",)),
    "all": (
        ("--no-deps", "stable-worldmodel"),
        ("loguru", "pytorch-mppi", "pytorch-icem", "torch-world", "mujoco"),
    ),
}


def environment(package: str, cache: Path) -> Path:
    """Returns the Python of a package's environment, or the one of `all`, which is made if it does not exist.

    Raises:
        subprocess.CalledProcessError: if a step of the installation fails.
    """
    folder = cache / package
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        pip = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
        steps = [("torch==2.13.0",), *PIP_ARGUMENTS.get(package, ((package,),)), OWN_NEEDS]
        commands = [[sys.executable, "-m", "venv", str(folder)], *([*pip, *step] for step in steps)]
        for command in commands:
            subprocess.run(command, check=True, capture_output=True, text=True)
        done.touch()
    return python


def measured(python: Path, task: str, solver: str, setting: str, episodes: int) -> dict[str, Any]:
    """Returns the entries of both modes, from a process in the peer's environment.

    Raises:
        subprocess.CalledProcessError: if the process ends without a result.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "entries.json"
        worker = [str(python), "-m", "benchmarks.peers.worker"]
        arguments = {"task": task, "solver": solver, "setting": setting, "episodes": episodes, "output": output}
        paths = os.pathsep.join([str(ROOT), str(ROOT / "envs")])
        subprocess.run(
            [*worker, *(part for name, value in arguments.items() for part in (f"--{name}", str(value)))],
            check=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
        return json.loads(output.read_text())


def entries_of(cache: Path, task: str, solver: str, setting: str, episodes: int) -> dict[str, Any]:
    """Returns the entries of both modes; where there are none, the reason."""
    try:
        python = environment(SOLVERS[solver].package, cache)
        return measured(python, task, solver, setting, episodes)
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines() or [str(error)]
        return {mode: {"error": lines[-1]} for mode in MODES}


def main(
    episodes: int = 200,
    default_episodes: int = 20,
    peers: tuple[str, ...] = tuple(SOLVERS),
    tasks: tuple[str, ...] = tuple(TASKS),
    settings: tuple[SettingName, ...] = SETTINGS,
    cache: Path = ROOT / "runs" / "peers",
) -> None:
    """Measures what is missing."""
    results: dict[str, Any] = pages.read("peers", {})
    known = grasp_agent.bundled()
    for task in tasks:
        if TASKS[task].model not in known:
            tqdm.write(f"{task}: skipped, there is no bundled model {TASKS[task].model}")
    wanted = {"default": default_episodes}
    cells = [
        (task, solver, setting)
        for setting in settings
        for task in tasks
        for solver in peers
        if TASKS[task].model in known
        and not (setting == "equal-time-few" and SOLVERS[solver].default.samples == 1)
        and any(
            len(results.get(f"{task}/{solver}/{setting}/{mode}", {}).get("success", ())) < wanted.get(setting, episodes)
            for mode in MODES
        )
    ]
    bar = tqdm(cells)
    for task, solver, setting in bar:
        bar.set_postfix_str(f"{task} {solver} {setting}")
        entries = entries_of(cache, task, solver, setting, wanted.get(setting, episodes))
        results |= {f"{task}/{solver}/{setting}/{mode}": entry for mode, entry in entries.items()}
        pages.keep("peers", results)


if __name__ == "__main__":
    tyro.cli(main)
