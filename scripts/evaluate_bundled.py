"""Evaluates the bundled models: the README's table.

    python scripts/evaluate_bundled.py

Per model: 100 episodes with seeds from 10000 in a plain loop, and Stable-Baselines3's `evaluate_policy` on one and four
environments, 20 episodes each. One thread. Writes
`benchmarks/results/bundled.json`, the page `docs/results/bundled.md` and the README's rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
import tyro
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from tqdm import tqdm

import grasp_agent
from benchmarks import pages
from benchmarks.learning_cost import Constant
from grasp_agent import evaluate

README = Path(__file__).parent.parent / "README.md"
SHOWN = ("ball-nav-trap", "ball-nav-maze", "point-maze", "push-t", "reacher", "wall-pixels")  # in the README
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


def references(name: str) -> dict[str, float]:
    """Returns the success at the end of doing nothing and of random actions in a model's environment."""
    agent = grasp_agent.load(name, device="cpu")
    env = gym.make(str(agent.env_id), **agent.env_kwargs)
    agents = {word: Constant(env.action_space, still=word == "nothing") for word in ("nothing", "random")}
    found = {word: float(evaluate(each, env, EPISODES, SEED).summary()["success_end"]) for word, each in agents.items()}
    env.close()
    return found


def table(rows: dict[str, dict[str, Any]], references: bool = False) -> str:
    """Returns a line for each model.

    Args:
        rows: the figures of each model.
        references: with the success of doing nothing and of random actions.
    """
    heads = ["model", "environment", "success at the end (95 %)", "steps to the goal"]
    heads += ["ms per action: mean / slowest call", "trained on", *(("doing nothing", "random") if references else ())]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, r in rows.items():
        rate = f"{100 * r['success_end']:.0f} % ({100 * r['success_end_low']:.0f}-{100 * r['success_end_high']:.0f})"
        time = f"{1000 * r['seconds_per_action_mean']:.1f} / {1000 * r['seconds_per_action_max']:.0f}"
        steps = f"{r['steps_to_success_median']:.0f}"
        cells = [f"`{name}`", f"`{r['env_id']}`", rate, steps, time, f"{r['training_steps']:,} steps"]
        cells += [f"{100 * r[word]:.0f} %" for word in ("nothing", "random")] if references else []
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page(rows: dict[str, dict[str, Any]]) -> str:
    """Returns the page of results."""
    return pages.page(
        "Bundled models",
        "python scripts/evaluate_bundled.py",
        f"{EPISODES} episodes for each model, with seeds from {SEED}, which were used neither for training nor "
        "for tuning. "
        "The real environment, closed loop, one CPU thread of a busy 2-core machine; planning is included in the "
        "times. An "
        "episode runs to its time limit, so the goal must be reached and held. In brackets: Wilson's 95 % "
        "interval. The last "
        "columns are the success of doing nothing and of random actions on the same episodes.",
        table({name: rows[name] for name in grasp_agent.bundled() if name in rows}, references=True),
    )


def in_readme(text: str, rows: dict[str, dict[str, Any]]) -> str:
    """Returns the README with its rows of now."""
    return pages.spliced(text, "results", table({name: rows[name] for name in SHOWN}))


def main(names: tyro.conf.Positional[tuple[str, ...]] = ()) -> None:
    """Evaluates the named models, or all."""
    torch.set_num_threads(1)
    rows: dict[str, Any] = pages.read("bundled", {})
    for name in tqdm(names or tuple(grasp_agent.bundled())):
        rows[name] = row(name) | references(name)
        pages.keep("bundled", rows)
    pages.publish("bundled", page(rows))
    pages.write(README, in_readme(README.read_text(encoding="utf-8"), rows))


if __name__ == "__main__":
    tyro.cli(main)
