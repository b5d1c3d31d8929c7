"""The agent: a Stable-Baselines3 model that plans with a learned world model."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.utils import get_device

from grasp_agent import serialization
from grasp_agent.agent.algorithm import WorldModelAlgorithm
from grasp_agent.agent.exploration import ExploreConfig
from grasp_agent.agent.latent.agent import LatentAgent
from grasp_agent.agent.plan_properties import PlanProperties
from grasp_agent.agent.policy import WorldModelPolicy
from grasp_agent.agent.replan_rule import ReplanRule
from grasp_agent.agent.reward.agent import RewardAgent, is_for_rewards
from grasp_agent.agent.reward.saved import KIND as REWARD
from grasp_agent.agent.saved_settings import CHANGEABLE
from grasp_agent.agent.settings import AgentSettings
from grasp_agent.agent.snapshot import Snapshot, loading
from grasp_agent.models import EncoderConfig, MLPConfig, TrainConfig
from grasp_agent.models.precision import single_precision
from grasp_agent.planners import Criteria, Planner
from grasp_agent.task.goal import Goal
from grasp_agent.task.structure import Structure
from grasp_agent.task.vec_env import Environment

Self = TypeVar("Self", bound="GraspAgent")


class GraspAgent(WorldModelAlgorithm, PlanProperties):
    """An agent that learns a world model and plans with it by GRASP (Psenka et al. 2026, arXiv 2602.00475).

    Used as any Stable-Baselines3 model: `learn`, `predict`, `save`, `load`, `set_env`, callbacks, logger,
    `evaluate_policy`. Observations are those of a goal environment, a Dict of the vectors observation, achieved_goal
    and desired_goal, or a vector for which a `goal` is given; or images, alone or in a Dict with vectors, whose goal is
    an image too: under desired_goal, or given by `set_goal`. Actions are a bounded Box.

    Args:
        policy: "MultiInputPolicy", "CnnPolicy", or a subclass of `WorldModelPolicy`; "MlpPolicy" makes a `RewardAgent`,
            which has other arguments and plans for rewards.
        env: environment, several of them (Stable-Baselines3's or Gymnasium's vector environments), or its id.
        goal: the goal in terms of the observation, for environments whose observations are a Box.
        planner: any planner of the family; None for `GRASP()`, or `IMAGE_PLANNER` where observations are images.
        horizon: steps of a plan; None for half of the environment's time limit, from 10 to 50.
        model: architecture of the networks; None chooses the kind, sharp or smooth, that predicts held-out data better.
        encoder: architecture and training of the image encoder.
        train: how models are fitted.
        explore: how experience is gathered; None for the default, with images at random for the first 10,000 steps.
        criteria: how plans are scored; None for the goal's own criteria, or the default ones.
        rule: when plans are replaced, and how much of a search one call of `predict` may do; None for `ReplanRule()`.
        structure: prior knowledge of the task; None takes what the environment offers (see `Structure`).
        goal_tolerance: success radius [goal units]; None takes the goal's, or the environment's `distance_threshold`,
            or that at which its sparse `compute_reward` changes, or that at which `info["is_success"]` changes while it
            learns, or else a twentieth of the spread of goals in the data; with images one of the last two [latent
            units].
        tensorboard_log: folder of TensorBoard's logs.
        verbose: 0 silent, 1 information, 2 debugging.
        seed: of everything random.
        device: "auto", "cpu", "cuda", ...

    Attributes:
        perception: converts observations, with the encoder and the replay buffer of images.
        trainer: the experience, and the state of the fits to it.
        training_seconds: time spent in `learn` and `fit`, now and before it was saved [s].

    Raises:
        ValueError: if the spaces are not supported.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MultiInputPolicy": WorldModelPolicy,
        "CnnPolicy": WorldModelPolicy,
    }
    name = "GRASP"

    def __init__(
        self,
        policy: str | type[WorldModelPolicy],
        env: Environment | str | None,
        *,
        goal: Goal | None = None,
        planner: Planner[Any] | None = None,
        horizon: int | None = None,
        model: MLPConfig | None = None,
        encoder: EncoderConfig | None = None,
        train: TrainConfig | None = None,
        explore: ExploreConfig | None = None,
        criteria: Criteria | None = None,
        rule: ReplanRule | None = None,
        structure: Structure | None = None,
        goal_tolerance: float | None = None,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if isinstance(policy, str) and policy not in self.policy_aliases:
            raise ValueError(f"policy: expected one of {', '.join(self.policy_aliases)}, MlpPolicy, got {policy!r}")
        settings = AgentSettings(
            goal=goal,
            planner=planner,
            horizon=horizon,
            model=model,
            encoder=encoder,
            train=train,
            explore=explore,
            criteria=criteria,
            rule=rule,
            structure=structure,
            goal_tolerance=goal_tolerance,
        )
        if env is None and _init_setup_model:
            raise ValueError("env: expected an environment or its id, got None")
        logged = {"tensorboard_log": tensorboard_log, "verbose": verbose}
        super().__init__(policy, env, settings, seed=seed, device=device, **logged)  # type: ignore[arg-type]
        if _init_setup_model:
            self._setup_model()
            self.snapshot().check_loadable()

    def __new__(cls: type[Self], policy: Any = None, *args: Any, **settings: Any) -> Self:
        """Returns a `RewardAgent` for "MlpPolicy", else an agent that plans for goals."""
        if cls is GraspAgent and is_for_rewards(policy, settings):
            return RewardAgent(policy, *args, **settings)  # type: ignore[return-value]  # no subclass: it has other arguments
        return object.__new__(cls)

    @staticmethod
    def from_model(env: Any, model: Any, **settings: Any) -> LatentAgent:
        """Returns an agent that plans with a world model of yours, and needs no `learn`: see `LatentAgent`."""
        return LatentAgent(env, model, **settings)

    def predict(
        self,
        observation: Any,
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...]]:
        """Returns the action for an observation, by planning; see `WorldModelPolicy.predict`."""
        self.perception.check_goal()
        return self.policy.predict(self.perception.to_goal_dict(observation), state, episode_start, deterministic)

    def set_goal(self, image: Any) -> None:
        """Sets the goal to the state in an image, for an agent with images; None returns to the observations' goals.

        Args:
            image: `[height, width, channels]`, or channels first, as one frame of the observations.

        Raises:
            ValueError: if its shape or type is not theirs, or observations are not images.
        """
        self.perception.set_goal(image)
        self.policy.forget()

    def save(  # type: ignore[override]
        self,
        path: str | Path | IO[bytes],
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Saves model, planner and settings in one zip of JSON and safetensors; `exclude` and `include` are ignored.

        The experience itself is not saved: an agent that learns on after loading rehearses with its model.

        Raises:
            ValueError: for a name that no file can have.
            OSError: if the file cannot be written; an old one is as it was.
        """
        serialization.write(path, *self.snapshot().encode())

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
        """Loads a saved agent, a `RewardAgent` where the file holds one; no code in the file is run.

        Args:
            path: file name or file object.
            env: environment to continue in, or its id.
            device: where the model lives.
            custom_objects: not used.
            print_system_info: not used.
            force_reset: reset `env` before `learn`.
            **kwargs: constructor arguments that replace the saved ones, e.g. `planner`; a `goal` may have other values
                and another tolerance than the saved one.

        Raises:
            ValueError: for a missing, cut or foreign file, a setting that does not fit, or an environment with other
                spaces.
        """
        (config, tensors), source = serialization.read(path), serialization.name_of(path)
        if cls is GraspAgent and config.get("kind") == REWARD:
            return RewardAgent.load(path, env, device, force_reset=force_reset, **kwargs)  # type: ignore[return-value]
        unknown = set(kwargs) - set(CHANGEABLE)
        if unknown:
            raise ValueError(f"load: unknown setting {unknown.pop()!r}; expected one of {', '.join(CHANGEABLE)}")
        AgentSettings(**kwargs)  # refuses what is no fault of the file
        with loading(source):
            snapshot = Snapshot.decode(config, tensors, source, get_device(device), kwargs)
            known = {**snapshot.settings.arguments, "seed": snapshot.seed, "device": device}
            agent = cls("MultiInputPolicy", None, _init_setup_model=False, **known)
            agent._restore(snapshot)
        if env is not None:
            agent.set_env(env, force_reset)
        return agent


_arguments = inspect.signature(GraspAgent.__init__)  # of the constructor, which `__new__` would hide
GraspAgent.__signature__ = _arguments.replace(parameters=[*_arguments.parameters.values()][1:])  # type: ignore[attr-defined]
