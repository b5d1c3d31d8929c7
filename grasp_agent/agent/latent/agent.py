"""An agent that plans with a world model which it did not learn itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from grasp_agent import serialization
from grasp_agent.agent.latent.collection import episodes_in, random_episodes
from grasp_agent.agent.latent.control import LatentControl
from grasp_agent.agent.latent.defaults import default_criteria, default_planner
from grasp_agent.agent.latent.memory import LatentMemory
from grasp_agent.agent.latent.model import LatentDynamics, has_gradients, move
from grasp_agent.agent.latent.observations import Observations
from grasp_agent.agent.latent.plans import LatentPlans
from grasp_agent.agent.latent.saved import CODED, PLAIN, SavedLatentAgent
from grasp_agent.agent.policy import checked_starts
from grasp_agent.agent.replan_rule import ReplanRule
from grasp_agent.planners import Criteria, Planner
from grasp_agent.planners.requirements import check_gradients, check_size, is_small
from grasp_agent.task.actions import check_actions, to_space
from grasp_agent.validation import instance, more_than, whole
from grasp_envs import registered_id

Array = NDArray[np.float32]


class LatentAgent:
    """Plans in the latents of a given world model; see `GraspAgent.from_model`.

    Args:
        env: the environment, or its id.
        model: a `LatentModel`, a step function, or several of these: an ensemble, whose first model encodes.
        frame_skip: environment steps of a model step; the actions of a block are executed one by one.
        history: latents that the model is given.
        horizon: model steps of a plan.
        planner: any planner that can plan for large states; None for `default_planner`.
        criteria: how plans are scored; None for `Criteria(hold=1, running=1.0, feedback=False)`. Where actions at rest
            stop the environment, `stop=True` is better: a plan then ends at its best step.
        rule: when plans are replaced: an accepted one where the latent is farther from its prediction than the model's
            error on the replay permits, another one after `commit` model steps. `work` has no effect: a call completes
            its search, within the planner's `budget` if it has one.
        replay: recorded episodes, see `add_replay`.
        goal: returns the observation at the goal, `[n, ...]`, of observations `[n, ...]`; None for the entry
            `desired_goal` of Dicts, in place of `observation`, or else the one given by `set_goal`.
        goal_tolerance: distance of latents at which the goal counts as reached; None for the median distance of
            recorded latents one model step apart (half of it with a learned distance), and, without a replay, for none:
            no plan counts as accepted.
        device: where modules of the model are moved; None leaves them. `encode` decides where planning takes place.
        seed: of everything random.

    Attributes:
        dynamics: the model as planners call it.
        memory: the recorded experience.
        env_id: id of the environment, if it has one.
        env_kwargs: options of the environment.

    Raises:
        ValueError: if model, planner or spaces do not fit; from one trial call of the model.
    """

    name = "GRASP"

    def __init__(
        self,
        env: gym.Env[Any, Any] | str,
        model: Any,
        *,
        frame_skip: int = 1,
        history: int = 1,
        horizon: int = 10,
        planner: Planner[Any] | None = None,
        criteria: Criteria | None = None,
        rule: ReplanRule | None = None,
        replay: Any = None,
        goal: Callable[[Any], Any] | None = None,
        goal_tolerance: float | None = None,
        device: torch.device | str | None = None,
        seed: int = 0,
    ) -> None:
        whole(1, frame_skip=frame_skip, history=history, horizon=horizon)
        whole(0, seed=seed)
        instance(Criteria, criteria=criteria)
        instance(ReplanRule, rule=rule)
        more_than(0, goal_tolerance=1.0 if goal_tolerance is None else goal_tolerance)
        self.env = gym.make(registered_id(env)) if isinstance(env, str) else env
        check_actions(self.env.action_space)
        self.observation_space = self.env.observation_space
        self.action_space = cast(spaces.Box, self.env.action_space)
        spec = self.env.spec
        self.env_id = None if spec is None else spec.id
        self.env_kwargs = {} if spec is None else {k: v for k, v in spec.kwargs.items() if k != "render_mode"}
        self.frame_skip, self.history, self.horizon, self.seed = frame_skip, history, horizon, seed
        self.observations = Observations(self.observation_space, goal)
        models = model if isinstance(model, Sequence) else [model]
        size = frame_skip * self.action_space.shape[0]
        if device is not None:
            move(models, device)
        self.dynamics = LatentDynamics(models, history, size, self.observations.example())
        self.criteria, self.rule = criteria or default_criteria(), rule or ReplanRule(commit=2)
        self.planner = planner
        self.memory = LatentMemory(self.dynamics, frame_skip, goal_tolerance)
        self._goal: Tensor | None = None
        self.forget()
        if replay is not None:
            self.add_replay(replay)

    @property
    def planner(self) -> Planner[Any]:
        """The planner; it may be replaced at any time, None by the default."""
        return self._planner

    @planner.setter
    def planner(self, planner: Planner[Any] | None) -> None:
        instance(Planner, planner=planner)
        planner = default_planner(self.frame_skip) if planner is None else planner
        if not is_small(self.dynamics.size, has_history=self.history > 1):
            check_size(planner, self.dynamics.size, has_history=self.history > 1)
        if not has_gradients(self.dynamics):
            check_gradients(planner)
        self._planner = planner

    @property
    def goal_tolerance(self) -> float | None:
        """Distance of latents at which the goal counts as reached; None while it is not known."""
        return self.memory.tolerance

    def add_replay(self, replay: Any) -> None:
        """Adds recorded episodes, from which plans are proposed, and by which tolerance and error are measured.

        Args:
            replay: a replay buffer of Stable-Baselines3, a Minari dataset, the path of an `.npz` file, or pairs of what
                `encode` takes, for T + 1 moments, and actions `[T, A]` [the environment's units].

        Raises:
            ValueError: if it is none of these, holds no step, or does not fit the spaces.
        """
        self.memory.add(episodes_in(replay, self.action_space, self.observations, self._encode))

    def collect(self, steps: int) -> None:
        """Records episodes of smooth random actions in the environment, and adds them to the replay.

        Args:
            steps: of the environment, at least.
        """
        whole(1, steps=steps)
        self.add_replay(random_episodes(self.env, steps, self.seed + len(self.memory.episodes)))

    def learn_distance(self, steps: int = 1500, *, progress_bar: bool = False) -> None:
        """Learns the steps between two latents from the replay, and plans by them from now on.

        The goal's cost and tolerance are then those of this temporal distance, near the goal together with the model's
        own, and a roadmap of recorded moments leads to goals beyond the horizon; `Stitching`, the default's proposals,
        begins with its routes. Replay that is added later does not change the distance.

        Args:
            steps: gradient steps.
            progress_bar: show progress.

        Raises:
            ValueError: if there is no replay.
        """
        whole(1, steps=steps)
        self.memory.learn_distance(steps, self.seed, progress_bar=progress_bar)

    def save(self, path: str | Path | IO[bytes]) -> None:
        """Saves settings, replay, learned distance and the goal that was set, in one zip of JSON and safetensors.

        Raises:
            ValueError: for a setting that no file can hold.
            OSError: if the file cannot be written; an old one is as it was.
        """
        settings = {name: getattr(self, name) for name in (*PLAIN, *CODED)}
        settings["goal_tolerance"] = self.memory.given_tolerance
        content = SavedLatentAgent(
            settings,
            self.env_id,
            self.env_kwargs,
            self.dynamics.shape,
            self.memory.episodes,
            self._goal,
            self.observations.has_goal_function,
            self.memory.learned_distance,
            self.dynamics.trial,
        )
        serialization.write(path, *content.encode())

    @classmethod
    def load(
        cls, path: str | Path | IO[bytes], model: Any, env: gym.Env[Any, Any] | str | None = None, **settings: Any
    ) -> LatentAgent:
        """Loads a saved agent; no code in the file is run.

        Args:
            path: file name or file object.
            model: the model, or the models, that it planned with.
            env: the environment, or its id; None makes that of the file.
            **settings: arguments that replace the saved ones, such as `planner`.

        Raises:
            ValueError: for a missing, cut or foreign file, or a model whose latents have another shape.
        """
        saved = SavedLatentAgent.read(path, set(settings))
        if env is None:
            env = saved.env()
        agent = cls(env, model, **{**saved.settings, **settings})
        if agent.dynamics.shape != saved.shape:
            raise ValueError(f"model: expected latents of shape {saved.shape}, got {agent.dynamics.shape}")
        if not saved.is_of(agent.dynamics.trial):
            warnings.warn("model: it predicts otherwise than the one that the file was saved with", stacklevel=2)
        if saved.episodes:
            agent.memory.add(saved.episodes)
        if saved.distance is not None:
            agent.memory.use_distance(saved.distance)
        agent._goal = None if saved.goal is None else saved.goal.to(agent.dynamics.device)
        return agent

    def set_goal(self, observation: Any) -> None:
        """Sets the goal to the state in an observation; the present block of actions is completed first.

        Args:
            observation: a single one of the environment; None returns to the observations' goals.

        Raises:
            ValueError: if it does not fit the space.
        """
        if observation is None:
            self._goal = None
            return
        batch, _ = self.observations.batched(observation)
        if self.observations.length(batch) != 1:
            raise ValueError(f"goal: expected one observation, got {self.observations.length(batch)}")
        self._goal = self._encode(batch).clone()

    def forget(self) -> None:
        """Discards the running plan: another episode begins."""
        self._plans: LatentPlans | None = None
        self.last_plan = None

    def predict(
        self,
        observation: Any,
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...]]:
        """Returns the action for an observation, as Stable-Baselines3's models do.

        Without `state`, the agent keeps its plan between calls, until `forget` or an `episode_start`.

        Args:
            observation: of the environment, single or batched.
            state: what the last call returned.
            episode_start: `[n]`, True where a new episode begins.
            deterministic: not used: the planner's noise is that of `seed` in each call.

        Returns:
            Actions of the action space's type, inside its bounds, and the running plans.

        Raises:
            ValueError: for an observation that does not fit the space, or where no goal is known.
        """
        batch, is_batch = self.observations.batched(observation)
        count = self.observations.length(batch)
        blank = LatentPlans.blank(count, self.horizon, self.dynamics.size, self.dynamics.action_size, self.history)
        if state is not None:
            plans = LatentPlans.of(state, blank)
        else:
            known = self._plans  # of another number of environments, or horizon, it is of no use
            plans = blank if known is None or known.actions.shape != blank.actions.shape else known
        starts = checked_starts(episode_start, count)
        if starts is not None:
            plans.begin(starts)
        rows = np.flatnonzero(plans.part == 0)
        with torch.inference_mode(False), torch.no_grad():
            if len(rows):
                seen = self.observations.rows(batch, rows)
                self._control.begin_steps(self._encode(seen), self._goals(seen, len(rows)), rows, plans)
        actions = to_space(plans.advance(self.frame_skip), self.action_space)
        if state is None:
            self._plans = plans
        return (actions if is_batch else actions[0]), LatentPlans._make(part.copy() for part in plans)

    @property
    def _control(self) -> LatentControl:
        return LatentControl(
            dynamics=self.dynamics,
            planner=self.planner,
            horizon=self.horizon,
            criteria=self.criteria,
            rule=self.rule,
            memory=self.memory,
            seed=self.seed,
        )

    def _goals(self, observation: Any, count: int) -> Tensor:
        if self._goal is not None:
            return self._goal.expand(count, -1)
        goals = self.observations.goals(observation)
        if goals is None:
            raise ValueError("goal: expected one, by set_goal(observation), or goal= where the agent is made")
        return self._encode(goals)

    def _encode(self, observation: Any) -> Tensor:
        latents = self.dynamics.encode(observation)
        if not latents.isfinite().all():
            raise ValueError("model.encode: expected finite latents, got NaN or infinity")
        return latents
