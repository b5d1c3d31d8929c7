"""Planning with a world model behind Stable-Baselines3's `predict`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from grasp_agent.agent.controller import Controller, PlannerSettings
from grasp_agent.agent.plan_state import PlanState, PlanView
from grasp_agent.agent.replan_rule import ReplanRule
from grasp_agent.agent.replanning import Searches
from grasp_agent.models import EnsembleMLP
from grasp_agent.models.precision import single_precision
from grasp_agent.models.world import World
from grasp_agent.planners import GRASP, Criteria, Planner
from grasp_agent.task.actions import to_space
from grasp_agent.task.observation import KEYS, batched, check_spaces, raw_vectors

__all__ = ["PlanView", "WorldModelPolicy"]


class _CachedAction(NamedTuple):
    """The actions of the last call, and the arguments that led to them."""

    key: bytes
    actions: NDArray[np.float32]
    repeats: int


class WorldModelPolicy(BasePolicy):
    """Plans with a learned world model; before anything is learned, its actions are random.

    Args:
        observation_space: a Dict of vectors with observation, achieved_goal and desired_goal.
        action_space: a bounded Box.
        planner: any planner of the family.
        horizon: steps of a plan.
        criteria: how plans are scored.
        rule: when running plans are replaced.
        seed: seed of the planner's noise.

    Attributes:
        controller: holds planner, horizon, criteria and rule; they may be replaced at any time.
        last_plan: the plan of the first environment at the last `predict`.
    """

    observation_space: spaces.Dict
    action_space: spaces.Box

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        planner: Planner[Any] | None = None,
        horizon: int = 50,
        criteria: Criteria | None = None,
        rule: ReplanRule | None = None,
        seed: int = 0,
    ) -> None:
        check_spaces(observation_space, action_space)
        super().__init__(observation_space, action_space)
        self.controller = Controller(planner or GRASP(), horizon, criteria or Criteria(), rule or ReplanRule(), seed)
        self.model: EnsembleMLP | None = None
        self.last_plan: PlanView | None = None
        self._world: World | None = None
        self._plans: PlanState | None = None
        self._searches = Searches()
        self._cached: _CachedAction | None = None

    @property
    def world(self) -> World | None:
        """The learned world model; None before training."""
        return self._world

    @property
    def is_fitted(self) -> bool:
        """Whether there is a learned world model."""
        return self._world is not None

    @property
    def searching(self) -> bool:
        """Whether a search for a plan goes on in the next call of `predict`."""
        return bool(self._searches)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuses assignments without effect."""
        if name in ("planner", "horizon", "criteria", "rule", "seed"):
            raise AttributeError(f"policy.{name}: expected policy.controller.{name}, or the agent's own")
        super().__setattr__(name, value)

    def learned(self, world: World) -> None:
        """Takes over a newly learned world model; running plans are discarded.

        Raises:
            ValueError: if it does not fit the spaces.
        """
        sizes = [self.observation_space[key].shape[0] for key in KEYS]  # type: ignore[index]
        if max(world.state_map.columns) >= sizes[0] + sizes[1] or len(world.state_map.goal_index) != sizes[2]:
            raise ValueError(f"world: its state map does not fit observations of sizes {sizes}")
        if world.model.action_size != self.action_space.shape[0]:
            raise ValueError(f"world: its model has {world.model.action_size} actions, the space {self.action_space}")
        self.model = world.model.requires_grad_(False)
        self._world = world
        self.forget()

    def take_space(self, space: spaces.Dict) -> None:
        """Changes the observation space; the world model learned in the old one is discarded."""
        check_spaces(space, self.action_space)
        self.observation_space, self.model, self._world = space, None, None
        self.forget()

    def reseed(self, seed: int) -> None:
        """Draws the planner's noise from another seed."""
        self.controller.reseed(seed)

    def forget(self) -> None:
        """Discards the running plan and the cached actions."""
        self._plans, self.last_plan, self._cached = None, None, None
        self._searches.clear()

    @single_precision()
    def predict(  # type: ignore[override]
        self,
        observation: Any,
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...]]:
        """Returns the action for an observation, by planning.

        With neither `state` nor `episode_start`, the policy keeps the last plan between calls and follows it where the
        observation is near its prediction and the goal is the same, so actions depend on earlier calls. A search for a
        plan is limited in each call and goes on in the next one (see `ReplanRule.work`). Unless one goes on, the same
        observation twice in a row gets the same action; if it stays the same for many steps, the plan counts as failed
        (see `ReplanRule.patience`). With `state` or `episode_start`, the policy keeps nothing between calls, and a
        call completes its search.

        Args:
            observation: a Dict observation, single or batched; float32, float64, lists or tensors.
            state: the running plans that the last call returned.
            episode_start: `[n]`, True where a new episode begins: that plan is discarded.
            deterministic: True plans with the same noise each time.

        Returns:
            Actions of the action space's type, inside its bounds, and the running plans.

        Raises:
            ValueError: for an observation that does not fit the space.
        """
        arrays, is_batch = batched(observation, self.observation_space)
        raw, goals = raw_vectors(arrays), arrays["desired_goal"]
        episode_start = checked_starts(episode_start, len(raw))
        with torch.inference_mode(False), torch.no_grad():
            if self._world is None:
                chosen, plans = self._untrained_actions(len(raw), deterministic), ()
            elif state is None and episode_start is None:
                chosen, plans = self._with_last_plan(self._world, raw, goals, deterministic)
            else:
                plans = self._continued_plans(self._world, state, episode_start, len(raw))
                chosen, plans, self.last_plan = self.decide(raw, goals, plans, deterministic)
        actions = self.to_space(chosen)
        return (actions if is_batch else actions[0]), plans

    def _untrained_actions(self, count: int, deterministic: bool) -> NDArray[np.float32]:
        size = (count, self.action_space.shape[0])
        if deterministic:
            return np.zeros(size, np.float32)
        return self.controller.random.uniform(-1, 1, size).astype(np.float32)

    def decide(
        self,
        raw: NDArray[np.float32],
        goals: NDArray[np.float32],
        plans: PlanState | None,
        deterministic: bool,
        settings: PlannerSettings | None = None,
        searches: Searches | None = None,
    ) -> tuple[NDArray[np.float32], PlanState, PlanView | None]:
        """See `Controller.decide`, with the learned world model.

        Raises:
            RuntimeError: before training.
        """
        if self._world is None:
            raise RuntimeError("expected a learned world model")
        return self.controller.decide(self._world, raw, goals, plans, deterministic, settings, searches)

    def _with_last_plan(
        self, world: World, raw: NDArray[np.float32], goals: NDArray[np.float32], deterministic: bool
    ) -> tuple[NDArray[np.float32], PlanState]:
        key = raw.tobytes() + goals.tobytes() + bytes([deterministic])
        last, known, controller = self._cached, self._plans, self.controller
        same = last is not None and last.key == key and not self._searches
        if same and last is not None and known is not None and last.repeats < controller.rule.patience:
            self._cached = last._replace(repeats=last.repeats + 1)
            self.last_plan = self.last_plan and self.last_plan._replace(fresh=False)
            return last.actions, known.copy()
        if known is not None and len(known.step) != len(raw):
            known = None
            self._searches.clear()
        if same and known is not None and not controller.on_course(world, raw, goals, known).all():
            known, deterministic = None, False  # with the same noise the same plan would fail again
        actions, self._plans, self.last_plan = self.decide(raw, goals, known, deterministic, searches=self._searches)
        self._cached = _CachedAction(key, actions, 0)
        return actions, self._plans.copy()

    def _continued_plans(
        self,
        world: World,
        state: tuple[NDArray[Any], ...] | None,
        episode_start: NDArray[np.bool_] | None,
        count: int,
    ) -> PlanState:
        """Returns the plans of `state` without those of environments that begin a new episode."""
        blank = self.controller.blank(world, count)
        untaught = isinstance(state, tuple) and not state  # what an agent without a model returns
        plans = blank if state is None or untaught else PlanState.of(state, blank)
        if episode_start is not None:
            plans.begin_episodes(episode_start)
        return plans

    def to_space(self, actions: NDArray[np.float32]) -> NDArray[Any]:
        """Returns actions in [-1, 1] as actions of the space."""
        return to_space(actions, self.action_space)

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        """Implements Stable-Baselines3's hook, on tensors."""
        actions, _ = self.predict(observation, episode_start=None, deterministic=deterministic)
        return torch.as_tensor(actions)


def checked_starts(episode_start: Any, count: int) -> NDArray[np.bool_] | None:
    """Returns `predict`'s argument `[n]` as truth values; raises ValueError for another shape or other values."""
    if episode_start is None:
        return None
    expected = f"episode_start: expected {count} truth values, one for each environment"
    try:
        array = np.asarray(episode_start)
    except Exception as error:  # ragged lists, foreign classes
        raise ValueError(f"{expected}, got {type(episode_start).__name__}") from error
    if array.dtype.kind not in "biuf" or array.shape not in ((count,), () if count == 1 else (count,)):
        raise ValueError(f"{expected}, got {array.dtype} {list(array.shape)}")
    if not np.isin(array, (0, 1)).all():
        raise ValueError(f"{expected}, got {array.tolist()}")
    return array.astype(bool).reshape(count)
