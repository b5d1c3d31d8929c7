"""Where the time of `predict`, a replan, a fit and a roadmap goes, as fractions of one run, and the memory they add.

    python -m benchmarks.costs
    python -m benchmarks.costs --agent reacher --episodes 5

One thread. Fractions are of the time inside each of the four, by function, with all that it calls; a profiler makes
many small calls look dearer than they are. Memory is what the process's greatest rises by, in the order of the parts.
"""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro

import grasp_agent
from benchmarks.learning_cost import peak_memory
from grasp_agent import ReplanRule
from grasp_agent.models.dynamics.fitting import TrainConfig, fit
from grasp_agent.models.replay_index import ReplayIndex
from grasp_agent.models.world import World
from grasp_agent.replay.episodes import Dataset

_SHOWN = 20  # functions of each part
_LEAST = 0.03  # fraction of the time from which a function is shown


def played(agent: Any, count: int) -> list[tuple[bool, float, cProfile.Profile]]:
    """Plays episodes; returns for each call whether it made a plan, its processor time [s] and its profile."""
    env = gym.make(agent.env_id, **agent.env_kwargs)
    kept = []
    for episode in range(count):
        agent.policy.forget()
        observation, _ = env.reset(seed=40_000 + episode)
        done = False
        while not done:
            profile = cProfile.Profile()
            began = time.process_time()
            action, _ = profile.runcall(agent.predict, observation, deterministic=True)
            kept.append((agent.last_plan.fresh, time.process_time() - began, profile))
            observation, _, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
    env.close()
    return kept


def shares(profiles: list[cProfile.Profile]) -> list[tuple[str, float]]:
    """Returns the package's functions with the fraction of the time that they take, with all that they call."""
    stats = pstats.Stats(*profiles)
    total = stats.total_tt  # type: ignore[attr-defined]
    found = []
    for (file, _, function), (_, _, _, cumulative, _) in stats.stats.items():  # type: ignore[attr-defined]
        if "grasp_agent" in file and "benchmarks" not in file:
            place = file.split("grasp_agent/")[-1].removesuffix(".py")
            found.append((f"{place}:{function}", cumulative / total))
    return sorted(found, key=lambda pair: -pair[1])


def show(name: str, profiles: list[cProfile.Profile], seconds: float, megabytes: float) -> None:
    """Prints one part."""
    print(f"\n{name}: {1000 * seconds:.2f} ms of processor time, {megabytes:.0f} MB")
    for place, part in [pair for pair in shares(profiles) if pair[1] >= _LEAST][:_SHOWN]:
        print(f"  {part:6.1%}  {place}")


def profiled(work: Callable[[], object]) -> tuple[cProfile.Profile, float, float]:
    """Runs a function; returns its profile, processor time [s] and added memory [MB]."""
    profile, before, began = cProfile.Profile(), peak_memory(), time.process_time()
    profile.runcall(work)
    return profile, time.process_time() - began, peak_memory() - before


def gathered(agent: Any, count: int) -> Dataset:
    """Returns the agent's states after random actions, one-step episodes of its model, for a fit."""
    world: World = agent.policy.world
    data = Dataset()
    size = agent.policy.observation_space["observation"].shape[0]
    data.add_all(list(world.rehearsal_episodes(size, seed=0))[:count])
    return data


def main(agent: str = "point-maze", episodes: int = 5, transitions: int = 2000, steps: int = 200) -> None:
    """Prints the four parts.

    Args:
        agent: a bundled agent of vectors.
        episodes: that are played.
        transitions: of the fit.
        steps: gradient steps of the fit.
    """
    torch.set_num_threads(1)
    loaded: Any = grasp_agent.load(agent, device="cpu")
    loaded.rule = ReplanRule(work=None)
    before = peak_memory()
    calls = played(loaded, episodes)
    for name, fresh in (("a call that follows a plan", False), ("a call that makes a plan", True)):
        of = [(seconds, profile) for made, seconds, profile in calls if made == fresh]
        show(
            name,
            [profile for _, profile in of],
            float(np.median([seconds for seconds, _ in of])),
            peak_memory() - before,
        )
    world, data = loaded.policy.world, gathered(loaded, transitions).mapped(loaded.policy.world.state_map.select)
    settings = replace(TrainConfig(), gradient_steps=steps)
    model = world.model.requires_grad_(True)
    profile, seconds, megabytes = profiled(lambda: fit(model, data, settings, fresh=False))
    show(f"a gradient step, of {steps}", [profile], seconds / steps, megabytes)
    states, origins = model.encode(torch.from_numpy(data.states)), torch.from_numpy(data.origins)
    named = world.state_map.goal_index
    profile, seconds, megabytes = profiled(
        lambda: ReplayIndex.build(model, states, origins, named=named, replay=world.index.replay)
    )
    show("support and roadmap", [profile], seconds, megabytes)


if __name__ == "__main__":
    tyro.cli(main)
