"""Seeded evaluation: the same starts and goals for every agent, success rates with their intervals."""

from __future__ import annotations

import csv
import json
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from grasp_agent.evaluation import intervals
from grasp_agent.evaluation.rollout import Moment, Predictor, label, named, opened, rollout
from grasp_agent.files import atomic_write
from grasp_agent.task.goal import Goal
from grasp_agent.validation import as_whole, instance


class Episode(NamedTuple):
    """The outcome of one episode."""

    seed: int
    """Seed of the reset."""
    success_end: bool | None
    """Success at the last step; None where the environment does not report success."""
    success_any: bool | None
    """Success at any step."""
    return_: float
    """Sum of rewards, not discounted."""
    steps: int
    """Actions taken."""
    steps_to_success: int | None
    """Actions taken until the goal was first reached; None if it never was."""
    seconds_per_action_mean: float
    """Mean time of a `predict` call [s]."""
    seconds_per_action_max: float
    """Slowest `predict` call [s]."""
    replans: int | None
    """Plans made after the first action; None for an agent that does not show its plans."""
    final_distance: float | None
    """Distance to the goal at the end [goal units]; None without a goal."""
    path_length: float | None
    """Length of the achieved goal's path, summed over the steps [goal units]; None without a goal."""
    start: str
    """Checksum of the first observation, eight hexadecimal digits: the same for every agent."""


class Evaluation(NamedTuple):
    """The episodes of one agent in one environment, and their summary."""

    env_id: str
    """Gymnasium id."""
    agent: str
    """The agent's name."""
    seed: int
    """Episode i was reset with `seed + i`."""
    episodes: tuple[Episode, ...]
    """One row per episode."""
    seconds: np.ndarray
    """`[sum of steps]`, time of every single `predict` call [s]."""
    seconds_first_call: float
    """Time of the process's warm-up call [s]; part of no other figure."""

    def summary(self) -> dict[str, Any]:
        """Returns the figures of a results table; success rates with their Wilson 95 % intervals.

        Returns:
            A dictionary ready for JSON; its times [s] are over all `predict` calls, planning included.
        """
        waits = [row.steps_to_success for row in self.episodes if row.steps_to_success is not None]
        return {
            "episodes": len(self.episodes),
            **_with_interval("success_end", [row.success_end for row in self.episodes]),
            **_with_interval("success_any", [row.success_any for row in self.episodes]),
            "return_mean": float(np.mean([row.return_ for row in self.episodes])),
            "steps_to_success_median": float(np.median(waits)) if waits else None,
            "seconds_per_action_mean": float(self.seconds.mean()),
            "seconds_per_action_p50": float(np.percentile(self.seconds, 50)),
            "seconds_per_action_p99": float(np.percentile(self.seconds, 99)),
            "seconds_per_action_max": float(self.seconds.max()),
            "seconds_first_call": self.seconds_first_call,
        }

    @property
    def score(self) -> float:
        """Success at the end, a fraction; the mean return where the environment does not report success."""
        ends = [row.success_end for row in self.episodes if row.success_end is not None]
        values = ends if len(ends) == len(self.episodes) else [row.return_ for row in self.episodes]
        return float(np.mean(np.array(values, np.float64)))

    def to_json(self, path: str | Path) -> None:
        """Writes `{"summary": {...}, "episodes": [...]}` with the environment, the agent and the seed."""
        content = {
            "env_id": self.env_id,
            "agent": self.agent,
            "seed": self.seed,
            "summary": self.summary(),
            "episodes": [_named(row) for row in self.episodes],
        }
        with atomic_write(path) as aside:
            aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def to_csv(self, path: str | Path) -> None:
        """Writes one line per episode under a line of column names; unknown values stay empty."""
        rows = [_named(row) for row in self.episodes]
        with atomic_write(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def evaluate(
    agent: Predictor,
    env: str | gym.Env[Any, Any],
    episodes: int = 100,
    seed: int = 10_000,
    on_episode: Callable[[Episode], None] | None = None,
    deterministic: bool = True,
    goal: Goal | None = None,
) -> Evaluation:
    """Plays seeded episodes in a plain Gymnasium loop.

    Before the timing starts, one reset and one `predict` serve as warm-up, so that the loading of libraries does not
    count as planning; the time of that call is kept as `seconds_first_call`. It has an `episode_start` of its own,
    after which the agent keeps no plan: every plan of the evaluation is made, and timed, inside it.

    Args:
        agent: anything with Stable-Baselines3's `predict`.
        env: a Gymnasium id, or a single environment (left open).
        episodes: how many to play, at least 1.
        seed: episode i is reset with `seed + i`.
        on_episode: called after each episode, e.g. to move a progress bar.
        deterministic: passed to `predict`.
        goal: what counts as success where the environment does not report it; None for the agent's own goal, if any.

    Raises:
        ValueError: if `episodes` is below 1, or `env` is neither an id nor a single environment.
    """
    episodes, seed = as_whole(1, episodes=episodes), as_whole(0, seed=seed)
    instance(Goal, goal=goal)
    rows: list[Episode] = []
    seconds: list[float] = []
    with opened(env, agent) as plain:
        observation, _ = plain.reset(seed=seed + episodes)
        started = time.perf_counter()
        agent.predict(observation, episode_start=np.ones(1, dtype=bool), deterministic=deterministic)
        first_call = time.perf_counter() - started
        for row, times in played(agent, plain, range(seed, seed + episodes), deterministic, goal):
            rows.append(row)
            seconds += times
            if on_episode is not None:
                on_episode(row)
        name = named(plain)
    return Evaluation(name, label(agent), seed, tuple(rows), np.array(seconds), first_call)


def played(
    agent: Predictor,
    env: gym.Env[Any, Any],
    seeds: Iterable[int],
    deterministic: bool = True,
    goal: Goal | None = None,
) -> Iterator[tuple[Episode, list[float]]]:
    """Plays an episode for each seed; yields its outcome and the time of each `predict` call [s]."""
    for seed in seeds:
        yield episode_of(seed, rollout(agent, env, seed, deterministic, goal))


def _digits(observation: Any) -> str:
    parts = observation.values() if isinstance(observation, dict) else [observation]
    return f"{zlib.crc32(b''.join(np.asarray(part).tobytes() for part in parts)):08x}"


def episode_of(seed: int, moments: Iterator[Moment]) -> tuple[Episode, list[float]]:
    """Returns the outcome of an episode that was reset with `seed`, and the time of each `predict` call [s]."""
    length, reached, seconds, plans, outcomes = 0.0, None, [], [], []
    first = last = next(moments)
    for moment in chain([first], moments):
        if last.achieved is not None and moment.achieved is not None:
            length += float(np.linalg.norm(moment.achieved - last.achieved))
        last = moment
        if moment.seconds is not None:
            seconds.append(moment.seconds)
        if moment.success is not None:
            outcomes.append(moment.success)
        if moment.success and reached is None:
            reached = moment.step
        if moment.plan is not None:
            plans.append(bool(moment.plan.fresh))
    row = Episode(
        seed=seed,
        success_end=outcomes[-1] if outcomes else None,
        success_any=any(outcomes) if outcomes else None,
        return_=last.return_,
        steps=last.step,
        steps_to_success=reached,
        seconds_per_action_mean=float(np.mean(seconds)),
        seconds_per_action_max=max(seconds),
        replans=sum(plans[1:]) if plans else None,
        final_distance=last.distance,
        path_length=None if first.achieved is None else length,
        start=_digits(first.observation),
    )
    return row, seconds


def _with_interval(name: str, outcomes: list[bool | None]) -> dict[str, Any]:
    found = intervals.proportion(outcomes)
    values = (None, None, None) if found is None else found
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _named(row: Episode) -> dict[str, Any]:
    return {name.rstrip("_"): value for name, value in row._asdict().items()}
