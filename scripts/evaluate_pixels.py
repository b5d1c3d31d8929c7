"""Success of single open-loop plans from images, with cross-room goals in `grasp/Wall-v0`.

    python scripts/evaluate_pixels.py

The bundled model plans once, on seeds from 10000, and its actions are carried out blindly: as it is saved, to keep the
goal until the plan ends, and with plans that may stop there, as a ball stays where it is when nothing is done. Writes
`benchmarks/results/wall_pixels.json` and the page `docs/results/wall_pixels.md`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import grasp_agent
from benchmarks import pages
from benchmarks.trials import open_loop
from grasp_agent.evaluation.intervals import proportion

MODEL, EPISODES, SEED = "wall-pixels", 100, 10_000


def played(stop: bool) -> dict[str, Any]:
    """Returns the success of plans that may stop at the goal, or have to hold it."""
    agent = grasp_agent.load(MODEL, device="cpu")
    agent.criteria = replace(agent.criteria, stop=stop)
    env = gym.make(str(agent.env_id), **agent.env_kwargs)
    trials = [open_loop(agent, env, seed) for seed in range(SEED, SEED + EPISODES)]
    env.close()
    return {
        "steps of a plan": agent.horizon,
        "terminal": proportion([trial.end for trial in trials]),
        "anytime": proportion([trial.any for trial in trials]),
        "median seconds of a plan": float(np.median([trial.seconds for trial in trials])),
    }


def page(found: dict[str, Any]) -> str:
    """Returns the page of results."""
    lines = ["| plans | at the end (95 %) | at some step (95 %) | median seconds of a plan |", "|---|---|---|---|"]
    for name in ("plans keep the goal", "plans may stop"):
        row = found[name]
        cells = ["{:.2f} ({:.2f}-{:.2f})".format(*row[when]) for when in ("terminal", "anytime")]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['median seconds of a plan']:.2g} |")
    return pages.page(
        "One blind plan from images",
        "python scripts/evaluate_pixels.py",
        f"`{MODEL}` plans once for a goal in the other room, and its "
        f"{found['plans keep the goal']['steps of a plan']} actions "
        f"are carried out without looking again. {EPISODES} episodes with seeds from {SEED}. Plans that may stop use "
        "`Criteria(stop=True)`.",
        "\n".join(lines),
    )


def main() -> None:
    """Plans, acts and counts."""
    torch.set_num_threads(1)
    found = {"model": MODEL, "plans keep the goal": played(stop=False), "plans may stop": played(stop=True)}
    print(json.dumps(found))
    pages.keep("wall_pixels", found)
    pages.publish("wall_pixels", page(found))


if __name__ == "__main__":
    main()
