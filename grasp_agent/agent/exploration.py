"""Exploration: time-correlated noise first, then plans to rarely visited states and the task's goals, and beyond."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from grasp_agent.agent.controller import PlannerSettings
from grasp_agent.agent.novelty import Visited, novel_actions
from grasp_agent.agent.plan_state import MEMORY, PlanState
from grasp_agent.agent.policy import WorldModelPolicy
from grasp_agent.models.precision import single_precision
from grasp_agent.models.world import World
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
        longest_hold: random actions, and those that lead to unknown states, are held for up to this many steps.
        frontier_share: fraction of the later episodes that first go to a rarely visited state and explore from there
            (Ecoffet et al. 2021, arXiv 2004.12919); the others first pursue the task's goal.
        hold: steps at the task's goal before such an episode also goes to a rarely visited state.
        noise: standard deviation of the noise on planned actions, as a fraction of half their range.
        surprise_share: probability that a plan from which the environment deviated is replaced by some steps to unknown
            states.
        visit_exponent: k; targets at the frontier are drawn with probabilities proportional to `visits ** -k`.
        wander: steps to unknown states once a rarely visited one is reached, or given up, where states are positions.
        give_up: surprises after which a target is given up for a rarely visited state.
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
    wander: int = 32
    give_up: int = 3

    def __post_init__(self) -> None:
        whole(1, learning_starts=self.learning_starts, longest_hold=self.longest_hold, hold=self.hold)
        whole(1, give_up=self.give_up)
        whole(0, wander=self.wander)
        more_than(1, refit_growth=self.refit_growth, kind_growth=self.kind_growth)
        at_least(0, visit_exponent=self.visit_exponent, noise=self.noise)
        fraction(frontier_share=self.frontier_share, surprise_share=self.surprise_share, rest=self.rest)


class Explorer:
    """Chooses the actions of n environments while the agent learns.

    Before there is a model, actions are random. Then each environment has a target, to which it plans, and wanders
    where it has arrived at a rarely visited state, and after surprises: to unknown states (see `novel_actions`) where
    states are positions, else at random, as velocities are easily new (PointMaze, 2,000 steps: success .94 -> .32).

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
        self._wandering = np.zeros(count, np.int64)
        self._surprises = np.zeros(count, np.int64)
        self._frontier_goals = np.zeros((count, 0), np.float32)
        self._to_frontier = np.zeros(count, np.bool_)
        self._steps_at_goal = np.zeros(count, np.int64)
        self._plans: PlanState | None = None
        self._frontier: tuple[Array, NDArray[np.float64]] | None = None
        self._visited: Visited | None = None
        self._seeks_unknown = False
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
        self._plans, self._visited = None, Visited(points, world.state_map.goal_index)
        self._seeks_unknown = world.is_positional
        for row in range(len(self._held_action)):
            self.begin(row)

    def begin(self, row: int) -> None:
        """Starts an episode: draws its target."""
        self._hold_left[row] = self._wandering[row] = 0
        self._scale[row] = self._config.longest_hold ** self._random.uniform()
        if self._plans is not None:
            self._plans.begin_episodes(np.array([row]))
        if self._frontier is not None:
            self._draw_target(row, to_frontier=self._random.uniform() < self._config.frontier_share)

    def _draw_target(self, row: int, *, to_frontier: bool) -> None:
        """Draws a target, the task's goal or a rarely visited state; a plan for another one is discarded."""
        assert self._frontier is not None
        goals, chances = self._frontier
        self._to_frontier[row] = to_frontier
        self._steps_at_goal[row] = self._surprises[row] = 0
        self._frontier_goals[row] = goals[self._random.choice(len(goals), p=chances)]
        if self._plans is not None:
            self._plans.valid[row] = False

    @single_precision()
    def act(self, policy: WorldModelPolicy, raw: Array, achieved: Array, desired: Array) -> Array:
        """Returns actions `[n, A]` in [-1, 1] for observations `[n, O + G]` and goals `[n, G]`."""
        world = policy.world
        if world is None or self._visited is None:
            return self._random_actions()
        states = world.encode(raw)
        self._visited.add(states)
        self._update_targets(world.goal_distance(achieved, self._targets(desired)) <= world.tolerance)
        wandering = self._wandering > 0
        actions = np.zeros_like(self._held_action)
        if not wandering.all():
            self._plan(policy, np.flatnonzero(~wandering), actions, raw, self._targets(desired))
        if wandering.any():
            self._wander(world, np.flatnonzero(wandering), actions, states)
        return actions

    def _plan(
        self, policy: WorldModelPolicy, rows: NDArray[np.int64], actions: Array, raw: Array, targets: Array
    ) -> None:
        """Sets the actions of some environments to those of plans to their targets, with noise."""
        world, running = policy.world, None if self._plans is None else self._plans.rows(rows)
        assert world is not None
        planned, after, _ = policy.decide(
            raw[rows], targets[rows], running, deterministic=False, settings=_exploration_settings(policy)
        )
        if running is not None:
            remade = running.valid & (running.step < policy.controller.rule.commit) & (after.step == 1)
            self._surprise(rows[remade | (after.refusals > running.refusals)])
        noise = self._random.normal(0, self._config.noise, planned.shape)
        actions[rows] = np.clip(planned + noise, -1, 1)
        # Own noise is no surprise: what is expected next is what should follow the action really taken. It is not
        # corrected later: data that wander around the plan taught more (Wall, each of three tuning seeds).
        expected = world.predict(raw[rows], actions[rows]).cpu().numpy()
        after.states[np.arange(len(rows)), after.step] = after.expected[:] = expected
        self._plans_of(len(raw), world, after.actions.shape[1]).put(rows, after)

    def _wander(self, world: World, rows: NDArray[np.int64], actions: Array, states: torch.Tensor) -> None:
        """Sets the actions of some environments to those that lead to unknown states, held for some steps."""
        assert self._visited is not None
        self._wandering[rows] -= 1
        if not self._seeks_unknown:
            actions[rows] = self._random_actions()[rows]
            return
        plans = self._plans_of(len(self._wandering), world)
        known = states.cpu().numpy()
        refused = plans.refusing(known, world.step_size / 2)
        refused[np.setdiff1d(np.arange(len(refused)), rows)] = False
        plans.remember_refused(np.flatnonzero(refused), known)
        self._hold_left[refused] = 0
        for row in rows[self._hold_left[rows] <= 0]:
            self._held_action[row], self._hold_left[row] = novel_actions(
                world, states[row], self._visited, plans.refused[row], self._config.longest_hold, self._random
            )
        self._hold_left[rows] -= 1
        actions[rows] = self._held_action[rows]
        plans.before[rows] = known[rows]
        plans.expected[rows] = world.step(states[rows], torch.from_numpy(actions[rows]).to(states.device)).cpu().numpy()

    def _targets(self, desired: Array) -> Array:
        return np.where(self._to_frontier[:, None], self._frontier_goals, desired)

    def _update_targets(self, near: NDArray[np.bool_]) -> None:
        """Wanders from the frontier, and goes to the frontier from a goal that was held long enough."""
        there = near & (self._wandering == 0)
        self._steps_at_goal = np.where(there, self._steps_at_goal + 1, 0)
        for row in map(int, np.flatnonzero(there)):
            if self._to_frontier[row]:
                self._begin_wandering(row)
            if self._to_frontier[row] or self._steps_at_goal[row] >= self._config.hold:
                self._draw_target(row, to_frontier=True)

    def _begin_wandering(self, row: int) -> None:
        """Lets an environment wander: for some steps, or at random until its episode ends."""
        self._hold_left[row] = 0
        self._wandering[row] = self._config.wander if self._seeks_unknown else np.iinfo(np.int64).max

    def _surprise(self, rows: NDArray[np.int64]) -> None:
        """Lets some of these environments wander before they plan again.

        After some surprises on the way to a target, another one is drawn.
        """
        for row in map(int, rows):
            self._surprises[row] += 1
            if self._seeks_unknown and self._surprises[row] >= self._config.give_up:
                self._begin_wandering(row)
                self._draw_target(row, to_frontier=True)
            elif self._random.uniform() < self._config.surprise_share:
                self._wandering[row] = 1 + self._random.integers(self._config.longest_hold)
                self._hold_left[row] = 0

    def _plans_of(self, count: int, world: World, horizon: int = 1) -> PlanState:
        """Returns the running plans of all `count` environments."""
        known = self._plans
        if known is None or (horizon > 1 and known.actions.shape[1] != horizon):
            size, entries = world.model.action_size, len(world.state_map.goal_index)
            known = PlanState.blank(count, horizon, size, world.model.state_size, entries)
            if self._plans is not None:
                known = known._replace(**{name: getattr(self._plans, name) for name in MEMORY})
            self._plans = known
        return known

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
