"""Trainings that are interrupted, so that agents play after several numbers of steps; rivals that are not trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import tyro

from benchmarks import pages

RIVALS = ("random", "nothing")
"""Names of rivals that stand beside every result, see `benchmarks.learning_cost.Constant`."""


def stages(agent: Any, stops: Sequence[int]) -> Iterator[int]:
    """Trains an agent and yields the CPU time [s] of each part of the training.

    Args:
        agent: an agent with Stable-Baselines3's `learn`.
        stops: numbers of steps at which the training is interrupted, rising.
    """
    for before, steps in pairwise((0, *stops)):
        began = time.process_time()
        agent.learn(steps - before, reset_num_timesteps=before == 0)
        yield round(time.process_time() - began)


def command(
    name: str,
    page: Callable[[list[dict[str, Any]]], str],
    measured: Callable[[tuple[str, str, int]], dict[str, Any]],
    envs: tuple[str, ...],
    agents: tuple[str, ...],
) -> None:
    """Runs a script whose jobs are an agent, an environment and a training seed.

    Args:
        name: of file and page.
        page: returns the page of rows.
        measured: returns the row of a job: name of the agent, id of the environment and training seed.
        envs: ids of its environments.
        agents: that it trains.
    """
    all_envs, all_agents = envs, agents

    def main(
        envs: tuple[str, ...] = all_envs,
        seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
        agents: tuple[str, ...] = all_agents,
        out: Path | None = None,
        jobs: int = 1,
    ) -> None:
        """Measures what is missing in the file and, for the file of this repository, writes the page.

        Args:
            envs: ids of environments.
            seeds: training seeds.
            agents: that are trained.
            out: the file; None for this repository's.
            jobs: processes at a time.
        """
        wanted = [(rival, env_id, 0) for env_id in envs for rival in RIVALS]
        wanted += [(agent, env_id, seed) for env_id in envs for seed in seeds for agent in agents]
        pages.complete(name, page, measured, wanted, itemgetter("agent", "env", "seed"), out, jobs)

    tyro.cli(main)
