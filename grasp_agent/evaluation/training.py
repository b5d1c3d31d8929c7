"""Training of agents for a comparison, all from scratch and for the same number of environment steps."""

from __future__ import annotations

import json
import os
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
from grasp_agent.evaluation.folder import check_no_links
from grasp_agent.files import atomic_write, locked
from grasp_agent.reading import read_json, reading
from grasp_agent.validation import at_least
from grasp_agent.zoo.algorithms import ALGORITHMS, algorithm
from grasp_agent.zoo.baselines import saved
from grasp_agent.zoo.resumable import ResumableTraining
from grasp_agent.zoo.rl_zoo import tuned

LONGER = 10
"""Factor by which agents of Stable-Baselines3 are trained longer, in addition."""
_FRACTIONS = (0.25, 0.5, 1, 2, 5, LONGER)
"""Fractions of the steps at which agents of Stable-Baselines3 are evaluated."""
_PROBLEM = "no file of a training (remove it to train again)"
_EPISODES, _SEED = 20, 30_000  # of these evaluations


class Point(NamedTuple):
    """A point of a learning curve."""

    steps: int
    """Environment steps that it had learned from."""
    success: float
    """Success at the end of 20 episodes, or the mean return where success is not reported."""


class TrainedAgent(NamedTuple):
    """The result of one agent's training."""

    files: tuple[Path, ...]
    """Its files: after the given number of steps, and for agents of Stable-Baselines3 after ten times as many."""
    curve: tuple[Point, ...]
    """Its learning curve."""


def train_agent(
    name: str, env_id: str, steps: int, folder: Path, *, seed: int = 0, on_steps: Callable[[int], object] | None = None
) -> TrainedAgent:
    """Trains one agent; a finished training is not repeated.

    Of files that are already there, none is loaded that runs code; those of finished trainings are returned unread, and
    are to be loaded as an `OwnFile`.

    Args:
        name: "grasp", or an algorithm of Stable-Baselines3.
        env_id: of the environment.
        steps: environment steps.
        folder: of its files.
        seed: of everything random.
        on_steps: called with the number of steps taken, as they are taken.

    Raises:
        ValueError: for an environment that the agent cannot learn in, or a symbolic link in the folder.
        OSError: if a file cannot be written, or another command trains the same agent (`BlockingIOError`).
    """
    settings = {} if name == "grasp" else _settings(name, env_id, steps)
    digits = zlib.crc32(json.dumps([env_id, seed, settings]).encode())
    home = folder / f"{name}-{steps}-{digits:08x}"  # a folder for each combination of settings
    check_no_links(folder)
    path, files, done = home / "schooled.json", _files(name, steps, home), on_steps or (lambda _: None)
    with locked(path, "another command trains this agent"):
        if os.path.lexists(path) and all(map(os.path.lexists, files)):
            return TrainedAgent(files, learning_curve(path))
        if name == "grasp":
            trained = _train_grasp(env_id, steps, home, seed, done)
        else:
            trained = _train_baseline(name, env_id, steps, home, seed, settings, done)
        with atomic_write(path) as aside:
            content = {"files": [file.name for file in trained.files], "curve": trained.curve}
            aside.write_text(json.dumps(content) + "\n", encoding="utf-8")
        return trained


def _files(name: str, steps: int, home: Path) -> tuple[Path, ...]:
    """Returns the files of an agent; their names are never read from a file."""
    return tuple(home / f"{name}-{factor * steps}.zip" for factor in ((1,) if name == "grasp" else (1, LONGER)))


def learning_curve(path: Path) -> tuple[Point, ...]:
    """Returns the learning curve in a file of a training.

    Raises:
        ValueError: of one line that names the path, if it holds none.
    """
    held = read_json(path, _PROBLEM)
    with reading(path, _PROBLEM):
        points = tuple(Point(*point) for point in (held["curve"] if isinstance(held, dict) else held))
        at_least(0, **{f"curve[{place}].steps": point.steps for place, point in enumerate(points)})
        for place, point in enumerate(points):
            if not isinstance(point.success, (int, float)) or isinstance(point.success, bool):
                raise ValueError(f"curve[{place}].success: expected a number, got {str(point.success)[:80]}")
        return points


def total_steps(names: Sequence[str], steps: int) -> int:
    """Returns the environment steps of the training of all these agents."""
    return sum(steps if name == "grasp" else LONGER * steps for name in names if name in ("grasp", *ALGORITHMS))


def _train_grasp(env_id: str, steps: int, home: Path, seed: int, done: Callable[[int], object]) -> TrainedAgent:
    """Trains `GraspAgent`; continues from its checkpoint."""
    (path,) = _files("grasp", steps, home)
    home.mkdir(parents=True, exist_ok=True)
    agent = GraspAgent("MultiInputPolicy", env_id, seed=seed, device="cpu")
    agent.learn(steps, _StepCounter(done), checkpoint=home / "checkpoint.zip")
    agent.save(path)
    return TrainedAgent((path,), (Point(steps, _score(agent, env_id)),))


def _settings(name: str, env_id: str, steps: int) -> dict[str, Any]:
    """Returns RL Zoo's hyperparameters, where there are any; rollouts are short enough for four updates in `steps`."""
    settings = tuned(name, env_id) or {}
    if issubclass(algorithm(name), OnPolicyAlgorithm):
        count = settings.get("n_envs", 1)
        settings["n_steps"] = max(1, min(settings.get("n_steps", 2048), steps // (4 * count)))
        settings["batch_size"] = min(settings.get("batch_size", 64), settings["n_steps"] * count)
    return settings


def _train_baseline(
    name: str,
    env_id: str,
    steps: int,
    home: Path,
    seed: int,
    settings: Mapping[str, Any],
    done: Callable[[int], object],
) -> TrainedAgent:
    """Trains an agent of Stable-Baselines3, with evaluations; the curve so far is saved next to its checkpoint."""
    own = {key: value for key, value in settings.items() if key != "n_envs"}
    count = settings.get("n_envs", 1)
    env: Any = gym.make(env_id) if count == 1 else make_vec_env(env_id, count, seed=seed)
    checkpoint, curve_file, ticks = home / "checkpoint", home / "seen.json", _StepCounter(done)
    curve: list[Point] = []
    if os.path.lexists(checkpoint) and os.path.lexists(curve_file):
        curve = list(learning_curve(curve_file))
    training = ResumableTraining(name, env, steps=LONGER * steps, seed=seed, checkpoint=checkpoint, **own)
    files: dict[float, Path] = dict(zip((1, LONGER), _files(name, steps, home), strict=True))
    for fraction in _FRACTIONS[len(curve) :]:
        training.run(round(fraction * steps), ticks)
        curve.append(Point(training.model.num_timesteps, _score(training.model, env_id)))
        if fraction in files:
            saved(training.model, name, env_id, files[fraction], seconds=training.seconds, settings=own)
        with atomic_write(curve_file) as aside:
            aside.write_text(json.dumps(curve) + "\n", encoding="utf-8")
    training.end()
    curve_file.unlink(missing_ok=True)
    env.close()
    return TrainedAgent(tuple(files.values()), tuple(curve))


class _StepCounter(BaseCallback):
    """Reports the number of steps taken."""

    def __init__(self, done: Callable[[int], object]) -> None:
        super().__init__()
        self._done, self._before = done, 0

    def _on_step(self) -> bool:
        self._done(max(0, self.num_timesteps - self._before))
        self._before = self.num_timesteps
        return True


def _score(agent: Any, env_id: str) -> float:
    return evaluate(agent, env_id, _EPISODES, _SEED).score
