"""The best trial of `grasp tune` against the defaults, on seeds that it has not seen.

    grasp tune grasp/BallNav-v0 --steps 500 --trials 20 --out runs/tuned
    python -m benchmarks.tuned --best runs/tuned/best.json

Both configurations are trained with seeds from 0 and play 50 episodes with seeds from 10000. Doing nothing and random
actions play the same. Writes `benchmarks/results/tuned.json` and `docs/results/tuned.md`; without `--best` it goes on
with the configuration that is stored there.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
import tyro
from tqdm import tqdm

from benchmarks import pages
from benchmarks.learning_cost import Constant
from grasp_agent import evaluate
from grasp_agent.evaluation import seeds_report
from grasp_agent.evaluation.config import TrainingConfig, make_agent
from grasp_agent.execution import results

SEEDS, EPISODES, SEED = 5, 50, 10_000
RIVALS = ("random", "nothing")


def measured(job: tuple[str, TrainingConfig | None, str, int]) -> list[bool]:
    """Trains, unless it is doing nothing or random actions, and plays.

    Args:
        job: name, configuration of a training, environment, training seed.
    """
    name, config, env_id, seed = job
    torch.set_num_threads(1)
    if config is None:
        agent: Any = Constant(gym.make(env_id).action_space, still=name == "nothing")
    else:
        agent = make_agent(replace(config, seed=seed))
        agent.learn(config.steps)
    return [bool(row.success_end) for row in evaluate(agent, env_id, EPISODES, SEED).episodes]


def page(found: dict[str, Any]) -> str:
    """Returns the page of results."""
    best, scores = TrainingConfig.from_json(found["config"]), dict(found["scores"])
    return pages.page(
        "Tuned settings",
        "python -m benchmarks.tuned",
        f"The trial of `grasp tune {best.env} --steps {best.steps} --trials {found['trials']}` with the best mean in "
        "three further trainings, against the defaults, which `grasp tune` keeps unless that mean is better by more "
        f"than the standard error. Each is trained with seeds 0 to {SEEDS - 1}; success at the end of {EPISODES} "
        f"episodes with seeds from {SEED}. "
        "Doing nothing and random actions play the same episodes. None of these seeds was seen while tuning.",
        seeds_report.markdown(scores),
        f"The tuned settings, as `grasp train --config` reads them, are in `benchmarks/results/tuned.json`: "
        f"{best.summary()}.",
    )


def main(best: Path | None = None, trials: int = 20, jobs: int = 1, publish: bool = True) -> None:
    """Trains and plays, and writes the page.

    Args:
        best: the winner's file; None for the stored one.
        trials: of the study that it won, for the page.
        jobs: processes at a time.
        publish: whether the page is written, too.
    """
    stored = pages.read("tuned", {})
    tuned = TrainingConfig.from_json(stored["config"]) if best is None else TrainingConfig.read(best)
    default = TrainingConfig(env=tuned.env, env_kwargs=tuned.env_kwargs, steps=tuned.steps)
    configs = {"tuned": tuned, "defaults": default}
    work = [(name, config, tuned.env, seed) for seed in range(SEEDS) for name, config in configs.items()]
    work += [(name, None, tuned.env, 0) for name in RIVALS]
    played = {(job[0], job[3]): success for job, success in tqdm(results(measured, work, jobs=jobs), total=len(work))}
    scores = {
        name: [[sum(played[name, seed]) / EPISODES] for seed in range(SEEDS) if (name, seed) in played]
        for name in (*configs, *RIVALS)
    }
    print(seeds_report.markdown(scores))
    if publish:
        found = {"config": tuned.to_json(), "trials": trials, "scores": scores}
        pages.keep("tuned", found)
        pages.publish("tuned", page(found))


if __name__ == "__main__":
    tyro.cli(main)
