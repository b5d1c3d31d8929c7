"""Learning for rewards by Stable-Baselines3's off-policy loop, with a model in place of actor and critic."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import check_for_correct_spaces
from torch import Tensor

from grasp_agent.agent.reward.experience import check_env, check_step
from grasp_agent.agent.reward.learned_prior import LearnedPrior
from grasp_agent.agent.reward.plans import RunningPlans
from grasp_agent.agent.reward.policy import RewardPolicy
from grasp_agent.agent.reward.prior import Contest
from grasp_agent.agent.reward.training import Training
from grasp_agent.agent.saved_settings import savable_options
from grasp_agent.interruption import stoppable
from grasp_agent.models.precision import single_precision
from grasp_agent.models.threads import one_thread
from grasp_agent.task.actions import from_space
from grasp_agent.task.vec_env import Environment, spec_of, vectorised
from grasp_agent.validation import whole

Self = TypeVar("Self", bound="RewardAlgorithm")


class RewardAlgorithm(OffPolicyAlgorithm):
    """Acts and trains a model in turns.

    Attributes:
        first_steps: gradient steps of the first training.
        env_id: id of the environment, if it has one.
        env_kwargs: its options.
    """

    policy: RewardPolicy  # pyright: ignore
    first_steps: int
    env_id: str | None = None
    env_kwargs: dict[str, Any]
    _plans: RunningPlans | None = None
    _contest: Contest | None = None
    _can_plan: bool = False

    def _read_spec(self) -> None:
        spec = spec_of(self.env) if self.env is not None else None
        self.env_id, self.env_kwargs = (None, {}) if spec is None else (spec.id, savable_options(spec))

    @single_precision()
    def _setup_model(self) -> None:
        super()._setup_model()
        self._random = np.random.default_rng(self.seed)
        self._training = Training(self.policy, self.lr_schedule(1))

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seeds the agent and its environments; unlike Stable-Baselines3, no global generator."""
        if seed is None:
            return
        self.seed, self._random = seed, np.random.default_rng(seed)
        self.action_space.seed(seed)
        if self.env is not None:
            self.env.seed(seed)
        if getattr(self, "policy", None) is not None:
            self.policy.seed = seed
            self.policy.forget()

    def set_env(self, env: Environment | str, force_reset: bool = True) -> None:
        """Takes another environment of the same spaces, or its id; running plans are discarded.

        Raises:
            ValueError: if its spaces differ.
        """
        known = vectorised(env, self.verbose)
        check_env(known)
        check_for_correct_spaces(known, self.observation_space, self.action_space)  # type: ignore[arg-type]
        wrapped, buffer = self._wrap_env(known, self.verbose), self.replay_buffer
        if buffer is not None and not buffer.size() and buffer.n_envs != wrapped.num_envs:
            shape = self.buffer_size, self.observation_space, self.action_space, self.device, wrapped.num_envs
            self.replay_buffer, self.n_envs = ReplayBuffer(*shape), wrapped.num_envs
        super().set_env(wrapped, force_reset)
        self._contest = None  # returns of another environment
        self._read_spec()
        self.policy.forget()

    def learn(  # type: ignore[override]
        self: Self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "GRASP",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        checkpoint: str | Path | None = None,
    ) -> Self:
        """Acts and trains in turns; see Stable-Baselines3's `learn`. A SIGTERM stops as Ctrl-C does.

        Args:
            total_timesteps: environment steps to take.
            callback: Stable-Baselines3's callbacks.
            log_interval: episodes between two lines in the log.
            tb_log_name: name of the run in TensorBoard.
            reset_num_timesteps: False continues the count of steps.
            progress_bar: show progress.
            checkpoint: None; a learner for goals keeps its experience there.

        Returns:
            The agent itself.

        Raises:
            ValueError: for an observation or a reward that is not finite; what was learned before is kept; for a
                checkpoint.
        """
        if checkpoint is not None:
            raise ValueError(f"checkpoint: expected None, as agents for rewards have none, got {str(checkpoint)!r}")
        if self.env is None:
            raise ValueError("learn: expected an environment; give one to load() or set_env()")
        whole(0, total_timesteps=total_timesteps)
        self._plans = None
        if self.policy.prior is not None and self._contest is None:
            first, known = self.policy.prior.acts_at_first, self.policy.by_prior
            self._contest, self._can_plan = Contest(self.n_envs, policy_first=first, assumed_better=known), False
        if self._contest is not None and reset_num_timesteps:
            self._contest.begin_episodes()
        try:
            with stoppable(), one_thread():
                super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
        finally:
            self.policy.forget()
        return self

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Returns the actions for the environment and those of the replay buffer, random ones at first."""
        can_plan, contest = self.num_timesteps >= learning_starts and self._training.updates > 0, self._contest
        if contest is not None:
            if can_plan and not self._can_plan:
                contest.begin_plans()
            self._can_plan = can_plan
        self._training.planned = self._training.planned + n_envs if can_plan else 0
        if not can_plan and (contest is None or not contest.by_policy.any()):
            taken = np.array([self.action_space.sample() for _ in range(n_envs)])
        else:
            assert self._last_obs is not None
            rows = None if contest is None else contest.by_policy
            taken, self._plans = self.policy.collect(self._last_obs, self._plans, self.num_timesteps, rows)
        stored = from_space(taken, self.action_space) if isinstance(self.action_space, spaces.Box) else taken
        return taken, stored

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: NDArray[Any],
        new_obs: Any,
        reward: NDArray[Any],
        dones: NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        check_step(self.num_timesteps, new_obs, reward, infos)
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        self._training.stored += len(dones)
        if self._contest is not None:
            self._judge(reward, dones)
        if self._plans is not None:
            self._plans.begin(dones.astype(bool))

    def _judge(self, rewards: NDArray[Any], dones: NDArray[Any]) -> None:
        """Notes rewards `[n]` and ends of episodes `[n]`, and leaves `predict` to what has more return by now."""
        assert self._contest is not None and self.policy.prior is not None
        if self._vec_normalize_env is not None:
            rewards = self._vec_normalize_env.get_original_reward()
        self._contest.step(rewards, dones, can_plan=self._can_plan)
        if dones.any():
            self.policy.by_prior = self._contest.policy_is_better
            self.policy.prior.judge(better=self.policy.by_prior)

    @single_precision()
    def train(self, gradient_steps: int, batch_size: int) -> None:
        """Takes gradient steps on the model, `first_steps` the first time.

        Args:
            gradient_steps: their number.
            batch_size: steps of a batch, for each member.
        """
        assert self.replay_buffer is not None
        buffer, training = self.replay_buffer, self._training
        training.stored = max(training.stored, buffer.size() * buffer.n_envs)  # of a buffer that was loaded
        if training.stored < min(self.learning_starts, buffer.buffer_size * buffer.n_envs):
            return  # after loading: a model that knows more is not fitted to the first few steps
        training.normalise(buffer)
        losses: dict[str, Tensor] = {}
        count = gradient_steps if training.updates else max(gradient_steps, self.first_steps)
        for _ in range(count):
            losses = training.step(buffer, self._random, batch_size)
        if isinstance(self.policy.prior, LearnedPrior):
            self.policy.prior.train(buffer, count, (self.policy.seed, training.updates), self.logger)
        for name, loss in losses.items():
            self.logger.record(f"{name}/loss", float(loss))
        self.policy.refresh()
