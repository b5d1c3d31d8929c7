"""A half-trained SAC as prior: what planning on top of it adds, at equal further steps; and a SAC that learns beside.

    python -m benchmarks.prior --jobs 2

SAC learns 10,000 steps of HalfCheetah-v5. From there, 5,000 further steps: SAC goes on; an agent for rewards learns
with that SAC as prior; and it learns without one, from nothing. Another agent learns 10,000 steps with `prior="sac"`,
and plays by plans and by that SAC's policy.
"""

from __future__ import annotations

import statistics
import time
from operator import itemgetter
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
import tyro
from stable_baselines3 import SAC

from benchmarks import pages
from grasp_agent import GraspAgent, evaluate
from grasp_agent.evaluation import aggregates

ENV, BEFORE, FURTHER = "HalfCheetah-v5", 10_000, 5000
EPISODES, SEED = 3, 10_000
Row = dict[str, Any]


def measured(seed: int) -> Row:
    """Trains the agents with a training seed and plays with each."""
    torch.set_num_threads(1)
    env, row = gym.make(ENV), Row(seed=seed, returns={}, cpu_s={}, ms={})

    def note(name: str, agent: Any, spent: float) -> None:
        row["cpu_s"][name] = round(spent)
        episodes = evaluate(agent, env, EPISODES, SEED).episodes
        row["returns"][name] = [round(episode.return_, 2) for episode in episodes]
        row["ms"][name] = round(1000 * sum(e.seconds_per_action_mean for e in episodes) / EPISODES, 2)

    began = time.process_time()
    sac = SAC("MlpPolicy", gym.make(ENV), seed=seed, device="cpu").learn(BEFORE)
    note(f"SAC, {BEFORE:,} steps", sac, time.process_time() - began)
    kind: Any = GraspAgent
    for name, prior in (("plans from this SAC", sac), ("plans alone", None)):
        began = time.process_time()
        agent = kind("MlpPolicy", gym.make(ENV), prior=prior, seed=seed, device="cpu")
        agent.learn(FURTHER)
        note(f"{name}, {FURTHER:,} further steps", agent, time.process_time() - began)
    began = time.process_time()
    sac.learn(FURTHER, reset_num_timesteps=False)
    note(f"SAC, {FURTHER:,} further steps", sac, time.process_time() - began)
    began = time.process_time()
    beside = kind("MlpPolicy", gym.make(ENV), prior="sac", seed=seed, device="cpu").learn(BEFORE)
    spent = time.process_time() - began  # of both together
    for by_prior, name in ((False, "plans, SAC beside"), (True, "the policy of that SAC")):
        beside.by_prior = by_prior
        note(f"{name}, {BEFORE:,} steps", beside, spent)
    return row


def page(rows: list[Row]) -> str:
    """Returns the page of results."""
    lines = ["| agent | trainings | return, IQM | worst to best | CPU s of these steps | ms per action, median |"]
    lines.append("|---|---|---|---|---|---|")
    for name in rows[0]["returns"]:
        means = [sum(row["returns"][name]) / EPISODES for row in rows]
        spent = sum(row["cpu_s"][name] for row in rows) / len(rows)
        middle = float(aggregates.iqm(aggregates.scores_of(means)))
        cells = [name, f"{len(rows)}", f"{middle:.0f}", f"{min(means):.0f} to {max(means):.0f}", f"{spent:.0f}"]
        lines.append(f"| {' | '.join(cells)} | {statistics.median(row['ms'][name] for row in rows):.1f} |")
    return pages.page(
        "A policy as prior",
        "python -m benchmarks.prior",
        f"`GraspAgent(..., prior=sac)` in {ENV}: Stable-Baselines3's SAC, default settings, learns {BEFORE:,} steps; "
        f"then, in {FURTHER:,} further steps, it goes on, or an agent for rewards learns with it as prior, or without. "
        f'Another one learns {BEFORE:,} steps with `prior="sac"`, and plays by plans and by that policy. '
        f"Each training's mean return over {EPISODES} episodes with seeds from {SEED}, deterministic actions; "
        "interquartile mean (IQM) over trainings.",
        "\n".join(lines),
    )


def main(seeds: tuple[int, ...] = (0, 1, 2, 3, 4), out: Path | None = None, jobs: int = 1) -> None:
    """Measures what is missing in the file and, for the file of this repository, writes the page.

    Args:
        seeds: training seeds.
        out: the file; None for this repository's.
        jobs: processes at a time.
    """
    pages.complete("prior", page, measured, seeds, itemgetter("seed"), out, jobs)


if __name__ == "__main__":
    tyro.cli(main)
