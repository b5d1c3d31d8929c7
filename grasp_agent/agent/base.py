"""The parts of an agent with a world model, behind Stable-Baselines3's base class."""

from __future__ import annotations

import time
import warnings
from abc import ABC
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TypeVar

import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from torch import Tensor

from grasp_agent import serialization
from grasp_agent.agent.perception import GoalPerception, Perception, VectorPerception
from grasp_agent.agent.pixel_perception import PixelPerception
from grasp_agent.agent.policy import WorldModelPolicy
from grasp_agent.agent.saved_settings import savable_options
from grasp_agent.agent.settings import AgentSettings
from grasp_agent.agent.snapshot import Snapshot, loading
from grasp_agent.agent.trainer import ModelTrainer
from grasp_agent.models.world import World
from grasp_agent.task.goal import Goal
from grasp_agent.task.observation import KEYS
from grasp_agent.task.structure import Structure
from grasp_agent.task.vec_env import Environment, goal_env, spec_of, vectorised
from grasp_agent.validation import whole

Self = TypeVar("Self", bound="WorldModelBase")


class WorldModelBase(BaseAlgorithm, ABC):
    """The parts of an agent with a world model: environment, settings, perception, trainer, policy.

    Args:
        policy: a name or a class.
        env: environment, several of them, or its id; None for an agent that only acts.
        settings: the constructor arguments.
        tensorboard_log: see Stable-Baselines3.
        verbose: see Stable-Baselines3.
        seed: of everything random.
        device: where models live.

    Attributes:
        perception: converts observations to the vectors in which the policy plans.
        trainer: the experience, and the state of the fits to it.
        training_seconds: time spent in `learn` and `fit`, now and before it was saved [s].
    """

    policy: WorldModelPolicy  # pyright: ignore
    perception: Perception

    def __init__(
        self,
        policy: str | type[WorldModelPolicy],
        env: Environment | str | None,
        settings: AgentSettings,
        *,
        tensorboard_log: str | None,
        verbose: int,
        seed: int | None,
        device: torch.device | str,
    ) -> None:
        if seed is not None:
            whole(0, seed=seed)
            if seed >= 2**62:
                raise ValueError(f"seed: expected less than 2**62, got {seed}")
        whole(0, verbose=int(verbose) if isinstance(verbose, bool) else verbose)
        if env is not None:
            env = goal_env(vectorised(env, verbose), settings.goal, verbose)
        super().__init__(
            policy,
            env,
            learning_rate=settings.completed(None).train.lr,  # type: ignore[union-attr]
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            seed=seed,
            device=device,
            support_multi_env=True,
        )
        self._settings = settings.completed(self.env)
        self.training_seconds, self._counted_until = 0.0, time.monotonic()
        self.env_id: str | None = None
        self.env_kwargs: dict[str, Any] = {}
        self.trainer = ModelTrainer(self._settings, seed or 0)
        if self.env is not None:
            self._read_spec(self.env)

    @property
    def settings(self) -> AgentSettings:
        """The constructor arguments, completed from the environment, as the policy plans now."""
        if getattr(self, "policy", None) is None:
            return self._settings
        known = self.policy.controller
        present = {name: getattr(known, name) for name in ("planner", "horizon", "criteria", "rule")}
        return replace(self._settings, **present)

    def _plan_with(self, **changes: Any) -> None:
        """Changes how the policy plans; None stands for a default."""
        AgentSettings(**changes)  # refuses values of another type, or out of range
        usual = {"horizon": self._settings.horizon or 50, **self._settings.usual(self.observation_space)}
        given = {name: usual[name] if value is None else value for name, value in changes.items()}
        self.snapshot()._replace(settings=replace(self.settings, **given)).check_loadable()
        for name, value in given.items():
            setattr(self.policy.controller, name, value)
        self.policy.forget()

    @property
    def goal(self) -> Goal | None:
        """The goal that was given; None where the environment has its own."""
        return self._settings.goal

    @property
    def structure(self) -> Structure:
        """Prior knowledge of the task."""
        return self._settings.structure or Structure()

    @property
    def goal_tolerance(self) -> float | None:
        """Success radius [goal units], if it is known before training."""
        return self._settings.goal_tolerance

    def _read_spec(self, env: VecEnv) -> None:
        spec = spec_of(env)
        if spec is None:
            return
        self.env_id, self.env_kwargs = spec.id, savable_options(spec)

    def _setup_model(self) -> None:
        if self.seed is not None and self.env is not None:
            self.env.seed(self.seed)  # this package does not use the global generators
        known, space = self.settings, self.observation_space
        layout = known.layout(space)
        if layout is not None:
            self.perception = PixelPerception(layout, known.encoder, self.seed or 0, self.device)
        else:
            assert isinstance(space, spaces.Dict)
            self.perception = VectorPerception(space) if known.goal is None else GoalPerception(space, known.goal)
        assert isinstance(self.action_space, spaces.Box) and known.structure is not None
        known.structure.check(self.perception.space, self.action_space)
        self.policy = self.policy_class(  # pyright: ignore
            self.perception.space,
            self.action_space,
            planner=known.planner or known.usual(space)["planner"],
            horizon=50 if known.horizon is None else known.horizon,
            criteria=known.criteria,
            rule=known.rule,
            seed=self.seed or 0,
        ).to(self.device)

    def snapshot(self, *, experience: bool = False) -> Snapshot:
        """Returns the data that `save` writes; with `experience`, those of a checkpoint."""
        return Snapshot(
            settings=self.settings,
            observation_space=self.observation_space,
            action_space=self.action_space,
            env_id=self.env_id,
            env_kwargs=self.env_kwargs,
            num_timesteps=self.num_timesteps,
            training_seconds=self.training_seconds,
            seed=self.seed,
            world=self.policy.world,
            encoder=self.perception.tensors(),
            experience=self.trainer.tensors() if experience else {},
            images=self.perception.buffer_tensors() if experience else {},
            fits=self.trainer.fits,
        )

    def _restore(self, snapshot: Snapshot) -> None:
        """Sets up an agent that was constructed without an environment, from a snapshot."""
        self.observation_space, self.action_space = snapshot.observation_space, snapshot.action_space
        self.env_id, self.env_kwargs = snapshot.env_id, snapshot.env_kwargs
        self.num_timesteps, self.training_seconds = snapshot.num_timesteps, snapshot.training_seconds
        self._setup_model()
        self._adopt(snapshot)
        if snapshot.experience:
            self.trainer.restore(snapshot.experience, snapshot.fits, self._sizes)

    @property
    def _sizes(self) -> tuple[int, int]:
        """Entries of raw vectors (observation and achieved goal), and of actions."""
        known = self.policy.observation_space
        raw = sum(known[key].shape[0] for key in KEYS[:2])  # type: ignore[index]
        return raw, self.policy.action_space.shape[0]  # type: ignore[index]

    def _adopt(self, snapshot: Snapshot) -> None:
        """Takes over another agent's world model and encoder."""
        if snapshot.encoder:
            self.perception.restore(snapshot.encoder)
            self.policy.take_space(self.perception.space)
        if snapshot.world is not None:
            self.policy.learned(snapshot.world)

    def set_env(self, env: Environment | str, force_reset: bool = True) -> None:
        """Takes another environment of the same spaces, or its id; running plans are discarded.

        Raises:
            ValueError: if its spaces differ.
        """
        plain, goal = self._wrap_env(vectorised(env, self.verbose), self.verbose), self.settings.goal
        known = self.observation_space if goal is None else self.observation_space["observation"]  # type: ignore[index]
        check_for_correct_spaces(plain, known, self.action_space)
        wrapped = self._wrap_env(goal_env(plain, goal, self.verbose), self.verbose)
        self.env, self.n_envs = wrapped, wrapped.num_envs
        self._vec_normalize_env = unwrap_vec_normalize(wrapped)
        self._read_spec(wrapped)
        self._settings = self._settings.in_env(wrapped)
        if force_reset:
            self._last_obs = None
        self.policy.forget()

    def __getstate__(self) -> dict[str, Any]:
        """Returns the content for copies and pickles, without environment and logger (see `set_env`)."""
        without = ("env", "_vec_normalize_env", "_last_obs", "_last_original_obs", "_last_episode_starts")
        kept = {name: value for name, value in self.__dict__.items() if name != "_logger"}
        return {name: None if name in without else value for name, value in kept.items()}

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seeds the agent and its environments; unlike Stable-Baselines3, no global generator."""
        if seed is None:
            return
        self.seed = seed
        self.action_space.seed(seed)
        self.policy.reseed(seed)
        self.trainer.reseed(seed)
        if self.env is not None:
            self.env.seed(seed)

    def get_parameters(self) -> dict[str, dict[str, Tensor]]:  # type: ignore[override]
        """Returns `{"policy": {name: tensor}}`: the model, and tensors derived from the same data."""
        world = self.policy.world
        encoder = {f"encoder.{name}": tensor for name, tensor in self.perception.tensors().items()}
        return {"policy": {} if world is None else {**encoder, **world.parameters()}}

    def set_parameters(  # type: ignore[override]
        self,
        load_path_or_dict: str | Path | IO[bytes] | Mapping[str, Mapping[str, Tensor]],
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Takes over the parameters of another agent of the same kind.

        Args:
            load_path_or_dict: a saved agent's file, or the result of `get_parameters`.
            exact_match: False keeps parameters that a dict does not hold.
            device: not used; the agent stays where it is.

        Raises:
            ValueError: if it is not of an agent with these spaces and, for a dict, networks of this shape.
        """
        if not isinstance(load_path_or_dict, Mapping):
            snapshot = self._read(load_path_or_dict)
            with loading(serialization.name_of(load_path_or_dict)):
                self._adopt(snapshot)
            return
        wanted = {"policy"} if exact_match else set(load_path_or_dict) & {"policy"}
        if set(load_path_or_dict) != wanted:
            raise ValueError(f"set_parameters: expected the key 'policy', got {', '.join(load_path_or_dict) or 'none'}")
        given = load_path_or_dict["policy"] if wanted else {}
        if not given and (self.policy.world is None or not wanted):
            return  # neither agent has learned anything
        encoder = {k.removeprefix("encoder."): v for k, v in given.items() if k.startswith("encoder.")}
        others = {name: tensor for name, tensor in given.items() if not name.startswith("encoder.")}
        if self.policy.world is None:
            world = World.from_parameters(others, self.structure, self.device)
        else:
            world = self.policy.world.with_parameters(others, exact_match=exact_match)
        if encoder:
            self.perception.restore(encoder)
            self.policy.take_space(self.perception.space)
        self.policy.learned(world)

    def _read(self, source: str | Path | IO[bytes]) -> Snapshot:
        """Reads a trained agent with the same spaces."""
        known, name = self.settings, serialization.name_of(source)
        changes = {"planner": known.planner, **({} if known.goal is None else {"goal": known.goal})}
        snapshot = Snapshot.decode(*serialization.read(source), name, self.device, changes)
        check_for_correct_spaces(snapshot, self.observation_space, self.action_space)  # type: ignore[arg-type]
        if snapshot.world is None:
            raise ValueError(f"{name}: expected an agent that has learned something")
        layouts = [known.layout(self.observation_space) for known in (snapshot.settings, self.settings)]
        if layouts[0] != layouts[1]:
            raise ValueError(f"{name}: expected frames as here, got {layouts[0]}")
        return snapshot

    @property
    def learner(self) -> ModelTrainer:
        """Deprecated name of `trainer`."""
        warnings.warn("agent.learner is deprecated; use agent.trainer", DeprecationWarning, stacklevel=2)
        return self.trainer

    @property
    def vision(self) -> Perception | None:
        """Deprecated name of `perception`, for agents that see images; None for others."""
        warnings.warn("agent.vision is deprecated; use agent.perception", DeprecationWarning, stacklevel=2)
        return self.perception if isinstance(self.perception, PixelPerception) else None
