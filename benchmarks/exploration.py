"""Ways that must be found: the trap and the large maze, learned from their own starts, with default settings.

    python -m benchmarks.exploration --jobs 2          # resumes where it was stopped
    python -m benchmarks.exploration --seeds 0 --agents grasp

The bundled agents of such environments have learned from starts all over the arena; here episodes start where the
environment starts them. Each agent is trained from scratch with seeds from 0 and plays 50 episodes with seeds from
10000 after 10,000 and after 20,000 steps. Doing nothing and random actions play the same.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch

import grasp_agent  # noqa: F401  registers the environments
from benchmarks import pages
from benchmarks.learning_cost import Constant
from benchmarks.stages import RIVALS, command, stages
from grasp_agent import GraspAgent, evaluate
from grasp_agent.evaluation import seeds_report
from grasp_agent.zoo.algorithms import untrained

STEPS = (10_000, 20_000)
EPISODES, SEED = 50, 10_000
ENVS = ("grasp/BallNavTrap-v0", "grasp/PointMazeLarge-v0")
GRASP, SAC = "grasp", "sac"
Row = dict[str, Any]


def measured(job: tuple[str, str, int]) -> Row:
    """Trains one agent, unless it is a rival, and plays after each number of steps.

    Args:
        job: name of the agent, id of the environment and training seed.
    """
    name, env_id, seed = job
    torch.set_num_threads(1)
    env, played = gym.make(env_id), gym.make(env_id)
    row: Row = {"agent": name, "env": env_id, "seed": seed, "learning_cpu_s": [], "success": []}
    if name in RIVALS:
        found = evaluate(Constant(env.action_space, still=name == "nothing"), played, EPISODES, SEED)
        return {**row, "success": [[bool(episode.success_end) for episode in found.episodes]]}
    if name == SAC:
        agent: Any = untrained(SAC, env, steps=STEPS[-1], seed=seed)
    else:
        agent = GraspAgent("MultiInputPolicy", env, seed=seed, device="cpu")
    for seconds in stages(agent, STEPS):
        row["learning_cpu_s"].append(seconds)
        row["success"].append([bool(e.success_end) for e in evaluate(agent, played, EPISODES, SEED).episodes])
    return row


def scores(rows: list[Row], env_id: str) -> dict[str, list[list[float]]]:
    """Returns the agents' success at the end in each training, `[R, 1]`."""
    found: dict[str, list[list[float]]] = {}
    for row in sorted(rows, key=lambda row: (row["agent"], row["seed"])):
        if row["env"] == env_id:
            for steps, success in zip(STEPS, row["success"], strict=False):
                label = row["agent"] if row["agent"] in RIVALS else f"{row['agent']}, {steps:,} steps"
                found.setdefault(label, []).append([sum(success) / len(success)])
    return found


def page(rows: list[Row]) -> str:
    """Returns the page of results."""
    parts = []
    for env_id in [name for name in ENVS if any(row["env"] == name for row in rows)]:
        parts += [f"## `{env_id}`", seeds_report.markdown(scores(rows, env_id), explained=False)]
        trained = [row for row in rows if row["env"] == env_id and row["learning_cpu_s"]]
        spent = {name: [sum(row["learning_cpu_s"]) for row in trained if row["agent"] == name] for name in (GRASP, SAC)}
        shown = [f"{name} {sum(seconds) / len(seconds):.0f} s" for name, seconds in spent.items() if seconds]
        parts.append(f"CPU time of {STEPS[-1]:,} steps, mean: {', '.join(shown)}.")
    return pages.page(
        "Ways that must be found",
        "python -m benchmarks.exploration",
        f"Trained from scratch with default settings from the environment's own starts; success at the end of "
        f"{EPISODES} episodes with seeds from {SEED}, after {STEPS[0]:,} and after {STEPS[1]:,} steps of the same "
        "training. SAC has hindsight and the settings of the bundled baselines. Doing nothing and random actions play "
        "the same episodes.",
        *parts,
    )


if __name__ == "__main__":
    command("exploration", page, measured, ENVS, (GRASP, SAC))
