"""The agent for rewards: Stable-Baselines3's off-policy algorithm, with a model in place of actor and critic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from grasp_agent import serialization
from grasp_agent.agent.reward.algorithm import RewardAlgorithm
from grasp_agent.agent.reward.experience import check_env
from grasp_agent.agent.reward.learned_prior import SAC_BESIDE
from grasp_agent.agent.reward.policy import HORIZON, RewardPolicy, StepReward, checked_planner
from grasp_agent.agent.reward.saved import CODED, GIVEN, GIVEN_PRIOR, PLAIN, SavedRewardAgent, fitting, with_prior_of
from grasp_agent.models.dynamics.rewarded import RewardModelConfig
from grasp_agent.models.dynamics.state_value import ValueConfig
from grasp_agent.models.precision import single_precision
from grasp_agent.planners import Planner
from grasp_agent.reading import reading
from grasp_agent.task.vec_env import Environment, vectorised
from grasp_agent.validation import more_than, whole

Self = TypeVar("Self", bound="RewardAgent")


class RewardAgent(RewardAlgorithm):
    """An agent that learns a model of dynamics, rewards and endings, and plans with it for return.

    Made by `GraspAgent("MlpPolicy", env)`. It is an off-policy algorithm of Stable-Baselines3: `learn`, `predict`,
    callbacks, logger, replay buffer and their arguments are those of its base class. Plans are made anew at every step
    by sampling, from the last plan on (Chua et al. 2018, arXiv 1805.12114; Pinneri et al. 2020, arXiv 2008.06389):
    iterations on lifted states do not pay on rewards, as each reward moves only the actions beside it.

    Args:
        policy: "MlpPolicy", or a subclass of `RewardPolicy`.
        env: environment, several of them, or its id; observations are a Box of one axis; actions are a bounded one,
            Discrete, MultiDiscrete or MultiBinary.
        objective: the reward of a step, `(states [..., S], actions [..., A]) -> [...]`, for the states that actions led
            to, in the environment's units; it takes the place of the learned reward, in planning alone.
        planner: CEM, ICEM, MPPI or GradientShooting; None for `grasp_agent.agent.reward.policy.REWARD_PLANNER`.
        horizon: steps of a plan.
        gamma: discount of a step.
        pessimism: weight of the standard deviation over the members' returns, see `Return`.
        noise: standard deviation of the noise on actions that are not deterministic, as a part of half their range;
            of choices, the probability that one is random.
        prior: a trained model of Stable-Baselines3 with these spaces, such as `SAC.load("sac.zip")`: plans start from
            its policy, which also acts at first, in some episodes of learning, and in `predict` where it had more
            return than plans (see `by_prior`). It is not trained further, and not saved. "sac" for Stable-Baselines3's
            SAC that learns beside the model, from the same steps; plans start from it where it has more return.
        model: shape and training of the networks; None for the default ones.
        value: shape and training of the networks that value the states of plans; None for plans without.
        learning_rate: of the model, a number.
        buffer_size: steps that are kept.
        learning_starts: steps of random actions before the model is trained.
        first_steps: gradient steps of the first training.
        batch_size: steps of a batch, for each member.
        train_freq: environment steps between two trainings.
        gradient_steps: of each training.
        tensorboard_log: folder of TensorBoard's logs.
        verbose: 0 silent, 1 information, 2 debugging.
        seed: of everything random.
        device: "auto", "cpu", "cuda", ...

    Raises:
        ValueError: if the spaces or a setting do not fit.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": RewardPolicy}
    name = "GRASP"

    def __init__(
        self,
        policy: str | type[RewardPolicy],
        env: Environment | str | None,
        *,
        objective: StepReward | None = None,
        planner: Planner[Any] | None = None,
        horizon: int = HORIZON,
        gamma: float = 0.99,
        pessimism: float = 0.5,
        noise: float = 0.1,
        prior: BaseAlgorithm | str | None = None,
        model: RewardModelConfig | None = None,
        value: ValueConfig | None = ValueConfig(),  # noqa: B008  frozen
        learning_rate: float = 2e-3,
        buffer_size: int = 1_000_000,
        learning_starts: int = 1000,
        first_steps: int = 1500,
        batch_size: int = 128,
        train_freq: int = 1,
        gradient_steps: int = 1,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        whole(1, buffer_size=buffer_size, batch_size=batch_size, train_freq=train_freq)
        whole(0, learning_starts=learning_starts, first_steps=first_steps, gradient_steps=gradient_steps)
        more_than(0, learning_rate=learning_rate)
        if env is not None or _init_setup_model:
            env = _checked(env, verbose)
        self.first_steps, self.env_kwargs = first_steps, {}
        made = {"objective": objective, "model": model, "value": value, "prior": prior}
        plans = {"planner": planner, "horizon": horizon, "gamma": gamma, "pessimism": pessimism, "noise": noise}
        logged: dict[str, Any] = {"tensorboard_log": tensorboard_log, "verbose": verbose}
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            gamma=gamma,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            policy_kwargs={**plans, **made, "seed": fresh_seed(seed)},
            seed=seed,
            device=device,
            support_multi_env=True,
            sde_support=False,
            supported_action_spaces=(spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary),
            **logged,
        )
        if _init_setup_model:
            self._read_spec()
            self._setup_model()
            self._content().check_loadable()

    @property
    def horizon(self) -> int:
        """Steps of a plan."""
        return self.policy.horizon

    @property
    def by_prior(self) -> bool:
        """Whether `predict` acts by the prior's policy, without plans; `learn` sets it, and it may be set."""
        return self.policy.by_prior

    @by_prior.setter
    def by_prior(self, by_prior: bool) -> None:
        if not isinstance(by_prior, bool | np.bool_):
            raise ValueError(f"by_prior: expected True or False, got {by_prior!r}")
        if by_prior and self.policy.prior is None:
            raise ValueError("by_prior: expected an agent with a prior, got one without")
        self.policy.by_prior = bool(by_prior)
        self.policy.forget()

    @property
    def planner(self) -> Planner[Any]:
        """The planner; it may be replaced at any time, None by the default."""
        return self.policy.planner

    @planner.setter
    def planner(self, planner: Planner[Any] | None) -> None:
        self.policy.planner = checked_planner(planner)
        self.policy.forget()

    def set_parameters(  # type: ignore[override]
        self,
        load_path_or_dict: str | Path | IO[bytes] | Mapping[str, Mapping[str, Tensor]],
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Takes over the networks of another agent of the same kind.

        Args:
            load_path_or_dict: a saved agent's file, or the result of `get_parameters`.
            exact_match: False keeps parameters that are not given.
            device: not used; the agent stays where it is.

        Raises:
            ValueError: if they do not fit.
        """
        given: Any = load_path_or_dict
        if not isinstance(given, Mapping):
            mine = {"planner": self.planner, **dict.fromkeys(GIVEN, True)}  # of a file, tensors alone are wanted
            given = {"policy": SavedRewardAgent.read(given, mine).tensors}
        if exact_match and isinstance(given.get("policy"), Mapping):
            given = {**given, "policy": fitting(given["policy"], self.policy.state_dict())}
        super().set_parameters(dict(given), exact_match)

    def save(  # type: ignore[override]
        self, path: str | Path | IO[bytes], exclude: Iterable[str] | None = None, include: Iterable[str] | None = None
    ) -> None:
        """Saves model, planner and settings in one zip of JSON and safetensors; `exclude` and `include` are ignored.

        The experience is not saved; see Stable-Baselines3's `save_replay_buffer`.

        Raises:
            ValueError: for a name that no file can have, or a setting that no file can hold.
            OSError: if the file cannot be written; an old one is as it was.
        """
        serialization.write(path, *self._content().encode())

    def _content(self) -> SavedRewardAgent:
        policy = self.policy
        value = None if policy.value is None else policy.value.config
        known = {
            "model": policy.model.config,
            "value": value,
            **{name: getattr(policy, name) for name in ("planner", "horizon")},
        }
        known |= {name: getattr(policy, name) for name in ("gamma", "pessimism", "noise")}
        known["train_freq"] = self.train_freq.frequency  # type: ignore[union-attr]
        known |= {name: getattr(self, name) for name in (*PLAIN, *CODED) if name not in known}
        assert isinstance(self.observation_space, spaces.Box)
        return SavedRewardAgent(
            settings=known,
            has_objective=policy.step_reward is not None,
            prior=None if policy.prior is None else SAC_BESIDE if policy.prior.networks is not None else GIVEN_PRIOR,
            by_prior=policy.by_prior,
            observation_space=self.observation_space,
            action_space=self.action_space,
            env_id=self.env_id,
            env_kwargs=self.env_kwargs,
            seed=self.seed,
            num_timesteps=self.num_timesteps,
            updates=self._training.updates,
            tensors=policy.state_dict(),
        )

    @classmethod
    @single_precision()
    def load(  # type: ignore[override]
        cls: type[Self],
        path: str | Path | IO[bytes],
        env: Environment | str | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Loads a saved agent; no code in the file is run.

        Args:
            path: file name or file object.
            env: environment to continue in, or its id.
            device: where the model lives.
            custom_objects: not used.
            print_system_info: not used.
            force_reset: reset `env` before `learn`.
            **kwargs: constructor arguments that replace the saved ones, e.g. `planner`.

        Raises:
            ValueError: for a missing, cut or foreign file, a setting that does not fit, or an environment with other
                spaces.
        """
        unknown = set(kwargs) - {*PLAIN, *CODED, *GIVEN}
        if unknown:
            names = ", ".join((*PLAIN, *CODED, *GIVEN))
            raise ValueError(f"load: unknown setting {unknown.pop()!r}; expected one of {names}")
        for name in {"model", "value"} & set(kwargs):
            raise ValueError(f"load: {name}: expected none, as the networks are those of the file")
        saved = SavedRewardAgent.read(path, kwargs)
        with reading(serialization.name_of(path), "cannot be loaded"):
            agent = cls("MlpPolicy", None, seed=saved.seed, device=device, _init_setup_model=False, **saved.settings)
            agent.observation_space, agent.action_space = saved.observation_space, saved.action_space
            agent.n_envs = 1
            agent._setup_model()
            wanted = agent.policy.state_dict()
            agent.policy.load_state_dict(fitting(with_prior_of(wanted, saved.tensors), wanted))
        agent.policy.by_prior = saved.by_prior and agent.policy.prior is not None
        agent.env_id, agent.env_kwargs = saved.env_id, saved.env_kwargs
        agent.num_timesteps, agent._training.updates = saved.num_timesteps, saved.updates
        if env is not None:
            agent.set_env(env, force_reset)
        return agent


def _checked(env: Environment | str | None, verbose: int) -> Environment:
    if env is None:
        raise ValueError("env: expected an environment or its id, got None")
    found = vectorised(env, verbose)
    check_env(found)
    return found


def is_for_rewards(policy: Any, settings: dict[str, Any]) -> bool:
    """Returns whether a policy is that of an agent for rewards; raises ValueError where it has a goal."""
    mine = policy == "MlpPolicy" or (isinstance(policy, type) and issubclass(policy, RewardPolicy))
    if mine and settings.pop("goal", None) is not None:
        raise ValueError(f'policy: expected "MultiInputPolicy" where a goal is given, got {policy!r}')
    return mine


def fresh_seed(seed: int | None) -> int:
    """Returns the seed, or a fresh one for None; raises ValueError where it is none."""
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    whole(0, seed=seed)
    if seed >= 2**62:
        raise ValueError(f"seed: expected less than 2**62, got {seed}")
    return seed
