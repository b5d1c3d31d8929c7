"""Exploration: time-correlated noise first, then plans to where the model knows least, and to the task's goals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from grasp_agent.agent.controller import Search
from grasp_agent.agent.plan_state import PlanState
from grasp_agent.agent.policy import WorldModelPolicy
from grasp_agent.planners import Planner
from grasp_agent.validation import whole

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ExploreConfig:
    """How experience is gathered.

    Attributes:
        learning_starts: environment steps before the first model is fitted.
        refit_growth: the model is fitted anew whenever the data have grown by this factor.
        longest_hold: random actions are held for up to this many steps.
        frontier_share: share of the later episodes that go to a rarely visited place first and explore from there
            (Ecoffet et al. 2021, arXiv 2004.12919); the others pursue the task's goal first.
        hold: steps at the task's goal before such an episode goes on to a rarely visited place, too.
        noise: standard deviation of the noise on planned actions, as a share of half their range.
        surprise_share: chance that a plan which reality did not follow is given up for a burst of random actions.
        rest: share of the random actions that are 0, in the middle of their range. Where that is to do nothing, how
            well a model knows what happens then decides how long a plan can keep a goal without being corrected.

    Raises:
        ValueError: if a number is out of range.
    """

    learning_starts: int = 500
    refit_growth: float = 1.5
    longest_hold: int = 16
    frontier_share: float = 0.5
    hold: int = 10
    noise: float = 0.1
    surprise_share: float = 0.5
    rest: float = 0.0

    def __post_init__(self) -> None:
        whole(1, learning_starts=self.learning_starts, longest_hold=self.longest_hold, hold=self.hold)
        if not self.refit_growth > 1:
            raise ValueError(f"refit_growth: expected more than 1, got {self.refit_growth}")
        for name in ("frontier_share", "surprise_share", "rest"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a share in [0, 1], got {getattr(self, name)}")
        if not self.noise >= 0:
            raise ValueError(f"noise: expected at least 0, got {self.noise}")


class Explorer:
    """Chooses the actions of n environments while the agent learns.

    Args:
        count: n.
        action_size: A.
        config: how.
        seed: of everything random.
    """

    def __init__(self, count: int, action_size: int, config: ExploreConfig, seed: int) -> None:
        self._config = config
        self._random = np.random.default_rng(seed)
        self._held = np.zeros((count, action_size), np.float32)
        self._left = np.zeros(count, np.int64)
        self._scale = np.ones(count)
        self._planning = np.zeros(count, np.bool_)
        self._burst = np.zeros(count, np.int64)
        self._places = np.zeros((count, 0), np.float32)
        self._to_frontier = np.zeros(count, np.bool_)
        self._kept = np.zeros(count, np.int64)
        self._carry: PlanState | None = None
        self._frontier: tuple[Array, NDArray[np.float64]] | None = None
        for row in range(count):
            self.begin(row)

    def learned(self, policy: WorldModelPolicy, states: torch.Tensor) -> None:
        """A new model has been fitted on states `[M, S]` [model units]: plans and frontier are drawn anew."""
        world = policy.world
        if world is None:
            return
        points = world.index.points
        nearest = torch.cdist(states[-50_000:], points).argmin(-1)
        visits = torch.bincount(nearest, minlength=len(points)).double().cpu().numpy()
        places = world.achieved(points)
        chances = 1 / np.maximum(visits, 1) ** 2
        self._frontier = places, chances / chances.sum()
        self._places = np.zeros((len(self._held), places.shape[1]), np.float32)
        self._carry = None
        for row in range(len(self._held)):
            self.begin(row)

    def begin(self, row: int) -> None:
        """An episode begins: what it is for is drawn."""
        self._left[row] = self._burst[row] = 0
        self._scale[row] = self._config.longest_hold ** self._random.uniform()
        self._planning[row] = self._frontier is not None
        self._kept[row] = 0
        if self._planning[row]:
            self._aim(row, to_frontier=self._random.uniform() < self._config.frontier_share)

    def _aim(self, row: int, *, to_frontier: bool) -> None:
        """The task's goal, or a place that was rarely visited; a plan for another one is given up."""
        assert self._frontier is not None
        places, chances = self._frontier
        self._to_frontier[row], self._kept[row] = to_frontier, 0
        self._places[row] = places[self._random.choice(len(places), p=chances)]
        if self._carry is not None:
            self._carry.valid[row] = False

    def act(self, policy: WorldModelPolicy, raw: Array, achieved: Array, desired: Array) -> Array:
        """Actions `[n, A]` in [-1, 1] for observations `[n, O + G]` and goals `[n, G]`."""
        actions = self._random_actions()
        world = policy.world
        if world is None or not self._planning.any():
            return actions
        self._arrive(world.goal_distance(achieved, self._aims(desired)) <= world.tolerance)
        rows = np.flatnonzero(self._planning & (self._burst == 0))
        self._burst = np.maximum(self._burst - 1, 0)
        if not len(rows):
            return actions
        aims = self._aims(desired)
        carry = None if self._carry is None else self._carry.rows(rows)
        planned, after, _ = policy.decide(raw[rows], aims[rows], carry, deterministic=False, search=_light(policy))
        if carry is not None:
            self._surprise(rows[carry.valid & (carry.step < policy.controller.rule.commit) & (after.step == 1)])
        noise = self._random.normal(0, self._config.noise, planned.shape)
        actions[rows] = np.clip(planned + noise, -1, 1)
        # Own noise is no surprise: what is expected next is what should follow the action really taken.
        after.states[np.arange(len(rows)), after.step] = world.predict(raw[rows], actions[rows]).cpu().numpy()
        self._keep(rows, after, len(raw))
        return actions

    def _aims(self, desired: Array) -> Array:
        return np.where(self._to_frontier[:, None], self._places, desired)

    def _arrive(self, near: NDArray[np.bool_]) -> None:
        """Goes on from the frontier at random, and from a goal that was held for long enough to the frontier."""
        there = self._planning & near
        self._planning &= ~(self._to_frontier & there)
        self._kept = np.where(there, self._kept + 1, 0)
        for row in map(int, np.flatnonzero(self._kept >= self._config.hold)):
            self._aim(row, to_frontier=True)

    def _surprise(self, rows: NDArray[np.int64]) -> None:
        """Plans of these rows had to be made anew: some give way to a burst of random actions."""
        for row in rows:
            if self._random.uniform() < self._config.surprise_share:
                self._burst[row] = 1 + self._random.integers(self._config.longest_hold)

    def _keep(self, rows: NDArray[np.int64], plans: PlanState, count: int) -> None:
        kept = self._carry
        if kept is None or kept.actions.shape[1] != plans.actions.shape[1]:
            _, horizon, action_size = plans.actions.shape
            kept = PlanState.blank(count, horizon, action_size, plans.states.shape[-1], plans.goals.shape[-1])
            self._carry = kept
        kept.put(rows, plans)

    def _random_actions(self) -> Array:
        """Actions held for a random time, whose typical length each episode draws for itself."""
        for row in np.flatnonzero(self._left == 0):
            size = np.sqrt(self._random.uniform())
            self._held[row] = size * self._random.uniform(-1, 1, self._held.shape[1])
            if self._config.rest and self._random.uniform() < self._config.rest:
                self._held[row] = 0
            self._left[row] = 1 + self._random.integers(np.ceil(self._scale[row]))
        self._left -= 1
        return self._held.copy()


def _light(policy: WorldModelPolicy) -> Search:
    """A light search, and no fear of the unknown: a model that is still poor is not worth more."""
    planner: Planner[Any] = policy.controller.planner
    iterations = min(planner.iterations, planner.opening or planner.verify_every)
    candidates = min(planner.candidates, max(4, planner.candidates // 4))
    return Search(
        replace(planner, candidates=candidates, iterations=iterations),
        replace(policy.controller.criteria, off_support=0.0),
    )
