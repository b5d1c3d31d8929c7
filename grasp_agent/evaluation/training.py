"""Training of agents for a comparison, all from scratch and for the same number of environment steps."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from grasp_agent.agent.reward.agent import RewardAgent
from grasp_agent.evaluation.config import TrainingConfig, make_learner
from grasp_agent.evaluation.evaluate import evaluate
from grasp_agent.evaluation.folder import check_no_links
from grasp_agent.execution import Content, results
from grasp_agent.files import atomic_write, locked
from grasp_agent.models.threads import one_thread
from grasp_agent.reading import read_json, reading
from grasp_agent.validation import at_least
from grasp_agent.zoo.algorithms import algorithm
from grasp_agent.zoo.baselines import saved
from grasp_agent.zoo.resumable import ResumableTraining
from grasp_agent.zoo.rl_zoo import tuned
from grasp_envs import registered_id

LONGER = 10
"""Default factor by which agents of Stable-Baselines3 are trained longer, in addition."""
_FRACTIONS = (0.25, 0.5, 1, 2, 5)
"""Fractions of the steps at which agents of Stable-Baselines3 are evaluated, up to that factor."""
_PROBLEM = "no file of a training (remove it to train again)"
_FINISHED = "schooled.json"
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
    """Its files: after the given number of steps, and for agents of Stable-Baselines3 after `longer` times as many."""
    curve: tuple[Point, ...]
    """Its learning curve."""


class TrainingTask(NamedTuple):
    """The training of one agent."""

    name: str
    """ "grasp", or an algorithm of Stable-Baselines3."""
    env_id: str
    """Of the environment."""
    steps: int
    """Environment steps."""
    seed: int = 0
    """Of everything random."""
    longer: int = LONGER
    """Agents of Stable-Baselines3 are also trained for so many times the steps; 1 for no longer ones."""

    @property
    def total(self) -> int:
        """Environment steps of the whole training."""
        return self.steps if self.name == "grasp" else self.longer * self.steps

    def home(self, folder: Path) -> Path:
        """Returns the folder of this training's files: one for each combination of settings."""
        settings = {} if self.name == "grasp" else _settings(self)
        longer = [] if self.longer == LONGER or self.name == "grasp" else [self.longer]
        digits = zlib.crc32(json.dumps([self.env_id, self.seed, settings, *longer]).encode())
        return folder / f"{self.name}-{self.steps}-{digits:08x}"

    def files(self, home: Path) -> tuple[Path, ...]:
        """Returns the files of the trained agent; their names are never read from a file."""
        factors = (1,) if self.name == "grasp" else sorted({1, self.longer})
        return tuple(home / f"{self.name}-{factor * self.steps}.zip" for factor in factors)


def train_agent(task: TrainingTask, folder: Path, *, on_steps: Callable[[int], object] | None = None) -> TrainedAgent:
    """Trains one agent; a finished training is not repeated, an interrupted one continues, unless it is for rewards.

    Of files that are already there, none is loaded that runs code; those of finished trainings are returned unread, and
    are to be loaded as an `OwnFile`.

    Args:
        task: the training.
        folder: of all trainings' files.
        on_steps: called with the number of steps taken, as they are taken.

    Raises:
        ValueError: for an environment that the agent cannot learn in, or a symbolic link in the folder.
        OSError: if a file cannot be written, or another command trains the same agent (`BlockingIOError`).
    """
    check_no_links(folder)
    home, done = task.home(folder), on_steps or (lambda _: None)
    with locked(home / _FINISHED, "another command trains this agent"):
        known = finished(task, folder)
        if known is not None:
            return known
        train = _train_grasp if task.name == "grasp" else _train_baseline
        with one_thread():  # so that a training is the same wherever it runs
            return _finish(task, home, train(task, home, done))


def finished(task: TrainingTask, folder: Path) -> TrainedAgent | None:
    """Returns the files of a training that has finished; None if it has not."""
    home = task.home(folder)
    files, path = task.files(home), home / _FINISHED
    if not all(map(os.path.lexists, (path, *files))):
        return None
    return TrainedAgent(files, learning_curve(path))


def _finish(task: TrainingTask, home: Path, curve: Sequence[Point]) -> TrainedAgent:
    files = task.files(home)
    with atomic_write(home / _FINISHED) as aside:
        content = {"files": [file.name for file in files], "curve": curve}
        aside.write_text(json.dumps(content) + "\n", encoding="utf-8")
    return TrainedAgent(files, tuple(curve))


def train_agents(
    tasks: Sequence[TrainingTask],
    folder: Path,
    *,
    jobs: int | None = None,
    executor: Executor | None = None,
    on_steps: Callable[[int], object] | None = None,
) -> dict[TrainingTask, TrainedAgent]:
    """Trains several agents, such as one with several seeds; finished trainings are not repeated.

    Args:
        tasks: the trainings.
        folder: of their files. Processes of this machine keep checkpoints there, with which an interrupted training
            continues; an executor's workers send finished trainings, and write nothing there.
        jobs: processes, or tasks that the executor is given at a time, see `execution.results`.
        executor: runs the trainings; None for `jobs` processes.
        on_steps: called with numbers of steps as they are taken; with several processes as trainings finish.

    Raises:
        ValueError: as `train_agent`.
        OSError: as `train_agent`.
    """
    done = on_steps or (lambda _: None)
    check_no_links(folder)
    if executor is None and jobs in (None, 1):
        return {task: train_agent(task, folder, on_steps=done) for task in tasks}
    found = {task: known for task in tasks if (known := finished(task, folder)) is not None}
    done(sum(task.total for task in found))
    missing = [task for task in tasks if task not in found]
    call = partial(train_agent, folder=folder) if executor is None else train_elsewhere
    for task, trained in results(call, missing, executor=executor, jobs=jobs):
        found[task] = trained if isinstance(trained, TrainedAgent) else _received(task, folder, trained)
        done(task.total)
    return {task: found[task] for task in tasks}


class Sent(NamedTuple):
    """A finished training by value."""

    contents: tuple[Content, ...]
    """Its files."""
    curve: tuple[Point, ...]
    """Its learning curve."""


def train_elsewhere(task: TrainingTask) -> Sent:
    """Trains one agent and returns it by value; it leaves no files."""
    with TemporaryDirectory(prefix="grasp-agent-") as folder:
        trained = train_agent(task, Path(folder))
        return Sent(tuple(map(Content.of, trained.files)), trained.curve)


def _received(task: TrainingTask, folder: Path, sent: Sent) -> TrainedAgent:
    home = task.home(folder)
    with locked(home / _FINISHED, "another command trains this agent"):
        for path, content in zip(task.files(home), sent.contents, strict=True):
            with atomic_write(path) as aside:
                aside.write_bytes(content.data)
        return _finish(task, home, sent.curve)


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


def _train_grasp(task: TrainingTask, home: Path, done: Callable[[int], object]) -> list[Point]:
    """Trains `GraspAgent`; continues from its checkpoint, unless it learns for rewards, which has none."""
    (path,) = task.files(home)
    home.mkdir(parents=True, exist_ok=True)
    agent = make_learner(TrainingConfig(env=task.env_id, steps=task.steps, seed=task.seed))
    checkpoint = None if isinstance(agent, RewardAgent) else home / "checkpoint.zip"
    agent.learn(task.steps, _StepCounter(done), checkpoint=checkpoint)
    agent.save(path)
    return [Point(task.steps, _score(agent, task.env_id))]


def _settings(task: TrainingTask) -> dict[str, Any]:
    """Returns RL Zoo's hyperparameters, where there are any; rollouts are short enough for four updates in `steps`."""
    settings = tuned(task.name, task.env_id) or {}
    if issubclass(algorithm(task.name), OnPolicyAlgorithm):
        count = settings.get("n_envs", 1)
        settings["n_steps"] = max(1, min(settings.get("n_steps", 2048), task.steps // (4 * count)))
        settings["batch_size"] = min(settings.get("batch_size", 64), settings["n_steps"] * count)
    return settings


def _train_baseline(task: TrainingTask, home: Path, done: Callable[[int], object]) -> list[Point]:
    """Trains an agent of Stable-Baselines3, with evaluations; the curve so far is saved next to its checkpoint."""
    settings = _settings(task)
    own = {key: value for key, value in settings.items() if key != "n_envs"}
    count = settings.get("n_envs", 1)
    env_id = registered_id(task.env_id)
    env: Any = gym.make(env_id) if count == 1 else make_vec_env(env_id, count, seed=task.seed)
    checkpoint, curve_file, ticks = home / "checkpoint", home / "seen.json", _StepCounter(done)
    curve: list[Point] = []
    if os.path.lexists(checkpoint) and os.path.lexists(curve_file):
        curve = list(learning_curve(curve_file))
    training = ResumableTraining(
        task.name, env, steps=task.longer * task.steps, seed=task.seed, checkpoint=checkpoint, **own
    )
    paths: dict[float, Path] = dict(zip(sorted({1, task.longer}), task.files(home), strict=True))
    fractions = sorted({*(fraction for fraction in _FRACTIONS if fraction <= task.longer), task.longer})
    for fraction in fractions[len(curve) :]:
        training.run(round(fraction * task.steps), ticks)
        curve.append(Point(training.model.num_timesteps, _score(training.model, task.env_id)))
        if fraction in paths:
            saved(training.model, task.name, env_id, paths[fraction], seconds=training.seconds, settings=own)
        with atomic_write(curve_file) as aside:
            aside.write_text(json.dumps(curve) + "\n", encoding="utf-8")
    training.end()
    curve_file.unlink(missing_ok=True)
    env.close()
    return curve


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
