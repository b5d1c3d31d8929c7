"""Agents that are trained for a comparison, all from nothing and for the same number of environment steps."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from grasp_agent.agent.agent import GraspAgent
from grasp_agent.evaluation.evaluate import evaluate
from grasp_agent.serialization import atomic_write
from grasp_agent.zoo.algorithms import ALGORITHMS, algorithm
from grasp_agent.zoo.baselines import saved
from grasp_agent.zoo.resumable import ResumableTraining
from grasp_agent.zoo.rl_zoo import tuned

LONGER = 10
"""Agents of Stable-Baselines3 are trained for so many times the steps, too."""
_SHARES = (0.25, 0.5, 1, 2, 5, LONGER)
_EPISODES, _SEED = 20, 30_000


class Point(NamedTuple):
    """How good an agent was on the way."""

    steps: int
    """Environment steps that it had learned from."""
    success: float
    """Success at the end of 20 episodes, or the mean return where none is reported."""


class Schooled(NamedTuple):
    """What came of one agent's training."""

    files: tuple[Path, ...]
    """Its files: after as many steps as were wanted, and for some after ten times as many."""
    curve: tuple[Point, ...]
    """On the way."""


def school(
    name: str, env_id: str, steps: int, folder: Path, *, seed: int = 0, on_steps: Callable[[int], object] | None = None
) -> Schooled:
    """Trains one agent; what is there already is not trained again.

    Args:
        name: "grasp", or an algorithm of Stable-Baselines3.
        env_id: where.
        steps: environment steps.
        folder: where its files go.
        seed: of everything random.
        on_steps: called with the number of steps that are done, as they are.

    Raises:
        ValueError: for an environment that the agent cannot learn in.
    """
    settings = {} if name == "grasp" else _settings(name, env_id, steps)
    digits = zlib.crc32(json.dumps([env_id, seed, settings]).encode())
    place = folder / f"{name}-{steps}-{digits:08x}"  # a training's own folder: another one's files are not its
    path = place / "schooled.json"
    if path.exists():
        held = json.loads(path.read_text(encoding="utf-8"))
        files = tuple(place / file for file in held["files"])
        if all(file.exists() for file in files):
            return Schooled(files, tuple(Point(*point) for point in held["curve"]))
    done = on_steps or (lambda _: None)
    if name == "grasp":
        schooled = _teach_grasp(env_id, steps, place, seed, done)
    else:
        schooled = _teach(name, env_id, steps, place, seed, settings, done)
    with atomic_write(path) as aside:
        content = {"files": [file.name for file in schooled.files], "curve": schooled.curve}
        aside.write_text(json.dumps(content) + "\n", encoding="utf-8")
    return schooled


def wanted(names: Sequence[str], steps: int) -> int:
    """Environment steps that the training of these takes in all."""
    return sum(steps if name == "grasp" else LONGER * steps for name in names if name in ("grasp", *ALGORITHMS))


def _teach_grasp(env_id: str, steps: int, place: Path, seed: int, done: Callable[[int], object]) -> Schooled:
    """Goes on from its checkpoint where it was stopped."""
    path = place / f"grasp-{steps}.zip"
    place.mkdir(parents=True, exist_ok=True)
    agent = GraspAgent("MultiInputPolicy", env_id, seed=seed, device="cpu")
    agent.learn(steps, _Ticks(done), checkpoint=place / "checkpoint.zip")
    agent.save(path)
    return Schooled((path,), (Point(steps, _score(agent, env_id)),))


def _settings(name: str, env_id: str, steps: int) -> dict[str, Any]:
    """RL Zoo's, where there are any; steps that come in lots come in small enough ones."""
    settings = tuned(name, env_id) or {}
    if issubclass(algorithm(name), OnPolicyAlgorithm):
        count = settings.get("n_envs", 1)
        settings["n_steps"] = max(1, min(settings.get("n_steps", 2048), steps // (4 * count)))
        settings["batch_size"] = min(settings.get("batch_size", 64), settings["n_steps"] * count)
    return settings


def _teach(
    name: str,
    env_id: str,
    steps: int,
    place: Path,
    seed: int,
    settings: Mapping[str, Any],
    done: Callable[[int], object],
) -> Schooled:
    """One course, looked at on the way; what was seen before it was stopped is in a file beside its checkpoint."""
    own = {key: value for key, value in settings.items() if key != "n_envs"}
    count = settings.get("n_envs", 1)
    env: Any = gym.make(env_id) if count == 1 else make_vec_env(env_id, count, seed=seed)
    checkpoint, seen, ticks = place / "checkpoint", place / "seen.json", _Ticks(done)
    curve: list[Point] = []
    if checkpoint.exists() and seen.exists():
        curve = [Point(*point) for point in json.loads(seen.read_text(encoding="utf-8"))]
    course = ResumableTraining(name, env, steps=LONGER * steps, seed=seed, checkpoint=checkpoint, **own)
    files = {share: place / f"{name}-{share * steps}.zip" for share in (1, LONGER)}
    for share in _SHARES[len(curve) :]:
        course.run(round(share * steps), ticks)
        curve.append(Point(course.model.num_timesteps, _score(course.model, env_id)))
        if share in files:
            saved(course.model, name, env_id, files[int(share)], seconds=course.seconds, settings=own)
        with atomic_write(seen) as aside:
            aside.write_text(json.dumps(curve) + "\n", encoding="utf-8")
    course.end()
    seen.unlink()
    env.close()
    return Schooled(tuple(files.values()), tuple(curve))


class _Ticks(BaseCallback):
    """Says how many steps were taken."""

    def __init__(self, done: Callable[[int], object]) -> None:
        super().__init__()
        self._done, self._before = done, 0

    def _on_step(self) -> bool:
        self._done(max(0, self.num_timesteps - self._before))
        self._before = self.num_timesteps
        return True


def _score(agent: Any, env_id: str) -> float:
    summary = evaluate(agent, env_id, _EPISODES, _SEED).summary()
    return summary["return_mean"] if summary["success_end"] is None else summary["success_end"]
