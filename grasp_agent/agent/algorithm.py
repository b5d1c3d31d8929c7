"""Learning with a world model, with Stable-Baselines3's methods, callbacks and logger."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv

from grasp_agent.agent.base import WorldModelBase
from grasp_agent.agent.checkpoint import Checkpoint
from grasp_agent.agent.snapshot import loading
from grasp_agent.interruption import stoppable
from grasp_agent.models.precision import single_precision
from grasp_agent.replay.offline import episodes_of
from grasp_agent.task.actions import from_space, whole_numbers
from grasp_agent.task.observation import KEYS, ObservationError, numbers, raw_vectors
from grasp_agent.task.success import reported_success
from grasp_agent.validation import at_least, more_than

Self = TypeVar("Self", bound="WorldModelAlgorithm")


class WorldModelAlgorithm(WorldModelBase):
    """Gathers experience and fits a world model to it, in turns.

    An off-policy algorithm in Stable-Baselines3's sense: `learn` calls `collect_rollouts` and `train`.
    """

    def learn(
        self: Self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 10,
        tb_log_name: str = "GRASP",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        *,
        checkpoint: str | Path | None = None,
        minutes: float | None = None,
    ) -> Self:
        """Gathers experience and fits the world model, in turns; ends with a last fit.

        The first episodes follow time-correlated noise, the later ones plans: half of them to rarely visited states,
        from which they explore at random, half to the task's goals.

        Args:
            total_timesteps: environment steps to take.
            callback: Stable-Baselines3's callbacks.
            log_interval: episodes between two lines in the log.
            tb_log_name: name of the run in TensorBoard.
            reset_num_timesteps: False continues the count of steps.
            progress_bar: show progress of steps and fits.
            checkpoint: a file, written every half minute, and before and after each fit. Where it already exists,
                learning continues from it, until `total_timesteps` were taken in all: a script that was killed is
                simply run again. It can be loaded as any saved agent, and also holds the experience; images are in a
                second file next to it.
            minutes: take no more environment steps after this time; the last fit follows.

        Returns:
            The agent itself.

        A SIGTERM stops as Ctrl-C does: the checkpoint is written, and a `KeyboardInterrupt` is raised.

        Raises:
            ValueError: if the checkpoint is not one of this agent, or a number is out of range.
            OSError: if the checkpoint cannot be written, or another training writes it (`BlockingIOError`).
        """
        if self.env is None:
            raise ValueError("learn: expected an environment; give one to load() or set_env()")
        at_least(0, total_timesteps=total_timesteps)
        if total_timesteps != int(total_timesteps):
            raise ValueError(f"total_timesteps: expected a whole number, got {total_timesteps}")
        if minutes is not None:
            more_than(0, minutes=minutes)
        deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
        saver, shown = Checkpoint(checkpoint), {"log_interval": log_interval, "progress_bar": progress_bar}
        with saver.held(), stoppable():
            if self._resume(saver):
                total_timesteps = max(0, total_timesteps - self.num_timesteps)
                reset_num_timesteps, self._last_obs = False, None
            with self._checked(self.num_timesteps):
                total_timesteps, callback = self._setup_learn(
                    total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
                )
            callback.on_training_start(locals(), globals())
            self._learn(total_timesteps, deadline, callback, saver, **shown)
            callback.on_training_end()
        return self

    def _learn(
        self,
        total_timesteps: int,
        deadline: float,
        callback: BaseCallback,
        saver: Checkpoint,
        *,
        log_interval: int,
        progress_bar: bool,
    ) -> None:
        """Learns until `total_timesteps` were taken in all, or the clock shows `deadline` [s, monotonic]."""
        trainer, before = self.trainer, self.num_timesteps
        self._counted_until = time.monotonic()
        assert self.env is not None
        trainer.begin(self.policy, self.env.num_envs)
        callback.on_rollout_start()
        try:
            while self.num_timesteps < total_timesteps and time.monotonic() < deadline:
                if trainer.due(total_timesteps - self.num_timesteps):
                    self._write(saver)  # a fit takes long, and may be interrupted
                    callback.on_rollout_end()
                    self.train(last=False, progress_bar=progress_bar)
                    callback.on_rollout_start()
                    self._write(saver)
                if not self.collect_rollouts(self.env, callback, log_interval):
                    break
                if saver.due:
                    self._write(saver)
        finally:
            trainer.end()
            if self.num_timesteps > before:
                self._write(saver)
        callback.on_rollout_end()
        if trainer.behind:
            self.train(last=True, progress_bar=progress_bar)
            self._write(saver)

    def _write(self, saver: Checkpoint) -> None:
        now = time.monotonic()
        self.training_seconds += now - self._counted_until
        self._counted_until = now
        saver.write(lambda: self.snapshot(experience=True))

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, log_interval: int | None = None) -> bool:
        """Takes one step in every environment.

        Args:
            env: the environments.
            callback: called after the step.
            log_interval: episodes between two lines in the log; None for no line.

        Returns:
            False if the callback wants to stop.

        Raises:
            ValueError: if an observation is not finite or of another kind; nothing of the step is recorded.
        """
        perception, trainer, before = self.perception, self.trainer, self._last_obs
        with self._checked(self.num_timesteps):
            observed = perception.to_goal_dict(before)
            raw, achieved, desired = raw_vectors(observed), *(numbers(observed[key], key) for key in KEYS[1:])
        actions = trainer.act(self.policy, raw, achieved, desired)
        given = self.policy.to_space(actions)
        if whole_numbers(self.policy.action_space):
            actions = from_space(given, self.policy.action_space)  # learned from as executed
        with self._checked(self.num_timesteps + env.num_envs):
            new_obs, rewards, dones, infos = env.step(given)
            lasts = {row: infos[row]["terminal_observation"] for row, done in enumerate(dones) if done}
            following = raw_vectors(perception.to_goal_dict(new_obs))
            last_states = {row: raw_vectors(perception.to_goal_dict(last)) for row, last in lasts.items()}
            reported = [reported_success(info) for info in infos]
        self.num_timesteps += env.num_envs
        known = {"actions": given, "new_obs": new_obs, "rewards": rewards, "dones": dones, "infos": infos}
        callback.update_locals({"self": self, "env": env, **known})
        proceed = bool(callback.on_step())
        self._update_info_buffer(infos, dones)
        terminated = [row for row in lasts if self._terminated(row, before, new_obs, lasts[row], infos[row])]
        perception.record(before, actions, new_obs, lasts, terminated)
        records_success = self.settings.goal_tolerance is None and perception.names_goals  # the radius is estimated
        for row, done in enumerate(map(bool, dones)):
            trainer.record(
                row, raw[row], actions[row], last_states[row] if done else following[row], done, row in terminated
            )
            success = reported[row]
            if records_success and success is not None:
                achieved, goal = perception.outcome(row, before, new_obs, lasts.get(row))
                trainer.success_radius.record(row, achieved, goal, success, done)
            if done:
                self._episode_num += 1
                if log_interval and self._episode_num % log_interval == 0:
                    self._dump_logs()
        self._last_obs = new_obs  # type: ignore[assignment]
        return proceed

    @contextmanager
    def _checked(self, step: int) -> Iterator[None]:
        """Adds the environment step to errors about observations; a later `learn` begins with new episodes."""
        try:
            yield
        except ObservationError as error:
            self._last_obs = None
            raise ObservationError(f"environment step {step}: {error}; what was learned before is kept") from error
        except BaseException:
            self._last_obs = None
            raise

    def _terminated(self, row: int, before: Any, after: Any, last: Any, info: Mapping[str, Any]) -> bool:
        """Returns whether an episode's last observation is terminal without success: no time limit, not at the goal."""
        if info.get("TimeLimit.truncated", False):
            return False
        reported, tolerance = reported_success(info), self.settings.goal_tolerance
        if reported is not None:
            return not reported
        if tolerance is None or not self.perception.names_goals:
            return False  # it may be a success
        achieved, goal = self.perception.outcome(row, before, after, last)
        return bool(self._distances(achieved[None], goal[None])[0] > tolerance)

    @single_precision()
    def train(self, *, last: bool = True, progress_bar: bool = False) -> None:
        """Fits encoder and world model to the experience, and logs their figures.

        Args:
            last: whether this fit ends the training, and is made in full.
            progress_bar: show progress.
        """
        trainer, perception = self.trainer, self.perception
        changed = perception.fit(last=last, progress_bar=progress_bar)
        if changed:
            self.policy.take_space(perception.space)
        encoded = perception.episodes(0 if changed else len(trainer.dataset) - trainer.fits.rehearsed)
        if encoded is not None:
            trainer.replace(encoded)
            for name, value in perception.figures().items():
                self.logger.record(f"encoder/{name}", value)
        tolerance = self.settings.goal_tolerance or trainer.success_radius.radius(self._distances)
        groups = perception.unit_groups
        world = trainer.fit(self.policy, tolerance, last=last, progress_bar=progress_bar, unit_groups=groups)
        assert trainer.report is not None
        for name in ("loss", "error_mean", "error_high"):
            self.logger.record(f"model/{name}", getattr(trainer.report, name))
        self.logger.record("model/transitions", len(trainer.dataset))
        self.logger.record("model/goal_tolerance", world.tolerance)
        roadmap = world.index.roadmap
        self.logger.record("model/roadmap", 0.0 if roadmap is None else roadmap.connected)
        self._dump_logs()

    def _at_goal(self, observations: Any) -> NDArray[np.bool_]:
        """Returns whether recorded observations may be at their goal, `[n]`: True where that is not known."""
        known, tolerance = self.perception.to_goal_dict(observations), self.settings.goal_tolerance
        if tolerance is None or not isinstance(known, Mapping) or not set(KEYS[1:]) <= set(known):
            return np.ones(len(self.perception.rows(observations)), np.bool_)
        return self._distances(known[KEYS[1]], known[KEYS[2]]) <= tolerance

    def _distances(self, achieved: NDArray[Any], goals: NDArray[Any]) -> NDArray[np.float32]:
        """Returns weighted distances `[n]` between achieved and desired goals, both from `Perception.outcome`."""
        assert self.settings.structure is not None
        weights = np.array(self.settings.structure.goal_weights or (1.0,), np.float32)
        difference = self.perception.encoded(achieved) - self.perception.encoded(goals)
        return np.linalg.norm(difference * weights, axis=-1)

    def _dump_logs(self, *_: Any, **__: Any) -> None:
        elapsed, logger = max((time.time_ns() - self.start_time) / 1e9, 1e-9), self.logger
        logger.record("time/episodes", self._episode_num, exclude="tensorboard")
        logger.record("time/fps", int((self.num_timesteps - self._num_timesteps_at_start) / elapsed))
        logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        if self.ep_info_buffer:
            logger.record("rollout/ep_rew_mean", safe_mean([info["r"] for info in self.ep_info_buffer]))
            logger.record("rollout/ep_len_mean", safe_mean([info["l"] for info in self.ep_info_buffer]))
        if self.ep_success_buffer:
            logger.record("rollout/success_rate", safe_mean(list(self.ep_success_buffer)))
        logger.dump(step=self.num_timesteps)

    def fit(self: Self, dataset: Any, *, progress_bar: bool = False) -> Self:
        """Learns from a dataset; experience that `learn` gathers later is added to it.

        Args:
            dataset: a `ReplayBuffer`, `DictReplayBuffer` or `HerReplayBuffer` of Stable-Baselines3, a Minari dataset,
                or the path of an `.npz` file, also of OGBench (see `grasp_agent.replay.offline.episodes_of`).
            progress_bar: show progress.

        Returns:
            The agent itself.

        Raises:
            ValueError: if it is none of these, holds no step, or does not fit the spaces.
        """
        assert isinstance(self.action_space, spaces.Box)
        episodes = episodes_of(dataset, self.action_space, self.perception.rows, self._at_goal)
        self.perception.open_buffer(None, {})
        self.perception.store(episodes, self.trainer.dataset, self.action_space.shape[0])
        self._setup_learn(0, None, reset_num_timesteps=False, tb_log_name="fit")
        began = time.monotonic()
        self.train(last=True, progress_bar=progress_bar)
        self.training_seconds += time.monotonic() - began
        return self

    def _resume(self, saver: Checkpoint) -> bool:
        """Continues from a checkpoint: world model, experience and counters; returns whether there was one."""
        snapshot = saver.read(self.settings, self.device)
        if snapshot is not None:
            snapshot.check_spaces(self.observation_space, self.action_space, str(saver.path))
            here, there = ((known.env_id, known.env_kwargs) for known in (self, snapshot))
            if None not in (here[0], there[0]) and here != there:
                raise ValueError(
                    f"{saver.path}: expected a checkpoint of {here[0]} {here[1]}, got {there[0]} {there[1]}"
                )
            with loading(str(saver.path)):
                self._adopt(snapshot)
                self.trainer.resume(snapshot.experience, snapshot.fits, self._sizes)
            self.num_timesteps, self.training_seconds = snapshot.num_timesteps, snapshot.training_seconds
        with nullcontext() if snapshot is None else loading(str(saver.images)):
            self.perception.open_buffer(saver.images, {} if snapshot is None else snapshot.images)
        if snapshot is not None:
            saver.say_changes(snapshot, self.snapshot())
        if snapshot is not None and self.seed is not None and self.env is not None:
            self.env.seed(self.seed + self.num_timesteps)  # other episodes than before the interruption
        return snapshot is not None
