"""Measures one planner of another library with one setting on one task; started by `benchmark_peers.py`."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import Tensor
from tqdm import trange

import grasp_agent
from benchmarks.peers.adapters import SOLVERS, Plan, Setting, Solver
from grasp_agent import Criteria, GraspAgent
from grasp_agent.files import atomic_write
from grasp_agent.planners import Problem
from grasp_agent.task.observation import raw_vectors

SEED = 60_000
MODES = ("open", "closed")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task in which peers are measured.

    Attributes:
        model: a bundled model.
        env_id: its environment.
        horizon: H, actions in a plan.
        budget: time for a plan [s].
        commit: executed actions of each plan in closed loop.
    """

    model: str
    env_id: str
    horizon: int
    budget: float
    commit: int


TASKS = {
    "trap": Task(model="ball-nav-trap", env_id="grasp/BallNavTrap-v0", horizon=50, budget=0.1, commit=50),
    "maze": Task(model="ball-nav-maze", env_id="grasp/BallNavMaze-v0", horizon=120, budget=0.25, commit=120),
}

SettingName = Literal["default", "equal-time", "equal-time-few"]
FEW = 32
"""Samples of `equal-time-few`, with the published fraction of elites.

Of 16, 32, 64 and 100, with a tenth or a quarter of elites, those gave stable-worldmodel's CEM and iCEM their cheapest
plans in the same time, on a few other seeds.
"""


class Bench(NamedTuple):
    """A task with its model and environment."""

    task: Task
    agent: GraspAgent
    env: gym.Env[Any, Any]

    def problem(self, observation: dict[str, np.ndarray]) -> Problem:
        """Returns the planning problem of an observation."""
        world = self.agent.policy.world
        assert world is not None
        batch = {key: value[None] for key, value in observation.items()}
        goals = batch["desired_goal"].astype(np.float32)
        return world.problem(world.encode(raw_vectors(batch)), goals, self.task.horizon, Criteria())


class Outcome(NamedTuple):
    """One episode."""

    success: int
    """1 if the last step was at the goal, else 0."""
    any: int
    """1 if any step was, else 0."""
    seconds: list[float]
    """Time of each plan [s]."""
    bounded: bool
    """Whether the peer kept all its actions within their bounds by itself."""


def episode(bench: Bench, build: Callable[[Problem, int], Plan], seed: int, mode: str) -> Outcome:
    """Executes one plan without feedback, or replans until the time limit."""
    observation, _ = bench.env.reset(seed=seed)
    plan = build(bench.problem(observation), seed)
    commit = bench.task.horizon if mode == "open" else bench.task.commit
    reached, seconds, bounded, executed, ended = [], [], True, 0, False
    while not ended:
        began = perf_counter()
        problem = bench.problem(observation)
        actions = plan(problem, executed)
        seconds.append(perf_counter() - began)
        inside = problem.clamp(actions)
        bounded = bounded and bool(torch.equal(inside, actions))
        executed, ended = commit, mode == "open"
        for action in bench.agent.policy.to_space(_array(inside))[:commit]:
            observation, _, terminated, truncated, info = bench.env.step(action)
            reached.append(int(info["is_success"]))
            if terminated or truncated:
                ended = True
                break
    return Outcome(reached[-1], max(reached), seconds, bounded)


def _array(actions: Tensor) -> np.ndarray:
    return actions.detach().numpy().astype(np.float32)


def calibrated(bench: Bench, solver: Solver, setting: Setting) -> Setting:
    """Returns the setting with as many iterations as fit the task's budget, on a problem that is not measured.

    The fastest of several plans counts, so that other processes on the machine do not cost the peer iterations.
    """
    problem = bench.problem(bench.env.reset(seed=SEED - 1)[0])
    solver.adapter(problem, replace(setting, iterations=1), 0)(problem, 0)
    for _ in range(4):
        plan, times = solver.adapter(problem, setting, 0), []
        for _ in range(5):
            began = perf_counter()
            plan(problem, 0)
            times.append(perf_counter() - began)
        setting = replace(setting, iterations=max(1, round(setting.iterations * bench.task.budget / min(times))))
    return setting


def chosen(bench: Bench, solver: Solver, name: SettingName) -> Setting:
    """Returns the setting of that name."""
    if name == "default":
        return solver.default
    start = replace(solver.default, iterations=2)
    if name == "equal-time-few":
        start = replace(start, samples=FEW, elites=FEW * solver.default.elites // solver.default.samples)
    return calibrated(bench, solver, start)


def measure(task: Task, solver: Solver, setting_name: SettingName, episodes: int) -> dict[str, Any]:
    """Measures the entries of both modes."""
    agent = grasp_agent.load(task.model, device="cpu")
    assert agent.policy.world is not None
    agent.policy.world.model.requires_grad_(False)
    with contextlib.closing(gym.make(task.env_id)) as env:
        bench = Bench(task, agent, env)
        setting = chosen(bench, solver, setting_name)

        def build(problem: Problem, seed: int) -> Plan:
            return solver.adapter(problem, setting, seed)

        entries = {}
        for mode in MODES:
            rows = [episode(bench, build, SEED + index, mode) for index in trange(episodes, desc=mode, leave=False)]
            entries[mode] = {
                "success": [row.success for row in rows],
                "any": [row.any for row in rows],
                "seconds": median(second for row in rows for second in row.seconds),
                "bounded": sum(row.bounded for row in rows),
                "setting": asdict(setting),
                "budget": None if setting_name == "default" else task.budget,
                "version": version(solver.package),
            }
    return entries


def main(task: str, solver: str, setting: SettingName, episodes: int, output: Path) -> None:
    """Measures both modes and writes their entries, or the reason why there are none."""
    torch.set_num_threads(1)
    try:
        entries = measure(TASKS[task], SOLVERS[solver], setting, episodes)
    except Exception as error:
        traceback.print_exc()
        entries = {mode: {"error": f"{type(error).__name__}: {error}".splitlines()[0]} for mode in MODES}
    with atomic_write(output) as aside:
        aside.write_text(json.dumps(entries))


if __name__ == "__main__":
    tyro.cli(main)
