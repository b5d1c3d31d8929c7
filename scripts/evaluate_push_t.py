"""Push-T: the bundled agent with one open-loop plan, and SAC + HER after as many environment steps.

    python scripts/evaluate_push_t.py                 # all; resumes where it was stopped
    python scripts/evaluate_push_t.py --parts blind   # one of them

The closed loop is in `docs/results/bundled.md` (`scripts/evaluate_bundled.py push-t`). `blind` makes one plan of 60
steps at the start, executes it without looking, and asks at its end whether the block lies in its goal; the plan is
put together from iCEM's short ones (`Receding`). `sac` is trained with seed 0. All are measured on the same 100
episodes with seeds from 10000; settings were chosen on seeds from 5000. Writes `benchmarks/results/push_t.json` and
`docs/results/push_t.md`.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from scipy.stats import binomtest
from tqdm import tqdm

import grasp_agent
from benchmarks import pages
from benchmarks.ledger import Ledger, Row
from benchmarks.trials import open_loop
from grasp_agent.evaluation.rollout import rollout
from grasp_agent.planners import ICEM, Receding
from grasp_agent.zoo import pretrained
from grasp_agent.zoo.algorithms import untrained

ENV = "grasp/PushT-v0"
EPISODES, SEED, BLIND_STEPS, SAC_SEEDS = 100, 10_000, 60, (0,)
Part = Literal["blind", "sac"]


def blind(seeds: range) -> Iterator[Row]:
    """Executes one plan without feedback, which is also scored without feedback."""
    agent, env = grasp_agent.load("push-t", device="cpu"), gym.make(ENV)
    agent.planner = Receding(pieces=ICEM(iterations=4, samples=128), iterations=12, length=40)
    agent.horizon, agent.criteria = BLIND_STEPS, replace(agent.criteria, feedback=False)
    for seed in seeds:
        trial = open_loop(agent, env, seed)
        yield {"seed": seed, "success": trial.end, "accepted": trial.accepted, "seconds": trial.seconds}


def sac(seeds: range, training: int) -> Iterator[Row]:
    """Trains SAC + HER with one seed and plays episodes."""
    env, steps = gym.make(ENV), grasp_agent.bundled()["push-t"].steps
    agent = untrained("sac", gym.make(ENV), steps=steps, seed=training).learn(steps, progress_bar=True)
    for seed in seeds:
        reached = [bool(moment.success) for moment in rollout(agent, env, seed)]
        yield {"seed": seed, "success": reached[-1], "steps": reached.index(True) if any(reached) else None}


def runs(part: Part) -> dict[str, Any]:
    """Returns the runs of a part: functions from seeds to rows, by name."""
    steps = grasp_agent.bundled()["push-t"].steps
    if part == "sac":
        names = {training: f"SAC + HER, {steps} steps, seed {training}" for training in SAC_SEEDS}
        return {name: lambda seeds, training=training: sac(seeds, training) for training, name in names.items()}
    return {f"One blind plan of {BLIND_STEPS} steps": blind}


def weights() -> str:
    """Returns a hash of the model's weights, which does not depend on its planner."""
    path = Path(str(pretrained.__file__)).parent / "push-t.zip"
    with zipfile.ZipFile(path) as archive:
        return hashlib.sha256(archive.read("weights.safetensors")).hexdigest()


def table(results: dict[str, list[Row]]) -> str:
    """Returns a table with a row for each run."""
    lines = ["| | success at the end (95 % interval) | median steps to success | median seconds |", "|---|---|---|---|"]
    for name, rows in results.items():
        won = sum(row["success"] for row in rows)
        span = binomtest(won, len(rows)).proportion_ci(method="wilson")
        arrivals = [row["steps"] for row in rows if row.get("steps") is not None]
        steps = f"{np.median(arrivals):.0f}" if arrivals else "-"
        seconds = [row["seconds"] for row in rows if "seconds" in row]
        spent = f"{np.median(seconds):.2g}" if seconds else "-"
        rate = f"{won / len(rows):.2f} ({span.low:.2f}-{span.high:.2f})"
        lines.append(f"| {name} | {rate} | {steps} | {spent} |")
    return "\n".join(lines) + "\n"


def page(results: dict[str, list[Row]]) -> str:
    """Returns the page of results."""
    order = [name for part in ("blind", "sac") for name in runs(part) if name in results]
    return pages.page(
        "Push-T, one blind plan",
        "python scripts/evaluate_push_t.py",
        f"`grasp/PushT-v0`, {EPISODES} episodes with seeds from {SEED}; settings were chosen on seeds from 5000. "
        "The plan is "
        "made once at the start, and its actions are carried out without feedback. The closed loop is in "
        "[bundled models](bundled.md).",
        table({name: results[name] for name in order}),
    )


def main(parts: tuple[Part, ...] = ("blind", "sac")) -> None:
    """Measures what is missing for the present bundled model."""
    torch.set_num_threads(1)
    ledger = Ledger(pages.RESULTS / "push_t.json", weights())
    for part in parts:
        for name, play in runs(part).items():
            begun = len(ledger.read().get(name, []))
            if begun == EPISODES:
                continue
            seeds = range(SEED + begun, SEED + EPISODES)
            for row in tqdm(play(seeds), total=len(seeds), desc=name):
                ledger.add(name, row)
    results = ledger.read()
    pages.publish("push_t", page(results))
    print(table(results))


if __name__ == "__main__":
    tyro.cli(main)
