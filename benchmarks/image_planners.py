"""Planners on image agents: where proposals come from, the noise, and which optimiser improves on them.

    python -m benchmarks.image_planners                        # all bundled image agents; resumes where it was stopped
    python -m benchmarks.image_planners --agents push-t-pixels --episodes 3 --out /tmp/images.json

Each planner gets the same bundled model, in closed loop with the agent's own rule of replanning, on the same episodes.
Work per call is limited as always, so that all planners have equal model calls and none has a time limit. Doing
nothing and random actions play the same episodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
import tyro

import grasp_agent
from benchmarks import pages
from benchmarks.learning_cost import Constant
from grasp_agent import evaluate
from grasp_agent.evaluation.intervals import proportion
from grasp_agent.planners import GRASP, ICEM, Coloured, Planner, Replay, Roadmap

AGENTS = ("wall-pixels", "wall-door-pixels", "point-maze-pixels", "push-t-pixels")
EPISODES, SEED = 50, 20_000
SMOOTH, WHITE = Coloured(beta=3.0), Coloured(beta=0.0)


def icem(proposals: Any, noise: Coloured = SMOOTH) -> ICEM:
    """Returns the search that finds plans in large latents."""
    return ICEM(iterations=4, samples=128, verify_every=4, proposals=proposals, noise=noise)


PLANNERS: dict[str, Callable[[], Planner[Any]]] = {
    "GRASP, routes (the default)": GRASP,
    "GRASP, recorded segments": lambda: GRASP(proposals=Replay()),
    "routes alone": lambda: GRASP(iterations=0),
    "recorded segments alone": lambda: GRASP(proposals=Replay(), iterations=0),
    "iCEM, routes": lambda: icem(Roadmap()),
    "iCEM, recorded segments": lambda: icem(Replay()),
    "iCEM, no proposals": lambda: icem(None),
    "iCEM, routes, white noise": lambda: icem(Roadmap(), WHITE),
}
RIVALS = ("nothing", "random")
Row = dict[str, Any]


def measured(job: tuple[str, str, int, int]) -> Row:
    """Plays the episodes of one planner.

    Args:
        job: bundled agent, name of the planner, episodes, first seed.
    """
    name, planner, episodes, seed = job
    torch.set_num_threads(1)
    agent: Any = grasp_agent.load(name, device="cpu")
    env = gym.make(str(agent.env_id), **agent.env_kwargs)
    if planner in RIVALS:
        agent = Constant(env.action_space, still=planner == "nothing")
    else:
        agent.planner = PLANNERS[planner]()
    began = time.process_time()
    found = evaluate(agent, env, episodes, seed)
    env.close()
    return {
        "agent": name,
        "planner": planner,
        "seed": seed,
        "success": [bool(row.success_end) for row in found.episodes],
        "cpu_s": round(time.process_time() - began, 1),
    }


def table(rows: list[Row]) -> str:
    """Returns Markdown with a line for each planner: success at the end and CPU seconds of all episodes."""
    agents = [name for name in AGENTS if any(row["agent"] == name for row in rows)]
    lines = [f"| planner | {' | '.join(f'`{name}`' for name in agents)} |", f"|{'---|' * (len(agents) + 1)}"]
    known = {(row["planner"], row["agent"]): row for row in rows}
    for planner in (*PLANNERS, *RIVALS):
        cells = []
        for name in agents:
            row = known.get((planner, name))
            rate = None if row is None else proportion(row["success"])
            text = "" if rate is None or row is None else "{:.2f} ({:.2f}-{:.2f}), {:.0f} s".format(*rate, row["cpu_s"])
            cells.append(text)
        if any(cells):
            lines.append(f"| {planner} | {' | '.join(cells)} |")
    return "\n".join(lines)


def page(rows: list[Row]) -> str:
    """Returns the page of results."""
    return pages.page(
        "Planners on image agents",
        "python -m benchmarks.image_planners",
        f"Bundled image agents, one training each, with other planners: success at the end (95 %) of {EPISODES} "
        f"episodes in closed loop with tuning seeds from {SEED}, and CPU seconds of all of them. *Routes*: shortest "
        "ways through replayed states, tracked. *Recorded segments*: those whose ends are nearest to start and goal, "
        "tracked. *Alone*: the best proposal without an optimiser. No planner has a time limit; the work of a call is "
        "the same for all. An empty cell was not measured.",
        table(rows),
    )


def main(
    agents: tuple[str, ...] = AGENTS, episodes: int = EPISODES, seed: int = SEED, out: Path | None = None, jobs: int = 1
) -> None:
    """Measures what is missing in the file, prints the table and, for the file of this repository, writes the page.

    Args:
        agents: bundled image agents.
        episodes: number of episodes.
        seed: that of the first.
        out: the file; None for this repository's.
        jobs: processes at a time.
    """
    path = out or pages.RESULTS / "image_planners.json"
    known = {(row["agent"], row["planner"], len(row["success"]), row["seed"]) for row in pages.rows(path)}
    wanted = [(name, planner, episodes, seed) for name in agents for planner in (*RIVALS, *PLANNERS)]
    wanted = [job for job in wanted if job not in known]
    pages.gather(path, measured, wanted, jobs)
    print(table(pages.rows(path)))
    if out is None:
        pages.publish("image_planners", page(pages.rows(path)))


if __name__ == "__main__":
    tyro.cli(main)
