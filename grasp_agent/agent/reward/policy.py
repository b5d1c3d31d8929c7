"""A policy that plans for rewards with a learned model, anew at every step."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from grasp_agent.agent.policy import checked_starts
from grasp_agent.agent.reward.learned_prior import prior_of
from grasp_agent.agent.reward.plans import RunningPlans, noisy
from grasp_agent.models.dynamics.rewarded import RewardModel, RewardModelConfig
from grasp_agent.models.dynamics.state_value import StateValue, ValueConfig
from grasp_agent.models.precision import single_precision
from grasp_agent.planners import ICEM, Coloured, Criteria, Planner, Problem, Return
from grasp_agent.planners.requirements import check_objective
from grasp_agent.task.action_codec import ActionCodec
from grasp_agent.validation import at_least, fraction, instance, whole

_CRITERIA = Criteria(feedback=False)
StepReward = Callable[[Tensor, Tensor], Tensor]
"""`(states [..., S], actions [..., A]) -> [...]`: rewards of actions that led to states, in the environment's units."""


HORIZON = 10
"""Default steps of a plan."""
REWARD_PLANNER = ICEM(iterations=2, samples=96, elites=10, sigma=0.5, noise=Coloured(beta=0.5), verify_every=2)
"""The default planner for rewards; chosen, with horizon and `decay`, on a few trainings in HalfCheetah-v5 and
InvertedDoublePendulum-v5."""


def checked_planner(planner: Planner[Any] | None) -> Planner[Any]:
    """Returns the planner, or the default one; raises ValueError for one that cannot plan for rewards."""
    instance(Planner, planner=planner)
    if planner is None:
        return REWARD_PLANNER
    check_objective(planner)
    return planner


class RewardPolicy(BasePolicy):
    """Plans for the return of the next steps, from the last plan, and takes the first action.

    Args:
        observation_space: a Box of one axis.
        action_space: a bounded Box of one axis, or choices, see `ActionCodec`.
        lr_schedule: not used.
        planner: a planner that plans for rewards; None for `REWARD_PLANNER`.
        horizon: steps of a plan.
        gamma: discount of a step.
        pessimism: see `Return`.
        model: shape and training of the networks; None for the default ones.
        value: shape and training of the networks that value the states of plans; None for plans without.
        objective: the reward of a step, in place of the learned one.
        noise: standard deviation of the noise on actions that are not `deterministic`, as a part of half their range;
            of choices, the probability that one is random.
        prior: a model of Stable-Baselines3 from whose policy plans start; "sac" for one that learns; None for none.
        seed: of everything random.

    Attributes:
        codec: translates between actions and the vectors of plans.
        model: the model that is trained.
        averaged: the moving average of its weights, with which plans are made.
        value: the networks that value states, if any.
        averaged_value: the moving average of their weights.
        prior: the policy from which plans start, if any.
        by_prior: whether it acts itself, without plans, in `predict`.

    Raises:
        ValueError: if a setting does not fit.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Space[Any],
        lr_schedule: Any = None,
        *,
        planner: Planner[Any] | None,
        horizon: int,
        gamma: float,
        pessimism: float,
        model: RewardModelConfig | None,
        value: ValueConfig | None,
        objective: StepReward | None,
        noise: float,
        prior: BaseAlgorithm | str | None,
        seed: int,
    ) -> None:
        super().__init__(observation_space, action_space, squash_output=isinstance(action_space, spaces.Box))
        whole(1, horizon=horizon)
        fraction(gamma=gamma)
        at_least(0, pessimism=pessimism, noise=noise)
        instance(RewardModelConfig, model=model)
        instance(ValueConfig, value=value)
        if objective is not None and not callable(objective):
            raise ValueError(f"objective: expected a function of states and actions, or None, got {objective!r}")
        planner = checked_planner(planner)
        self.planner, self.horizon, self.noise, self.seed = planner, horizon, noise, seed
        self.gamma, self.pessimism, self.step_reward = gamma, pessimism, objective
        self.codec, size = ActionCodec(action_space), observation_space.shape[0]
        if self.codec.choices:
            fraction(noise=noise)
        self.model = RewardModel(size, self.codec.size, model, seed=seed)
        self.averaged = deepcopy(self.model).requires_grad_(False)
        self.value: StateValue | None = None
        if value is not None:
            self.value = StateValue(size, self.model.config.members, gamma, value, seed=seed)
        self.prior = prior_of(prior, observation_space, self.codec, gamma, seed)
        self.networks_of_prior = None if self.prior is None else self.prior.networks  # among the tensors
        self.by_prior = False
        self.averaged_value = None if self.value is None else deepcopy(self.value).requires_grad_(False)
        self.forget()
        self.refresh()

    def refresh(self) -> None:
        """Plans with the present averaged weights from now on."""
        self._layers = self.averaged.layers()
        self._answered = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RewardPolicy:
        """Moves or converts all tensors, as in `nn.Module`, and what is derived from them."""
        super()._apply(fn, recurse)
        self.refresh()
        return self

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Takes over tensors, as in `nn.Module`, and plans with them."""
        found = super().load_state_dict(state_dict, *args, **kwargs)
        self.forget()
        self.refresh()
        return found

    def forget(self) -> None:
        """Discards the running plans: other episodes begin."""
        self._plans: RunningPlans | None = None
        self._answered: tuple[bytes, NDArray[np.float32]] | None = None  # the last deterministic answer, and to what

    @property
    def is_fitted(self) -> bool:
        """Whether the model has been trained."""
        return bool(self.model.normalised)

    @property
    def objective(self) -> Return:
        """What plans are worth: the predicted rewards, or those of a given function, until the predicted end."""
        given, size, value = self.step_reward, self.model.state_size, self.averaged_value
        space = self.action_space
        bounds = (space.low, space.high) if isinstance(space, spaces.Box) else (np.zeros(1), np.ones(1))
        low, high = (torch.from_numpy(bound).to(self.model.mean) for bound in bounds)

        def reward(_: Tensor, actions: Tensor, following: Tensor) -> Tensor:
            if given is None:
                return following[..., size]
            found = given(following[..., :size], low + (actions + 1) / 2 * (high - low))
            if found.shape != following.shape[:-1]:
                raise ValueError(f"objective: expected rewards {list(following.shape[:-1])}, got {list(found.shape)}")
            return found

        return Return(
            reward=reward,
            ends=lambda _, __, following: following[..., size + 1],
            discount=self.gamma,
            pessimism=self.pessimism,
            value=None if value is None or given is not None else lambda states: value.returns(states[..., :size]),
            decay=1.0 if value is None else value.config.decay,
        )

    def predict(
        self,
        observation: Any,
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...] | None]:
        """Returns actions by planning, as Stable-Baselines3's policies do.

        Without `state`, the plans are kept between calls, until `forget` or an `episode_start`; the same observation
        again gets the same deterministic action.

        Args:
            observation: `[S]` or `[n, S]`.
            state: what the last call returned.
            episode_start: `[n]`, True where a new episode begins.
            deterministic: whether actions are without noise.

        Returns:
            Actions of the action space's type, inside its bounds, and the running plans.

        Raises:
            ValueError: for an observation that does not fit the space, or is not finite.
        """
        _check_no_pair(observation)
        rows, is_batch = self.obs_to_tensor(observation)
        assert isinstance(rows, Tensor)
        rows = rows.float()
        if not rows.isfinite().all():
            raise ValueError("observation: expected finite numbers, got NaN or infinity")
        blank = RunningPlans.blank(len(rows), self.horizon, self.codec.size)
        if state is not None:
            plans = RunningPlans.of(state, blank)
        else:
            known = self._plans  # of another number of environments, or horizon, it is of no use
            plans = blank if known is None or known.actions.shape != blank.actions.shape else known
        starts = checked_starts(episode_start, len(rows))
        if starts is not None:
            plans.begin(starts)
        key = rows.cpu().numpy().tobytes()
        last = self._answered if state is None and starts is None and deterministic else None
        if last is not None and last[0] == key:
            actions = last[1]
        else:
            actions, plans = self._answer(rows, plans, deterministic)
        if state is None:
            self._plans, self._answered = plans, (key, actions) if deterministic else None
        taken = self.codec.decode(actions)
        return (taken if is_batch else taken.squeeze(0)), RunningPlans._make(part.copy() for part in plans)

    def collect(
        self,
        observations: Any,
        plans: RunningPlans | None,
        salt: int,
        by_prior: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[Any], RunningPlans | None]:
        """Returns actions with noise, for learning, and the plans from the next step on.

        Args:
            observations: `[n, S]`.
            plans: those that the last call returned; None for none.
            salt: of the noise, another one for each call.
            by_prior: `[n]`, where the prior acts; None for nowhere.
        """
        rows, _ = self.obs_to_tensor(observations)
        assert isinstance(rows, Tensor)
        known = RunningPlans.blank(len(rows), self.horizon, self.model.action_size) if plans is None else plans
        plan = partial(self._planned, rows.float(), known, deterministic=False, salt=salt)
        if by_prior is None or self.prior is None or not by_prior.any():
            actions, plans = plan()
            return self.codec.decode(actions), plans
        proposed = self.prior.act(rows.float(), (self.seed, salt, 3)).cpu().numpy()
        random = np.random.default_rng((self.seed, salt, 2))
        proposed, noise = noisy(self.codec, self.noise, proposed, known.noise, random)
        if by_prior.all():
            return self.codec.decode(proposed), known._replace(noise=noise)
        actions, plans = plan()
        return self.codec.decode(np.where(by_prior[:, None], proposed, actions)), plans

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        """Returns actions `[n, A]` in [-1, 1] of observations `[n, S]`, at the beginning of their episodes."""
        blank = RunningPlans.blank(len(observation), self.horizon, self.model.action_size)
        return torch.from_numpy(self._answer(observation.float(), blank, deterministic)[0]).to(observation.device)

    def _answer(
        self, rows: Tensor, plans: RunningPlans, deterministic: bool
    ) -> tuple[NDArray[np.float32], RunningPlans]:
        """Returns actions as `_planned` does, or the prior's where it acts itself."""
        if self.prior is None or not (self.by_prior or (self.prior.acts_at_first and not self.is_fitted)):
            return self._planned(rows, plans, deterministic)
        seed = None if deterministic else (self.seed, int(plans.steps.max(initial=0)), 4)
        return self.prior.act(rows, seed).cpu().numpy(), plans._replace(steps=plans.steps + 1)

    @single_precision()
    def _planned(
        self, rows: Tensor, plans: RunningPlans, deterministic: bool, salt: int = 0
    ) -> tuple[NDArray[np.float32], RunningPlans]:
        """Returns actions `[n, A]` in [-1, 1] of observations `[n, S]`, and the plans from the next step on."""
        bound = rows.new_ones(self.model.action_size)
        problem = Problem(
            dynamics=self._layers.step,
            objective=self.objective,
            start=self.model.planning_state(rows),
            low=-bound,
            high=bound,
            horizon=self.horizon,
            choices=self.codec.choices,
            members=self.model.config.members,
            criteria=_CRITERIA,
        )
        calls = int(plans.steps.max(initial=0))
        seed = int(np.random.SeedSequence((self.seed, calls, salt)).generate_state(1)[0])
        planner = self.planner
        if self.prior is not None and self.prior.proposing and planner.proposals is None:
            planner = replace(planner, proposals=self.prior)
        found = planner.plan(problem, warm=torch.from_numpy(plans.actions).to(rows.device), seed=seed)
        ahead = found.actions.cpu().numpy()
        following, action = np.concatenate([ahead[:, 1:], ahead[:, -1:]], 1), ahead[:, 0]
        noise = plans.noise
        if not deterministic and self.noise:
            random = np.random.default_rng((self.seed, calls, salt, 1))
            action, noise = noisy(self.codec, self.noise, action, noise, random)
        return action, RunningPlans(following, noise.astype(np.float32), plans.steps + 1)


def _check_no_pair(observation: Any) -> None:
    if isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict):
        raise ValueError(
            "observation: expected an array, got a pair: mixing Gym API with SB3 VecEnv API? env.reset() of Gymnasium "
            "returns (observation, info)"
        )
