"""Evaluates the bundled models: the README's table.

    python scripts/evaluate_bundled.py

Per model: 100 episodes with seeds from 10000 in a plain loop, and Stable-Baselines3's `evaluate_policy` on one and four
environments, 20 episodes each. One thread. Writes `docs/results.json` and `docs/results.md`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import tyro
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from tqdm import tqdm

import grasp_agent
from grasp_agent import evaluate
from grasp_agent.serialization import atomic_write

FOLDER = Path(__file__).parent.parent / "docs"
EPISODES, SB3_EPISODES, SEED = 100, 20, 10_000


def sb3_success(agent: grasp_agent.GraspAgent, count: int) -> float:
    """Returns success at the end by Stable-Baselines3's own evaluation on `count` environments."""
    ends: list[bool] = []

    def record_end(local: dict[str, Any], _: dict[str, Any]) -> None:
        if local["done"]:
            ends.append(bool(local["info"]["is_success"]))

    env = make_vec_env(str(agent.env_id), n_envs=count, seed=SEED, env_kwargs=agent.env_kwargs)
    evaluate_policy(agent, env, n_eval_episodes=SB3_EPISODES, callback=record_end)  # type: ignore[arg-type]
    env.close()
    return sum(ends) / len(ends)


def row(name: str) -> dict[str, Any]:
    """Returns all figures of one model."""
    agent, known = grasp_agent.load(name, device="cpu"), grasp_agent.bundled()[name]
    summary = evaluate(agent, str(agent.env_id), EPISODES, SEED).summary()
    sb3 = {f"evaluate_policy_{count}": sb3_success(agent, count) for count in (1, 4)}
    return {**summary, **sb3, "training_steps": known.steps, "sha256": known.sha256, "env_id": agent.env_id}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Returns the README's table."""
    lines = [
        "| model | environment | success at the end (95 %) | steps to the goal | ms per action: mean / slowest call | "
        "trained on |",
        "|---|---|---|---|---|---|",
    ]
    for name, r in rows.items():
        rate = f"{100 * r['success_end']:.0f} % ({100 * r['success_end_low']:.0f}-{100 * r['success_end_high']:.0f})"
        time = f"{1000 * r['seconds_per_action_mean']:.1f} / {1000 * r['seconds_per_action_max']:.0f}"
        steps = f"{r['steps_to_success_median']:.0f}"
        lines.append(f"| `{name}` | `{r['env_id']}` | {rate} | {steps} | {time} | {r['training_steps']:,} steps |")
    return "\n".join(lines) + "\n"


def main(names: tyro.conf.Positional[tuple[str, ...]] = ()) -> None:
    """Evaluates the named models, or all."""
    torch.set_num_threads(1)
    path = FOLDER / "results.json"
    rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in tqdm(names or tuple(grasp_agent.bundled())):
        rows[name] = row(name)
        with atomic_write(path) as aside:
            aside.write_text(json.dumps(rows, indent=1) + "\n")
    with atomic_write(FOLDER / "results.md") as aside:
        aside.write_text(table({name: rows[name] for name in grasp_agent.bundled() if name in rows}))


if __name__ == "__main__":
    tyro.cli(main)
