"""Ablation of the planner: one open-loop plan, and optionally the closed loop, on bundled models.

    python -m benchmarks.ablation                      # all tasks; resumes where it was stopped
    python -m benchmarks.ablation --tasks trap --variants default --closed

Writes `benchmarks/results/ablation.json` and the page `docs/results/ablation.md`. 20 episodes a cell with seeds from
40000 (not used for training or tuning); the intervals are Wilson's, 95 %. One thread.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from scipy.stats import binomtest
from tqdm import tqdm

import grasp_agent
from benchmarks import pages
from benchmarks.ablated_parts import Cautious
from benchmarks.trials import TASKS, closed_loop, free_grasp, open_loop
from grasp_agent import GRASP, Criteria
from grasp_agent.agent.replan_rule import ReplanRule
from grasp_agent.planners import (
    CEM,
    ICEM,
    ILQR,
    Adam,
    Collocation,
    Coloured,
    GaussNewton,
    GradientShooting,
    LiftedNewton,
    Line,
    Planner,
    Recombination,
    Relaxation,
    Replay,
    Roadmap,
    Rollout,
    Snap,
    Tracking,
    Warp,
)
from grasp_agent.task.observation import raw_vectors

EPISODES, SEED = 20, 40_000
ABLATED = ("barrier", "trap", "reacher", "four balls")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A changed planner, or changed criteria."""

    planner: Planner[Any] = GRASP()
    criteria: Criteria = Criteria()


FREE = GRASP(proposals=None)
PAPER = GRASP.paper(iterations=200, sigma=0.1)

# Each block changes one setting at a time: of the default, of it without a roadmap, of the published algorithm.

VARIANTS: dict[str, Variant] = {
    "default": Variant(),
    "roadmap alone, no iterations": Variant(planner=GRASP(iterations=0)),
    "proposals: replay, warped": Variant(planner=GRASP(proposals=Replay())),
    "proposals: replay, warped, no iterations": Variant(planner=GRASP(proposals=Replay(), iterations=0)),
    "scored without feedback": Variant(criteria=Criteria(feedback=False)),
    "support not checked": Variant(criteria=Criteria(off_support=0.0)),
    "disagreement penalised in scores": Variant(criteria=Criteria(disagreement=1.0)),
    "no roadmap": Variant(planner=FREE),
    "no roadmap; start: line with smooth noise": Variant(
        planner=replace(FREE, initial=Line(sigma=0.3, shape=Coloured(beta=3.0)))
    ),
    "no roadmap; start: rollout, warped to the goal": Variant(planner=replace(FREE, initial=Warp(source=Rollout()))),
    "no roadmap; start: smooth curves snapped to replay": Variant(
        planner=replace(FREE, initial=Snap(source=Line(sigma=1.0, shape=Coloured(beta=3.0))))
    ),
    "no roadmap; 4 candidates": Variant(planner=replace(FREE, candidates=4)),
    "no roadmap; 64 candidates": Variant(planner=replace(FREE, candidates=64)),
    "no roadmap; no noise": Variant(planner=replace(FREE, sigma=0.0)),
    "no roadmap; white noise": Variant(planner=replace(FREE, noise=Coloured(beta=0.0))),
    "no roadmap; noise does not fall": Variant(planner=replace(FREE, anneal=False)),
    "no roadmap; no goal term": Variant(planner=replace(FREE, update=Relaxation(goal_weight=0.0))),
    "no roadmap; goal term 1, falling": Variant(planner=replace(FREE, update=Relaxation(goal_weight=1.0, anneal=True))),
    "no roadmap; actions by Gauss-Newton": Variant(planner=replace(FREE, update=Relaxation(actions=GaussNewton()))),
    "no roadmap; members' disagreement in the optimisation": Variant(
        planner=replace(FREE, update=Relaxation(actions=Cautious()))
    ),
    "no roadmap; scored by two members that plan nothing": Variant(planner=FREE, criteria=Criteria(unused=2)),
    "no roadmap; lifted Newton": Variant(planner=replace(FREE, update=LiftedNewton())),
    "no roadmap; lifted Newton, tracking sync": Variant(
        planner=replace(FREE, update=LiftedNewton(), sync=Tracking(), opening=0, iterations=12)
    ),
    "no roadmap; recombination": Variant(planner=replace(FREE, recombination=Recombination())),
    "no roadmap; lifted Newton, recombination, 64 candidates": Variant(
        planner=replace(
            FREE, candidates=64, update=LiftedNewton(), sync=Tracking(), recombination=Recombination(), iterations=12
        )
    ),
    "no roadmap; goal held by the last 6 virtual states": Variant(planner=replace(FREE, pinned=6)),
    "no roadmap; virtual states not reset": Variant(planner=replace(FREE, reset_states=False)),
    "no roadmap; sync: tracking": Variant(planner=replace(FREE, sync=Tracking())),
    "no roadmap; sync: gradient": Variant(
        planner=replace(
            FREE, sync=GradientShooting(candidates=1, iterations=15, optimiser=Adam(lr=0.1), hold=6, running=0.05)
        )
    ),
    "no roadmap; sync: CEM": Variant(planner=replace(FREE, sync=CEM(iterations=3, samples=32, elites=4, sigma=0.2))),
    "no roadmap; no sync": Variant(planner=replace(FREE, opening=0, sync_every=100)),
    "no roadmap; syncs alone": Variant(planner=replace(FREE, iterations=3, opening=3)),
    "no roadmap; selection of smooth curves (64)": Variant(planner=replace(free_grasp(), iterations=12)),
    "iLQR alone, 16 candidates": Variant(planner=ILQR(candidates=16, iterations=9)),
    "iCEM": Variant(planner=ICEM()),
    "iCEM, factored": Variant(planner=ICEM(factored=True)),
    "iCEM, roadmap": Variant(planner=ICEM(proposals=Roadmap())),
    "published": Variant(planner=PAPER),
    "published; no noise": Variant(planner=replace(PAPER, sigma=0.0)),
    "published; no goal term": Variant(planner=replace(PAPER, update=replace(PAPER.update, goal_weight=0.0))),  # type: ignore[type-var]
    "published; no sync": Variant(planner=replace(PAPER, sync_every=10**6)),
    "published; Gauss-Newton actions": Variant(
        planner=replace(PAPER, update=Relaxation(states=Adam(lr=0.1), actions=GaussNewton(), goal_weight=1.0))
    ),
}


# The paper's own findings, on the task where its algorithm works at all.
FINDINGS_TASK, FINDINGS_HORIZON = "barrier", 30
LATCO = Collocation.paper(iterations=100)
PAPER_LONG = GRASP.paper(iterations=500, sigma=0.1)
FINDINGS: dict[str, Planner[Any]] = {
    "published": PAPER_LONG,
    "published; no noise": replace(PAPER_LONG, sigma=0.0),
    "published; no goal term": replace(PAPER_LONG, update=replace(PAPER_LONG.update, goal_weight=0.0)),  # type: ignore[type-var]
    "published; no sync": replace(PAPER_LONG, sync_every=10**6),
    "LatCo": LATCO,
}


def finding(planner: Planner[Any]) -> dict[str, float]:
    """Returns where virtual states, the model's rollout and the environment end, after all iterations."""
    agent = grasp_agent.load(TASKS[FINDINGS_TASK].model, device="cpu")
    agent.planner, agent.horizon = planner, FINDINGS_HORIZON
    agent.criteria = Criteria(accept=-1.0)  # no plan is accepted early
    world = agent.policy.world
    assert world is not None
    env = gym.make(TASKS[FINDINGS_TASK].env_id)
    real, virtual, model, gaps = [], [], [], []
    for index in range(EPISODES):
        observation, _ = env.reset(seed=SEED + index)
        batch = {key: value[None] for key, value in observation.items()}
        start, goals = world.encode(raw_vectors(batch)), batch["desired_goal"].astype(np.float32)
        problem = world.problem(start, goals, FINDINGS_HORIZON, agent.criteria)
        states_seen: list[Any] = []
        planner.plan(problem, on_step=lambda _, state: states_seen.append(state))  # noqa: B023
        # The last virtual state of GRASP is AT the goal; the one before it is free.
        states, actions = states_seen[-1].states[:, :, :-1], states_seen[-1].actions
        path = problem.follow(actions)[:, :, :-1]
        virtual.append(bool((problem.scoring.distances(states)[0, 0, -1] <= 2).all()))
        model.append(bool((problem.scoring.distances(path)[0, 0, -1] <= 2).all()))
        gaps.append(float((states - path)[0, 0, -1].norm() / problem.goal.tolerance))
        info: dict[str, Any] = {}
        for action in agent.policy.to_space(actions[0, 0].clamp(-1, 1).numpy()):
            *_, info = env.step(action)
        real.append(bool(info["is_success"]))
    env.close()
    return {"real": sum(real), "virtual": sum(virtual), "model": sum(model), "gap": float(np.median(gaps))}


def findings_table(rows: dict[str, dict[str, float]]) -> list[str]:
    """Returns the paper's findings as Markdown."""
    lines = [
        "",
        f"## What the paper found, on {FINDINGS_TASK} with H = {FINDINGS_HORIZON}",
        "",
        "The LAST iterate of one candidate, not the best. `virtual`, `model`: the last free virtual state, and the",
        "model's rollout of the actions at that step, lie within two tolerances of the goal; `gap`: median distance",
        "between the two [tolerances]; `real`: success at the end of the actions in the environment.",
        "",
        "| planner | virtual | model | gap | real |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        rates = [_rate(row[key]) for key in ("virtual", "model")]
        lines.append(f"| {name} | {' | '.join(rates)} | {row['gap']:.1f} | {_rate(row['real'])} |")
    return lines


def measure(task: str, variant: Variant, closed: bool) -> dict[str, float]:
    """Returns one row of the table."""
    agent = grasp_agent.load(TASKS[task].model, device="cpu")
    agent.planner, agent.criteria = variant.planner, variant.criteria
    agent.policy.controller.rule = ReplanRule(commit=agent.horizon)
    env = gym.make(TASKS[task].env_id)
    seeds = range(SEED, SEED + EPISODES)
    blind = [open_loop(agent, env, seed) for seed in seeds]
    row = {
        "open": sum(trial.end for trial in blind),
        "plan_ms": 1000 * float(np.median([trial.seconds for trial in blind])),
        "accepted": sum(trial.accepted for trial in blind),
    }
    if closed:
        loops = []
        for seed in seeds:
            agent.policy.forget()
            loops.append(closed_loop(agent, env, seed))
        row["closed"] = sum(trial.end for trial in loops)
        row["closed_s"] = float(np.median([trial.seconds for trial in loops]))
    env.close()
    return row


def page(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Returns the page of results."""
    lines = [
        f"{EPISODES} episodes a cell, seeds from {SEED}, real environment,",
        "success at the end with 95 % Wilson interval. `open`: at the end of one plan, executed blindly; `accepted`:",
        "the planner held it to be good enough; `closed`, where measured: the agent's own loop, with the time of all",
        "its planning.",
    ]
    for task in ABLATED:
        rows = results.get(task, {})
        if not rows:
            continue
        lines += ["", f"## {task}", "", "| planner | open | accepted | ms per plan | closed | s per episode |"]
        lines.append("|---|---|---|---|---|---|")
        for name in VARIANTS:
            if name in rows:
                row = rows[name]
                cells = [_rate(row["open"]), f"{row['accepted'] / EPISODES:.2f}", f"{row['plan_ms']:.0f}"]
                cells += [_rate(row["closed"]), f"{row['closed_s']:.2f}"] if "closed" in row else ["", ""]
                lines.append(f"| {name} | {' | '.join(cells)} |")
    if "findings" in results:
        lines += findings_table(results["findings"])
    return pages.page("What each ingredient adds", "python -m benchmarks.ablation", "\n".join(lines))


def _rate(successes: float) -> str:
    span = binomtest(int(successes), EPISODES).proportion_ci(method="wilson")
    return f"{successes / EPISODES:.2f} ({span.low:.2f}-{span.high:.2f})"


def main(
    tasks: tuple[str, ...] = ABLATED,
    variants: tuple[str, ...] = tuple(VARIANTS),
    closed: bool = False,
    findings: bool = True,
) -> None:
    """Measures what is missing, then writes the table.

    Args:
        tasks: only these.
        variants: only these.
        closed: measure the closed loop as well; where plans are seldom found it takes minutes a cell.
        findings: measure the paper's findings as well.
    """
    torch.set_num_threads(1)
    results: dict[str, Any] = pages.read("ablation", {})
    cells = [(task, name) for task in tasks for name in variants if name not in results.get(task, {})]
    if findings:
        cells += [("findings", name) for name in FINDINGS if name not in results.get("findings", {})]
    for task, name in tqdm(cells):
        row = finding(FINDINGS[name]) if task == "findings" else measure(task, VARIANTS[name], closed)
        results.setdefault(task, {})[name] = row
        pages.keep("ablation", results)
        pages.publish("ablation", page(results))


if __name__ == "__main__":
    tyro.cli(main)
