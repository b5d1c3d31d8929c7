"""Exploration: time-correlated noise first, then plans to rarely visited states and to the task's goals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from grasp_agent.agent.controller import PlannerSettings
from grasp_agent.agent.plan_state import PlanState
from grasp_agent.agent.policy import WorldModelPolicy
from grasp_agent.models.precision import single_precision
from grasp_agent.planners import Planner
from grasp_agent.planners.chunks import chunked
from grasp_agent.validation import at_least, fraction, more_than, whole

Array = NDArray[np.float32]
_COUNTED = 50_000  # latest states whose visits are counted, which limits the cost of counting


@dataclass(frozen=True, kw_only=True)
class ExploreConfig:
    """How experience is gathered.

    Attributes:
        learning_starts: environment steps before the first model is fitted.
        refit_growth: the model is refitted whenever the data have grown by this factor.
        kind_growth: the kind of network is chosen again when the data have grown by this factor since the last choice.
        longest_hold: random actions are held for up to this many steps.
        frontier_share: fraction of the later episodes that first go to a rarely visited state and explore from there
            (Ecoffet et al. 2021, arXiv 2004.12919); the others first pursue the task's goal.
        hold: steps at the task's goal before such an episode also goes to a rarely visited state.
        noise: standard deviation of the noise on planned actions, as a fraction of half their range.
        surprise_share: probability that a plan from which the environment deviated is replaced by a burst of random
            actions.
        visit_exponent: k; targets at the frontier are drawn with probabilities proportional to `visits ** -k`.
        rest: fraction of the random actions that are 0, the middle of their range. Where action 0 is rest, the model's
            accuracy at rest decides how long a plan can hold a goal without correction.

    Raises:
        ValueError: if a number is out of range.
    """

    learning_starts: int = 500
    refit_growth: float = 1.5
    kind_growth: float = 2.0
    longest_hold: int = 16
    frontier_share: float = 0.5
    hold: int = 10
    noise: float = 0.1
    surprise_share: float = 0.5
    visit_exponent: float = 2.0
    rest: float = 0.0

    def __post_init__(self) -> None:
        whole(1, learning_starts=self.learning_starts, longest_hold=self.longest_hold, hold=self.hold)
        more_than(1, refit_growth=self.refit_growth, kind_growth=self.kind_growth)
        at_least(0, visit_exponent=self.visit_exponent, noise=self.noise)
        fraction(frontier_share=self.frontier_share, surprise_share=self.surprise_share, rest=self.rest)


class Explorer:
    """Chooses the actions of n environments while the agent learns.

    Args:
        count: n.
        action_size: A.
        config: how experience is gathered.
        seed: of everything random.
    """

    def __init__(self, count: int, action_size: int, config: ExploreConfig, seed: int) -> None:
        self._config = config
        self._random = np.random.default_rng(seed)
        self._held_action = np.zeros((count, action_size), np.float32)
        self._hold_left = np.zeros(count, np.int64)
        self._scale = np.ones(count)
        self._planning = np.zeros(count, np.bool_)
        self._burst = np.zeros(count, np.int64)
        self._frontier_goals = np.zeros((count, 0), np.float32)
        self._to_frontier = np.zeros(count, np.bool_)
        self._steps_at_goal = np.zeros(count, np.int64)
        self._plans: PlanState | None = None
        self._frontier: tuple[Array, NDArray[np.float64]] | None = None
        for row in range(count):
            self.begin(row)

    def learned(self, policy: WorldModelPolicy, states: torch.Tensor) -> None:
        """Takes over a model fitted on states `[M, S]` [model units]: resets plans, redraws the frontier."""
        world = policy.world
        if world is None:
            return
        points = world.index.points
        nearest = chunked(lambda rows: torch.cdist(rows, points).argmin(-1), states[-_COUNTED:], width=len(points))
        visits = torch.bincount(nearest, minlength=len(points)).double().cpu().numpy()
        goals = world.achieved(points)
        chances = 1 / np.maximum(visits, 1) ** self._config.visit_exponent
        self._frontier = goals, chances / chances.sum()
        self._frontier_goals = np.zeros((len(self._held_action), goals.shape[1]), goals.dtype)
        self._plans = None
        for row in range(len(self._held_action)):
            self.begin(row)

    def begin(self, row: int) -> None:
        """Starts an episode: draws its target."""
        self._hold_left[row] = self._burst[row] = 0
        self._scale[row] = self._config.longest_hold ** self._random.uniform()
        self._planning[row] = self._frontier is not None
        self._steps_at_goal[row] = 0
        if self._planning[row]:
            self._draw_target(row, to_frontier=self._random.uniform() < self._config.frontier_share)

    def _draw_target(self, row: int, *, to_frontier: bool) -> None:
        """Draws a target, the task's goal or a rarely visited state; a plan for another one is discarded."""
        assert self._frontier is not None
        goals, chances = self._frontier
        self._to_frontier[row], self._steps_at_goal[row] = to_frontier, 0
        self._frontier_goals[row] = goals[self._random.choice(len(goals), p=chances)]
        if self._plans is not None:
            self._plans.valid[row] = False

    @single_precision()
    def act(self, policy: WorldModelPolicy, raw: Array, achieved: Array, desired: Array) -> Array:
        """Returns actions `[n, A]` in [-1, 1] for observations `[n, O + G]` and goals `[n, G]`."""
        actions = self._random_actions()
        world = policy.world
        if world is None or not self._planning.any():
            return actions
        self._update_targets(world.goal_distance(achieved, self._targets(desired)) <= world.tolerance)
        rows = np.flatnonzero(self._planning & (self._burst == 0))
        self._burst = np.maximum(self._burst - 1, 0)
        if not len(rows):
            return actions
        targets = self._targets(desired)
        running = None if self._plans is None else self._plans.rows(rows)
        planned, after, _ = policy.decide(
            raw[rows], targets[rows], running, deterministic=False, settings=_exploration_settings(policy)
        )
        if running is not None:
            self._start_bursts(rows[running.valid & (running.step < policy.controller.rule.commit) & (after.step == 1)])
        noise = self._random.normal(0, self._config.noise, planned.shape)
        actions[rows] = np.clip(planned + noise, -1, 1)
        # Own noise is no surprise: what is expected next is what should follow the action really taken. It is not
        # corrected later: data that wander around the plan taught more (Wall, each of three tuning seeds).
        expected = world.predict(raw[rows], actions[rows]).cpu().numpy()
        after.states[np.arange(len(rows)), after.step] = expected
        self._store_plans(rows, after, len(raw))
        return actions

    def _targets(self, desired: Array) -> Array:
        return np.where(self._to_frontier[:, None], self._frontier_goals, desired)

    def _update_targets(self, near: NDArray[np.bool_]) -> None:
        """Continues at random from the frontier, and to the frontier from a goal that was held long enough."""
        there = self._planning & near
        self._planning &= ~(self._to_frontier & there)
        self._steps_at_goal = np.where(there, self._steps_at_goal + 1, 0)
        for row in map(int, np.flatnonzero(self._steps_at_goal >= self._config.hold)):
            self._draw_target(row, to_frontier=True)

    def _start_bursts(self, rows: NDArray[np.int64]) -> None:
        """Replaces some of the plans of these rows, which had to be remade, by bursts of random actions."""
        for row in rows:
            if self._random.uniform() < self._config.surprise_share:
                self._burst[row] = 1 + self._random.integers(self._config.longest_hold)

    def _store_plans(self, rows: NDArray[np.int64], plans: PlanState, count: int) -> None:
        stored = self._plans
        if stored is None or stored.actions.shape[1] != plans.actions.shape[1]:
            _, horizon, action_size = plans.actions.shape
            stored = PlanState.blank(count, horizon, action_size, plans.states.shape[-1], plans.goals.shape[-1])
            self._plans = stored
        stored.put(rows, plans)

    def _random_actions(self) -> Array:
        """Returns actions held for a random time, whose typical length each episode draws for itself."""
        for row in np.flatnonzero(self._hold_left == 0):
            size = np.sqrt(self._random.uniform())
            self._held_action[row] = size * self._random.uniform(-1, 1, self._held_action.shape[1])
            if self._config.rest and self._random.uniform() < self._config.rest:
                self._held_action[row] = 0
            self._hold_left[row] = 1 + self._random.integers(np.ceil(self._scale[row]))
        self._hold_left -= 1
        return self._held_action.copy()


def _exploration_settings(policy: WorldModelPolicy) -> PlannerSettings:
    """Returns settings for a cheap search without the penalty for unknown states: the model is still poor."""
    planner: Planner[Any] = policy.controller.planner
    iterations = min(planner.iterations, planner.opening or planner.verify_every)
    candidates = min(planner.candidates, max(4, planner.candidates // 4))
    return PlannerSettings(
        replace(planner, candidates=candidates, iterations=iterations),
        replace(policy.controller.criteria, off_support=0.0),
        watches_goal=False,  # else goals that a poor model misses count as surprises (Wall, 4 seeds: .66 -> .57)
    )
