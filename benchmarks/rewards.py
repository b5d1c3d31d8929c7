"""Rewards: GRASP's agent for rewards beside SAC at equal steps, random actions and doing nothing, over training seeds.

    python -m benchmarks.rewards --jobs 2                          # resumes where it was stopped
    python -m benchmarks.rewards --envs HalfCheetah-v5 --seeds 0

Each agent is trained from scratch with default settings (the rival: Stable-Baselines3's, SAC, or DQN where actions are
discrete) and seeds from 0, and plays episodes with seeds from 10000 after each number of steps of the same training.
"""

from __future__ import annotations

import statistics
from typing import Any

import gymnasium as gym
import torch
from gymnasium import spaces
from stable_baselines3 import DQN, SAC

from benchmarks import pages
from benchmarks.learning_cost import Constant
from benchmarks.stages import RIVALS, command, stages
from grasp_agent import GraspAgent, evaluate
from grasp_agent.evaluation import aggregates

SEED = 10_000
FEW, MANY = 3, 20
ENVS: dict[str, tuple[int, tuple[int, ...]]] = {
    "HalfCheetah-v5": (FEW, (5000, 10_000, 25_000)),
    "InvertedDoublePendulum-v5": (FEW, (5000, 10_000)),
    "Hopper-v5": (FEW, (5000, 10_000, 25_000)),
    "Walker2d-v5": (FEW, (5000, 10_000, 25_000)),
    "Reacher-v5": (MANY, (4000, 8000)),
    "Pusher-v5": (MANY, (8000, 15_000)),
    "Swimmer-v5": (FEW, (5000, 10_000)),
    "InvertedPendulum-v5": (FEW, (3000, 6000)),
    "Pendulum-v1": (MANY, (3000, 6000)),
    "CartPole-v1": (FEW, (1500, 3000)),
    "Acrobot-v1": (FEW, (3000, 6000)),
}
"""Environments: how many episodes agents play, more where these are short, and after which steps."""
GRASP, SB3 = "grasp", "sb3"
EARLIER = "grasp, earlier defaults"
"""Name of rows that were measured before the defaults changed, in `docs/results/rewards.md` until they are replaced."""
Row = dict[str, Any]


def measured(job: tuple[str, str, int]) -> Row:
    """Trains one agent, unless it is a rival, and plays after each number of steps.

    Args:
        job: name of the agent, id of the environment and training seed.
    """
    name, env_id, seed = job
    torch.set_num_threads(1)
    env, played, (count, stops) = gym.make(env_id), gym.make(env_id), ENVS[env_id]
    row: Row = {"agent": name, "env": env_id, "seed": seed, "learning_cpu_s": [], "returns": [], "ms": []}
    if name in RIVALS:
        agent: Any = Constant(env.action_space, still=name == "nothing")
    else:
        rival = SAC if isinstance(env.action_space, spaces.Box) else DQN
        kind: Any = rival if name == SB3 else GraspAgent
        agent = kind("MlpPolicy", env, seed=seed, device="cpu")
    for seconds in (0,) if name in RIVALS else stages(agent, stops):
        row["learning_cpu_s"].append(seconds)
        episodes = evaluate(agent, played, count, SEED).episodes
        row["returns"].append([round(episode.return_, 2) for episode in episodes])
        row["ms"].append(round(1000 * sum(e.seconds_per_action_mean for e in episodes) / len(episodes), 2))
    return row


def page(rows: list[Row]) -> str:
    """Returns the page of results."""
    parts = []
    for env_id in dict.fromkeys(row["env"] for row in rows):
        lines = [f"## `{env_id}`", ""]
        lines += [
            "| agent | steps | trainings | return, IQM | worst to best | CPU s of learning | ms per action, median |"
        ]
        lines += ["|---|---|---|---|---|---|---|"]
        for name in (GRASP, EARLIER, SB3, *RIVALS):
            found = sorted(
                (row for row in rows if row["env"] == env_id and row["agent"] == name), key=lambda r: r["seed"]
            )
            for index, steps in enumerate(ENVS[env_id][1] if name not in RIVALS else (0,)):
                means = [statistics.mean(kept[index]) for row in found if len(kept := row["returns"]) > index]
                if not means:
                    continue
                spent = [sum(row["learning_cpu_s"][: index + 1]) for row in found]
                delays = [row["ms"][index] for row in found]
                middle = aggregates.iqm(aggregates.scores_of(means))
                cells = [name, f"{steps:,}" if steps else "-", f"{len(means)}", f"{float(middle):.0f}"]
                cells += [f"{min(means):.0f} to {max(means):.0f}"]
                cells += [f"{sum(spent) / len(spent):.0f}" if steps else "-", f"{statistics.median(delays):.1f}"]
                lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return pages.page(
        "Rewards",
        "python -m benchmarks.rewards",
        '`GraspAgent("MlpPolicy", env)` and Stable-Baselines3\'s SAC (DQN for discrete actions; "sb3"), all with '
        "default settings, trained from scratch "
        f"with seeds from 0; each training's mean return over {FEW} episodes, {MANY} where these are short, with "
        f"seeds from {SEED}, with deterministic actions; interquartile mean (IQM) over trainings. Doing nothing and "
        "random actions play the same episodes. Earlier defaults: lambda .9 and 64 samples, now .8 and 96.",
        *parts,
    )


if __name__ == "__main__":
    command("rewards", page, measured, tuple(ENVS), (GRASP, SB3))
