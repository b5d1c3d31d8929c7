"""Push-T from images: goals taken from recorded trajectories, closed and open loop, planners on one frozen model.

    python scripts/evaluate_push_t_pixels.py                 # all; resumes where it was stopped
    python scripts/evaluate_push_t_pixels.py --part closed   # one of both

A task is a segment of a trajectory that the model has not seen (`PushTExpert` with noise, seeds from 10000), as
DINO-WM takes its tasks from recordings (Zhou et al. 2024, arXiv 2411.04983): its first state is the start, an image
of its last one the goal; segments whose start is at the goal already are left out. `closed`: 25 steps between the
two, the bundled agent may take 75. `open`: 40, 60 or 80 steps, one plan of so many steps, made within two seconds on
one thread and carried out blindly. Success is that of the
environment: the block within 20 units and pi / 9. Writes
`benchmarks/results/push_t_pixels.json` and `docs/results/push_t_pixels.md`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from tqdm import tqdm

import grasp_agent
from benchmarks import pages
from benchmarks.ledger import Ledger, Row
from benchmarks.trials import PLANNERS, open_loop
from grasp_agent import GraspAgent
from grasp_agent.agent.pixel_perception import PixelPerception
from grasp_agent.evaluation.intervals import proportion
from grasp_agent.planners import Planner
from grasp_envs.push_t_expert import PushTExpert

MODEL, SEED = "push-t-pixels", 10_000
PART = Literal["closed", "open"]
EPISODES = {"closed": 100, "open": 30}
SEGMENT, LIMIT, HORIZONS = 25, 75, (40, 60, 80)
PLANNERS_OPEN = {
    "GRASP as published": "GRASP, published",
    "GRASP": "GRASP",
    "CEM": "CEM, white",
    "coloured iCEM": "iCEM",
    "gradient shooting": "shooting",
    "LatCo": "LatCo",
}
BUDGET = 2.0
"""Time limit of one plan [s]."""
PROBE = "how well latents tell of the block"
Task = tuple[NDArray[np.float64], NDArray[np.float64]]


def tasks(distance: int, count: int, seed: int = SEED) -> Iterator[Task]:
    """Yields pairs of states of recorded trajectories, `distance` steps from each other, not yet at the goal."""
    env: Any = gym.make("grasp/PushT-v0")
    found = 0
    while found < count:
        random, expert = np.random.default_rng(seed), PushTExpert(seed=seed, tries=4)
        observation, _ = env.reset(seed=seed)
        first, states, poses = int(random.integers(35)), [], []
        for _ in range(first + distance + 1):
            states.append(env.unwrapped.state)
            poses.append(observation["achieved_goal"])
            action = expert(observation) + random.normal(0, 0.2, 2)
            observation, *_ = env.step(np.clip(action, -1, 1).astype(np.float32))
        seed += 1
        if env.unwrapped.compute_reward(poses[first], poses[-1]) < 0:
            found += 1
            yield states[first], states[-1]


def closed(agent: GraspAgent, env: gym.Env[Any, Any], task: Task) -> Row:
    """Runs the agent in closed loop until the time limit."""
    observation, _ = env.reset(options={"state": task[0], "goal_state": task[1]})
    state, first, reached, seconds = None, np.ones(1, bool), [], []
    for _ in range(LIMIT):
        began = time.perf_counter()
        action, state = agent.predict(observation, state, first, deterministic=True)
        seconds.append(time.perf_counter() - began)
        first = np.zeros(1, bool)
        observation, *_, info = env.step(action)
        reached.append(bool(info["is_success"]))
    return {"terminal": reached[-1], "anytime": any(reached), "seconds": float(np.mean(seconds))}


def blind(agent: GraspAgent, env: gym.Env[Any, Any], task: Task) -> Row:
    """Executes one plan without feedback."""
    trial = open_loop(agent, env, SEED, {"state": task[0], "goal_state": task[1]})
    return {"terminal": trial.end, "anytime": trial.any, "seconds": trial.seconds}


def probe(agent: GraspAgent, count: int = 300) -> dict[str, float]:
    """Returns median errors of the block's position [1/512 of the board] and angle [rad], as decoded from latents.

    Both are encoded up to a fixed map, which is fitted on half of the states.
    """
    assert isinstance(agent.perception, PixelPerception)
    env: Any = gym.make("grasp/PushT-v0", observation="pixels")
    states = [state for task in tasks(SEGMENT, count // 2) for state in task]
    images = [env.reset(options={"state": state})[0]["observation"] for state in states]
    latents, truth = agent.perception.encoded(np.stack(images)), np.stack(states)
    features = np.concatenate([latents[:, 2:], np.ones((len(latents), 1))], 1)
    half = len(latents) // 2
    found = features[half:] @ np.linalg.lstsq(features[:half], truth[:half, 4:6], rcond=None)[0]
    turned = (latents[:, 4] + 1j * latents[:, 5]) * np.exp(-1j * truth[:, 6])
    angle = np.abs(np.angle(turned[half:] / turned[:half].mean()))
    return {
        "place": float(np.median(np.linalg.norm(found - truth[half:, 4:6], axis=1))),
        "angle": float(np.median(angle)),
    }


def runs(part: PART) -> Iterator[tuple[str, int, int | None, Planner[Any] | None]]:
    """Yields name, length of the segment, horizon and planner of a part's runs; None as in the bundled model."""
    if part == "closed":
        yield f"closed loop, goals {SEGMENT} steps away", SEGMENT, None, None
        return
    for horizon in HORIZONS:
        for name, planner in PLANNERS_OPEN.items():
            yield f"{name}, H = {horizon}", horizon, horizon, replace(PLANNERS[planner](), budget=BUDGET)


def interval(rows: list[Row], name: str) -> str:
    """Returns a success rate and its 95 % interval (Wilson)."""
    found = proportion([row[name] for row in rows])
    assert found is not None  # there are rows
    return "{:.2f} ({:.2f}-{:.2f})".format(*found)


def table(results: dict[str, list[Row]]) -> str:
    """Returns a table with a row for each run."""
    lines = ["| | tasks | anytime (95 %) | at the end (95 %) | median seconds |", "|---|---|---|---|---|"]
    for name, rows in results.items():
        seconds = float(np.median([row["seconds"] for row in rows]))
        rates = f"{interval(rows, 'anytime')} | {interval(rows, 'terminal')}"
        lines.append(f"| {name} | {len(rows)} | {rates} | {seconds:.2g} |")
    return "\n".join(lines) + "\n"


def ordered(results: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Returns the runs in the order of the table."""
    names = [name for part in ("closed", "open") for name, *_ in runs(part)]
    return {name: results[name] for name in names if name in results}


def page(results: dict[str, list[Row]]) -> str:
    """Returns the page of results."""
    return pages.page(
        "Push-T from images",
        "python scripts/evaluate_push_t_pixels.py",
        f"`{MODEL}`: goals are taken from recorded play that the model has not seen. Open loop: all planners "
        "share the frozen "
        f"model and have {BUDGET:g} seconds for one plan, which is carried out without feedback. Seconds are "
        "those of a plan, "
        "in closed loop those of an action; one thread. In brackets: Wilson's 95 % interval.",
        table(ordered(results)),
        PUBLISHED,
    )


PUBLISHED = """\
As published (Psenka et al. 2026, arXiv 2602.00475; another model, DINO-WM's, another machine, 500 trials; success in
% / median seconds):

| H | CEM | gradient descent | LatCo | GRASP |
|---|---|---|---|---|
| 40 | 61.4 / 35.3 | 51.0 / 18.0 | 15.0 / 598 | 59.0 / 8.5 |
| 60 | 7.2 / 83.1 | 16.4 / 146.5 | 2.0 / 231.5 | 26.2 / 49.1 |
| 80 | 2.8 / 132.2 | 6.4 / 161.3 | 0 / - | 10.4 / 58.9 |"""


def main(part: PART | None = None) -> None:
    """Measures what is missing for the present bundled model."""
    torch.set_num_threads(1)
    if MODEL not in grasp_agent.bundled():
        raise SystemExit(f"no model {MODEL!r} yet: python scripts/train_pretrained.py {MODEL} trains it")
    hashed = grasp_agent.bundled()[MODEL].sha256
    ledger = Ledger(pages.RESULTS / "push_t_pixels.json", hashed)
    for chosen in ("closed", "open") if part is None else (part,):
        for name, distance, horizon, planner in runs(chosen):
            begun = len(ledger.read().get(name, []))
            agent = grasp_agent.load(MODEL, device="cpu")
            agent.planner = planner or agent.planner
            agent.horizon = horizon or agent.horizon
            if horizon is not None:
                agent.criteria = replace(agent.criteria, feedback=False)
            env = gym.make(str(agent.env_id), max_episode_steps=200, **agent.env_kwargs)
            given = list(tasks(distance, EPISODES[chosen]))[begun:] if begun < EPISODES[chosen] else []
            for task in tqdm(given, desc=name):
                agent.policy.forget()
                ledger.add(name, closed(agent, env, task) if horizon is None else blind(agent, env, task))
    if PROBE not in ledger.read():
        ledger.add(PROBE, probe(grasp_agent.load(MODEL, device="cpu")))
    results = ledger.read()
    pages.publish("push_t_pixels", page(results))
    print(f"{table(ordered(results))}\n{PROBE}: {results[PROBE][0]}")


if __name__ == "__main__":
    tyro.cli(main)
