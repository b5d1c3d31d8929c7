"""Planner, model and goal behind Stable-Baselines3's `predict`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from grasp_agent.agent.plan_state import Carry
from grasp_agent.models import EnsembleMLP
from grasp_agent.models.world import World
from grasp_agent.planners import GRASP, Criteria, GraspState, Plan, Planner, Problem, Tracking
from grasp_agent.task.observation import KEYS, batched, check_spaces, raw_vectors
from grasp_agent.validation import whole

_PATIENCE = 8  # times that the same observation gets the same answer


class PlanView(NamedTuple):
    """The plan of the first environment, for drawing."""

    path: NDArray[np.float32]
    """`[H + 1, G]`, predicted achieved goals from the state at which the plan was made [the environment's units]."""
    virtual: NDArray[np.float32]
    """`[N, H, G]`, virtual states of the candidates when the plan was made; empty if there were none."""
    step: int
    """Index of the action being executed."""
    fresh: bool
    """Whether the plan was made in this call."""
    accepted: bool
    """Whether it was found good enough under every member."""


class Search(NamedTuple):
    """How plans are looked for."""

    planner: Planner[Any]
    criteria: Criteria


class _Answer(NamedTuple):
    """What was answered last."""

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
        criteria: how plans are judged.
        commit: steps after which a plan that was not accepted is improved.
        seed: seed of the planner's noise.
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
        commit: int = 8,
        seed: int = 0,
    ) -> None:
        check_spaces(observation_space, action_space)
        whole(1, horizon=horizon, commit=commit)
        super().__init__(observation_space, action_space)
        self.planner: Planner[Any] = planner or GRASP()
        self.horizon, self.commit, self.seed = horizon, commit, seed
        self.criteria = criteria or Criteria()
        self.model: EnsembleMLP | None = None
        self.last_plan: PlanView | None = None
        self._world: World | None = None
        self._draws = np.random.default_rng(seed)
        self._carry: Carry | None = None
        self._answer: _Answer | None = None

    @property
    def world(self) -> World | None:
        """What has been learned; None before."""
        return self._world

    def learned(self, world: World) -> None:
        """Takes over a newly learned world; running plans are forgotten.

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

    def look(self, space: spaces.Dict) -> None:
        """Takes observations of another space from now on; what was learned in the old one is forgotten."""
        check_spaces(space, self.action_space)
        self.observation_space, self.model, self._world = space, None, None
        self.forget()

    def reseed(self, seed: int) -> None:
        """Draws the planner's noise anew, from another seed."""
        self.seed, self._draws = seed, np.random.default_rng(seed)

    def forget(self) -> None:
        """Forgets the running plan and the answers given."""
        self._carry, self.last_plan, self._answer = None, None, None

    def predict(  # type: ignore[override]
        self,
        observation: Any,
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...]]:
        """The action for an observation, by planning.

        With neither `state` nor `episode_start` the last plan is remembered: it goes on where the observation is where
        the plan said it would be and the goal is the same, so the answer depends on what was asked before. An
        observation asked twice in a row gets the same answer; one that stays the same for many steps is taken for a
        plan that does not work. With `state` or `episode_start` nothing is remembered.

        Args:
            observation: a Dict observation, single or batched; float32, float64, lists or tensors.
            state: what the last call returned.
            episode_start: `[n]`, True where a new episode begins: that plan is dropped.
            deterministic: True plans with the same noise each time.

        Returns:
            Actions of the action space's type, inside its bounds, and the running plans.

        Raises:
            ValueError: for an observation that does not fit the space.
        """
        arrays, is_batch = batched(observation, self.observation_space)
        raw, goals = raw_vectors(arrays), arrays["desired_goal"]
        with torch.inference_mode(False), torch.no_grad():
            if self._world is None:
                chosen, carry = self._untaught(len(raw), deterministic), ()
            elif state is None and episode_start is None:
                chosen, carry = self._remembered(raw, goals, deterministic)
            else:
                carry = self._dropped(state, episode_start, len(raw))
                chosen, carry, self.last_plan = self.decide(raw, goals, carry, deterministic)
        actions = self.to_space(chosen)
        return (actions if is_batch else actions[0]), carry

    def _untaught(self, count: int, deterministic: bool) -> NDArray[np.float32]:
        size = (count, self.action_space.shape[0])
        return np.zeros(size, np.float32) if deterministic else self._draws.uniform(-1, 1, size).astype(np.float32)

    def decide(
        self,
        raw: NDArray[np.float32],
        goals: NDArray[np.float32],
        carry: Carry | None,
        deterministic: bool,
        search: Search | None = None,
    ) -> tuple[NDArray[np.float32], Carry, PlanView | None]:
        """Actions in [-1, 1] for n environments: plans go on, or are made.

        Args:
            raw: `[n, O + G]`, observation and achieved goal.
            goals: `[n, G]`.
            carry: running plans, None for none.
            deterministic: whether the planner's noise is always the same.
            search: how to look for plans; None for the policy's own way.

        Returns:
            Actions `[n, A]`, running plans, and the first one to look at.
        """
        size = self.action_space.shape[0]
        if not len(raw):
            return np.zeros((0, size), np.float32), self._blank(0), None
        carry = self._blank(len(raw)) if carry is None else carry.copy()
        states = self._located(raw, carry)
        start = torch.from_numpy(states).to(self.device)
        stale = ~self._on_course(states, goals, carry)
        virtual = None
        if stale.any():
            search = search or Search(self.planner, self.criteria)
            virtual = self._replan(stale, start, goals, carry, deterministic, search)
        actions = self._corrected(start, goals, carry)
        view = self._view(carry, bool(stale[0]), virtual if stale[0] else None)
        carry.step[:] += 1
        return actions, carry, view

    def _located(self, raw: NDArray[np.float32], carry: Carry) -> NDArray[np.float32]:
        """States `[n, S]` [model units]; what nothing changes is what running plans have, as long as it looks alike."""
        world = self._known()
        return carry.held(world.encode(raw).cpu().numpy(), world.model.unchanging, self.near)

    def _on_course(self, start: NDArray[np.float32], goals: NDArray[np.float32], carry: Carry) -> NDArray[np.bool_]:
        """True where a plan for this goal is running, is not at its end, and reality follows it."""
        rows = np.arange(len(start))
        step = np.minimum(carry.step, self.horizon)
        off = np.linalg.norm(start - carry.states[rows, step], axis=-1)
        left = (carry.step < self.horizon) & (carry.accepted | (carry.step < self.commit))
        return carry.aims_at(goals) & left & (off <= self.near)

    @property
    def near(self) -> float:
        """How far states are from what was predicted where all goes well, at most [model units]."""
        return max(2 * self._known().error, 1e-3)

    def _replan(
        self,
        stale: NDArray[np.bool_],
        start: Tensor,
        goals: NDArray[np.float32],
        carry: Carry,
        deterministic: bool,
        search: Search,
    ) -> NDArray[np.float32] | None:
        """Makes new plans for the stale rows, in place; returns the virtual states of the first of them."""
        world = self._known()
        rows = np.flatnonzero(stale)
        warm_rows = carry.aims_at(goals)[rows]
        seed = self.seed if deterministic else int(self._draws.integers(2**31))
        seen: list[GraspState] = []

        def watch(_: int, state: Any) -> None:
            seen[:] = [state] if isinstance(state, GraspState) else []

        # Rows with and without a running plan are planned apart, so that a row's plan does not depend on the others.
        virtual = None
        for warm in (True, False):
            chosen = rows[warm_rows == warm]
            if not len(chosen):
                continue
            chosen_start = start[torch.from_numpy(chosen)]
            problem = world.problem(chosen_start, goals[chosen], self.horizon, search.criteria)
            running = torch.from_numpy(carry.rows(chosen).remaining()).to(self.device) if warm else None
            plan = search.planner.plan(problem, warm=running, seed=seed, on_step=watch)
            self._store(carry, chosen, plan, problem, goals)
            if chosen[0] == 0 and seen:
                virtual = world.achieved(seen[0].states[0])
        return virtual

    def _store(
        self, carry: Carry, rows: NDArray[np.int64], plan: Plan, problem: Problem, goals: NDArray[np.float32]
    ) -> None:
        carry.actions[rows] = plan.actions.cpu().numpy()
        carry.states[rows] = torch.cat([problem.start[:, None], plan.states], 1).cpu().numpy()
        carry.accepted[rows] = plan.accepted.cpu().numpy()
        carry.goals[rows] = goals[rows]
        carry.step[rows] = 0
        carry.valid[rows] = True

    def _corrected(self, start: Tensor, goals: NDArray[np.float32], carry: Carry) -> NDArray[np.float32]:
        """The plans' present actions, each corrected by one tracking step towards the state that should follow."""
        rows = np.arange(len(goals))
        action = torch.from_numpy(carry.actions[rows, carry.step]).to(start)
        target = torch.from_numpy(carry.states[rows, carry.step + 1]).to(start)
        problem = self._known().problem(start, goals, self.horizon, self.criteria)
        corrected = Tracking(damping=self.criteria.damping).correct_together(problem, start, target, action)
        return torch.where(corrected.isfinite(), corrected, action).clamp(-1, 1).cpu().numpy()

    def _remembered(
        self, raw: NDArray[np.float32], goals: NDArray[np.float32], deterministic: bool
    ) -> tuple[NDArray[np.float32], Carry]:
        key = raw.tobytes() + goals.tobytes() + bytes([deterministic])
        last, known = self._answer, self._carry
        if last is not None and known is not None and last.key == key and last.repeats < _PATIENCE:
            self._answer = last._replace(repeats=last.repeats + 1)
            self.last_plan = self.last_plan and self.last_plan._replace(fresh=False)
            return last.actions, known.copy()
        if known is not None and len(known.step) != len(raw):
            known = None
        stuck = known is not None and last is not None and last.key == key
        if stuck and known and not self._on_course(self._located(raw, known), goals, known).all():
            known, deterministic = None, False  # the same plan would not work any better
        actions, self._carry, self.last_plan = self.decide(raw, goals, known, deterministic)
        self._answer = _Answer(key, actions, 0)
        return actions, self._carry.copy()

    def _dropped(
        self, state: tuple[NDArray[Any], ...] | None, episode_start: NDArray[np.bool_] | None, count: int
    ) -> Carry:
        """The plans of `state` without those of environments that begin a new episode."""
        if state is None:
            return self._blank(count)
        carry = Carry.of(state, count)
        if episode_start is not None:
            carry.valid[np.asarray(episode_start, dtype=bool)] = False
        return carry

    def _blank(self, count: int) -> Carry:
        world = self._known()
        size, state = self.action_space.shape[0], len(world.state_map.columns)
        return Carry.blank(count, self.horizon, size, state, len(world.state_map.goal_index))

    def _view(self, carry: Carry, fresh: bool, virtual: NDArray[np.float32] | None) -> PlanView:
        path = self._known().achieved(torch.from_numpy(carry.states[0]).to(self.device))
        empty = np.zeros((0, self.horizon, path.shape[-1]), np.float32)
        shown = empty if virtual is None else virtual
        return PlanView(path, shown, int(carry.step[0]), fresh, bool(carry.accepted[0]))

    def to_space(self, actions: NDArray[np.float32]) -> NDArray[Any]:
        """Actions in [-1, 1] as actions of the space: cast first, then clipped."""
        space = self.action_space
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        scaled = low + (actions.astype(np.float64) + 1) / 2 * (high - low)
        return np.clip(scaled.astype(space.dtype), space.low, space.high)

    def _known(self) -> World:
        if self._world is None:
            raise RuntimeError("expected a learned world model")
        return self._world

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        """Stable-Baselines3's hook on tensors."""
        actions, _ = self.predict(observation, episode_start=None, deterministic=deterministic)
        return torch.as_tensor(actions)
