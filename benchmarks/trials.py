"""Common parts of the planner benchmarks: tasks, planners, and episodes in open and closed loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

import grasp_agent
from grasp_agent import GraspAgent
from grasp_agent.agent.replan_rule import ReplanRule
from grasp_agent.evaluation.rollout import rollout
from grasp_agent.planners import (
    CEM,
    GRASP,
    ICEM,
    ILQR,
    MPPI,
    Adam,
    Collocation,
    Coloured,
    GradientShooting,
    Line,
    Planner,
    Recombination,
    Relaxation,
    Roadmap,
    Tracking,
)
from grasp_agent.task.observation import raw_vectors


@dataclass(frozen=True, kw_only=True)
class Task:
    """A frozen model and its environment.

    Attributes:
        model: name of the bundled model.
        env_id: the environment; its own time limit holds, or the horizon where that is longer.
        wrapper: a wrapper of the environment.
    """

    model: str
    env_id: str
    wrapper: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] = lambda env: env


class Near(gym.Wrapper[Any, Any, Any, Any]):
    """BallNav with goals at most 0.3 m away along each axis, right of the wall, without obstacles between."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; the pair is drawn from the seed."""
        draw = np.random.default_rng(seed)
        state = draw.uniform((0.2, -0.9), (0.9, 0.9))
        goal = np.clip(state + draw.uniform(0.1, 0.3, 2) * draw.choice((-1, 1), 2), (0.15, -0.9), (0.9, 0.9))
        return self.env.reset(seed=seed, options={"state": state, "goal": goal})


TASKS = {
    "barrier": Task(model="ball-nav", env_id="grasp/BallNav-v0"),
    "trap": Task(model="ball-nav-trap", env_id="grasp/BallNavTrap-v0"),
    "maze": Task(model="ball-nav-maze", env_id="grasp/BallNavMaze-v0"),
    "four balls": Task(model="ball-nav-4", env_id="grasp/BallNav4-v0"),
    "reacher": Task(model="reacher", env_id="grasp/Reacher-v0"),
}
"""A further environment is one line."""
SHORT_TASKS = {
    "near ball": Task(model="ball-nav", env_id="grasp/BallNav-v0", wrapper=Near),
    "near arm": Task(model="reacher", env_id="grasp/Reacher-v0"),
}


def free_grasp() -> GRASP:
    """Returns GRASP without a roadmap: smooth curves in state space, tracked, selected and recombined."""
    return GRASP(
        candidates=64,
        proposals=None,
        initial=Line(sigma=1.0, shape=Coloured(beta=3.0)),
        update=Relaxation(goal_weight=0.0),
        sync=Tracking(),
        sync_every=1,
        iterations=40,
        verify_every=4,
        sigma=0.6,
        anneal=False,
        recombination=Recombination(share=0.15),
    )


# Planners have their default settings unless noted; all get coloured noise, the same criteria (all members,
# support, hold), the same incumbent and the same feedback at execution. `iterations` only matters without a budget.
PLANNERS: dict[str, Callable[[], Planner[Any]]] = {
    "GRASP": lambda: GRASP(iterations=1000),
    "GRASP, no roadmap": lambda: replace(free_grasp(), iterations=1000),
    "GRASP, ILQR sync, no roadmap": lambda: GRASP(proposals=None, iterations=1000),
    "GRASP, published": lambda: GRASP.paper(sigma=0.1, iterations=100_000),
    "iCEM": lambda: ICEM(iterations=1000),
    "iCEM, wide": lambda: ICEM(iterations=1000, sigma=2.0),
    "iCEM, factored": lambda: ICEM(iterations=1000, factored=True),
    "iCEM, roadmap": lambda: ICEM(iterations=1000, proposals=Roadmap()),
    "CEM, white": lambda: CEM(iterations=1000),
    "CEM, coloured": lambda: CEM(iterations=1000, noise=Coloured(beta=3.0)),
    "MPPI, coloured": lambda: MPPI(iterations=1000, noise=Coloured(beta=3.0)),
    "shooting": lambda: GradientShooting(iterations=1000, optimiser=Adam(lr=0.1)),
    "iLQR": lambda: ILQR(iterations=1000),
    "LatCo": lambda: Collocation(candidates=4, iterations=1000),
}


class Trial(NamedTuple):
    """The outcome of one episode."""

    end: bool
    """Success at the last step."""
    any: bool
    """Success at some step."""
    steps: int | None
    """Steps to the first success; None if there was none."""
    seconds: float
    """Time spent on planning in all [s]."""
    accepted: bool
    """Whether the planner accepted its (last) plan."""
    iterations: int | None = None
    """Iterations of the plan; None in closed loop."""


class Setting(NamedTuple):
    """One cell of a table."""

    task: str
    planner: str
    horizon: int
    mode: str
    """"open": one plan, executed blindly. "closed": `predict` in a loop."""
    budget: float
    """Time limit of one plan [s]."""

    @property
    def key(self) -> str:
        """Its name in a file of results."""
        return f"{self.task} | {self.planner} | {self.horizon} | {self.mode} | {self.budget:g}"


def task_of(setting: Setting) -> Task:
    """Returns the cell's task."""
    return {**TASKS, **SHORT_TASKS}[setting.task]


def agent_for(setting: Setting) -> GraspAgent:
    """Returns the task's model with the setting's planner, committed to all its plans, which favours its rivals."""
    agent = grasp_agent.load(task_of(setting).model, device="cpu")
    agent.planner = replace(PLANNERS[setting.planner](), budget=setting.budget)
    agent.horizon, agent.policy.controller.rule = setting.horizon, ReplanRule(commit=setting.horizon)
    return agent


def trials(setting: Setting, episodes: int, seed: int) -> list[Trial]:
    """Plays episodes with seeds from `seed`, after one discarded warm-up plan."""
    agent, task = agent_for(setting), task_of(setting)
    limit = gym.spec(task.env_id).max_episode_steps or setting.horizon
    env = task.wrapper(gym.make(task.env_id, max_episode_steps=max(limit, setting.horizon)))
    play = {"open": open_loop, "closed": closed_loop}[setting.mode]
    open_loop(agent, env, seed + episodes)
    rows = []
    for index in range(episodes):
        agent.policy.forget()
        rows.append(play(agent, env, seed + index))
    env.close()
    return rows


def open_loop(agent: GraspAgent, env: gym.Env[Any, Any], seed: int, options: dict[str, Any] | None = None) -> Trial:
    """Executes one plan, made at the start, without feedback; the episode ends with it."""
    policy, world = agent.policy, agent.policy.world
    assert world is not None
    observation, _ = env.reset(seed=seed, options=options)
    batch = {key: value[None] for key, value in observation.items()}
    began = perf_counter()
    batch = agent.perception.to_goal_dict(batch)
    start, goals = world.encode(raw_vectors(batch)), batch["desired_goal"].astype(np.float32)
    plan = agent.planner.plan(world.problem(start, goals, agent.horizon, agent.criteria))
    seconds = perf_counter() - began
    reached = []
    for action in policy.to_space(plan.actions[0].numpy()):
        *_, info = env.step(action)
        reached.append(bool(info["is_success"]))
    steps = reached.index(True) + 1 if any(reached) else None
    return Trial(reached[-1], any(reached), steps, seconds, bool(plan.accepted[0]), plan.iterations)


def closed_loop(agent: GraspAgent, env: gym.Env[Any, Any], seed: int) -> Trial:
    """Runs the agent's own loop: feedback along its plan, and a new plan where the environment deviates from it."""
    reached, seconds, accepted = [], 0.0, False
    for moment in rollout(agent, env, seed):
        reached.append(bool(moment.success))
        seconds += moment.seconds or 0.0
        accepted = moment.plan.accepted if moment.plan is not None else accepted
    steps = reached.index(True) if any(reached) else None
    return Trial(reached[-1], any(reached), steps, seconds, accepted)
