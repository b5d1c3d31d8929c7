"""The agent: looks like a Stable-Baselines3 model, plans with a learned world model."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, ClassVar, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from torch import Tensor

from grasp_agent import serialization
from grasp_agent.agent.algorithm import Training, refit
from grasp_agent.agent.checkpoint import Checkpoint
from grasp_agent.agent.exploration import ExploreConfig
from grasp_agent.agent.perception import Vision
from grasp_agent.agent.policy import PlanView, WorldModelPolicy
from grasp_agent.agent.snapshot import CHANGEABLE, check_kinds, packed, unpacked
from grasp_agent.agent.trainer import Learner
from grasp_agent.models import EncoderConfig, MLPConfig
from grasp_agent.models.dynamics.fitting import TrainConfig
from grasp_agent.planners import Criteria, Planner
from grasp_agent.replay.offline import episodes_of
from grasp_agent.task.goal import Goal, GoalVecEnv
from grasp_agent.task.observation import KEYS, check_actions, check_spaces, raw_vectors
from grasp_agent.task.pixels import PictureLayout
from grasp_agent.task.structure import Structure
from grasp_agent.task.success import success_radius
from grasp_agent.task.vec_env import Environment, vectorised
from grasp_agent.validation import at_least, more_than, whole

Self = TypeVar("Self", bound="GraspAgent")
_LOOK_FIRST = 10_000  # environment steps before an encoder is trained


class GraspAgent(BaseAlgorithm):
    """An agent that learns a world model and plans with it by GRASP (Psenka et al. 2026, arXiv 2602.00475).

    Used as any Stable-Baselines3 model: `learn`, `predict`, `save`, `load`, `set_env`, callbacks, logger,
    `evaluate_policy`. Observations are those of a goal environment, a Dict of the vectors observation, achieved_goal
    and desired_goal, or a vector for which a `goal` is given; or pictures, alone or in a Dict beside vectors, whose
    goal is a picture too: under desired_goal, or given by `set_goal`. Actions are a bounded Box.

    Args:
        policy: "MultiInputPolicy", "CnnPolicy", or a subclass of `WorldModelPolicy`.
        env: environment, several side by side (Stable-Baselines3's or Gymnasium's vectors), or its id.
        goal: what the observation should look like, for environments whose observations are a Box.
        planner: any planner of the family; None for `GRASP()`.
        horizon: steps of a plan; None for half of the environment's time limit, from 10 to 50.
        model: shape of the networks; None takes the kind, sharp or smooth, that predicts held-out data better.
        encoder: how pictures are looked at, and how that is learned.
        train: how models are fitted.
        explore: how experience is gathered; None for the usual way, with pictures at random for the first 10,000 steps.
        criteria: how plans are judged; None for the goal's own way, or the usual one.
        structure: what is known of the task beforehand; None takes what the environment offers (see `Structure`).
        goal_tolerance: success radius [goal units]; None takes the goal's, or the environment's `distance_threshold`,
            or that at which its sparse `compute_reward` changes, or that at which `info["is_success"]` changes while it
            learns, or else a twentieth of the spread of the goals seen; with pictures one of the last two [latent
            units].
        tensorboard_log: folder of TensorBoard's logs.
        verbose: 0 silent, 1 information, 2 debugging.
        seed: of everything random.
        device: "auto", "cpu", "cuda", ...

    Attributes:
        vision: what is known of pictures, encoder and experience; None for an agent without.
        training_seconds: time spent in `learn` and `fit`, now and before it was saved [s].

    Raises:
        ValueError: if the spaces are not of that kind.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MultiInputPolicy": WorldModelPolicy,
        "CnnPolicy": WorldModelPolicy,
    }
    policy: WorldModelPolicy  # pyright: ignore
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
        structure: Structure | None = None,
        goal_tolerance: float | None = None,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if isinstance(policy, str) and policy not in self.policy_aliases:
            raise ValueError(f"policy: expected one of {', '.join(self.policy_aliases)}, got {policy!r}")
        if goal_tolerance is not None:
            more_than(0, goal_tolerance=goal_tolerance)
        if seed is not None:
            whole(0, seed=seed)
        if env is None and _init_setup_model:
            raise ValueError("env: expected an environment or its id, got None")
        settings = {"planner": planner, "criteria": criteria, "model": model, "train": train, "explore": explore}
        check_kinds(**settings, encoder=encoder, structure=structure, goal=goal)
        self.train_config = train or TrainConfig()
        self.goal = goal
        if env is not None:
            env = self._dressed(vectorised(env, verbose), verbose)
        super().__init__(
            policy,
            env,
            learning_rate=self.train_config.lr,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            seed=seed,
            device=device,
            support_multi_env=True,
        )
        self.planner, self.model_config, self.encoder_config = planner, model, encoder
        self.vision: Vision | None = None
        layout = None if self.env is None else self._layout(self.env.observation_space)
        sees = layout is not None
        self.explore_config = explore or (ExploreConfig(learning_starts=_LOOK_FIRST) if sees else ExploreConfig())
        self.horizon = horizon
        self.goal_tolerance = goal.tolerance if goal_tolerance is None and goal is not None else goal_tolerance
        self.training_seconds = 0.0
        self.env_id: str | None = None
        self.env_kwargs: dict[str, Any] = {}
        if structure is None and layout is not None and self.env is not None:
            rests = self.env.has_attr("rests") and bool(self.env.get_attr("rests")[0])
            count = self.env.action_space.shape[0]  # type: ignore[index]
            structure = Vision.structure(layout, encoder or EncoderConfig(), actions=count, rests=rests)
        if structure is None:  # an environment weighs the entries of its own goal, not of another one
            structure = Structure() if self.env is None else Structure.offered(self.env, weighs_goal=goal is None)
        self.structure = structure
        self.criteria = criteria or self.usual_criteria
        self.learner = Learner(self.explore_config, self.train_config, model, structure, seed or 0)
        if env is not None:
            self._read_spec()
        if _init_setup_model:
            self._setup_model()

    def _layout(self, space: spaces.Space[Any]) -> PictureLayout | None:
        return PictureLayout.of(space, None if self.encoder_config is None else self.encoder_config.frames)

    @property
    def usual_criteria(self) -> Criteria:
        """How plans are judged where nothing else is said: as the goal, or the task's structure, has it."""
        usual = Criteria() if self.goal is None else self.goal.criteria
        return replace(usual, stop=self.structure.rests)

    def _dressed(self, env: GymEnv, verbose: int) -> GymEnv:
        """The environment with this agent's goal, if it was given one; refused where the agent cannot plan in it."""
        if PictureLayout.of(env.observation_space) is not None:
            check_actions(env.action_space)
            if self.goal is not None:
                raise ValueError("goal: expected none where observations are pictures; see set_goal")
            return env
        if self.goal is not None:
            check_actions(env.action_space)
            env = GoalVecEnv(self._wrap_env(env, verbose), self.goal)
        check_spaces(env.observation_space, env.action_space)
        _check_wrappers(env)
        return env

    def _read_spec(self) -> None:
        env = self._required_env()
        spec = env.get_attr("spec")[0]
        if spec is not None:
            self.env_id, self.env_kwargs = spec.id, {k: v for k, v in spec.kwargs.items() if k != "render_mode"}
            try:
                json.dumps(self.env_kwargs)
            except TypeError:
                self.env_kwargs = {}
                warnings.warn(f"{spec.id} was made with options that cannot be saved; they are left out", stacklevel=3)
        if self.horizon is None:
            limit = getattr(spec, "max_episode_steps", None)
            self.horizon = 50 if limit is None else min(50, max(10, limit // 2))
        if PictureLayout.of(env.observation_space) is not None:
            return  # what the environment says of distances is not said of latents
        if self.goal_tolerance is None and env.has_attr("distance_threshold"):
            self.goal_tolerance = float(env.get_attr("distance_threshold")[0])
        if self.goal_tolerance is None and env.has_attr("compute_reward"):
            self.goal_tolerance = success_radius(env)

    def _setup_model(self) -> None:
        if self.seed is not None and self.env is not None:
            self.env.seed(self.seed)  # nothing here uses the global generators
        space, layout = self.observation_space, self._layout(self.observation_space)
        if layout is not None:
            self.vision = Vision(layout, self.encoder_config, self.seed or 0, self.device)
            space = self.vision.space
        assert isinstance(space, spaces.Dict) and isinstance(self.action_space, spaces.Box)
        self.structure.check(space, self.action_space)
        self.policy = self.policy_class(  # pyright: ignore
            space,
            self.action_space,
            planner=self.planner,
            horizon=50 if self.horizon is None else self.horizon,
            criteria=self.criteria,
            seed=self.seed or 0,
        ).to(self.device)

    @property
    def last_plan(self) -> PlanView | None:
        """The plan of the first environment at the last `predict`, for drawing."""
        return self.policy.last_plan

    def predict(
        self,
        observation: Any,
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...]]:
        """The action for an observation, by planning; see `WorldModelPolicy.predict`."""
        if self.vision is not None and not self.vision.has_goal:
            raise ValueError("goal: expected a picture of it, by set_goal, or under 'desired_goal' of the observation")
        return self.policy.predict(self._as_goal_observation(observation), state, episode_start, deterministic)

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

        The first episodes follow time-correlated noise, the later ones plans: half of them to places that were rarely
        seen, exploring from there, half to the task's goals.

        Args:
            total_timesteps: environment steps to take.
            callback: Stable-Baselines3's callbacks.
            log_interval: episodes between two lines in the log.
            tb_log_name: name of the run in TensorBoard.
            reset_num_timesteps: False goes on counting.
            progress_bar: show progress of steps and fits.
            checkpoint: a file, written every half minute, and before and after each fit. Where it is there already,
                learning goes on from it, until `total_timesteps` were taken in all: a script that was killed is simply
                run again. It can be loaded as any saved agent, and holds the experience, too, but for pictures, which
                lie in a file beside it.
            minutes: take no more environment steps after this time; the last fit follows.

        Returns:
            The agent itself.

        Raises:
            ValueError: if the checkpoint is not one of this agent, or a number is out of range.
        """
        env = self._required_env()
        at_least(0, total_timesteps=total_timesteps)
        if minutes is not None:
            more_than(0, minutes=minutes)
        deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
        saver = Checkpoint(checkpoint)
        if saver.resume(self):
            total_timesteps = max(0, total_timesteps - self.num_timesteps)
            reset_num_timesteps, self._last_obs = False, None
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        callback.on_training_start(locals(), globals())
        training = Training(self, env, callback, log_interval=log_interval, progress_bar=progress_bar, saver=saver)
        training.run(total_timesteps, deadline)
        callback.on_training_end()
        return self

    def fit(self: Self, dataset: Any, *, progress_bar: bool = False) -> Self:
        """Learns from experience that is already there; what `learn` gathers later is added to it.

        Args:
            dataset: a `ReplayBuffer`, `DictReplayBuffer` or `HerReplayBuffer` of Stable-Baselines3, a Minari dataset,
                or the path of an `.npz` file (see `grasp_agent.replay.offline.episodes_of`).
            progress_bar: show progress.

        Returns:
            The agent itself.

        Raises:
            ValueError: if it is none of these, holds no step, or does not fit the spaces.
        """
        assert isinstance(self.action_space, spaces.Box)
        if self.vision is not None:
            self.vision.take(episodes_of(dataset, self.action_space, self.vision.raw))
            return self._refitted(progress_bar)
        episodes = episodes_of(dataset, self.action_space, self._raw)
        sizes = [self.observation_space[key].shape[0] for key in KEYS[:2]]  # type: ignore[index]
        wanted = sum(sizes), self.action_space.shape[0]
        found = episodes[0].states.shape[1], episodes[0].actions.shape[1]
        if found != wanted:
            raise ValueError(f"dataset: expected observation, achieved goal and action of sizes {wanted}, got {found}")
        self.learner.dataset.add_all(episodes)
        return self._refitted(progress_bar)

    def _refitted(self: Self, progress_bar: bool) -> Self:
        self._setup_learn(0, None, reset_num_timesteps=False, tb_log_name="fit")
        began = time.monotonic()
        refit(self, last=True, progress_bar=progress_bar)
        self.training_seconds += time.monotonic() - began
        return self

    def set_goal(self, picture: Any) -> None:
        """Aims at what a picture shows, for an agent that sees pictures; None: at what observations say again.

        Args:
            picture: `[height, width, colours]`, or colours first, as one frame of the observations.

        Raises:
            ValueError: if it does not look like them, or observations are not pictures.
        """
        if self.vision is None:
            raise ValueError("set_goal: expected an agent whose observations are pictures")
        self.vision.set_goal(picture)
        self.policy.forget()

    def _raw(self, observations: Any) -> NDArray[np.float32]:
        dressed = self._as_goal_observation(observations)
        if not isinstance(dressed, Mapping):
            raise ValueError("dataset: expected achieved goals beside the observations (a goal environment)")
        return raw_vectors(dressed)

    def _as_goal_observation(self, observation: Any) -> Any:
        if self.vision is not None:
            return observation if isinstance(observation, tuple) else self.vision.dressed(observation)
        if self.goal is not None and not isinstance(observation, (Mapping, tuple)):
            return self.goal.dressed(observation)
        return observation

    def _required_env(self) -> VecEnv:
        if self.env is None:
            raise ValueError("learn: expected an environment; give one to load() or set_env()")
        return self.env

    def set_env(self, env: Environment | str, force_reset: bool = True) -> None:
        """Takes another environment of the same spaces, or its id; running plans are forgotten.

        Raises:
            ValueError: if its spaces differ.
        """
        env = vectorised(env, self.verbose)
        if self.goal is not None and env.observation_space != self.observation_space["observation"]:  # type: ignore[index]
            known = self.observation_space["observation"]  # type: ignore[index]
            raise ValueError(f"Observation spaces do not match: {known} != {env.observation_space}")
        wrapped = self._wrap_env(self._dressed(env, self.verbose), self.verbose)
        check_for_correct_spaces(wrapped, self.observation_space, self.action_space)
        self.env, self.n_envs = wrapped, wrapped.num_envs
        self._vec_normalize_env = unwrap_vec_normalize(wrapped)
        self._read_spec()
        if force_reset:
            self._last_obs = None
        self.policy.forget()

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seeds the agent and its environments; unlike Stable-Baselines3, no global generator."""
        if seed is None:
            return
        self.seed = seed
        self.action_space.seed(seed)
        self.policy.reseed(seed)
        self.learner.reseed(seed)
        if self.env is not None:
            self.env.seed(seed)

    def get_parameters(self) -> dict[str, dict[str, Tensor]]:  # type: ignore[override]
        """What was learned, `{"policy": {name: tensor}}`: the model, and what is derived from the same data."""
        world = self.policy.world
        seen = {} if self.vision is None else self.vision.tensors()
        return {"policy": {} if world is None else {**seen, **world.parameters()}}

    def set_parameters(  # type: ignore[override]
        self,
        load_path_or_dict: str | Path | IO[bytes] | Mapping[str, Mapping[str, Tensor]],
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Takes over what another agent of the same kind has learned.

        Args:
            load_path_or_dict: a saved agent's file, or what `get_parameters` returns.
            exact_match: False keeps what a dict does not hold.
            device: not used; the agent stays where it is.

        Raises:
            ValueError: if it is not of an agent with these spaces and, for a dict, networks of this shape.
        """
        if not isinstance(load_path_or_dict, Mapping):
            known = type(self).load(load_path_or_dict, device=self.device, goal=self.goal)
            check_for_correct_spaces(known, self.observation_space, self.action_space)  # type: ignore[arg-type]
            if known.policy.world is None:
                raise ValueError(f"{load_path_or_dict}: expected an agent that has learned something")
            if self.vision is not None and known.vision is not None:
                if known.vision.layout != self.vision.layout:
                    raise ValueError(f"{load_path_or_dict}: expected frames as here, got {known.vision.layout}")
                self._look(known.vision.tensors())
            self.policy.learned(known.policy.world)
            return
        wanted = {"policy"} if exact_match else set(load_path_or_dict) & {"policy"}
        if set(load_path_or_dict) != wanted:
            raise ValueError(f"set_parameters: expected the key 'policy', got {', '.join(load_path_or_dict) or 'none'}")
        if wanted:
            if self.policy.world is None:
                raise ValueError("set_parameters: expected an agent that has learned something, or a file")
            given = load_path_or_dict["policy"]
            world = self.policy.world.replaced(
                {name: tensor for name, tensor in given.items() if not name.startswith("encoder.")},
                exact_match=exact_match,
            )
            if self.vision is not None and any(name.startswith("encoder.") for name in given):
                self._look(given)
            self.policy.learned(world)

    def _look(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over an encoder."""
        assert self.vision is not None
        self.vision.restore(tensors)
        self.policy.look(self.vision.space)

    def save(  # type: ignore[override]
        self,
        path: str | Path | IO[bytes],
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Saves model, planner and settings in one zip of JSON and safetensors; `exclude` and `include` are ignored.

        The experience itself is not saved: an agent that learns on after loading rehearses what its model knows.
        """
        serialization.write(path, *packed(self))

    @classmethod
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
            env: environment to go on with, or its id.
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
        unknown = set(kwargs) - set(CHANGEABLE)
        if unknown:
            raise ValueError(f"load: unknown setting {unknown.pop()!r}; expected one of {', '.join(CHANGEABLE)}")
        config, tensors = serialization.read(path)
        try:
            agent = unpacked(cls, config, tensors, device, kwargs)
        except (LookupError, ArithmeticError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{getattr(path, 'name', path)}: cannot be loaded: {reason}") from error
        if env is not None:
            agent.set_env(env, force_reset)
        return agent


def _check_wrappers(env: GymEnv) -> None:
    """Refuses observations in which achieved and desired goals are scaled apart."""
    normalize = unwrap_vec_normalize(env) if isinstance(env, VecEnv) else None
    if normalize is not None and normalize.norm_obs:
        raise ValueError("VecNormalize: expected norm_obs=False; the world model normalises observations itself")
