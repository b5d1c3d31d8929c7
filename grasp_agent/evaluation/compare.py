"""Comparison of agents on the same starts and goals."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np

from grasp_agent.evaluation import intervals
from grasp_agent.evaluation.cache import Played, Store
from grasp_agent.evaluation.evaluate import Evaluation, evaluate
from grasp_agent.evaluation.participants import TEXT, Given, Participant, participant, participants
from grasp_agent.evaluation.processes import in_processes
from grasp_agent.evaluation.rollout import Predictor, label, made
from grasp_agent.task.goal import Goal
from grasp_agent.validation import whole

_CHUNK = 10  # episodes of one task, which are saved together


class Entry(NamedTuple):
    """One agent of a comparison, and its results."""

    participant: Participant
    """The agent."""
    evaluation: Evaluation
    """Its episodes."""
    difference: intervals.Paired | None
    """Its paired difference to the first agent on the same episodes; None for the first one."""

    def row(self) -> dict[str, Any]:
        """Returns the figures of a report, ready for JSON; times in seconds, sizes in bytes."""
        who, summary = self.participant, self.evaluation.summary()
        rows = self.evaluation.episodes
        returns = intervals.mean([row.return_ for row in rows])
        lengths = [row.path_length for row in rows if row.path_length is not None]
        row: dict[str, Any] = {
            "agent": who.name,
            "environment_steps": who.steps,
            "training_seconds": who.seconds,
            "model_bytes": who.size,
            **{key: summary[key] for key in summary if key.startswith("success")},
            "difference": None,
            "difference_low": None,
            "difference_high": None,
            "p": None,
            **dict(zip(("return_mean", "return_low", "return_high"), returns, strict=True)),
            "steps_to_success_median": summary["steps_to_success_median"],
            "path_length_mean": float(np.mean(lengths)) if lengths else None,
            **{key: summary[key] for key in summary if key.startswith("seconds_per_action")},
        }
        if self.difference is not None:
            keys = ("difference", "difference_low", "difference_high")
            row |= {**dict(zip(keys, self.difference.difference, strict=True)), "p": self.difference.p}
        return row


class Comparison(NamedTuple):
    """Several agents in one environment."""

    env_id: str
    """Gymnasium id."""
    seed: int
    """Episode i was reset with `seed + i`, for every agent."""
    entries: tuple[Entry, ...]
    """One for each agent."""
    same_starts: bool
    """Whether all agents got the same first observations, as equal seeds should give."""
    compared: Literal["success", "return"]
    """Quantity of the differences: success at the end, or returns where success is not reported."""


def compare(
    env: str,
    agents: Sequence[Given] | Mapping[str, Given],
    *,
    episodes: int = 100,
    seed: int = 10_000,
    env_kwargs: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    jobs: int = 1,
    on_episodes: Callable[[int], object] | None = None,
) -> Comparison:
    """Plays the same seeded episodes with several agents.

    Args:
        env: a Gymnasium id.
        agents: names, files, `module:object` (see `participants.HOW`) or anything with `predict`; a dict
            gives them names for the report. The others are compared to the first one. Where the environment does not
            report success, the first agent's own goal, if any has one, defines it for all.
        episodes: how many each plays, at least 1.
        seed: episode i is reset with `seed + i`.
        env_kwargs: options of the environment.
        out: a folder to which episodes are saved in tens; saved episodes are not played again, except by agents that
            are given as objects.
        jobs: processes; more than one only for agents that are given as text. More than cores distort the times.
        on_episodes: called with the number of finished episodes, as they finish.

    Raises:
        ValueError: if a name is unknown, a number is out of range, or the folder holds another comparison.
    """
    whole(1, episodes=episodes, jobs=jobs)
    whole(0, seed=seed)
    givens = list(agents.values()) if isinstance(agents, Mapping) else list(agents)
    options = dict(env_kwargs or {})
    known = _checked(env, agents, givens, jobs)
    goal = next((who.goal for who in known if who.goal is not None), None)
    setting = {
        "version": importlib.metadata.version("grasp-agent"),
        "env": env,
        "options": options,
        "seed": seed,
        "goal": None if goal is None else goal.to_config(),
    }
    store = Store(None if out is None else Path(out) / "episodes", setting)
    # Functions and objects have no stable identity: episodes that depend on them are not saved.
    kept = [who.key is not None and (goal is None or goal.measure is None) for who in known]
    keys = [
        str(who.key) if keep else f"{index} {who.name}"
        for index, (who, keep) in enumerate(zip(known, kept, strict=True))
    ]
    chunks = [range(seed + first, seed + min(first + _CHUNK, episodes)) for first in range(0, episodes, _CHUNK)]
    tasks = [Task(index, env, options, given, goal, seeds) for seeds in chunks for index, given in enumerate(givens)]
    done = on_episodes or (lambda _: None)
    missing = [task for task in tasks if not store.holds(keys[task.who], task.seeds)]
    done(sum(len(task.seeds) for task in tasks) - sum(len(task.seeds) for task in missing))
    for task, played in in_processes(play, missing, jobs):
        store.keep(keys[task.who], played, only_now=not kept[task.who])
        done(len(task.seeds))
    seeds = range(seed, seed + episodes)
    played_by = [store.evaluation(key, who.name, env, seeds) for key, who in zip(keys, known, strict=True)]
    return _compared(env, known, played_by)


def _checked(
    env: str, agents: Sequence[Given] | Mapping[str, Given], givens: Sequence[Given], jobs: int
) -> list[Participant]:
    """Returns the participants; refuses unknown environments and duplicate agents."""
    if not isinstance(env, str):
        raise ValueError(f"env: expected a Gymnasium id, got {type(env).__name__}: each agent plays in one of its own")
    if env.split(":")[-1] not in gym.registry and ":" not in env:
        raise ValueError(f"env: no environment {env!r} is registered with Gymnasium")
    known = participants(agents, env)
    if jobs > 1 and not all(isinstance(given, TEXT) for given in givens):
        raise ValueError("jobs: expected 1 where agents are given as objects")
    if len({who.key or id(given) for who, given in zip(known, givens, strict=True)}) < len(known):
        raise ValueError(f"agents: expected different ones, got {', '.join(who.name for who in known)}")
    return known


def _compared(env: str, known: Sequence[Participant], evaluations: Sequence[Evaluation]) -> Comparison:
    """Compares each agent with the first one."""
    ends = [[row.success_end for row in evaluation.episodes] for evaluation in evaluations]
    returns = [[row.return_ for row in evaluation.episodes] for evaluation in evaluations]
    reported = not any(None in row for row in ends)
    differences = [
        intervals.paired(end, ends[0]) if reported else intervals.paired_means(total, returns[0])
        for end, total in zip(ends, returns, strict=True)
    ]
    entries = map(Entry, known, evaluations, [None, *differences[1:]])
    starts = {tuple(row.start for row in evaluation.episodes) for evaluation in evaluations}
    compared = "success" if reported else "return"
    return Comparison(env, evaluations[0].seed, tuple(entries), len(starts) == 1, compared)


class Task(NamedTuple):
    """Some episodes of one agent."""

    who: int
    env_id: str
    options: dict[str, Any]
    given: Given
    goal: Goal | None
    seeds: range


def _evaluated(agent: Predictor, env: gym.Env[Any, Any], task: Task) -> Evaluation:
    try:
        return evaluate(agent, env, len(task.seeds), task.seeds[0], goal=task.goal)
    except ValueError as error:
        who = task.given if isinstance(task.given, TEXT) else label(agent)
        raise ValueError(f"{who} in {task.env_id}: {error}") from error


def play(task: Task) -> Played:
    """Plays the episodes of one task with an agent made for them."""
    import torch

    import grasp_envs  # noqa: F401  registers its environments in a new process

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    env = made(task.env_id, task.options)
    try:
        agent = participant(task.given, task.env_id).make(env, task.seeds[0])
        outcome = _evaluated(agent, env, task)
    finally:
        env.close()
        torch.set_num_threads(threads)
    lengths = np.cumsum([row.steps for row in outcome.episodes])[:-1]
    times = [[round(float(second), 6) for second in part] for part in np.split(outcome.seconds, lengths)]
    return list(outcome.episodes), times
