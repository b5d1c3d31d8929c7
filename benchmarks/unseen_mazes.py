"""Mazes that nobody has tuned for: GRASP with default settings from 4,000 steps, SAC + HER from as many and ten times.

    python -m benchmarks.unseen_mazes --jobs 2          # resumes where it was stopped
    python -m benchmarks.unseen_mazes --seeds 0 --layouts comb --sac-steps 4000

Two layouts were written when the agent was finished, and were run once; the third is that of an earlier report. Each
agent is trained from scratch with seeds from 0, and plays 50 episodes with starts and goals anywhere, and 30 with goals
far from the starts, all with seeds from 10000. Doing nothing and random actions play the same.
"""

from __future__ import annotations

import time
from operator import itemgetter
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
import tyro

from benchmarks import pages
from benchmarks.learning_cost import Constant
from benchmarks.stages import RIVALS
from grasp_agent import GraspAgent, evaluate
from grasp_agent.evaluation import seeds_report
from grasp_agent.zoo.algorithms import untrained

STEPS, SAC_STEPS = 4000, (4000, 40_000)
EPISODES, FAR_EPISODES, SEED = 50, 30, 10_000
REDUNDANT = ("two", "fork")
"""Layouts whose observations have redundant entries."""
REPORTED = ("comb", "fork", "two")
GRASP, SAC = "grasp", "sac"
Row = dict[str, Any]


def measured(job: tuple[str, str, int, int]) -> Row:
    """Trains one agent, unless it is a rival, and plays.

    Args:
        job: name of the agent, layout, steps and training seed.
    """
    name, layout, steps, seed = job
    torch.set_num_threads(1)
    options = {"layout": layout, "redundant": layout in REDUNDANT}
    env = gym.make("benchmarks/Maze-v0", **options)
    began = time.process_time()
    if name in RIVALS:
        agent: Any = Constant(env.action_space, still=name == "nothing")
    elif name == SAC:
        agent = untrained("sac", env, steps=steps, seed=seed).learn(steps)
    else:
        agent = GraspAgent("MultiInputPolicy", env, seed=seed, device="cpu").learn(steps)
    learned = time.process_time()
    row: Row = {"agent": name, "layout": layout, "steps": steps, "seed": seed, "learning_cpu_s": round(learned - began)}
    for kind, far, episodes in (("anywhere", False, EPISODES), ("far", True, FAR_EPISODES)):
        played = gym.make("benchmarks/Maze-v0", **options, far=far)
        row[kind] = [bool(episode.success_end) for episode in evaluate(agent, played, episodes, SEED).episodes]
        played.close()
    return {**row, "evaluation_cpu_s": round(time.process_time() - learned)}


def label(row: Row) -> str:
    """Returns the name of a row's agent, with its steps."""
    return row["agent"] if row["agent"] in RIVALS else f"{row['agent']}, {row['steps']:,} steps"


def scores(rows: list[Row], layout: str, kind: str) -> dict[str, list[list[float]]]:
    """Returns the agents' success at the end in each training, `[R, 1]`."""
    found: dict[str, list[list[float]]] = {}
    for row in sorted(rows, key=lambda row: (row["agent"], row["steps"], row["seed"])):
        if row["layout"] == layout:
            found.setdefault(label(row), []).append([sum(row[kind]) / len(row[kind])])
    return found


def page(rows: list[Row]) -> str:
    """Returns the page of results."""
    parts = []
    for layout in [name for name in REPORTED if any(row["layout"] == name for row in rows)]:
        observed = "a position and its squares" if layout in REDUNDANT else "a position"
        parts.append(f"## `{layout}`, observed as {observed}")
        for kind, title in (("anywhere", "Starts and goals anywhere"), ("far", "Goals far from the starts")):
            parts += [f"{title}:", seeds_report.markdown(scores(rows, layout, kind), explained=False)]
        times = {label(row): [] for row in rows if row["layout"] == layout and row["agent"] not in RIVALS}
        for row in rows:
            if row["layout"] == layout and label(row) in times:
                times[label(row)].append(row["learning_cpu_s"])
        shown = [f"{name} {sum(seconds) / len(seconds):.0f} s" for name, seconds in sorted(times.items())]
        parts.append(f"CPU time of a training, mean: {', '.join(shown)}.")
    return pages.page(
        "Unseen mazes",
        "python -m benchmarks.unseen_mazes",
        "Mazes with walls thinner than two steps (`benchmarks/mazes.py`), default settings, each agent trained from "
        f"scratch; success at the end of {EPISODES} episodes, and of {FAR_EPISODES} whose goals are at least half as "
        f"far from the starts, on the way round the walls, as any two points, with seeds from {SEED}. `comb` and "
        "`fork` were written after the agent; one or two trainings of each were run before its last changes, none of "
        "which was made for them. SAC has hindsight and the settings of the bundled baselines. Doing nothing and "
        "random actions play the same episodes.",
        *parts,
    )


def main(
    layouts: tuple[str, ...] = REPORTED,
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    sac_steps: tuple[int, ...] = SAC_STEPS,
    out: Path | None = None,
    jobs: int = 1,
) -> None:
    """Measures what is missing in the file and, for the file of this repository, writes the page.

    Args:
        layouts: names in `mazes.LAYOUTS`.
        seeds: training seeds.
        sac_steps: steps of SAC's trainings.
        out: the file; None for this repository's.
        jobs: processes at a time.
    """
    wanted = [(name, layout, 0, 0) for layout in layouts for name in RIVALS]
    wanted += [(GRASP, layout, STEPS, seed) for layout in layouts for seed in seeds]
    wanted += [(SAC, layout, steps, seed) for steps in sac_steps for layout in layouts for seed in seeds]
    pages.complete("unseen_mazes", page, measured, wanted, itemgetter("agent", "layout", "steps", "seed"), out, jobs)


if __name__ == "__main__":
    tyro.cli(main)
