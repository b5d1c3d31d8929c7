"""What each ingredient of the default planner adds, on bundled models: closed loop and one blind plan.

    python scripts/ablate.py                      # all tasks; resumes where it was stopped

Writes `docs/ablation.json` and the table `docs/ablation.md`. 20 episodes a cell with seeds from 40000 (not used for
training or tuning); the intervals are Wilson's, 95 %. One thread; times are means over all steps, plans included.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from scipy.stats import binomtest
from tqdm import tqdm

import grasp_agent
from grasp_agent import GRASP, Criteria, GraspAgent, evaluate
from grasp_agent.files import written_aside
from grasp_agent.observation import raw_vectors
from grasp_agent.planners import (
    ILQR,
    Adam,
    Coloured,
    Gradient,
    Line,
    Planner,
    Roadmap,
    Rollout,
    ShootingGradient,
    Tracking,
)

FOLDER = Path(__file__).parent.parent / "docs"
EPISODES, SEED = 20, 40_000
TASKS = ("ball-nav-trap", "reacher")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A changed planner, or changed rules of judging."""

    planner: Callable[[], Planner[Any]] = GRASP
    criteria: Criteria = Criteria()


VARIANTS = {
    "default (roadmap and rollout starts, GRASP)": Variant(),
    "roadmap alone, no iterations": Variant(planner=lambda: GRASP(initial=Roadmap(), iterations=0)),
    "GRASP alone, no roadmap": Variant(planner=lambda: GRASP(initial=Rollout())),
    "published algorithm (200 iterations, sigma 0.1)": Variant(planner=lambda: GRASP.paper(iterations=200, sigma=0.1)),
    "no roadmap, line starts": Variant(planner=lambda: GRASP(initial=Line(sigma=0.2, shape=Coloured(beta=3.0)))),
    "no roadmap, no noise": Variant(planner=lambda: GRASP(initial=Rollout(), sigma=0.0)),
    "no roadmap, white noise": Variant(planner=lambda: GRASP(initial=Rollout(), noise=Coloured(beta=0.0))),
    "no roadmap, no goal term": Variant(planner=lambda: GRASP(initial=Rollout(), goal_weight=0.0)),
    "no roadmap, Adam for actions": Variant(
        planner=lambda: GRASP(initial=Rollout(), action_update=Gradient(optimiser=Adam(lr=0.05)))
    ),
    "no roadmap, tracking sync, 32 candidates": Variant(
        planner=lambda: GRASP(candidates=32, initial=Rollout(), sync=Tracking(), sigma=0.25, reset_states=False)
    ),
    "no roadmap, gradient sync": Variant(
        planner=lambda: GRASP(initial=Rollout(), sync=ShootingGradient(steps=15, optimiser=Adam(lr=0.1), hold=3))
    ),
    "no roadmap, no sync": Variant(planner=lambda: GRASP(initial=Rollout(), opening=0, sync_every=100)),
    "no roadmap, syncs alone": Variant(planner=lambda: GRASP(initial=Rollout(), iterations=3, opening=3, sync=ILQR())),
    "default, judged without feedback": Variant(criteria=Criteria(feedback=False)),
    "default, support not checked": Variant(criteria=Criteria(off_support=0.0)),
}


def open_loop(agent: GraspAgent, env: gym.Env[Any, Any], seed: int) -> tuple[bool, float]:
    """Success at the end of one blind plan, and the seconds that planning took."""
    policy, world = agent.policy, agent.policy.world
    assert world is not None
    observation, _ = env.reset(seed=seed)
    batch = {key: value[None] for key, value in observation.items()}
    start = world.encode(raw_vectors(batch))
    began = perf_counter()
    plan = policy.planner.plan(
        world.problem(start, batch["desired_goal"].astype(np.float32), policy.horizon, policy.criteria)
    )
    seconds = perf_counter() - began
    info: dict[str, Any] = {}
    for action in policy.to_space(plan.actions[0].numpy()):
        *_, info = env.step(action)
    return bool(info["is_success"]), seconds


def measure(task: str, variant: Variant) -> dict[str, float]:
    """One row of the table."""
    agent = grasp_agent.load(task, device="cpu")
    agent.policy.planner, agent.policy.criteria = variant.planner(), variant.criteria
    closed = evaluate(agent, str(agent.env_id), EPISODES, SEED).summary()
    env = gym.make(str(agent.env_id))
    blind = [open_loop(agent, env, SEED + index) for index in range(EPISODES)]
    env.close()
    return {
        "closed": round(EPISODES * closed["success_end"]),
        "ms": 1000 * closed["seconds_per_action_mean"],
        "open": sum(success for success, _ in blind),
        "plan_ms": 1000 * float(np.mean([seconds for _, seconds in blind])),
    }


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """The results as Markdown."""
    lines = [
        "# What each ingredient adds",
        "",
        f"Written by `python scripts/ablate.py`: {EPISODES} episodes a cell, seeds from {SEED}, real environment,",
        "success at the end with 95 % Wilson interval. `open`: at the end of one plan, executed blindly.",
    ]
    for task, rows in results.items():
        lines += [
            "",
            f"## {task}",
            "",
            "| planner | closed loop | ms per action | open | ms per plan |",
            "|---|---|---|---|---|",
        ]
        for name, row in rows.items():
            cells = [_share(row["closed"]), f"{row['ms']:.1f}", _share(row["open"]), f"{row['plan_ms']:.0f}"]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _share(successes: float) -> str:
    span = binomtest(int(successes), EPISODES).proportion_ci(method="wilson")
    return f"{successes / EPISODES:.2f} ({span.low:.2f}-{span.high:.2f})"


def main(tasks: tuple[str, ...] = TASKS) -> None:
    """Measures what is missing, then writes the table."""
    torch.set_num_threads(1)
    path = FOLDER / "ablation.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    cells = [(task, name) for name in VARIANTS for task in tasks if name not in results.get(task, {})]
    for task, name in tqdm(cells):
        results.setdefault(task, {})[name] = measure(task, VARIANTS[name])
        with written_aside(path) as aside:
            aside.write_text(json.dumps(results, indent=1) + "\n")
        with written_aside(FOLDER / "ablation.md") as aside:
            aside.write_text(table(results))


if __name__ == "__main__":
    tyro.cli(main)
