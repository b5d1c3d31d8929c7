"""All planners on the same frozen models, starts, goals and criteria, at equal time.

    python -m benchmarks.planners duel      # trap and maze, 200 paired episodes
    python -m benchmarks.planners horizon   # horizons from 20 to 160, all tasks
    python -m benchmarks.planners short     # near goals without obstacles
    python -m benchmarks.planners patience  # the trap with ten and fifty times the duel's time

Resumes where it was stopped. Writes `benchmarks/results/benchmark.json`, one row of episodes for each cell; tables and
plots are made of it by `python -m benchmarks.report`. Seeds from 60000, not used for training or tuning.
One thread each.
"""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, Literal

import torch
import tyro
from tqdm import tqdm

from benchmarks import pages
from benchmarks.trials import PLANNERS, SHORT_TASKS, TASKS, Setting, trials

RESULTS = pages.RESULTS / "benchmark.json"
SEED = 60_000
HORIZONS = (20, 40, 60, 80, 120, 160)

DUEL_HORIZONS, DUEL_BUDGETS = {"trap": 50, "maze": 120}, {"trap": 0.1, "maze": 0.25}
DUEL_PLANNERS = (
    "GRASP",
    "GRASP, no roadmap",
    "iCEM",
    "iCEM, wide",
    "iCEM, roadmap",
    "CEM, coloured",
    "MPPI, coloured",
    "shooting",
    "iLQR",
    "LatCo",
)
PATIENCE = (1.0, 5.0)
"""Time limits of a plan [s]."""
HORIZON_PLANNERS = (
    "GRASP",
    "GRASP, no roadmap",
    "GRASP, published",
    "iCEM",
    "iCEM, factored",
    "CEM, coloured",
    "MPPI, coloured",
    "shooting",
    "LatCo",
)


def duel() -> tuple[list[Setting], dict[str, int]]:
    """Returns the long, non-greedy tasks, with many episodes."""
    settings = [
        Setting(task, planner, DUEL_HORIZONS[task], mode, DUEL_BUDGETS[task])
        for mode in ("open", "closed")
        for task in DUEL_HORIZONS
        for planner in DUEL_PLANNERS
    ]
    return settings, {"open": 200, "closed": 200}


def horizon() -> tuple[list[Setting], dict[str, int]]:
    """Returns the cells of success against the horizon, in the paper's form."""
    settings = [
        Setting(task, planner, length, mode, 0.2)
        for mode in ("open", "closed")
        for length in HORIZONS
        for task in TASKS
        for planner in HORIZON_PLANNERS
        if planner != "iCEM, factored" or task == "four balls"
    ]
    return settings, {"open": 10, "closed": 3}


def short() -> tuple[list[Setting], dict[str, int]]:
    """Returns the greedy tasks: goals a few steps away, without obstacles."""
    settings = [Setting(task, planner, 15, "open", 0.2) for task in SHORT_TASKS for planner in PLANNERS]
    return settings, {"open": 50}


def patience() -> tuple[list[Setting], dict[str, int]]:
    """Returns cells of one open-loop plan out of the trap, with far more time than in the duel."""
    settings = [
        Setting("trap", planner, DUEL_HORIZONS["trap"], "open", budget)
        for budget in PATIENCE
        for planner in DUEL_PLANNERS
    ]
    return settings, {"open": 20}


def measure(setting: Setting, episodes: int) -> dict[str, list[Any]]:
    """Measures one cell; returns it as columns."""
    torch.set_num_threads(1)
    rows = trials(setting, episodes, SEED)
    return {
        "end": [int(row.end) for row in rows],
        "any": [int(row.any) for row in rows],
        "steps": [row.steps for row in rows],
        "seconds": [round(row.seconds, 4) for row in rows],
        "accepted": [int(row.accepted) for row in rows],
        "iterations": [row.iterations for row in rows],
    }


STUDIES = {"duel": duel, "horizon": horizon, "short": short, "patience": patience}


def main(
    study: tyro.conf.Positional[Literal["duel", "horizon", "short", "patience"]],
    jobs: int = 2,
    tasks: tuple[str, ...] = (*TASKS, *SHORT_TASKS),
    planners: tuple[str, ...] = tuple(PLANNERS),
    episodes: int | None = None,
) -> None:
    """Measures what is missing.

    Args:
        study: name of the study.
        jobs: processes, at most one for each core; times are most accurate with one.
        tasks: only these.
        planners: only these.
        episodes: another number of episodes for each cell.
    """
    settings, counts = STUDIES[study]()
    results: dict[str, Any] = pages.read("benchmark", {})
    known = results.setdefault(study, {})
    open_cells = [
        (setting, episodes or counts[setting.mode])
        for setting in settings
        if setting.task in tasks and setting.planner in planners and setting.key not in known
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool, tqdm(total=len(open_cells)) as bar:
        running = {pool.submit(measure, setting, count): setting for setting, count in open_cells}
        try:
            for done in as_completed(running):
                known[running[done].key] = done.result()
                pages.write(RESULTS, json.dumps(results) + "\n")
                bar.update()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise SystemExit("stopped; finished cells are kept") from None


if __name__ == "__main__":
    tyro.cli(main)
