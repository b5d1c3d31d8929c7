"""Trains the bundled baselines from nothing, evaluates them on fresh seeds and writes their catalog.

    python scripts/train_baselines.py                       # all of them; goes on where it was stopped
    python scripts/train_baselines.py sac:grasp/Wall-v0     # one run

A run is kept at each number of steps: as many as the bundled model of its environment has learned from, and, for those
that the README compares, as many as the quickly learned model, and ten times that. Trained with seed 0, measured on 100
episodes with seeds from 10000. Training starts where the bundled model's did; the settings are those of
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
from grasp_agent.serialization import atomic_write
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
"""Where TD3 learns, too. PPO, without hindsight, does not: in BallNav 0 of 40 after 100,000 steps."""


def runs() -> dict[str, tuple[int, ...]]:
    """From `algorithm:environment` to the numbers of steps after which the run is kept."""
    bundled: dict[str, set[int]] = {}
    for model in grasp_agent.bundled().values():
        bundled.setdefault(model.env_id, set()).add(model.steps)
    wanted = {f"sac:{env_id}": steps for env_id, steps in bundled.items()}
    wanted |= {run: {steps} for run, steps in ALSO.items()}
    for run, steps in COMPARED.items():
        wanted.setdefault(run, set()).update((steps, 10 * steps))
    return {run: tuple(sorted(steps)) for run, steps in wanted.items()}


def train(run: str, wanted: tuple[int, ...]) -> None:
    """One run; each number of steps gets a file and an entry of the catalog."""
    name, env_id = run.split(":")
    anywhere = any(recipe.anywhere for recipe in RECIPES.values() if recipe.env_id == env_id)
    env = gym.make(env_id, **({"anywhere": True} if anywhere else {}))
    course = ResumableTraining(
        name, env, steps=wanted[-1], seed=0, checkpoint=RUNS / f"{run.replace('/', '-')}.checkpoint"
    )
    for steps in wanted:
        if course.model.num_timesteps > steps:
            continue  # it was kept before the run was stopped
        course.run(steps)
        model, seconds = course.model, round(course.seconds, 1)
        score = evaluate(model, env_id, EPISODES, SEED).summary()["success_end"]
        command = f"python scripts/train_baselines.py {run}"
        about = {"algorithm": name, "env_id": env_id, "steps": steps, "seconds": seconds, "score": score}
        entry = Baseline(**about, command=command, sha256="")
        saved(model, name, env_id, FOLDER / entry.file, seconds=seconds, settings={})
        digest = hashlib.sha256((FOLDER / entry.file).read_bytes()).hexdigest()
        keep(dataclasses.replace(entry, sha256=digest))
        tqdm.write(f"{name}@{steps} {env_id}: success {score:.2f}, {seconds:.0f} s")
    course.end()


def keep(entry: Baseline) -> None:
    """Puts an entry into the catalog, in place of an older one."""
    others = [known for known in catalog() if known.file != entry.file]
    entries = sorted([*others, entry], key=lambda known: (known.env_id, known.algorithm, known.steps))
    with atomic_write(FOLDER / "catalog.json") as aside:
        aside.write_text(json.dumps([dataclasses.asdict(known) for known in entries], indent=1) + "\n")


def catalog() -> list[Baseline]:
    """What is there; read late, as two runs may go on side by side."""
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
