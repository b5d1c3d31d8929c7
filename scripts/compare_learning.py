"""Learning from nothing, GRASP beside SAC + HER: success at the end against environment steps.

    python scripts/compare_learning.py                  # both, all seeds; resumes where it was stopped
    python scripts/compare_learning.py --agents sac     # one of them

Writes `videos/learning_curve.json` (every run) and `videos/learning_curve.png`. Training seeds are 0, 1, 2; each point
is measured on 50 episodes with seeds from 30000. GRASP is trained anew for each number of steps, as a user would call
`learn(N)`; SAC + HER (two layers of 64, one gradient step per environment step) is evaluated on the way of one run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from scipy.stats import binomtest
from stable_baselines3 import SAC, HerReplayBuffer
from tqdm import tqdm

from grasp_agent import GraspAgent, evaluate
from grasp_agent.files import written_aside

FOLDER = Path(__file__).parent.parent / "videos"
ENV = "grasp/BallNav-v0"
SEEDS = (0, 1, 2)
STEPS = {"grasp": (500, 1000, 2000), "sac": (1000, 2000, 3000, 4000, 5000, 6000, 8000, 10000, 15000)}
EPISODES, EVALUATION_SEED = 50, 30_000
LABELS = {"grasp": "GRASP, learned model", "sac": "SAC + HER"}
COLOURS = {"grasp": "#2F6FDE", "sac": "#C8553D"}


def success(agent: Any) -> float:
    """Success at the end over the evaluation's episodes."""
    return float(evaluate(agent, ENV, EPISODES, EVALUATION_SEED).summary()["success_end"])


def grasp_points(seed: int, done: dict[str, float]) -> Any:
    """Yields steps and success of a fresh agent for each number of steps."""
    for steps in STEPS["grasp"]:
        if str(steps) not in done:
            yield steps, success(GraspAgent("MultiInputPolicy", ENV, seed=seed, device="cpu").learn(steps))


def sac_points(seed: int, done: dict[str, float]) -> Any:
    """Yields steps and success along one run; begun anew if it was stopped."""
    if set(map(str, STEPS["sac"])) <= set(done):
        return
    sac = SAC(
        "MultiInputPolicy",
        gym.make(ENV),
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"n_sampled_goal": 4, "goal_selection_strategy": "future"},
        policy_kwargs={"net_arch": [64, 64]},
        learning_starts=500,
        learning_rate=1e-3,
        gamma=0.95,
        batch_size=256,
        buffer_size=20_000,
        seed=seed,
        device="cpu",
    )
    for steps in STEPS["sac"]:
        sac.learn(steps - sac.num_timesteps, reset_num_timesteps=False)
        yield steps, success(sac)


def plot(results: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """Draws each seed thinly, their mean, and the Wilson interval of the pooled episodes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.8), dpi=150)
    for name, runs in results.items():
        steps = sorted({int(s) for run in runs.values() for s in run})
        curves = [[run[str(s)] for run in runs.values() if str(s) in run] for s in steps]
        spans = [binomtest(round(sum(c) * EPISODES), len(c) * EPISODES).proportion_ci(method="wilson") for c in curves]
        axes.plot(steps, [np.mean(c) for c in curves], "o-", color=COLOURS[name], label=LABELS[name], lw=2, ms=4)
        for run in runs.values():
            points = sorted((int(s), share) for s, share in run.items())
            axes.plot(*zip(*points, strict=True), color=COLOURS[name], lw=0.7, alpha=0.4)
        axes.fill_between(steps, [s.low for s in spans], [s.high for s in spans], color=COLOURS[name], alpha=0.15, lw=0)
    axes.axhline(0.9, color="#888", lw=0.8, ls=":")
    axes.set(xlabel="environment steps", ylabel="success at the end", ylim=(0, 1.02), xscale="log", title=ENV)
    axes.set_xticks([500, 1000, 2000, 5000, 10000], ["500", "1k", "2k", "5k", "10k"], minor=False)
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    with written_aside(path) as aside:
        figure.savefig(aside)


def main(agents: tuple[Literal["grasp", "sac"], ...] = ("grasp", "sac"), seeds: tuple[int, ...] = SEEDS) -> None:
    """Trains what is missing, then draws."""
    torch.set_num_threads(1)
    path = FOLDER / "learning_curve.json"
    points = {"grasp": grasp_points, "sac": sac_points}
    with tqdm(total=len(seeds) * sum(len(STEPS[name]) for name in agents)) as bar:
        for name in agents:
            for seed in seeds:
                done = _read(path).get(name, {}).get(str(seed), {})
                bar.update(len(done))
                for steps, share in points[name](seed, done):
                    results = _read(path)  # read late: two halves may run side by side
                    results.setdefault(name, {}).setdefault(str(seed), {})[str(steps)] = share
                    with written_aside(path) as aside:
                        aside.write_text(json.dumps(results, indent=1) + "\n")
                    bar.update(int(str(steps) not in done))
                    bar.set_postfix_str(f"{name} seed {seed}: {steps} steps, {share:.0%}")
    plot(_read(path), FOLDER / "learning_curve.png")


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


if __name__ == "__main__":
    tyro.cli(main)
