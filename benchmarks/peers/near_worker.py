"""Tunes and measures planners on the near goals of one task; started by `benchmarks.peers.near`."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

import grasp_agent
from benchmarks.peers.adapters import SOLVERS, Plan, Setting
from benchmarks.peers.near_tasks import LIMIT, SEED, TASKS, TUNING_SEED, near_distance, near_seeds
from benchmarks.peers.worker import Bench
from grasp_agent import Criteria
from grasp_agent.files import atomic_write
from grasp_agent.planners import Planner, Problem
from grasp_agent.task.observation import raw_vectors

PEERS = ("stable-worldmodel-cem", "stable-worldmodel-icem", "pytorch-mppi", "pytorch-icem", "torch-world-cem")
OURS = "GRASP"
SAMPLES, ITERATIONS = (16, 32, 64, 128), (2, 4, 8, 16)
SIGMAS, TEMPERATURES = (1.0, 0.4), (1.0, 0.1)
RUNNING = (0.1, 10.0)
"""Weights of the mean distance along a plan; the first one is the default of `Criteria`, which ours has."""
COMMITS = (1, 5, 10, 20)
DEAREST = 2.0
"""Multiple of the time of ours up to which peers' settings are tried: dearer ones would meet the requirement."""
TUNING = 300.0
"""Time after which the tuning of a peer ends with the setting that solved the largest fraction of its episodes [s]."""
ALLOWED = (0, 1, 2, 5, 10, 20)
"""Failures in tuning that a setting may have; where none has so few, the better half of them is allowed more."""
Build = Callable[[Problem, int], Plan]


class Candidate(NamedTuple):
    """What may be chosen for a planner."""

    setting: Setting | None
    """None for planners that have only their default."""
    commit: int
    """Executed actions of each plan."""
    running: float = RUNNING[0]
    """Weight of the mean distance along a plan."""


class Episode(NamedTuple):
    """One episode."""

    success: int
    """1 if the last step was at the goal, else 0."""
    seconds: float
    """Processor time of all plans [s]."""
    plans: int
    """Number of plans."""


class Own:
    """A planner of this package in the same loop as the others, warm-started on what is left of its last plan."""

    def __init__(self, planner: Planner[Any], seed: int) -> None:
        self._planner, self._seed = planner, seed
        self._last: Tensor | None = None

    def __call__(self, problem: Problem, executed: int) -> Tensor:
        """See `benchmarks.peers.adapters`."""
        warm = None
        if self._last is not None and executed < problem.horizon:
            warm = torch.cat([self._last[:, executed:], torch.zeros_like(self._last[:, :executed])], 1)
        with torch.no_grad():
            self._last = self._planner.plan(problem, warm=warm, seed=self._seed).actions
        return self._last[0]


def nothing(problem: Problem, seed: int) -> Plan:
    """Builds a planner whose actions are zero."""
    return lambda problem, executed: problem.resting(1)[0, 0]


def random(problem: Problem, seed: int) -> Plan:
    """Builds a planner whose actions are uniform."""
    generator = torch.Generator().manual_seed(seed)
    return lambda problem, executed: torch.rand(problem.horizon, len(problem.low), generator=generator) * 2 - 1


def builder(bench: Bench, name: str, setting: Setting | None) -> Build:
    """Returns what builds a planner for an episode."""
    if name == OURS:
        return lambda problem, seed: Own(bench.agent.planner, seed)
    if setting is None:
        return {"nothing": nothing, "random": random}[name]
    return lambda problem, seed: SOLVERS[name].adapter(problem, setting, seed)


def posed(bench: Bench, observation: dict[str, np.ndarray], running: float) -> Problem:
    """Returns the planning problem of an observation, with a weight of the mean distance along a plan."""
    world, batch = bench.agent.policy.world, {key: value[None] for key, value in observation.items()}
    assert world is not None
    goals = batch["desired_goal"].astype(np.float32)
    return world.problem(world.encode(raw_vectors(batch)), goals, bench.task.horizon, Criteria(running=running))


def episode(bench: Bench, name: str, candidate: Candidate, seed: int) -> Episode:
    """Replans every `commit` steps and executes the actions as they are; posing the problem is not counted."""
    observation, _ = bench.env.reset(seed=seed)
    commit, running = candidate.commit, candidate.running
    plan = builder(bench, name, candidate.setting)(posed(bench, observation, running), seed)
    total, plans, success = 0.0, 0, False
    for step in range(0, LIMIT, commit):
        problem = posed(bench, observation, running)
        began = process_time()
        actions = plan(problem, commit if step else 0)
        total, plans = total + process_time() - began, plans + 1
        inside = problem.clamp(actions).detach().numpy().astype(np.float32)
        for action in bench.agent.policy.to_space(inside)[: min(commit, LIMIT - step)]:
            observation, *_, info = bench.env.step(action)
            success = bool(info["is_success"])
    return Episode(int(success), total, plans)


def predicted(bench: Bench, horizon: int, seed: int) -> Episode:
    """Plays the agent's own `predict`, with its feedback along the plan; all of it is counted."""
    agent, total, plans, success = bench.agent, 0.0, 0, False
    agent.horizon = horizon
    agent.policy.forget()
    observation, _ = bench.env.reset(seed=seed)
    for _ in range(LIMIT):
        began = process_time()
        action, _ = agent.predict(observation, deterministic=True)
        total += process_time() - began
        plans += bool(agent.last_plan and agent.last_plan.fresh)
        observation, *_, info = bench.env.step(action)
        success = bool(info["is_success"])
    return Episode(int(success), total, plans)


def candidates(bench: Bench, name: str, limit: float) -> list[Candidate]:
    """Returns settings and commits, the cheapest first, that need at most `limit` [s] for the plans of an episode."""
    if name == OURS:
        return [Candidate(None, commit) for commit in sorted(COMMITS, reverse=True)]
    problem = posed(bench, bench.env.reset(seed=TUNING_SEED - 1)[0], RUNNING[0])
    found: list[tuple[float, Candidate]] = []
    for samples, iterations in product(SAMPLES, ITERATIONS):
        seconds = _plan_seconds(problem, name, samples, iterations)
        temperatures = TEMPERATURES if name == "pytorch-mppi" else TEMPERATURES[:1]
        for commit, sigma, temperature, running in product(COMMITS, SIGMAS, temperatures, RUNNING):
            setting = _setting(samples, iterations, sigma, temperature)
            found.append((seconds * (LIMIT // commit), Candidate(setting, commit, running)))
    return [candidate for seconds, candidate in sorted(found, key=lambda pair: pair[0]) if seconds <= limit]


def _setting(samples: int, iterations: int, sigma: float, temperature: float) -> Setting:
    return Setting(
        samples=samples, elites=max(4, samples // 8), iterations=iterations, sigma=sigma, temperature=temperature
    )


def _plan_seconds(problem: Problem, name: str, samples: int, iterations: int) -> float:
    """Returns the time of the fastest of a few plans [s]."""
    times = []
    for _ in range(4):
        plan = SOLVERS[name].adapter(problem, _setting(samples, iterations, 1.0, 1.0), 0)
        began = process_time()
        plan(problem, 0)
        times.append(process_time() - began)
    return min(times)


def tuned(bench: Bench, name: str, seeds: list[int], fewest: int, limit: float) -> tuple[Candidate, dict[str, Any]]:
    """Returns the cheapest candidate with few enough failures, and what was found in tuning.

    Args:
        bench: the task.
        name: the planner.
        seeds: of the tuning episodes.
        fewest: failures that are allowed at first; more only where no candidate has so few.
        limit: of the time of an episode's plans [s].
    """
    began, ordered = process_time(), candidates(bench, name, limit)
    played: dict[Candidate, list[Episode]] = {candidate: [] for candidate in ordered}
    for allowed in (*(count for count in ALLOWED if count >= fewest), len(seeds)):
        for candidate in tqdm(ordered, desc=f"{name}, {allowed} failures", leave=False):
            rows = played[candidate]
            while len(rows) < len(seeds) and _failures(rows) <= allowed:
                rows.append(episode(bench, name, candidate, seeds[len(rows)]))
            if _failures(rows) <= allowed:
                return candidate, _found(rows, len(played))
            if name != OURS and process_time() - began > TUNING:
                best = max((each for each in played if played[each]), key=lambda each: _solved(played[each]))
                return best, _found(played[best], len(played))
        better = sorted(ordered, key=lambda candidate: -_solved(played[candidate]))
        ordered = [candidate for candidate in ordered if candidate in better[: max(1, len(better) // 2)]]
    raise RuntimeError("every candidate passes when all failures are allowed")


def _found(rows: list[Episode], count: int) -> dict[str, Any]:
    seconds = sum(row.seconds for row in rows) / len(rows)
    return {"solved": len(rows) - _failures(rows), "of": len(rows), "seconds": seconds, "candidates": count}


def _solved(rows: list[Episode]) -> float:
    """Returns the fraction of solved episodes, with one failure more, so that many episodes count for more."""
    return 1 - (_failures(rows) + 1) / (len(rows) + 1)


def _failures(rows: list[Episode]) -> int:
    return sum(not row.success for row in rows)


def measure(bench: Bench, episodes: int, tuning: int) -> dict[str, Any]:
    """Returns the entries of all planners, measured in turn on each episode."""
    nearest = near_distance(bench.env)
    tuning_seeds = near_seeds(bench.env, TUNING_SEED, tuning, nearest)
    own_horizon, horizon, fewest, limit = bench.agent.horizon, bench.task.horizon, 0, math.inf
    entries: dict[str, dict[str, Any]] = {}
    plays: dict[str, Callable[[int], Episode]] = {
        "predict": lambda seed: predicted(bench, horizon, seed),
        "predict, own horizon": lambda seed: predicted(bench, own_horizon, seed),
    }
    entries |= {name: {} for name in plays}
    for name in (OURS, *PEERS, "nothing", "random"):
        chosen, found = Candidate(None, bench.task.horizon), None
        if name in (OURS, *PEERS):
            chosen, found = tuned(bench, name, tuning_seeds, fewest, limit)
            if name == OURS:
                fewest, limit = found["of"] - found["solved"], DEAREST * found["seconds"]
        entries[name] = {
            "setting": None if chosen.setting is None else asdict(chosen.setting),
            "commit": chosen.commit,
            "running": chosen.running,
            "tuning": found,
            "version": version(SOLVERS[name].package) if name in SOLVERS else None,
        }
        plays[name] = _play(bench, name, chosen)
        tqdm.write(f"{bench.task.model} {name}: {entries[name]}")
    rows: dict[str, list[Episode]] = {name: [] for name in plays}
    for play in plays.values():
        play(tuning_seeds[0])  # code is loaded
    for seed in tqdm(near_seeds(bench.env, SEED, episodes, nearest), desc="episodes"):
        for name, play in plays.items():
            rows[name].append(play(seed))
    for name, played in rows.items():
        entries[name] |= {
            "success": [row.success for row in played],
            "seconds": [round(row.seconds, 5) for row in played],
            "plans": [row.plans for row in played],
        }
    return {"nearest": nearest, "planners": entries}


def _play(bench: Bench, name: str, candidate: Candidate) -> Callable[[int], Episode]:
    return lambda seed: episode(bench, name, candidate, seed)


def main(task: str, episodes: int, tuning: int, output: Path) -> None:
    """Measures one task and writes its entries."""
    torch.set_num_threads(1)
    agent = grasp_agent.load(TASKS[task].model, device="cpu")
    assert agent.policy.world is not None
    agent.policy.world.model.requires_grad_(False)
    with contextlib.closing(gym.make(TASKS[task].env_id)) as env:
        entries = measure(Bench(TASKS[task], agent, env), episodes, tuning)
    with atomic_write(output) as aside:
        aside.write_text(json.dumps(entries))


if __name__ == "__main__":
    tyro.cli(main)
