"""Model-predictive control: executes plans with feedback, and replans where `ReplanRule` requires it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grasp_agent.agent.plan_state import PlanState
from grasp_agent.models.world import World
from grasp_agent.planners import Criteria, GraspState, Plan, Planner, Problem, Tracking
from grasp_agent.validation import more_than, whole

Array = NDArray[np.float32]
_SMALLEST_RADIUS = 1e-3  # of `ReplanRule.radius`, for models that are almost exact [model units]; chosen by hand


class PlanView(NamedTuple):
    """The plan of the first environment, for drawing."""

    path: Array
    """`[H + 1, G]`, predicted achieved goals from the state at which the plan was made [the environment's units]."""
    virtual: Array
    """`[N, H, G]`, virtual states of the candidates when the plan was made; empty if there were none."""
    step: int
    """Index of the action being executed."""
    fresh: bool
    """Whether the plan was made in this call."""
    accepted: bool
    """Whether it was accepted, see `Criteria.accept`."""


@dataclass(frozen=True, kw_only=True)
class ReplanRule:
    """When a running plan is replaced.

    A plan is kept as long as its goal is the same, it is not at its end, and observations stay near its predictions.

    Attributes:
        commit: steps after which a plan that was not accepted is replaced.
        deviation: largest distance of a state from its prediction, in multiples of the model's error, the 99 %
            quantile of the one-step error on held-out data.
        patience: how often the same observation in a row gets the same action, where a policy keeps its plan between
            calls; after that the plan counts as failed, and a new one is made with another seed of noise.

    Raises:
        ValueError: if a number is out of range.
    """

    commit: int = 8
    deviation: float = 2.0
    patience: int = 8

    def __post_init__(self) -> None:
        whole(1, commit=self.commit, patience=self.patience)
        more_than(0, deviation=self.deviation)

    def radius(self, world: World) -> float:
        """Returns the largest distance of states from their predictions [model units]."""
        return max(self.deviation * world.error, _SMALLEST_RADIUS)

    def on_course(self, states: Array, goals: Array, plans: PlanState, radius: float) -> NDArray[np.bool_]:
        """Returns where plans are kept, `[n]`, for states `[n, S]` [model units] and goals `[n, G]`."""
        horizon, rows = plans.actions.shape[1], np.arange(len(states))
        off = np.linalg.norm(states - plans.states[rows, np.minimum(plans.step, horizon)], axis=-1)
        left = (plans.step < horizon) & (plans.accepted | (plans.step < self.commit))
        return plans.aims_at(goals) & left & (off <= radius)


class PlannerSettings(NamedTuple):
    """A planner, and the criteria by which its plans are scored."""

    planner: Planner[Any]
    criteria: Criteria


class Controller:
    """Turns states and goals into actions, by plans that are kept from call to call.

    Args:
        planner: any planner of the family.
        horizon: steps of a plan.
        criteria: how plans are scored.
        rule: when plans are replaced.
        seed: seed of the planner's noise.
    """

    def __init__(
        self, planner: Planner[Any], horizon: int, criteria: Criteria, rule: ReplanRule, seed: int = 0
    ) -> None:
        whole(1, horizon=horizon)
        self.planner, self.horizon, self.criteria, self.rule = planner, horizon, criteria, rule
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Draws the planner's noise from another seed."""
        self.seed, self.random = seed, np.random.default_rng(seed)

    def blank(self, world: World, count: int) -> PlanState:
        """Returns the state of `count` environments without plans."""
        sizes = world.model.action_size, len(world.state_map.columns), len(world.state_map.goal_index)
        return PlanState.blank(count, self.horizon, *sizes)

    def encode(self, world: World, raw: Array, plans: PlanState) -> Array:
        """Returns states `[n, S]` [model units], with the static factors of the running plans where these are near."""
        states = world.encode(raw).cpu().numpy()
        return plans.held(states, world.model.unchanging, self.rule.radius(world))

    def on_course(self, world: World, raw: Array, goals: Array, plans: PlanState) -> NDArray[np.bool_]:
        """Returns where plans are kept, `[n]`; see `ReplanRule`."""
        return self.rule.on_course(self.encode(world, raw, plans), goals, plans, self.rule.radius(world))

    def decide(
        self,
        world: World,
        raw: Array,
        goals: Array,
        plans: PlanState | None,
        deterministic: bool,
        settings: PlannerSettings | None = None,
    ) -> tuple[Array, PlanState, PlanView | None]:
        """Chooses actions in [-1, 1] for n environments, from running plans or new ones.

        Args:
            world: the learned world model.
            raw: `[n, O + G]`, observation and achieved goal.
            goals: `[n, G]`.
            plans: running plans, None for none.
            deterministic: whether the planner's noise is the same in each call.
            settings: planner and criteria of new plans; None for the controller's own.

        Returns:
            Actions `[n, A]`, running plans, and a view of the first one.

        """
        if not len(raw):
            return np.zeros((0, world.model.action_size), np.float32), self.blank(world, 0), None
        fits = plans is not None and plans.actions.shape[1] == self.horizon  # else the horizon was changed meanwhile
        plans = plans.copy() if plans is not None and fits else self.blank(world, len(raw))
        states = self.encode(world, raw, plans)
        problem = world.problem(torch.from_numpy(states).to(world.device), goals, self.horizon, self.criteria)
        stale = ~self.rule.on_course(states, goals, plans, self.rule.radius(world))
        virtual = None
        if stale.any():
            virtual = self._replan(world, problem, stale, goals, plans, deterministic, settings)
        actions = self._corrected(problem, plans)
        view = _view(world, plans, bool(stale[0]), virtual if stale[0] else None)
        plans.step[:] += 1
        return actions, plans, view

    def _replan(
        self,
        world: World,
        problem: Problem,
        stale: NDArray[np.bool_],
        goals: Array,
        plans: PlanState,
        deterministic: bool,
        settings: PlannerSettings | None,
    ) -> Array | None:
        """Makes new plans for the stale rows, in place; returns the virtual states of the first of them."""
        planner, criteria = settings or PlannerSettings(self.planner, self.criteria)
        rows = np.flatnonzero(stale)
        warm_rows = plans.aims_at(goals)[rows]
        seed = self.seed if deterministic else int(self.random.integers(2**31))
        latest: list[GraspState] = []

        def keep_latest(_: int, state: Any) -> None:
            latest[:] = [state] if isinstance(state, GraspState) else []

        # Rows with and without a running plan are planned separately: a row's plan does not depend on the others.
        virtual = None
        for warm in (True, False):
            chosen = rows[warm_rows == warm]
            if not len(chosen):
                continue
            part = problem
            if len(chosen) < len(goals) or criteria != problem.criteria:
                part = world.problem(problem.start[torch.from_numpy(chosen)], goals[chosen], self.horizon, criteria)
            running = torch.from_numpy(plans.rows(chosen).remaining()).to(part.start.device) if warm else None
            plan = planner.plan(part, warm=running, seed=seed, on_step=keep_latest)
            _store(plans, chosen, plan, part, goals)
            if chosen[0] == 0 and latest:
                virtual = world.achieved(latest[0].states[0])
        return virtual

    def _corrected(self, problem: Problem, plans: PlanState) -> Array:
        """Returns the plans' present actions, each corrected by one tracking step towards the next predicted state."""
        rows = np.arange(problem.size)
        action = torch.from_numpy(plans.actions[rows, plans.step]).to(problem.start)
        target = torch.from_numpy(plans.states[rows, plans.step + 1]).to(problem.start)
        tracking = Tracking(damping=self.criteria.damping)
        corrected = tracking.correct_together(problem, problem.start, target, action)
        return torch.where(corrected.isfinite(), corrected, action).clamp(-1, 1).cpu().numpy()


def _store(plans: PlanState, rows: NDArray[np.int64], plan: Plan, problem: Problem, goals: Array) -> None:
    plans.actions[rows] = plan.actions.cpu().numpy()
    plans.states[rows] = torch.cat([problem.start[:, None], plan.states], 1).cpu().numpy()
    plans.accepted[rows] = plan.accepted.cpu().numpy()
    plans.goals[rows] = goals[rows]
    plans.step[rows] = 0
    plans.valid[rows] = True


def _view(world: World, plans: PlanState, fresh: bool, virtual: Array | None) -> PlanView:
    path = world.achieved(torch.from_numpy(plans.states[0]).to(world.device))
    shown: Tensor | Array = np.zeros((0, len(path) - 1, path.shape[-1]), np.float32) if virtual is None else virtual
    return PlanView(path, np.asarray(shown), int(plans.step[0]), fresh, bool(plans.accepted[0]))
