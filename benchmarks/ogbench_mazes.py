"""OGBench's point mazes: fitted to offline data, success over the five tasks, beside published figures.

    python scripts/make_ogbench_data.py --env pointmaze-giant-navigate-v0 --out giant.npz     # and medium, large
    python -m benchmarks.ogbench_mazes --data medium medium.npz large large.npz giant giant.npz

Each maze has its own data, made by the published procedure (1M steps, see `scripts/make_ogbench_data.py` for what
differs): OGBench's files cannot be had everywhere; they are read in the same way. The agent has default settings, and
is fitted with three training seeds. Episodes have seeds from 10000, which play the five tasks in turn.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks import pages
from benchmarks.learning_cost import Constant
from benchmarks.stages import RIVALS
from grasp_agent import GraspAgent, evaluate
from grasp_agent.evaluation import seeds_report
from grasp_agent.evaluation.rollout import made

SEED, EPISODES = 10_000, 250
GRASP = "grasp"
PUBLISHED = {
    "GCIQL (Park et al. 2024, arXiv 2410.20092)": {"medium": 53, "large": 34, "giant": 0},
    "QRL (the same)": {"medium": 82, "large": 86, "giant": 68},
    "HIQL (the same)": {"medium": 79, "large": 58, "giant": 46},
    "TTGS (2025, arXiv 2510.07257)": {"medium": 91, "large": 88, "giant": 92},
}
"""Success [%], each on OGBench's own data."""
Row = dict[str, Any]


def env_id(maze: str) -> str:
    """Returns the id of a maze's environment."""
    return f"ogbench:pointmaze-{maze}-navigate-v0"


def measured(job: tuple[str, str, str, int, int]) -> Row:
    """Fits an agent, unless it is a rival, and plays.

    Args:
        job: name of the agent, maze, path of its data, training seed, episodes.
    """
    name, maze, data, seed, episodes = job
    torch.set_num_threads(1)
    env = made(env_id(maze), {})
    began = time.process_time()
    if name in RIVALS:
        agent: Any = Constant(env.action_space, still=name == "nothing")
    else:
        agent = GraspAgent("MultiInputPolicy", env, seed=seed, device="cpu").fit(data)
    fitted = time.process_time()
    found = evaluate(agent, env, episodes, SEED)
    env.close()
    return {
        "agent": name,
        "maze": maze,
        "seed": seed,
        "success": [bool(row.success_any) for row in found.episodes],
        "steps": [row.steps for row in found.episodes],
        "fit_cpu_s": round(fitted - began),
        "evaluation_cpu_s": round(time.process_time() - fitted),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def table(rows: list[Row]) -> str:
    """Returns Markdown with a line for each agent, ours and published ones: success [%]."""
    mazes = [maze for maze in ("medium", "large", "giant") if any(row["maze"] == maze for row in rows)]
    lines = [f"| agent | {' | '.join(mazes)} |", f"|{'---|' * (len(mazes) + 1)}"]
    for name in (GRASP, *RIVALS):
        cells = []
        for maze in mazes:
            found = [sum(r["success"]) / len(r["success"]) for r in rows if r["agent"] == name and r["maze"] == maze]
            cells.append(f"{100 * sum(found) / len(found):.0f}" if found else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [f"| {name} | {' | '.join(str(known[maze]) for maze in mazes)} |" for name, known in PUBLISHED.items()]
    return "\n".join(lines)


def tasks(rows: list[Row]) -> str:
    """Returns Markdown with a line for each training: success in each task, steps, cost."""
    lines = [
        "| maze | training seed | task 1 | 2 | 3 | 4 | 5 | episodes | median steps | CPU s of `fit` | ms per step |"
    ]
    lines.append(f"|{'---|' * 11}")
    for row in sorted(rows, key=lambda row: (row["maze"], row["seed"])):
        if row["agent"] != GRASP:
            continue
        parts = [row["success"][task::5] for task in range(5)]
        rates = [f"{100 * sum(part) / len(part):.0f}" for part in parts]
        steps = sorted(row["steps"])
        pace = 1000 * row["evaluation_cpu_s"] / sum(steps)
        ends = [str(len(steps)), str(steps[len(steps) // 2]), str(row["fit_cpu_s"]), f"{pace:.0f}"]
        lines.append(f"| {' | '.join([row['maze'], str(row['seed']), *rates, *ends])} |")
    return "\n".join(lines)


def key(row: Row) -> tuple[str, str, int, int]:
    """Returns what tells a row from others."""
    return row["agent"], row["maze"], row["seed"], len(row["success"])


def page(rows: list[Row]) -> str:
    """Returns the page of results."""
    parts = []
    for maze in ("medium", "large", "giant"):
        scores = {
            name: [[sum(r["success"]) / len(r["success"])] for r in rows if r["agent"] == name and r["maze"] == maze]
            for name in (GRASP, *RIVALS)
        }
        known = {name: values for name, values in scores.items() if values}
        if known:
            parts.append(f"### {maze}\n\n{seeds_report.markdown(known, explained=False)}")
    return pages.page(
        "OGBench mazes",
        "python -m benchmarks.ogbench_mazes",
        "Success [%] in OGBench's point mazes (*navigate*), mean over training seeds; an episode is a success when the "
        "goal was reached in its 1,000 steps, as in the benchmark. `grasp` is `GraspAgent` with default settings, "
        "fitted to 1M steps that `scripts/make_ogbench_data.py` made by the published procedure; doing nothing and "
        "random actions play the same episodes. **The other rows are published figures, of agents that were trained on "
        "OGBench's own files**, with more training seeds: neither their data nor their episodes are ours.",
        table(rows),
        "## Each training",
        tasks(rows),
        *parts,
    )


def main(
    data: dict[str, str],
    seeds: tuple[int, ...] = (0, 1, 2),
    episodes: int = EPISODES,
    out: Path | None = None,
    jobs: int = 1,
) -> None:
    """Measures what is missing in the file and, for the file of this repository, writes the page.

    Args:
        data: the paths of data files by maze: medium, large, giant.
        seeds: training seeds.
        episodes: a multiple of five: the tasks are played in turn.
        out: the file; None for this repository's.
        jobs: processes at a time.
    """
    wanted = [(GRASP, maze, file, seed, episodes) for seed in seeds for maze, file in data.items()]
    wanted += [(name, maze, "", 0, 10) for maze in data for name in RIVALS]
    known = {key(row) for row in pages.rows(out or pages.RESULTS / "ogbench_mazes.json")}
    wanted = [job for job in wanted if (job[0], job[1], *job[3:]) not in known]
    pages.complete("ogbench_mazes", page, measured, wanted, key, out, jobs)


if __name__ == "__main__":
    tyro.cli(main)
