"""Push-T: the bundled agent in closed loop and blind, and SAC + HER after as many environment steps.

    python scripts/evaluate_push_t.py                 # all; resumes where it was stopped
    python scripts/evaluate_push_t.py --parts blind   # one of them

`closed` is the loop of `grasp evaluate push-t`. `blind` makes one plan of 60 steps at the start, executes it without
looking, and asks at its end whether the block lies in its goal; the plan is put together from iCEM's short ones
(`Receding`). `sac` is trained with seeds 0 to 2. All are measured on the same 100 episodes with seeds from 10000;
settings were chosen on seeds from 5000. Writes `docs/push_t.json` and `docs/push_t.md`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from compare_learning import soft_actor_critic
from scipy.stats import binomtest
from tqdm import tqdm
from trials import closed_loop, open_loop

import grasp_agent
from grasp_agent.evaluation import rollout
from grasp_agent.files import written_aside
from grasp_agent.planners import ICEM, Receding

ENV, DOCS = "grasp/PushT-v0", Path(__file__).parent.parent / "docs"
EPISODES, SEED, BLIND_STEPS, SAC_SEEDS = 100, 10_000, 60, (0, 1, 2)
Part = Literal["closed", "blind", "sac"]
Row = dict[str, Any]


def closed(seeds: range) -> Iterator[Row]:
    """The agent's own loop."""
    agent, env = grasp_agent.load("push-t", device="cpu"), gym.make(ENV)
    for seed in seeds:
        agent.policy.forget()
        trial = closed_loop(agent, env, seed)
        yield {"success": trial.end, "steps": trial.steps, "seconds": trial.seconds / 150}


def blind(seeds: range) -> Iterator[Row]:
    """One plan, not corrected on the way, and judged as such."""
    agent, env = grasp_agent.load("push-t", device="cpu"), gym.make(ENV)
    policy = agent.policy
    policy.planner = Receding(pieces=ICEM(iterations=4, samples=128), iterations=20)
    policy.horizon, policy.criteria = BLIND_STEPS, replace(policy.criteria, feedback=False)
    for seed in seeds:
        trial = open_loop(agent, env, seed)
        yield {"success": trial.end, "accepted": trial.accepted, "seconds": trial.seconds}


def sac(seeds: range, training: int) -> Iterator[Row]:
    """SAC + HER, trained with one seed."""
    agent, env = soft_actor_critic(ENV, training), gym.make(ENV)
    agent.learn(grasp_agent.bundled()["push-t"].steps, progress_bar=True)
    for seed in seeds:
        reached = [bool(moment.success) for moment in rollout(agent, env, seed)]
        yield {"success": reached[-1], "steps": reached.index(True) if any(reached) else None}


def runs(part: Part) -> dict[str, Any]:
    """What a part consists of: functions from seeds to rows."""
    steps = grasp_agent.bundled()["push-t"].steps
    if part == "sac":
        names = {training: f"SAC + HER, {steps} steps, seed {training}" for training in SAC_SEEDS}
        return {name: lambda seeds, training=training: sac(seeds, training) for training, name in names.items()}
    return {"closed": {"GRASP, closed loop": closed}, "blind": {f"One blind plan of {BLIND_STEPS} steps": blind}}[part]


def table(results: dict[str, list[Row]]) -> str:
    """A row for each contestant."""
    lines = ["| | success at the end (95 % interval) | median steps to success | median seconds |", "|---|---|---|---|"]
    for name, rows in results.items():
        won = sum(row["success"] for row in rows)
        span = binomtest(won, len(rows)).proportion_ci(method="wilson")
        arrivals = [row["steps"] for row in rows if row.get("steps") is not None]
        steps = f"{np.median(arrivals):.0f}" if arrivals else "-"
        seconds = [row["seconds"] for row in rows if "seconds" in row]
        spent = f"{np.median(seconds):.2g}" if seconds else "-"
        share = f"{won / len(rows):.2f} ({span.low:.2f}-{span.high:.2f})"
        lines.append(f"| {name} | {share} | {steps} | {spent} |")
    return "\n".join(lines) + "\n"


def main(parts: tuple[Part, ...] = ("closed", "blind", "sac"), episodes: int = EPISODES) -> None:
    """Measures what is missing for the bundled model of now.

    Args:
        parts: what to measure.
        episodes: how many episodes; fewer than all are shown, but not kept.
    """
    torch.set_num_threads(1)
    path, known = DOCS / "push_t.json", grasp_agent.bundled()["push-t"].sha256
    results = _read(path, known)
    for part in parts:
        for name, play in runs(part).items():
            if name in results and episodes == EPISODES:
                continue
            seeds = range(SEED, SEED + episodes)
            rows = list(tqdm(play(seeds), total=episodes, desc=name))
            if episodes < EPISODES:
                print(table({name: rows}))
                continue
            results = {**_read(path, known), name: rows}  # read late: two parts may run side by side
            with written_aside(path) as aside:
                aside.write_text(json.dumps({"model": known, "results": results}) + "\n")
    results = _read(path, known)
    order = [name for part in ("closed", "blind", "sac") for name in runs(part) if name in results]
    shown = table({name: results[name] for name in order})
    with written_aside(DOCS / "push_t.md") as aside:
        aside.write_text(shown)
    print(shown)


def _read(path: Path, model: str) -> dict[str, list[Row]]:
    """What was measured of a model."""
    held = json.loads(path.read_text()) if path.exists() else {}
    return held["results"] if held.get("model") == model else {}


if __name__ == "__main__":
    tyro.cli(main)
