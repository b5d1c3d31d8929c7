"""Trainings that are interrupted, so that agents play after several numbers of steps; rivals that are not trained."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

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
