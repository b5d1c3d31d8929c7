"""GRASP, SAC and TD3 from equally few steps, over training seeds: aggregates of success and of learning.

    python -m benchmarks.training_seeds --jobs 2                      # resumes where it was stopped
    python -m benchmarks.training_seeds --engine ray --address auto   # on a cluster

Each agent is trained from scratch with default settings (SAC and TD3 with hindsight and the settings of the bundled
ones) on one thread, and plays 100 episodes with seeds from 10000. Nothing and random actions play the same. Writes
`docs/results/training_seeds.md`, its figures and `benchmarks/results/training_seeds.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tqdm import tqdm

from benchmarks import pages
from grasp_agent import compare
from grasp_agent.evaluation import seeds_report
from grasp_agent.evaluation.aggregates import scores_of
from grasp_agent.evaluation.participants import OwnFile
from grasp_agent.evaluation.training import TrainingTask, train_agents
from grasp_agent.execution import engine

TASKS = {"grasp/PointMaze-v0": 2000, "grasp/Reacher-v0": 6000}
NAMES = ("grasp", "sac", "td3")
RIVALS = {"random": "random", "nothing": "benchmarks.training_seeds:Still"}
EPISODES, SEED = 100, 10_000
FIGURE = pages.PAGES.parent / "figures" / "training_seeds.png"


class Still:
    """Does nothing."""

    name = "nothing"

    def __init__(self, env: Any) -> None:
        self._rest = np.zeros(env.action_space.shape, env.action_space.dtype)

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
        """Returns actions of zero."""
        return self._rest, None


def main(
    seeds: int = 8,
    jobs: int | None = None,
    engine_name: str = "processes",
    address: str | None = None,
    folder: Path = pages.ROOT / "runs" / "training_seeds",
    episodes: int = EPISODES,
    publish: bool = True,
) -> None:
    """Trains and plays what is missing, and writes the page.

    Args:
        seeds: training seeds of each agent, from 0.
        jobs: tasks at a time.
        engine_name: what runs them, see `grasp_agent.execution.ENGINES`.
        address: of a cluster.
        folder: of the trainings and episodes.
        episodes: that each trained agent plays.
        publish: whether the page is written, too.
    """
    results: dict[str, Any] = {}
    with engine(engine_name, address) as executor:
        for env_id, steps in TASKS.items():
            tasks = [TrainingTask(name, env_id, steps, seed, longer=1) for seed in range(seeds) for name in NAMES]
            with tqdm(total=sum(task.total for task in tasks), desc=f"{env_id}: training") as bar:
                trained = train_agents(tasks, folder / "models", jobs=jobs, executor=executor, on_steps=bar.update)
            agents: dict[str, Any] = {
                name: [OwnFile(trained[task].files[0]) for task in tasks if task.name == name] for name in NAMES
            }
            with tqdm(total=(len(tasks) + len(RIVALS)) * episodes, desc=f"{env_id}: playing") as bar:
                found = compare(
                    env_id,
                    {**agents, **RIVALS},
                    episodes=episodes,
                    seed=SEED,
                    out=folder / env_id.split("/")[1],
                    jobs=jobs,
                    executor=executor,
                    on_episodes=bar.update,
                )
            curves = {name: [trained[task].curve for task in tasks if task.name == name] for name in NAMES}
            results[env_id] = {"steps": steps, "scores": found.scores(), "curves": curves}
    if publish:
        pages.keep("training_seeds", results)
        title = "PointMaze at 2,000 and Reacher at 6,000 steps: success at the end, 8 trainings each"
        seeds_report.figure(scores(results), title=title).savefig(FIGURE)
        pages.publish("training_seeds", page(results))


def scores(results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the scores of each agent in all environments, `[R, M]`."""
    found = {}
    for name in (*NAMES, *RIVALS):
        parts = [result["scores"][name] for result in results.values()]
        found[name] = scores_of(np.stack(parts, axis=1))
    return found


def page(results: Mapping[str, Any]) -> str:
    """Returns the page of results."""
    parts = [
        f"## `{env_id}`, {result['steps']:,} steps\n\n{seeds_report.markdown(result['scores'], explained=False)}"
        for env_id, result in results.items()
    ]
    return pages.page(
        "Over training seeds",
        "python -m benchmarks.training_seeds",
        f"GRASP, SAC and TD3 (with hindsight), each trained from scratch with default settings and seeds from 0; "
        f"success at the end of {EPISODES} episodes with seeds from {SEED}. Doing nothing and random actions "
        "play the same episodes.",
        "![Interquartile means and performance profiles](../figures/training_seeds.png)",
        f"## Both environments\n\n{seeds_report.markdown(scores(results))}",
        *parts,
    )


if __name__ == "__main__":
    tyro.cli(main)
