"""CPU time, memory and success of `learn(N)` over training seeds, next to SAC + HER at equal steps.

    python -m benchmarks.learning_cost                               # all tasks, seeds 0 to 4
    python -m benchmarks.learning_cost --task grasp/BallNav-v0 --steps 200 --seeds 0
    python -m benchmarks.learning_cost --label before --out costs.json  # in a checkout of another commit

Each (label, task, steps, seed) is a fresh agent with default settings in a process of its own, on one thread, as a user
would call `learn(N)`; it is evaluated on 30 episodes with seeds from 30000. Rows are appended to a JSON file; existing
ones are not measured again. Resting and random actions are evaluated on the same episodes. To measure another commit,
run this file and `mazes.py`, copied to the `benchmarks/` of its checkout.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from tqdm import tqdm

from benchmarks import mazes, pages
from grasp_agent import GraspAgent, evaluate
from grasp_agent.files import atomic_write
from grasp_agent.zoo.algorithms import untrained

RESULTS = pages.RESULTS
EPISODES, EVALUATION_SEED = 30, 30_000
LABEL, SAC = "now", "sac + her"
TASKS = {"grasp/Wall-v0": 2000, "grasp/PointMaze-v0": 2000, mazes.ID: 4000}
"""Steps of each task."""
Row = dict[str, Any]


class Constant:
    """An agent that does nothing, or acts at random."""

    def __init__(self, space: Any, *, still: bool) -> None:
        self._space, self._still = space, still
        space.seed(0)

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
        """Returns an action and the state."""
        action = self._space.sample()
        return (np.zeros_like(action) if self._still else action), state


def measured(job: tuple[str, str, int, int]) -> Row:
    """Trains and evaluates one agent; for 0 steps, evaluates random actions and rest.

    Args:
        job: label (`SAC` trains that), task, steps and seed.
    """
    label, task, steps, seed = job
    torch.set_num_threads(1)
    row: Row = {"label": label, "task": task, "steps": steps, "seed": seed}
    if not steps:
        env = gym.make(task)
        agents = {name: Constant(env.action_space, still=name == "nothing") for name in ("nothing", "random")}
        return {**row, **{name: success(agent, task) for name, agent in agents.items()}}
    if label == SAC:
        agent = untrained("sac", gym.make(task), steps=steps, seed=seed)
    else:
        agent = GraspAgent("MultiInputPolicy", task, seed=seed, device="cpu")
    began, imported = time.process_time(), peak_memory()
    agent.learn(steps)
    learned, row["learning_peak_mb"] = time.process_time(), round(peak_memory() - imported)
    row["success_end"] = success(agent, task)
    row["learning_cpu_s"], row["evaluation_cpu_s"] = round(learned - began, 1), round(time.process_time() - learned, 1)
    return row


def peak_memory() -> float:
    """Returns the greatest resident memory of this process so far [MB]."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def success(agent: Any, task: str) -> float:
    """Returns success at the end over the evaluation's episodes."""
    return round(float(evaluate(agent, task, EPISODES, EVALUATION_SEED).summary()["success_end"]), 3)


def main(
    task: str | None = None,
    steps: tuple[int, ...] = (),
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    label: str = LABEL,
    sac: bool = True,
    out: Path = RESULTS / "learning_cost.json",
    jobs: int = 1,
) -> None:
    """Measures what is missing in the file, prints all of it and, for the file of this repository, writes the page.

    Args:
        task: one environment; None for `TASKS`.
        steps: numbers of environment steps; none for those of `TASKS`.
        seeds: training seeds.
        label: of the rows.
        sac: whether SAC + HER is trained, too.
        out: the file.
        jobs: processes at a time.
    """
    wanted = []
    for name in TASKS if task is None else (task,):
        wanted.append((label, name, 0, 0))
        kinds = (label, SAC) if sac else (label,)
        wanted += [(kind, name, n, seed) for n in steps or (TASKS[name],) for seed in seeds for kind in kinds]
    known = {(row["label"], row["task"], row["steps"], row["seed"]) for row in pages.rows(out)}
    wanted = [job for job in wanted if job not in known]
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
        for row in tqdm(pool.imap_unordered(measured, wanted, chunksize=1), total=len(wanted)):
            with atomic_write(out) as aside:
                aside.write_text(json.dumps([*pages.rows(out), row], indent=1) + "\n")
    print(table(pages.rows(out)))
    if out == RESULTS / "learning_cost.json":
        pages.publish("learning_cost", page(pages.rows(out)))


def page(rows: list[Row]) -> str:
    """Returns the page of results."""
    return pages.page(
        "What learning costs",
        "python -m benchmarks.learning_cost",
        f"`learn(N)` with default settings, one training per seed, each evaluated on {EPISODES} episodes with "
        f"seeds from {EVALUATION_SEED}; CPU time of one thread on a busy 2-core machine, and the greatest "
        "memory over that after the import of `grasp_agent`, of the worst seed, where it was measured. "
        "*before*: commit 4ff2213, where every fit was a fresh one of up to 4,000 gradient steps with batches "
        "of 512. *after*: commit 140a8bc, where fits are warm starts of batches of 256 and take gradient "
        f"steps in proportion to the new data. *warm last fit*: the last fit is a warm start, too. *smaller batches*: "
        "batches of 128 at twice the learning rate, half the gradient steps up to 4,000 transitions, roadmaps "
        "whose edges are driven in chunks, and redundant entries of the observation left out (commit e28966b). "
        "*commit 0cd543b*: the one before that. "
        "*corrected noise*: commit ba391f1, where planned actions lead back from the noise on those before; beside "
        "three other jobs, so times are high. "
        "*goals watched*: commit 881482e, four seeds, where plans that miss a goal are replaced while learning, too; "
        "given up. "
        f"*{LABEL}*: commit 5e67a8f, where noise is not corrected again, as in *smaller batches*; its rows of 20,000 "
        f"steps: commit 6e5f145, whose learning is the same, one seed. *{SAC}*: Stable-Baselines3's SAC with hindsight "
        "at equal steps. Doing nothing and random actions are the "
        f"first row of each environment. `{mazes.ID}` observes a position and its squares.",
        table(rows),
    )


def table(rows: list[Row]) -> str:
    """Returns Markdown with a line for each environment, number of steps and label."""
    lines = [
        "| environment | steps | code | success at the end, by seed | mean | CPU s of `learn` | MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, steps, label in sorted({(row["task"], row["steps"], row["label"]) for row in rows}):
        of = [row for row in rows if (row["task"], row["steps"], row["label"]) == (task, steps, label)]
        of.sort(key=lambda row: row["seed"])
        if not steps:
            rates = " ".join(f"{name} {of[0][name]:.2f}" for name in ("nothing", "random"))
            lines.append(f"| `{task}` | 0 | {label} | {rates} | | | |")
            continue
        rates, costs = ([row[name] for row in of] for name in ("success_end", "learning_cpu_s"))
        said = " ".join(f"{rate:.2f}" for rate in rates)
        peak = str(max((row.get("learning_peak_mb", 0) for row in of), default=0) or "")
        cells = f"{said} | {np.mean(rates):.2f} | {np.mean(costs):.0f} | {peak}"
        lines.append(f"| `{task}` | {steps} | {label} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(main)
