"""Trains the bundled baselines from scratch, evaluates them on fresh seeds and writes their catalog.

    python scripts/train_baselines.py                       # all of them; resumes where it was stopped
    python scripts/train_baselines.py sac:grasp/Wall-v0     # one run

A run is saved at several numbers of steps: at that of the environment's bundled model and, for those that the README
compares, at that of the quickly learned model and at ten times that. Trained with seed 0, measured on 100 episodes with
seeds from 10000. Starts and goals of the training are distributed as for the bundled model; the settings are those of
`grasp_agent/zoo/algorithms.py` for all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import gymnasium as gym
import torch
import tyro
from tqdm import tqdm
from train_pretrained import RECIPES

import grasp_agent
from grasp_agent import evaluate
from grasp_agent.files import atomic_write
from grasp_agent.zoo.baselines import Baseline, saved
from grasp_agent.zoo.resumable import ResumableTraining

FOLDER = Path(__file__).parent.parent / "grasp_agent" / "zoo" / "baselines"
RUNS = Path(__file__).parent.parent / "runs" / "baselines"
EPISODES, SEED = 100, 10_000
COMPARED = {
    "sac:grasp/BallNavTrap-v0": 30_000,
    "sac:grasp/PointMaze-v0": 2000,
    "td3:grasp/PointMaze-v0": 2000,
    "sac:grasp/Reacher-v0": 6000,
    "td3:grasp/Reacher-v0": 6000,
}

ALSO = {"td3:grasp/BallNav-v0": 20_000, "td3:grasp/Wall-v0": 30_000}
"""Runs in which TD3 learns as well. PPO, without hindsight, does not: in BallNav 0 of 40 after 100,000 steps."""


def runs() -> dict[str, tuple[int, ...]]:
    """Returns, by `algorithm:environment`, the numbers of steps at which the run is saved."""
    bundled: dict[str, set[int]] = {}
    for model in grasp_agent.bundled().values():
        bundled.setdefault(model.env_id, set()).add(model.steps)
    lengths = {f"sac:{env_id}": steps for env_id, steps in bundled.items()}
    lengths |= {run: {steps} for run, steps in ALSO.items()}
    for run, steps in COMPARED.items():
        lengths.setdefault(run, set()).update((steps, 10 * steps))
    return {run: tuple(sorted(steps)) for run, steps in lengths.items()}


def train(run: str, lengths: tuple[int, ...]) -> None:
    """Trains one run; each number of steps gets a file and an entry of the catalog."""
    name, env_id = run.split(":")
    anywhere = any(recipe.anywhere for recipe in RECIPES.values() if recipe.env_id == env_id)
    env = gym.make(env_id, **({"anywhere": True} if anywhere else {}))
    training = ResumableTraining(
        name, env, steps=lengths[-1], seed=0, checkpoint=RUNS / f"{run.replace('/', '-')}.checkpoint"
    )
    for steps in lengths:
        if training.model.num_timesteps > steps:
            continue  # it was saved before the interruption
        training.run(steps)
        model, seconds = training.model, round(training.seconds, 1)
        score = evaluate(model, env_id, EPISODES, SEED).summary()["success_end"]
        command = f"python scripts/train_baselines.py {run}"
        about = {"algorithm": name, "env_id": env_id, "steps": steps, "seconds": seconds, "score": score}
        entry = Baseline(**about, command=command, sha256="")
        saved(model, name, env_id, FOLDER / entry.file, seconds=seconds, settings={})
        digest = hashlib.sha256((FOLDER / entry.file).read_bytes()).hexdigest()
        keep(dataclasses.replace(entry, sha256=digest))
        tqdm.write(f"{name}@{steps} {env_id}: success {score:.2f}, {seconds:.0f} s")
    training.end()


def keep(entry: Baseline) -> None:
    """Adds an entry to the catalog, or replaces an older one."""
    others = [known for known in catalog() if known.file != entry.file]
    entries = sorted([*others, entry], key=lambda known: (known.env_id, known.algorithm, known.steps))
    with atomic_write(FOLDER / "catalog.json") as aside:
        aside.write_text(json.dumps([dataclasses.asdict(known) for known in entries], indent=1) + "\n")


def catalog() -> list[Baseline]:
    """Returns the catalog; it is read late, as two runs may be in progress at once."""
    path = FOLDER / "catalog.json"
    return [Baseline(**entry) for entry in json.loads(path.read_text())] if path.exists() else []


def main(names: tyro.conf.Positional[tuple[str, ...]] = ()) -> None:
    """Trains the named runs, or all that are not in the catalog."""
    torch.set_num_threads(1)
    known = runs()
    unknown = set(names) - set(known)
    if unknown:
        raise SystemExit(f"unknown run {unknown.pop()!r} (choose from {', '.join(known)})")
    for run in tqdm(names or tuple(known)):
        done = {entry.steps for entry in catalog() if f"{entry.algorithm}:{entry.env_id}" == run}
        if names or not set(known[run]) <= done:
            train(run, known[run])


if __name__ == "__main__":
    tyro.cli(main)
