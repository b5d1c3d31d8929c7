"""Learning from scratch, GRASP and SAC + HER: success at the end against environment steps.

    python -m benchmarks.learning_curves                    # all tasks, both, all seeds; resumes where it was stopped
    python -m benchmarks.learning_curves --agents sac       # one of them
    python -m benchmarks.learning_curves --tasks grasp/Wall-v0

Writes `benchmarks/results/learning_curves.json` (every run),
`docs/results/learning_curves.md` and `docs/figures/learning_curves.png`. Training seeds are 0 to 4; each point
is measured on 30 episodes with seeds from 30000. GRASP is trained from scratch for each number of steps, as a user
would call `learn(N)`; SAC + HER (two layers of 64, one gradient step per environment step) is evaluated during one run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import matplotlib
import numpy as np
import torch
import tyro
from matplotlib import pyplot
from scipy import stats
from tqdm import tqdm

from benchmarks import pages
from grasp_agent import GraspAgent, evaluate
from grasp_agent.files import atomic_write
from grasp_agent.zoo.resumable import ResumableTraining

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
SEEDS = (0, 1, 2, 3, 4)
SAC_STEPS = (1000, 2000, 3000, 4000, 6000, 8000, 10000, 15000, 20000)
TASKS: dict[str, dict[str, tuple[int, ...]]] = {
    "grasp/Wall-v0": {"grasp": (4000,), "sac": SAC_STEPS},
    "grasp/PointMaze-v0": {"grasp": (1600,), "sac": SAC_STEPS},
    "grasp/Reacher-v0": {"grasp": (4000, 6000), "sac": (*SAC_STEPS, 30000)},
}
"""The steps after which each is measured; GRASP's last is a fifth of what SAC + HER needs for 90 %, or is given."""
EPISODES, EVALUATION_SEED = 30, 30_000
LABELS = {"grasp": "GRASP, learned model", "sac": "SAC + HER"}
COLOURS = {"grasp": "#2F6FDE", "sac": "#C8553D"}
Points = Iterator[tuple[int, float]]


def success(agent: Any, task: str) -> float:
    """Returns success at the end over the evaluation's episodes."""
    return float(evaluate(agent, task, EPISODES, EVALUATION_SEED).summary()["success_end"])


def grasp_points(task: str, seed: int, done: dict[str, float]) -> Points:
    """Yields steps and success of a fresh agent for each number of steps."""
    for steps in TASKS[task]["grasp"]:
        if str(steps) not in done:
            yield steps, success(GraspAgent("MultiInputPolicy", task, seed=seed, device="cpu").learn(steps), task)


def sac_points(task: str, seed: int, done: dict[str, float]) -> Points:
    """Yields steps and success along one run; restarted if it was stopped."""
    lengths = TASKS[task]["sac"]
    if set(map(str, lengths)) <= set(done):
        return
    training = ResumableTraining("sac", gym.make(task), steps=lengths[-1], seed=seed)
    for steps in lengths:
        training.run(steps)
        yield steps, success(training.model, task)


def plot(results: dict[str, Any], path: Path) -> None:
    """Plots a panel for each task: thin lines for seeds, their mean, and its 95 % interval (Student's t)."""
    matplotlib.use("agg")
    size = (3.4 * len(TASKS), 3.4)
    figure, axes = pyplot.subplots(1, len(TASKS), figsize=size, dpi=110, layout="constrained", sharey=True)
    for panel, task in zip(axes, TASKS, strict=True):
        for name, runs in results.get(task, {}).items():
            curve(panel, name, runs)
        panel.axhline(0.9, color="#888", lw=0.8, ls=":")
        panel.set(xlabel="environment steps", ylim=(-0.02, 1.03), xscale="log", title=task)
        panel.set_xticks([1000, 2000, 5000, 10000, 20000], ["1k", "2k", "5k", "10k", "20k"], minor=False)
        panel.minorticks_off()
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("success at the end")
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=2)
    with atomic_write(path) as aside:
        figure.savefig(aside)
    pyplot.close(figure)


def curve(panel: Any, name: str, runs: dict[str, dict[str, float]]) -> None:
    """Draws one agent's runs."""
    steps = sorted({int(s) for run in runs.values() for s in run})
    curves = [[run[str(s)] for run in runs.values() if str(s) in run] for s in steps]
    means = np.array([np.mean(c) for c in curves])
    reach = [stats.t.ppf(0.975, len(c) - 1) * np.std(c, ddof=1) / np.sqrt(len(c)) if len(c) > 1 else 0 for c in curves]
    low, high = np.clip(means - reach, 0, 1), np.clip(means + reach, 0, 1)
    panel.plot(steps, means, "o-", color=COLOURS[name], label=LABELS[name], lw=2, ms=5)
    for run in runs.values():
        points = sorted((int(s), rate) for s, rate in run.items())
        panel.plot(*zip(*points, strict=True), ".-", color=COLOURS[name], lw=0.7, ms=4, alpha=0.4)
    panel.fill_between(steps, low, high, color=COLOURS[name], alpha=0.15, lw=0)
    panel.vlines(steps, low, high, color=COLOURS[name], lw=1.5)


def page(runs: dict[str, dict[str, dict[str, dict[str, float]]]]) -> str:
    """Returns the page of results: the success of each training at each number of steps."""
    lines = ["| environment | agent | steps | success at the end, by training seed | mean |", "|---|---|---|---|---|"]
    for task, agents in runs.items():
        for name, trainings in agents.items():
            for steps in sorted({int(count) for training in trainings.values() for count in training}):
                found = [training[str(steps)] for training in trainings.values() if str(steps) in training]
                said = " ".join(f"{value:.2f}" for value in found)
                lines.append(f"| `{task}` | {LABELS[name]} | {steps:,} | {said} | {np.mean(found):.2f} |")
    return pages.page(
        "Learning curves",
        "python -m benchmarks.learning_curves",
        "`learn(N)` from scratch with default settings, and Stable-Baselines3's SAC + HER. Training seeds 0 to "
        "4; the band is the 95 % interval of the mean over trainings (Student's t). Wall and PointMaze are of "
        "today's fits, Reacher is of commit 4ff2213, where learning cost more ([learning cost](learning_cost.md)).",
        "![Success against environment steps](../figures/learning_curves.png)",
        "\n".join(lines),
    )


def main(
    agents: tuple[Literal["grasp", "sac"], ...] = ("grasp", "sac"),
    seeds: tuple[int, ...] = SEEDS,
    tasks: tuple[str, ...] = tuple(TASKS),
) -> None:
    """Trains what is missing, then draws."""
    torch.set_num_threads(1)
    points = {"grasp": grasp_points, "sac": sac_points}
    runs = [(name, task, seed) for seed in seeds for task in tasks for name in agents]
    with tqdm(total=len(runs)) as bar:
        for name, task, seed in runs:
            bar.set_postfix_str(f"{task} {name} seed {seed}")
            done = pages.read("learning_curves", {}).get(task, {}).get(name, {}).get(str(seed), {})
            for steps, rate in points[name](task, seed, done):
                results = pages.read("learning_curves", {})  # read late: two processes may run at once
                results.setdefault(task, {}).setdefault(name, {}).setdefault(str(seed), {})[str(steps)] = rate
                pages.keep("learning_curves", results)
            bar.update()
    plot(pages.read("learning_curves", {}), FIGURES / "learning_curves.png")
    pages.publish("learning_curves", page(pages.read("learning_curves", {})))


if __name__ == "__main__":
    tyro.cli(main)
