"""One call of `learn`: experience and fits in turns, with Stable-Baselines3's callbacks and logger."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv

from grasp_agent.agent.checkpoint import Checkpoint
from grasp_agent.task.observation import raw_vectors

if TYPE_CHECKING:
    from grasp_agent.agent.agent import GraspAgent
    from grasp_agent.agent.perception import Vision


class Training:
    """Takes environment steps and fits models until enough were taken, time is up or a callback wants to stop.

    Args:
        agent: who learns.
        env: where.
        callback: called before, after and at each step of all environments.
        log_interval: episodes between two lines in the log.
        progress_bar: show progress of fits.
        saver: keeps the training's file.
    """

    def __init__(
        self,
        agent: GraspAgent,
        env: VecEnv,
        callback: BaseCallback,
        *,
        log_interval: int,
        progress_bar: bool,
        saver: Checkpoint,
    ) -> None:
        self._agent, self._env, self._callback = agent, env, callback
        self._log_interval, self._progress_bar, self._saver = log_interval, progress_bar, saver
        self._counted = time.monotonic()
        known = agent.goal_tolerance is not None or (agent.vision is not None and agent.vision.layout.goal is None)
        self._asks = not known  # how near is near enough

    def run(self, total_timesteps: int, deadline: float) -> None:
        """Learns until the agent has taken so many steps in all, or the clock shows `deadline` [s, monotonic]."""
        agent, learner, callback = self._agent, self._agent.learner, self._callback
        before = agent.num_timesteps
        learner.begin(agent.policy, self._env.num_envs)
        callback.on_rollout_start()
        try:
            while agent.num_timesteps < total_timesteps and time.monotonic() < deadline:
                if learner.due:
                    self._write()  # a fit takes long
                    callback.on_rollout_end()
                    refit(agent, last=False, progress_bar=self._progress_bar)
                    callback.on_rollout_start()
                    self._write()
                if not self._collect():
                    break
                if self._saver.due:
                    self._write()
        finally:
            learner.end()
            if agent.num_timesteps > before:
                self._write()
        callback.on_rollout_end()
        if learner.behind:
            refit(agent, last=True, progress_bar=self._progress_bar)
            self._write()

    def _write(self) -> None:
        now = time.monotonic()
        self._agent.training_seconds += now - self._counted
        self._counted = now
        self._saver.write(self._agent)

    def _collect(self) -> bool:
        """One step of every environment; False if a callback wants to stop."""
        agent, learner, seen = self._agent, self._agent.learner, self._agent._last_obs
        before = agent._as_goal_observation(seen)
        raw = raw_vectors(before)
        achieved, desired = (np.asarray(before[key], np.float32) for key in ("achieved_goal", "desired_goal"))
        actions = learner.act(agent.policy, raw, achieved, desired)
        new_obs, rewards, dones, infos = self._env.step(agent.policy.to_space(actions))
        lasts = {row: infos[row]["terminal_observation"] for row, done in enumerate(dones) if done}
        if agent.vision is not None:
            agent.vision.record(seen, actions, new_obs, lasts)
        agent.num_timesteps += self._env.num_envs
        known = {"actions": actions, "new_obs": new_obs, "rewards": rewards, "dones": dones, "infos": infos}
        self._callback.update_locals({"self": agent, "env": self._env, **known})
        going_on = bool(self._callback.on_step())
        agent._update_info_buffer(infos, dones)
        following = raw_vectors(agent._as_goal_observation(new_obs))
        for row, done in enumerate(dones):
            after = raw_vectors(agent._as_goal_observation(lasts[row])) if done else following[row]
            learner.record(row, raw[row], actions[row], after, bool(done))
            if self._asks and "is_success" in infos[row]:
                now = after[-desired.shape[1] :], desired[row]
                if agent.vision is not None:
                    now = agent.vision.compared(lasts[row] if done else new_obs, seen, row)
                learner.verdicts.record(row, *now, bool(infos[row]["is_success"]), bool(done))
            if done:
                agent._episode_num += 1
                if self._log_interval and agent._episode_num % self._log_interval == 0:
                    log(agent)
        agent._last_obs = new_obs  # type: ignore[assignment]
        return going_on


def refit(agent: GraspAgent, *, last: bool, progress_bar: bool) -> None:
    """Fits the agent's world to its experience, and logs what came of it."""
    learner = agent.learner
    if agent.vision is not None:
        look(agent, agent.vision, last=last, progress_bar=progress_bar)
    alike = () if agent.vision is None else agent.vision.alike
    tolerance = agent.goal_tolerance or learner.verdicts.radius(partial(_apart, agent))
    world = learner.refit(agent.policy, tolerance, last=last, progress_bar=progress_bar, alike=alike)
    assert learner.report is not None
    for name in ("loss", "error_mean", "error_high"):
        agent.logger.record(f"model/{name}", getattr(learner.report, name))
    agent.logger.record("model/transitions", len(learner.dataset))
    agent.logger.record("model/goal_tolerance", world.tolerance)
    roadmap = world.memory.roadmap
    agent.logger.record("model/roadmap", 0.0 if roadmap is None else roadmap.connected)
    log(agent)


def _apart(agent: GraspAgent, achieved: NDArray[Any], goals: NDArray[Any]) -> NDArray[np.float32]:
    """Weighted distances `[n]` of what was achieved from goals, both pictures `[n, ...]` or vectors `[n, G]`."""
    if agent.vision is not None:
        achieved, goals = agent.vision.encode(achieved), agent.vision.encode(goals)
    weights = np.array(agent.structure.goal_weights or (1.0,), np.float32)
    return np.linalg.norm((achieved - goals) * weights, axis=-1)


def look(agent: GraspAgent, vision: Vision, *, last: bool, progress_bar: bool) -> None:
    """Trains the encoder where it is time to, logs what came of it, and looks at all experience with it."""
    vision.album.end()
    known = vision.encoder
    if known is None or (last and vision.due):
        vision.learn(progress_bar=progress_bar)
        agent.policy.look(vision.space)
    elif len(agent.learner.dataset) - agent.learner.fits.rehearsed >= len(vision.album):
        return  # all of it has been looked at
    agent.learner.see_anew(vision.episodes())
    if vision.report is not None:
        for name, value in vision.report._asdict().items():
            agent.logger.record(f"encoder/{name}", value)
    assert vision.encoder is not None
    agent.logger.record("encoder/latent", vision.encoder.latent)


def log(agent: GraspAgent) -> None:
    """Writes a line of the log."""
    elapsed, logger = max((time.time_ns() - agent.start_time) / 1e9, 1e-9), agent.logger
    logger.record("time/episodes", agent._episode_num, exclude="tensorboard")
    logger.record("time/fps", int((agent.num_timesteps - agent._num_timesteps_at_start) / elapsed))
    logger.record("time/total_timesteps", agent.num_timesteps, exclude="tensorboard")
    if agent.ep_info_buffer:
        logger.record("rollout/ep_rew_mean", safe_mean([info["r"] for info in agent.ep_info_buffer]))
        logger.record("rollout/ep_len_mean", safe_mean([info["l"] for info in agent.ep_info_buffer]))
    if agent.ep_success_buffer:
        logger.record("rollout/success_rate", safe_mean(list(agent.ep_success_buffer)))
    logger.dump(step=agent.num_timesteps)
