"""Planning time on near goals, where all planners succeed: ours and those of other libraries, in their own code.

    python -m benchmarks.peers.near                     # all tasks; those already measured are left out
    python -m benchmarks.peers.near --tasks reacher     # one of them

Writes `benchmarks/results/peers_near.json` and `docs/results/peers_near.md`. Each task is measured by one process on
one thread, in an environment with all the libraries under `runs/peers/all`, made as in `benchmarks.peers.run`. Each
planner has the cheapest setting that, on tuning episodes (seeds from 5000), fails no more often than ours; then all
planners play the same reported episodes (seeds from 60000) in turn. Times are processor times.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tqdm import tqdm

from benchmarks import pages
from benchmarks.peers.near_tasks import HORIZON, LIMIT, NEAREST, TASKS
from benchmarks.peers.near_worker import (
    COMMITS,
    DEAREST,
    ITERATIONS,
    OURS,
    PEERS,
    RUNNING,
    SAMPLES,
    SIGMAS,
    TEMPERATURES,
    TUNING,
)
from benchmarks.peers.run import ROOT, environment
from benchmarks.report import mcnemar, rate

COMMAND = "python -m benchmarks.peers.near"
OWN = (OURS, "predict")
UNEQUAL = 0.05
"""A peer with less success than ours by a p-value below this one does not count as equal."""
Row = dict[str, Any]


def measured(python: Path, task: str, episodes: int, tuning: int) -> Row:
    """Returns the entries of a task, from a process in the libraries' environment.

    Raises:
        subprocess.CalledProcessError: if the process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "entries.json"
        arguments = {"task": task, "episodes": episodes, "tuning": tuning, "output": output}
        subprocess.run(
            [
                *(str(python), "-m", "benchmarks.peers.near_worker"),
                *(part for name, value in arguments.items() for part in (f"--{name}", str(value))),
            ],
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "envs")]), "OMP_NUM_THREADS": "1"},
        )
        return json.loads(output.read_text())


def per_solved(row: Row) -> float:
    """Returns the time of planning in all episodes for each solved one [ms]; infinite if none was solved."""
    return 1000 * sum(row["seconds"]) / sum(row["success"]) if any(row["success"]) else float("inf")


def best_peer(planners: dict[str, Row], ours: Row, *, strict: bool) -> str | None:
    """Returns the peer with the least time among those whose success is at least that of ours; None if none is.

    Without `strict`, success that is less, but not by p < `UNEQUAL`, will do.
    """
    equal = [
        name
        for name in PEERS
        if sum(planners[name]["success"]) >= sum(ours["success"])
        or (not strict and mcnemar(ours["success"], planners[name]["success"]) >= UNEQUAL)
    ]
    return min(equal, key=lambda name: per_solved(planners[name]), default=None)


def task_table(planners: dict[str, Row]) -> str:
    """Returns Markdown with a line for each planner."""
    lines = [
        "| planner | success at the end | ms per solved episode | ms per plan | plans per episode | setting |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in planners.items():
        label = f"*{name}*, {row['version']}" if name in PEERS else name
        plans = sum(row["plans"])
        solved = f"{per_solved(row):.1f}" if any(row["success"]) else "-"
        lines.append(
            f"| {label} | {rate(row['success'])} | {solved} | {1000 * sum(row['seconds']) / plans:.1f} "
            f"| {plans / len(row['plans']):.1f} | {setting_of(name, row)} |"
        )
    return "\n".join(lines)


def setting_of(name: str, row: Row) -> str:
    """Returns what was chosen, and the tuning episodes solved with it."""
    setting, found = row.get("setting"), row.get("tuning")
    parts = [] if "commit" not in row else [f"executes {row['commit']} of a plan"]
    if setting is not None:
        named = ("samples", "iterations", "sigma", *(("temperature",) if name == "pytorch-mppi" else ()))
        parts = [*(f"{part} {setting[part]:g}" for part in named), f"weight {row['running']:g}", *parts]
    if found is not None:
        parts.append(f"tuning {found['solved']} of {found['of']}, {found['candidates']} candidates")
    return "; ".join(parts)


def verdict_table(results: dict[str, Row]) -> str:
    """Returns Markdown with the time of ours as a fraction of the best peer's, for each task."""
    lines = [
        "| task | ours | fastest peer, success not significantly less | ours / peer | fastest peer, success no less "
        "| ours / peer |",
        "|---|---|---|---|---|---|",
    ]
    for task, result in results.items():
        planners = result["planners"]
        for name in OWN:
            cells = [f"{task} | {name}, {shown(planners[name])}"]
            for strict in (False, True):
                best = best_peer(planners, planners[name], strict=strict)
                ratio = 0.0 if best is None else per_solved(planners[name]) / per_solved(planners[best])
                cells.append("none | " if best is None else f"{best}, {shown(planners[best])} | {ratio:.2f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(row: Row) -> str:
    """Returns success and time."""
    return f"{np.mean(row['success']):.2f}, {per_solved(row):.1f} ms"


def page(results: dict[str, Row]) -> str:
    """Returns the page of results."""
    parts = [
        f"Starts and goals whose distance is in the nearest {NEAREST:.0%} of the environment's own, with no wall on "
        f"the straight line. The bundled models are frozen; plans have {HORIZON} actions, episodes {LIMIT} steps. All "
        "planners replan in the same loop, and the actions are executed as they are; peers (in italics) run in their "
        f"own code. *{OURS}* is the default planner of the bundled agents in that loop. *predict* is the agent's own "
        "loop with the same horizon, and, in another row, with the agent's own horizon: it keeps an accepted plan, "
        "follows it with feedback, and all that it computes is counted. *nothing* and *random* show what the task "
        "asks for.",
        "Times are processor times on one thread of a busy machine; planners play each episode in turn, so other "
        "work slows all alike. Time for each solved episode is that of all plans in all episodes, divided by the "
        "solved ones. To pose the problem is not counted, but for *predict*.",
        "The objective is the greatest distance to the goal in the last 6 steps of a plan, plus a weight times the "
        "mean distance along it, both in tolerances; ours has the default weight of 0.1. Each peer has the cheapest "
        "setting that fails no more often than ours in tuning episodes; where there is none, the better half is "
        f"allowed more failures, and so on, for {TUNING:g} s; then the one that did best counts. It is chosen of "
        f"{_listed(SAMPLES)} samples with an eighth of elites (at least 4), {_listed(ITERATIONS)} iterations, a first "
        f"standard deviation of {_listed(SIGMAS)}, weights of {_listed(RUNNING)}, for MPPI temperatures of "
        f"{_listed(TEMPERATURES)}, and {_listed(COMMITS)} executed actions of each plan, as far as planning takes at "
        f"most {DEAREST:g} times as long as ours. For {OURS} only the number of executed actions is chosen. "
        "pytorch-icem draws noise without a seed.",
        "The first table compares ours with the fastest peer whose success is not less by p < 0.05 (McNemar's exact "
        "test), and with the fastest one whose success is no less; the aim is a ratio of at most 0.5.",
        verdict_table(results),
    ]
    for task, result in results.items():
        episodes = len(result["planners"][OURS]["success"])
        head = f"## {task}: {episodes} episodes, distance at most {result['nearest']:.3f} m"
        parts += [head, task_table(result["planners"])]
    return pages.page("Planning time on near goals", COMMAND, *parts)


def _listed(values: tuple[float, ...]) -> str:
    return " or ".join(part for part in (", ".join(f"{value:g}" for value in values[:-1]), f"{values[-1]:g}") if part)


def main(
    episodes: int = 50,
    tuning: int = 50,
    tasks: tuple[str, ...] = tuple(TASKS),
    cache: Path = ROOT / "runs" / "peers",
) -> None:
    """Measures the tasks that the file lacks and writes the page.

    Args:
        episodes: reported episodes of each planner.
        tuning: tuning episodes of each task.
        tasks: only these.
        cache: folder of the libraries' environment.
    """
    results: dict[str, Row] = pages.read("peers_near", {})
    missing = [task for task in tasks if task not in results]
    python = environment("all", cache) if missing else None
    for task in tqdm(missing):
        assert python is not None
        results[task] = measured(python, task, episodes, tuning)
        results = {name: results[name] for name in TASKS if name in results}
        pages.keep("peers_near", results)
    print(verdict_table(results))
    pages.publish("peers_near", page(results))


if __name__ == "__main__":
    tyro.cli(main)
