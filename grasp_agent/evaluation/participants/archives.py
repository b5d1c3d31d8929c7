"""Participants from saved agents, of this package or of Stable-Baselines3."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym

from grasp_agent.agent.agent import GraspAgent
from grasp_agent.agent.reward.saved import KIND as REWARD
from grasp_agent.agent.saved_settings import count_of
from grasp_agent.evaluation.participants.base import Participant
from grasp_agent.evaluation.rollout import Predictor
from grasp_agent.reading import open_zip, opened, parse_json, read_member, reading, sha256
from grasp_agent.task.goal import Goal
from grasp_agent.validation import at_least
from grasp_agent.zoo import baselines
from grasp_agent.zoo.algorithms import algorithm
from grasp_agent.zoo.pretrained import bundled, load

_ON_POLICY = {"trpo": "cg_max_steps", "ppo": "clip_range", "a2c": "gae_lambda"}
"""Settings that identify on-policy algorithms, whose policies do not; the first match counts."""
_OWN_POLICY = ("sac", "tqc", "crossq", "td3")  # DDPG has TD3's policy, and is loaded as TD3


_LARGEST_SETTINGS = 32 * 2**20  # of a file of Stable-Baselines3, with its last observation [bytes]; chosen by hand


class Archive(NamedTuple):
    """A saved agent's file."""

    path: Path
    """Path of the file."""
    digest: str
    """SHA-256 of the file."""
    size: int
    """Size of the file [bytes]."""
    config: dict[str, Any]
    """Settings in a file of this package, of an agent or (with "algorithm") a Stable-Baselines3 policy; else empty."""
    data: dict[str, Any]
    """Settings in a file that Stable-Baselines3 has written; else empty."""


def read_archive(path: Path) -> Archive:
    """Reads the settings of a file; no code in it is run.

    Raises:
        ValueError: if it is not a saved agent.
    """
    with reading(f"agents: {path} is no saved agent", "it cannot be read"), opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        with open_zip(stream, largest=size + _LARGEST_SETTINGS) as archive:
            names, texts = set(archive.namelist()), ("config.json", "data")
            config, data = (
                parse_json(read_member(archive, name), largest=_LARGEST_SETTINGS) if name in names else {}
                for name in texts
            )
        if not isinstance(config, dict) or not isinstance(data, dict) or not (config or data):
            raise ValueError("expected settings by name")
    return Archive(path, sha256(path), size, config, data)


def existing(given: str) -> Path | None:
    """Returns the path of a file, given with or without its `.zip`; None if there is none."""
    return next((path for path in (Path(given), Path(f"{given}.zip")) if given and path.is_file()), None)


def written_by(archive: Archive) -> str | None:
    """Returns the algorithm that wrote a file of Stable-Baselines3, None if unknown; "td3" also stands for DDPG."""
    home = str(archive.data.get("policy_class", {}).get("__module__", ""))
    found = [name for name in _OWN_POLICY if f".{name}." in home]
    found += [name for name, setting in _ON_POLICY.items() if setting in archive.data]
    return found[0] if found else None


def algorithm_of(archive: Archive) -> str:
    """Returns the algorithm that wrote a file of Stable-Baselines3, as `written_by`.

    Raises:
        ValueError: if it is unknown.
    """
    found, path = written_by(archive), archive.path
    if found is None:
        raise ValueError(f"agents: which algorithm made {path} cannot be seen; say it, for example ppo:{path}")
    return found


def from_bundled(name: str) -> Participant:
    """Returns a bundled model."""
    path = Path(str(resources.files("grasp_agent.zoo.pretrained") / f"{name}.zip"))
    return from_agent(read_archive(path), partial(load, name), bundled()[name].steps)._replace(file=None)


def from_agent(archive: Archive, read: Callable[..., GraspAgent], steps: int | None = None) -> Participant:
    """Returns an agent of this package; its name contains its planner where that is not GRASP."""
    config = archive.config
    with reading(f"agents: {archive.path} is no saved agent", "expected its settings"):
        steps = count_of(config, "num_timesteps") if steps is None else steps
        planner = "" if config["planner"] is None else str(config["planner"]["type"])
        given = None if config.get("kind") == REWARD else config["goal"]
        goal = None if given is None else Goal.from_config(given)
        seconds = float(config.get("training_seconds", 0.0)) or None
    return Participant(
        name=f"grasp{f'@{steps}' if steps else ''}{f' ({planner})' if planner not in ('', 'GRASP') else ''}",
        make=lambda *_: read(device="cpu"),
        key=archive.digest,
        steps=steps or None,
        seconds=seconds,
        size=archive.size,
        goal=goal,
        file=archive.path,
    )


def from_baseline(entry: baselines.Baseline) -> Participant:
    """Returns a bundled baseline; its hash is checked when it is built."""
    return Participant(
        name=f"{entry.algorithm}@{entry.steps}",
        make=lambda *_: baselines.baseline(entry.algorithm, entry.env_id, entry.steps),
        key=entry.sha256,
        steps=entry.steps,
        seconds=entry.seconds,
        size=Path(str(resources.files(baselines) / entry.file)).stat().st_size,
    )


def from_policy(archive: Archive) -> Participant:
    """Returns a policy of Stable-Baselines3, from a file of this package."""
    with reading(f"agents: {archive.path} is no saved agent", "it cannot be loaded"):
        baselines.read(archive.path)  # refuses damaged files early
        config = archive.config
        name, steps, seconds = config["algorithm"], int(config["num_timesteps"]), config.get("training_seconds")
        at_least(0, training_seconds=0.0 if seconds is None else seconds)
    return Participant(
        name=f"{name}@{steps}",
        make=lambda *_: baselines.read(archive.path),
        key=archive.digest,
        steps=steps,
        seconds=seconds,
        size=archive.size,
        file=archive.path,
    )


def from_theirs(archive: Archive, name: str) -> Participant:
    """Returns an agent from a file of Stable-Baselines3, which runs code when loaded; HER needs an environment."""
    stem, steps = archive.path.stem, archive.data.get("num_timesteps")

    def make(env: gym.Env[Any, Any], _: int) -> Predictor:
        with reading(f"agents: {archive.path} cannot be loaded as {name} for this environment", "it does not fit"):
            return algorithm(name).load(archive.path, env=env, device="cpu")

    return Participant(
        name=stem if name in stem else f"{name} {stem}",
        make=make,
        key=f"{name} {archive.digest}",
        notice=f"{archive.path} is a pickle of Stable-Baselines3 ({name}): loading it runs the code that is in it",
        steps=steps if isinstance(steps, int) else None,
        size=archive.size,
        file=archive.path,
    )
