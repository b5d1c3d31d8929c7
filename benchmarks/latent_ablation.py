"""What the parts of planning in latents are worth: each is taken away once, on two tasks, at equal model calls.

    python -m benchmarks.latent_ablation
    python -m benchmarks.latent_ablation --task flat --seeds 0 --episodes 10 --out short.json

Tasks and models are those of `examples/`: tokens of images on `grasp/Wall-v0`, goals in the other room, and flat
latents of positions on `grasp/BallNav-v0`. Each training seed trains a model of its own, whose weights are kept in
`--folder`; each search has the same number of model calls, and its plan is carried out to its end without replanning.
Rows are appended to a JSON file; existing ones are not measured again. Doing nothing and random actions are evaluated
on the same episodes.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from tqdm import tqdm

from benchmarks import pages
from benchmarks.learning_cost import Constant
from grasp_agent import Criteria, GraspAgent, ReplanRule
from grasp_agent.evaluation.intervals import proportion
from grasp_agent.files import atomic_write
from grasp_agent.planners import ICEM, Coloured, Retrieval, Rollout, Stitching

RESULTS, ROOT = pages.RESULTS / "latent_ablation.json", pages.ROOT
EPISODES, FIRST_SEED, ITERATIONS = 50, 30_000, 6  # of each cell, and of each search
TRAINING = {"tokens": 300.0, "flat": 60.0}
"""CPU seconds of a training."""
Row = dict[str, Any]
IDLE = ("nothing", "random")


def planner(task: str, *, retrieval: bool = True, coloured: bool = True, starts: int = 8) -> ICEM:
    """Returns the planner of a setting; all have the same number of model calls."""
    noise = Coloured(beta=2.0 if coloured else 0.0, steps=SIZES[task]["frame_skip"])
    otherwise = Rollout(shape=noise)
    proposals = Stitching(otherwise=Retrieval(otherwise=otherwise)) if retrieval else otherwise
    return ICEM(iterations=ITERATIONS, samples=64, proposals=proposals, proposed=starts, noise=noise)


SETTINGS: dict[str, dict[str, Any]] = {
    "all parts": {},
    "no recorded actions": {"retrieval": False},
    "white noise": {"coloured": False},
    "one start": {"starts": 1},
    "temporal distance": {"learned": True},
    "temporal distance, no recorded actions": {"learned": True, "retrieval": False},
}
SIZES: dict[str, dict[str, int]] = {
    "tokens": {"frame_skip": 5, "history": 2, "horizon": 12},
    "flat": {"frame_skip": 1, "history": 1, "horizon": 40},
}


def example(name: str) -> Any:
    """Returns the module of an example."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Task:
    """A trained model and its environment."""

    env: gym.Env[Any, Any]
    model: Any
    replay: Any

    @classmethod
    def make(cls, name: str, seed: int, folder: Path) -> Task:
        """Trains a model, or reads its weights."""
        torch.manual_seed(seed)
        weights = folder / f"latent-{name}-{seed}.pt"
        known = torch.load(weights, weights_only=True) if weights.exists() else None
        if name == "tokens":
            code = example("own_world_model")
            replay, model, env = code.record(), code.TokenModel(), code.WithPositions()
            if known is None:
                code.train(model, replay, TRAINING[name])
        else:
            code = example("other_models")
            replay, env = code.play(), gym.make(code.ENV)
            model = code.Flat() if known is not None else code.trained(replay, TRAINING[name])
        if known is None:
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(model.state_dict(), weights)
        else:
            model.load_state_dict(known)
        return cls(env, model.eval() if name == "tokens" else code.Adapted(model), replay)


def ended(env: gym.Env[Any, Any], agent: Any, steps: int, episodes: int) -> list[int]:
    """Returns whether each episode is at its goal after some steps of an agent."""
    found = []
    for episode in tqdm(range(episodes), leave=False):
        observation, info = env.reset(seed=FIRST_SEED + episode)
        start = np.ones(1, bool)
        for _ in range(steps):
            observation, _, _, _, info = env.step(agent.predict(observation, episode_start=start)[0])
            start = np.zeros(1, bool)
        found.append(int(info["is_success"]))
    return found


def measured(job: tuple[str, int, int, str, tuple[str, ...]]) -> list[Row]:
    """Trains and evaluates one model, with all settings.

    Args:
        job: task, training seed, episodes, folder of weights and names of settings.
    """
    name, seed, episodes, folder, settings = job
    torch.set_num_threads(1)
    task, sizes = Task.make(name, seed, Path(folder)), SIZES[name]
    steps = sizes["horizon"] * sizes["frame_skip"]
    blind = ReplanRule(commit=sizes["horizon"], deviation=1e9)
    stops = Criteria(hold=1, feedback=False, stop=True)
    agent = GraspAgent.from_model(task.env, task.model, **sizes, replay=task.replay, criteria=stops, rule=blind)
    rows: list[Row] = []
    if any(SETTINGS.get(setting, {}).get("learned") for setting in settings):
        agent.learn_distance()
    learned = agent.memory.learned_distance
    for setting in settings:
        row: Row = {"task": name, "seed": seed, "setting": setting}
        if setting in IDLE:
            acting: Any = Constant(task.env.action_space, still=setting == IDLE[0])
        else:
            chosen = dict(SETTINGS[setting])
            agent.memory.use_distance(learned if chosen.pop("learned", False) else None)
            agent.planner = planner(name, **chosen)
            acting = agent
        began = time.process_time()
        found = ended(task.env, acting, steps, episodes)
        rows.append({**row, "success": found, "cpu_s": round((time.process_time() - began) / episodes, 3)})
    return rows


def table(rows: list[Row]) -> str:
    """Returns Markdown with a line for each task and setting."""
    lines = ["| task | setting | success, by training seed | mean | 95 % | CPU s |", "|---|---|---|---|---|---|"]
    for task in SIZES:
        for setting in (*IDLE, *SETTINGS):
            of = [row for row in rows if (row["task"], row["setting"]) == (task, setting)]
            of.sort(key=lambda row: row["seed"])
            interval = proportion([bool(hit) for row in of for hit in row["success"]])
            if interval is None:
                continue
            limits = f"{interval.low:.2f} to {interval.high:.2f}"
            cost = np.mean([row["cpu_s"] for row in of])
            rates = " ".join(f"{np.mean(row['success']):.2f}" for row in of)
            lines.append(f"| {task} | {setting} | {rates} | {interval.value:.2f} | {limits} | {cost:.2f} |")
    return "\n".join(lines)


def page(rows: list[Row]) -> str:
    """Returns the page of results."""
    return pages.page(
        "Parts of planning in latents",
        "python -m benchmarks.latent_ablation",
        f"One plan for each of {EPISODES} episodes (seeds from {FIRST_SEED:,}), carried out to its end without "
        "replanning; success is that of the environment after its last action. *tokens*: 1,024 entries of images, "
        "`grasp/Wall-v0`, goals in the other room within .14 m, 12 model steps of 5 environment steps. *flat*: 16 "
        "entries, `grasp/BallNav-v0`, within .05 m, 40 steps. One model for each training seed, trained for "
        f"{TRAINING['tokens']:.0f} and {TRAINING['flat']:.0f} CPU s. Each search has {ITERATIONS} iterations of the "
        "same number of model calls, and ends early where its plan is accepted. *all parts*: ICEM with 64 samples, 8 "
        "starts from recorded actions, coloured noise. *temporal distance*: with `learn_distance`. Intervals are of "
        "all episodes; those of one model are not independent, so intervals over trainings are wider. *CPU s* is that "
        "of an episode, the environment included.",
        table(rows),
    )


def main(
    task: str | None = None,
    seeds: tuple[int, ...] = (0, 1, 2),
    episodes: int = EPISODES,
    folder: Path = Path("runs/latent_ablation"),
    out: Path = RESULTS,
    jobs: int = 1,
) -> None:
    """Measures what is missing in the file, prints all of it and, for the file of this repository, writes the page.

    Args:
        task: `tokens` or `flat`; None for both.
        seeds: training seeds.
        episodes: of each cell.
        folder: of the weights.
        out: the file.
        jobs: processes at a time.
    """
    known = {(row["task"], row["seed"], row["setting"]) for row in pages.rows(out) if len(row["success"]) == episodes}
    wanted = []
    for seed in seeds:
        for name in SIZES if task is None else (task,):
            names = (*(IDLE if seed == seeds[0] else ()), *SETTINGS)
            missing = tuple(setting for setting in names if (name, seed, setting) not in known)
            if missing:
                wanted.append((name, seed, episodes, str(folder), missing))
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
        for rows in tqdm(pool.imap_unordered(measured, wanted, chunksize=1), total=len(wanted)):
            with atomic_write(out) as aside:
                aside.write_text(json.dumps([*pages.rows(out), *rows]) + "\n")
            print(table(pages.rows(out)))
    if out == RESULTS and episodes == EPISODES:
        pages.publish("latent_ablation", page(pages.rows(out)))


if __name__ == "__main__":
    tyro.cli(main)
