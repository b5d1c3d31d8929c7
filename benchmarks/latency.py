"""How long `predict` takes: processor time of each call of the bundled agents, and time budgets beside a busy process.

    python -m benchmarks.latency                                # calls: 100 episodes of each bundled agent
    python -m benchmarks.latency --study budgets                # budgets of 10, 20, 50 ms beside a busy process
    python -m benchmarks.latency --label before --out other.json  # in a checkout of another commit

Each agent plays episodes with seeds from 50000, not used for training or tuning, in a process of its own on one thread.
Rows are appended to a JSON file; existing ones are not measured again. To measure another commit, run this file, copied
to the `benchmarks/` of its checkout.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from tqdm import tqdm

import grasp_agent
from benchmarks import pages
from benchmarks.report import mcnemar
from grasp_agent.files import atomic_write

SEED = 50_000
VECTORS = (
    "ball-nav",
    "ball-nav-trap",
    "ball-nav-maze",
    "ball-nav-4",
    "wall",
    "point-maze",
    "point-maze-2k",
    "point-maze-medium",
    "reacher",
    "reacher-6k",
    "push-t",
)
IMAGES = ("wall-pixels", "wall-door-pixels", "point-maze-pixels", "push-t-pixels")
BUDGETS = (0.01, 0.02, 0.05)
"""Time limits of a call [s]."""
ALLOWED = 1.2
"""Multiple of its budget that a call may take."""
LABEL, BEFORE = "now", "before"
Row = dict[str, Any]


def measured(job: tuple[str, str, int, float | None]) -> Row:
    """Plays episodes with one agent.

    Args:
        job: label, agent, episodes, and a time budget [s] or None.
    """
    label, name, episodes, budget = job
    torch.set_num_threads(1)
    agent: Any = grasp_agent.load(name, device="cpu")
    if budget is not None:
        agent.planner = replace(agent.planner, budget=budget)
    clock = time.process_time if budget is None else time.perf_counter
    env = gym.make(agent.env_id, **agent.env_kwargs)
    calls, following, ends = [], [], []
    for episode in range(episodes):
        agent.policy.forget()
        observation, _ = env.reset(seed=SEED + episode)
        done = success = False
        while not done:
            began = clock()
            action, _ = agent.predict(observation, deterministic=True)
            calls.append(1000 * (clock() - began))
            following.append(_follows(agent))
            observation, _, terminated, truncated, info = env.step(action)
            success, done = bool(info["is_success"]), terminated or truncated
        ends.append(int(success))
    env.close()
    return {
        "label": label,
        "agent": name,
        "budget": budget,
        "episodes": episodes,
        "success": ends,
        **_figures(np.array(calls), np.array(following), budget),
    }


def _follows(agent: Any) -> bool:
    """Returns whether the last call only followed a plan: it neither made one nor searched for one."""
    return not agent.last_plan.fresh and not getattr(agent.policy, "searching", False)


def _figures(calls: np.ndarray, following: np.ndarray, budget: float | None) -> Row:
    """Returns quantiles of the times of calls `[N]` [ms]; the first one of all, in which code is loaded, is apart."""
    later = calls[1:]
    figures = {
        "calls": len(calls),
        "searching": round(float(1 - following.mean()), 4),
        "follow_p50": round(float(np.median(calls[following])), 3),
        "p50": round(float(np.median(calls)), 3),
        "p99": round(float(np.quantile(calls, 0.99)), 2),
        "slowest": round(float(later.max()), 1),
        "first": round(float(calls[0]), 1),
    }
    if budget is not None:
        figures["late"] = round(float((later > 1000 * ALLOWED * budget).mean()), 5)
    return figures


def busy() -> None:
    """Keeps a core busy for ever."""
    while True:
        sum(range(10**6))


def main(
    study: Literal["calls", "budgets"] = "calls",
    agents: tuple[str, ...] = (),
    episodes: int | None = None,
    label: str = LABEL,
    out: Path = pages.RESULTS / "latency.json",
    jobs: int = 1,
) -> None:
    """Measures what is missing in the file, prints all of it and, for the file of this repository, writes the page.

    Args:
        study: processor time of all calls, or time budgets beside a busy process.
        agents: only these.
        episodes: of each agent; None for 100 (20 with images, or a budget).
        label: of the rows.
        out: the file.
        jobs: processes at a time.
    """
    names = agents or ((*VECTORS, *IMAGES) if study == "calls" else VECTORS)
    budgets = (None,) if study == "calls" else BUDGETS
    known = {(row["label"], row["agent"], row["budget"]) for row in pages.rows(out)}
    wanted = [
        (label, name, episodes or (100 if study == "calls" and name in VECTORS else 20), budget)
        for name in names
        for budget in budgets
        if (label, name, budget) not in known
    ]
    context = multiprocessing.get_context("spawn")
    other = context.Process(target=busy, daemon=True)
    if study == "budgets":
        other.start()
    try:
        with context.Pool(jobs, maxtasksperchild=1) as pool:
            for row in tqdm(pool.imap_unordered(measured, wanted, chunksize=1), total=len(wanted)):
                with atomic_write(out) as aside:
                    aside.write_text(json.dumps([*pages.rows(out), row]).replace("}, {", "},\n{") + "\n")
    finally:
        if study == "budgets":
            other.kill()
    print(calls_table(pages.rows(out)), budgets_table(pages.rows(out)), sep="\n\n")
    if out == pages.RESULTS / "latency.json":
        pages.publish("latency", page(pages.rows(out)))


def page(rows: list[Row]) -> str:
    """Returns the page of results."""
    return pages.page(
        "What a call of predict costs",
        "python -m benchmarks.latency",
        f"Processor time of each call of the bundled agents on one thread, episodes with seeds from {SEED}, beside "
        f"one to three other processes on two cores. *{BEFORE}* is commit 0cd543b, which completed each search in the "
        "call that began it; since then, a search has a share of fixed work in each call. "
        f"*{LABEL}* is commit 871479f (881482e for the first three mazes and wall): proposals are followed until a "
        "search is complete, failed searches are repeated with other noise, and plans that miss or hold their goal are "
        "treated as such. 5e67a8f, 36ee4a2 and, for images, 2cc580a had none of this; 8236876 counted a derivative as "
        "one call instead of two, so that calls took longer. "
        "*Following* are calls that neither made nor searched for a plan. The first call of a process, in which code "
        "is loaded, is apart. *Paired* are the episodes that only this code and only that before solved, of those that "
        "both played, with the p-value of McNemar's exact test.",
        calls_table(rows),
        "## Time budgets beside a busy process",
        f"Wall-clock time of each call with `GRASP(budget=...)` and the like, beside a "
        f"busy process, commit 6e5f145; *late* are calls of more than {ALLOWED:g} times the budget.",
        budgets_table(rows),
    )


def calls_table(rows: list[Row]) -> str:
    """Returns Markdown with a line for each agent and label."""
    lines = [
        "| agent | code | success | paired | following, p50 [ms] | all calls, p50 | p99 | slowest | first "
        "| calls that search |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    of = [row for row in rows if row["budget"] is None]
    for row in sorted(of, key=lambda row: ((*VECTORS, *IMAGES).index(row["agent"]), row["label"])):
        times = " | ".join(f"{row[name]:.1f}" for name in ("p99", "slowest", "first"))
        success = f"{np.mean(row['success']):.2f} of {row['episodes']}"
        lines.append(
            f"| {row['agent']} | {row['label']} | {success} | {paired(row, of)} | {row['follow_p50']:.2f} "
            f"| {row['p50']:.2f} | {times} | {row['searching']:.1%} |"
        )
    return "\n".join(lines)


def paired(row: Row, rows: list[Row]) -> str:
    """Returns how many episodes only this code and only that before solved; nothing for the latter itself."""
    other = next((o for o in rows if o["label"] == BEFORE and o["agent"] == row["agent"]), None)
    if other is None or row["label"] == BEFORE:
        return ""
    common = min(len(row["success"]), len(other["success"]))
    ours, theirs = np.array(row["success"][:common]), np.array(other["success"][:common])
    gained, lost = int((ours > theirs).sum()), int((ours < theirs).sum())
    return f"+{gained} -{lost} of {common}, p {mcnemar(ours.tolist(), theirs.tolist()):.2g}"


def budgets_table(rows: list[Row]) -> str:
    """Returns Markdown with a line for each agent: success, and calls that were late, for each budget."""
    names = [f"{1000 * budget:.0f} ms: success, late" for budget in BUDGETS]
    lines = ["| agent | " + " | ".join(names) + " |", "|---" * (len(BUDGETS) + 1) + "|"]
    for agent in VECTORS:
        found = {row["budget"]: row for row in rows if row["agent"] == agent and row["label"] == LABEL}
        cells = [
            f"{np.mean(found[budget]['success']):.2f}, {found[budget]['late']:.2%}" if budget in found else ""
            for budget in BUDGETS
        ]
        if any(cells):
            lines.append(f"| {agent} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(main)
