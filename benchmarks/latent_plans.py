"""What a plan costs for states of 1,028 and 75,000 entries: CPU time and memory of each planner that accepts them.

    python -m benchmarks.latent_plans

The model is a network of two hidden layers with random weights, in single precision on one thread: times are of the
planners and of its products, costs mean nothing. Each row is measured in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks import pages
from benchmarks.learning_cost import peak_memory
from grasp_agent.planners import (
    CEM,
    GRASP,
    ICEM,
    MPPI,
    Criteria,
    DistanceGoal,
    GaussNewton,
    GradientShooting,
    Problem,
    Relaxation,
    Tracking,
)

Row = dict[str, Any]
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
    goal = DistanceGoal(target=torch.randn(1, size), tolerance=0.1)
    criteria = Criteria(hold=1, feedback=False, accept=-1.0)
    return Problem(dynamics=dynamics, goal=goal, start=start, low=-ones, high=ones, horizon=HORIZON, criteria=criteria)


def measured(job: tuple[str, int]) -> Row:
    """Returns the CPU time of a plan [s], and the peak memory over that before it [MB].

    Args:
        job: planner and size of the state.
    """
    name, size = job
    torch.set_num_threads(1)
    posed, planner = problem(size), PLANNERS[name]
    planner.plan(replace(posed, horizon=1))  # loads code
    before, began = peak_memory(), time.process_time()
    planner.plan(posed)
    seconds = round(time.process_time() - began, 3)
    return {"planner": name, "size": size, "seconds": seconds, "memory_mb": round(peak_memory() - before)}


def page(rows: list[Row]) -> str:
    """Returns the page of results."""
    lines = ["| planner | entries of a state | CPU time of a plan [s] | memory [MB] |", "|---|---|---|---|"]
    lines += [f"| {row['planner']} | {row['size']:,} | {row['seconds']:.2f} | {row['memory_mb']} |" for row in rows]
    return pages.page(
        "Plans in large latents",
        "python -m benchmarks.latent_plans",
        f"One plan of {HORIZON} steps with {ACTIONS} actions, one thread, a network of two hidden layers of {WIDTH} "
        "with random weights. *Memory* is the peak over that before the plan. Planners that form matrices of the "
        "state's size (ILQR, Collocation, the default GRASP) refuse states of more than 256 entries.",
        "\n".join(lines),
    )


def read() -> list[Row]:
    """Returns the rows of the last measurement."""
    return pages.read("latent_plans", [])


def main() -> None:
    """Measures all planners, prints and keeps the rows, and writes the page."""
    rows: list[Row] = []
    jobs = [(name, SMALL) for name in PLANNERS] + [(name, LARGE) for name in PLANNERS if name not in SLOW]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for row in pool.imap(measured, jobs):
            rows.append(row)
            print(row, flush=True)
    pages.keep("latent_plans", rows)
    pages.publish("latent_plans", page(rows))


if __name__ == "__main__":
    main()
