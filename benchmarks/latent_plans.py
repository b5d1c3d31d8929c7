"""What a plan costs for states of 1,028 and 75,000 entries: CPU time and memory of each planner that accepts them.

    python -m benchmarks.latent_plans
    python -m benchmarks.latent_plans --label before  # in a checkout of an earlier commit, with this file copied to it

The model is a network of two hidden layers with random weights, in single precision on one thread: times are of the
planners and of its products, costs mean nothing. Each row is measured in a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from benchmarks import pages
from benchmarks.learning_cost import peak_memory
from grasp_agent import planners
from grasp_agent.files import atomic_write
from grasp_agent.planners import (
    CEM,
    GRASP,
    ICEM,
    MPPI,
    Criteria,
    GaussNewton,
    GradientShooting,
    Problem,
    Relaxation,
    Tracking,
)
from grasp_agent.planners.goal import EntryGoal

Row = dict[str, Any]
NOW, BEFORE = "now", "before"
SMALL, LARGE = 1_028, 75_000
"""Entries of a state."""
HORIZON, ACTIONS, WIDTH = 8, 10, 256
SYNC = GradientShooting.sync()
PLANNERS: dict[str, Any] = {
    "CEM, 5 x 64": CEM(iterations=5, samples=64, elites=8),
    "ICEM, 5 x 64": ICEM(iterations=5, samples=64),
    "MPPI, 5 x 64": MPPI(iterations=5, samples=64),
    "GradientShooting, 50 x 8": GradientShooting(candidates=8, iterations=50, verify_every=50),
    "GRASP.paper(100)": GRASP.paper(iterations=100),
    "GRASP, gradient sync": GRASP(proposals=None, candidates=8, iterations=10, sync=SYNC),
    "GRASP, Gauss-Newton actions": GRASP(
        proposals=None, candidates=8, iterations=10, update=Relaxation(actions=GaussNewton()), sync=SYNC
    ),
    "GRASP, Tracking": GRASP(proposals=None, candidates=8, iterations=10, sync=Tracking()),
}


SLOW = ("GRASP, gradient sync", "GRASP, Gauss-Newton actions")
"""Not measured for the large state, where they take a minute and more."""


def problem(size: int) -> Problem:
    """Returns one problem for a network with random weights."""
    torch.manual_seed(0)
    shapes = (size + ACTIONS, WIDTH), (WIDTH, WIDTH), (WIDTH, size)
    weights = [torch.randn(*shape) / shape[0] ** 0.5 for shape in shapes]

    def dynamics(state: Tensor, action: Tensor) -> Tensor:
        hidden = torch.cat([state, action], -1)
        for weight in weights[:-1]:
            hidden = torch.tanh(hidden @ weight)
        return state + 0.1 * hidden @ weights[-1]

    ones, start = torch.ones(ACTIONS), torch.randn(1, size)
    target = torch.randn(1, size)
    if hasattr(planners, "DistanceGoal"):
        goal: Any = planners.DistanceGoal(target=target, tolerance=0.1)
    else:
        goal = EntryGoal(
            size=size, index=torch.arange(size), target=target, weights=torch.ones(size) / size, tolerance=0.1
        )
    criteria = Criteria(hold=1, feedback=False, accept=-1.0)
    return Problem(dynamics=dynamics, goal=goal, start=start, low=-ones, high=ones, horizon=HORIZON, criteria=criteria)


def measured(job: tuple[str, str, int]) -> Row:
    """Returns the CPU time of a plan [s], and the peak memory over that before it [MB].

    Args:
        job: label, planner and size of the state.
    """
    label, name, size = job
    torch.set_num_threads(1)
    posed, planner = problem(size), PLANNERS[name]
    planner.plan(replace(posed, horizon=1))  # loads code
    before, began = peak_memory(), time.process_time()
    planner.plan(posed)
    seconds = round(time.process_time() - began, 3)
    return {
        "label": label,
        "planner": name,
        "size": size,
        "seconds": seconds,
        "memory_mb": round(peak_memory() - before),
    }


def page(rows: list[Row]) -> str:
    """Returns the page of results."""
    lines = ["| planner | entries of a state | code | CPU time of a plan [s] | memory [MB] |", "|---|---|---|---|---|"]
    order = list(PLANNERS)
    for row in sorted(rows, key=lambda row: (row["size"], order.index(row["planner"]), row["label"])):
        cells = f"{row['label']} | {row['seconds']:.2f} | {row['memory_mb']}"
        lines.append(f"| {row['planner']} | {row['size']:,} | {cells} |")
    return pages.page(
        "Plans in large latents",
        "python -m benchmarks.latent_plans",
        f"One plan of {HORIZON} steps with {ACTIONS} actions, one thread, a network of two hidden layers of {WIDTH} "
        "with random weights. *Memory* is the peak over that before the plan. Planners that form matrices of the "
        "state's size (ILQR, Collocation, the default GRASP) refuse states of more than 256 entries. *before* is "
        "commit 36ee4a2, with all entries of the state as the goal's: derivatives were computed in as many products as "
        "the state has entries.",
        "\n".join(lines),
    )


def main(label: str = NOW, out: Path = pages.RESULTS / "latent_plans.json") -> None:
    """Measures all planners, prints and saves the rows and, for the default file, writes the page of results.

    Args:
        label: of the rows; those of other labels stay.
        out: the file.
    """
    rows = [row for row in pages.rows(out) if row["label"] != label]
    jobs = [(label, name, SMALL) for name in PLANNERS]
    if label != BEFORE:
        jobs += [(label, name, LARGE) for name in PLANNERS if name not in SLOW]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for row in pool.imap(measured, jobs):
            rows.append(row)
            print(row, flush=True)
            with atomic_write(out) as aside:
                aside.write_text(json.dumps(rows, indent=1) + "\n")
    if out == pages.RESULTS / "latent_plans.json":
        pages.publish("latent_plans", page(rows))


if __name__ == "__main__":
    tyro.cli(main)
