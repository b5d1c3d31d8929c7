"""Comparison of agents on the same starts and goals."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np

from grasp_agent.evaluation import intervals
from grasp_agent.evaluation.cache import Played, Store
from grasp_agent.evaluation.evaluate import Evaluation, evaluate
from grasp_agent.evaluation.participants import TEXT, Given, Participant, located, participant, participants
from grasp_agent.evaluation.rollout import Predictor, label, made
from grasp_agent.execution import results
from grasp_agent.task.goal import Goal
from grasp_agent.validation import whole
from grasp_envs import registered_id

_CHUNK = 10  # episodes of one task, which are saved together


class Entry(NamedTuple):
    """One agent of a comparison, and its results."""

    participant: Participant
    """The agent."""
    evaluation: Evaluation
    """Its episodes."""
    difference: intervals.Paired | None
    """Its paired difference to the first agent on the same episodes; None for the first one, and where agents have
    several trainings each."""

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
    trainings: dict[str, tuple[int, ...]]
    """Indices of the entries that are trainings of one agent, by its name; empty where none has several."""

    def scores(self) -> dict[str, list[float]]:
        """Returns the scores of each agent's trainings, by its name: success at the end, or the mean return.

        Where no agent is given with several trainings, each entry counts as one.
        """
        column = "success_end" if self.compared == "success" else "return_mean"
        summaries = [entry.evaluation.summary() for entry in self.entries]
        trainings = self.trainings or {entry.participant.name: (index,) for index, entry in enumerate(self.entries)}
        return {name: [float(summaries[index][column]) for index in of] for name, of in trainings.items()}


def compare(
    env: str,
    agents: Sequence[Given] | Mapping[str, Given | Sequence[Given]],
    *,
    episodes: int = 100,
    seed: int = 10_000,
    env_kwargs: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    jobs: int | None = None,
    executor: Executor | None = None,
    on_episodes: Callable[[int], object] | None = None,
) -> Comparison:
    """Plays the same seeded episodes with several agents.

    Args:
        env: a Gymnasium id, see `grasp_envs.registered_id`.
        agents: names, files, `module:object` (see `participants.HOW`) or anything with `predict`; a dict
            gives them names for the report. The others are compared to the first one. Where the environment does not
            report success, the first agent's own goal, if any has one, defines it for all. A list in a dict holds
            trainings of one agent, see `Comparison.scores`.
        episodes: how many each plays, at least 1.
        seed: episode i is reset with `seed + i`.
        env_kwargs: options of the environment.
        out: a folder to which episodes are saved in tens; saved episodes are not played again, except by agents that
            are given as objects.
        jobs: processes, None for one; more than one only for agents that are given as text. More than cores distort
            the times.
        executor: plays tens of episodes, only of agents that are given as text; None for `jobs` processes. Files are
            sent, modules have to be on the workers; see `execution.results`.
        on_episodes: called with the number of finished episodes, as they finish.

    Raises:
        ValueError: if a name is unknown, a number is out of range, or the folder holds another comparison.
        ChildProcessError: if processes were killed repeatedly.
    """
    whole(1, episodes=episodes, jobs=1 if jobs is None else jobs)
    whole(0, seed=seed)
    env, (agents, trainings) = _known_id(env), _single(agents)
    givens, options = list(agents.values()) if isinstance(agents, Mapping) else list(agents), dict(env_kwargs or {})
    known = _checked(env, agents, givens, jobs, executor)
    goal = next((who.goal for who in known if who.goal is not None), None)
    setting = {
        "version": importlib.metadata.version("grasp-agent"),
        "env": env,
        "options": options,
        "seed": seed,
        "goal": None if goal is None else goal.to_config(),
    }
    store = Store(None if out is None else Path(out) / "episodes", setting)
    keys, kept = _keys(known, goal)
    done = on_episodes or (lambda _: None)
    tasks = _tasks(env, options, givens, known, goal, range(seed, seed + episodes))
    missing = [task for task in tasks if not store.holds(keys[task.who], task.seeds)]
    done(sum(len(task.seeds) for task in tasks) - sum(len(task.seeds) for task in missing))
    for task, played in results(play, missing, executor=executor, jobs=jobs, files=_files):
        store.keep(keys[task.who], played, only_now=not kept[task.who])
        done(len(task.seeds))
    seeds = range(seed, seed + episodes)
    played_by = [store.evaluation(key, who.name, env, seeds) for key, who in zip(keys, known, strict=True)]
    return _compared(env, known, played_by, trainings)


def _keys(known: Sequence[Participant], goal: Goal | None) -> tuple[list[str], list[bool]]:
    """Returns a key for each participant's episodes, and whether they are saved under it.

    Functions and objects have no stable identity: episodes that depend on them are not saved.
    """
    kept = [who.key is not None and (goal is None or goal.measure is None) for who in known]
    named = [
        str(who.key) if keep else f"{index} {who.name}"
        for index, (who, keep) in enumerate(zip(known, kept, strict=True))
    ]
    return named, kept


def _single(
    agents: Sequence[Given] | Mapping[str, Given | Sequence[Given]],
) -> tuple[Sequence[Given] | Mapping[str, Given], dict[str, tuple[int, ...]]]:
    """Returns agents with each training on its own, and the indices of those of each agent if one has several."""
    if not isinstance(agents, Mapping):
        return agents, {}
    single: dict[str, Given] = {}
    trainings: dict[str, tuple[int, ...]] = {}
    for name, given in agents.items():
        several: list[Any] = list(given) if isinstance(given, (list, tuple)) else [given]
        if not several:
            raise ValueError(f"agents: expected at least one training of {name}, got none")
        trainings[name] = tuple(range(len(single), len(single) + len(several)))
        single |= {f"{name} #{place}" if len(several) > 1 else name: one for place, one in enumerate(several)}
    return single, trainings if len(single) > len(trainings) else {}


def _known_id(env: str) -> str:
    """Returns the id under which an environment is registered; refuses unknown ones."""
    if not isinstance(env, str):
        raise ValueError(f"env: expected a Gymnasium id, got {type(env).__name__}: each agent plays in one of its own")
    env = registered_id(env)
    if env.split(":")[-1] not in gym.registry and ":" not in env:
        raise ValueError(f"env: no environment {env!r} is registered with Gymnasium")
    return env


def _checked(
    env: str,
    agents: Sequence[Given] | Mapping[str, Given],
    givens: Sequence[Given],
    jobs: int | None,
    executor: Executor | None,
) -> list[Participant]:
    """Returns the participants; refuses duplicate agents, and objects in other processes."""
    known = participants(agents, env)
    elsewhere = "executor: expected None" if executor is not None else "jobs: expected 1" if (jobs or 1) > 1 else ""
    if elsewhere and not all(isinstance(given, TEXT) for given in givens):
        raise ValueError(f"{elsewhere} where agents are given as objects")
    if len({who.key or id(given) for who, given in zip(known, givens, strict=True)}) < len(known):
        raise ValueError(f"agents: expected different ones, got {', '.join(who.name for who in known)}")
    return known


def _compared(
    env: str,
    known: Sequence[Participant],
    evaluations: Sequence[Evaluation],
    trainings: dict[str, tuple[int, ...]],
) -> Comparison:
    """Compares each agent with the first one, unless they have several trainings each."""
    ends = [[row.success_end for row in evaluation.episodes] for evaluation in evaluations]
    returns = [[row.return_ for row in evaluation.episodes] for evaluation in evaluations]
    reported = not any(None in row for row in ends)
    differences = [
        intervals.paired(end, ends[0]) if reported else intervals.paired_means(total, returns[0])
        for end, total in zip(ends, returns, strict=True)
    ]
    entries = map(
        Entry, known, evaluations, [None if not index or trainings else one for index, one in enumerate(differences)]
    )
    starts = {tuple(row.start for row in evaluation.episodes) for evaluation in evaluations}
    compared = "success" if reported else "return"
    return Comparison(env, evaluations[0].seed, tuple(entries), len(starts) == 1, compared, trainings)


class Task(NamedTuple):
    """Some episodes of one agent."""

    who: int
    env_id: str
    options: dict[str, Any]
    given: Given
    goal: Goal | None
    seeds: range
    file: Path | None


def _evaluated(agent: Predictor, env: gym.Env[Any, Any], task: Task) -> Evaluation:
    try:
        return evaluate(agent, env, len(task.seeds), task.seeds[0], goal=task.goal)
    except ValueError as error:
        who = task.given if isinstance(task.given, TEXT) else label(agent)
        raise ValueError(f"{who} in {task.env_id}: {error}") from error


def _tasks(
    env_id: str,
    options: dict[str, Any],
    givens: Sequence[Given],
    known: Sequence[Participant],
    goal: Goal | None,
    seeds: range,
) -> list[Task]:
    return [
        Task(who, env_id, options, given, goal, seeds[first : first + _CHUNK], known[who].file)
        for first in range(0, len(seeds), _CHUNK)
        for who, given in enumerate(givens)
    ]


def _files(task: Task) -> list[Path]:
    return [] if task.file is None else [task.file]


def play(task: Task, places: Mapping[str, Path]) -> Played:
    """Plays the episodes of one task with an agent made for them, from its file in the place where it is here."""
    import grasp_envs  # noqa: F401  registers its environments in a new process
    from grasp_agent.models.threads import one_thread

    with one_thread(), closing(made(task.env_id, task.options)) as env:
        given = located(task.given, task.file, places.get(str(task.file)))
        agent = participant(given, task.env_id).make(env, task.seeds[0])
        outcome = _evaluated(agent, env, task)
    lengths = np.cumsum([row.steps for row in outcome.episodes])[:-1]
    times = [[round(float(second), 6) for second in part] for part in np.split(outcome.seconds, lengths)]
    return list(outcome.episodes), times
