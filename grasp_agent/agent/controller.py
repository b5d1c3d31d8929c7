"""Model-predictive control: executes plans with feedback, and replans where `ReplanRule` requires it."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import partial
from operator import methodcaller
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grasp_agent.agent.plan_state import PlanState, PlanView
from grasp_agent.agent.replan_rule import ReplanRule
from grasp_agent.agent.replanning import IMPROVING, Due, Replanning, Searches
from grasp_agent.models.world import World
from grasp_agent.planners import ContactReplay, Criteria, Planner, Problem, Roadmap, Tracking
from grasp_agent.validation import whole

Array = NDArray[np.float32]
Goals = NDArray[np.floating[Any]]
_NEARBY = 0.2  # distance of another goal that counts as near, of the distance to the goal; chosen by hand
_LEAST_TIME = 1e-6  # for a search that is late before it begins [s]
_REFUSED = 0.5  # weight of refused steps from which on they are expected to be refused again; chosen by hand
_CONTACT = 40  # `ReplanRule.commit` where contact has to be made: a plan must get there; chosen by hand
_LOST = 5.0  # multiple of the radius beyond which a plan is not followed while another is searched for; chosen by hand


class PlannerSettings(NamedTuple):
    """A planner, and the criteria by which its plans are scored."""

    planner: Planner[Any]
    criteria: Criteria
    watches_goal: bool = True
    """Whether plans that miss the goal where they predict it are replaced, and those that end there kept."""


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
        self._holding_problem: tuple[World, Criteria, Problem] | None = None
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
        return plans.held(states, world.static, self.rule.radius(world))

    def on_course(self, world: World, raw: Array, goals: Array, plans: PlanState) -> NDArray[np.bool_]:
        """Returns where plans are kept, `[n]`; see `ReplanRule`."""
        return self._on_course(world, self.encode(world, raw, plans), goals, plans)

    def _on_course(
        self, world: World, states: Array, goals: Array, plans: PlanState, delay: int = 0, watches_goal: bool = True
    ) -> NDArray[np.bool_]:
        rule = replace(self.rule, commit=max(self.rule.commit, _CONTACT)) if world.makes_contact else self.rule
        kept = rule.on_course(states, goals, plans, rule.radius(world), delay)
        kept &= world.touches(states, plans.ahead(0))
        if not watches_goal:
            return kept
        present, predicted = world.at_goal(np.stack([states, plans.ahead(0)]), goals)
        return kept & (present | ~predicted)

    def _stays(
        self, world: World, states: Array, goals: Array, plans: PlanState, rows: NDArray[np.int64], found: PlanState
    ) -> NDArray[np.bool_]:
        """See `Stay`: where running plans end in the present states, at the goal, and new ones would leave it."""
        states, goals, plans = states[rows], goals[rows], plans.rows(rows)
        last = plans.states[:, -1]
        near = np.linalg.norm(states - last, axis=-1) <= self.rule.radius(world)
        arrived = plans.aims_at(goals) & near & world.at_goal(np.stack([states, last]), goals).all(0)
        return arrived & ~found.accepted & ~world.at_goal(found.states.swapaxes(0, 1), goals).all(0)

    def decide(
        self,
        world: World,
        raw: Array,
        goals: Array,
        plans: PlanState | None,
        deterministic: bool,
        settings: PlannerSettings | None = None,
        searches: Searches | None = None,
    ) -> tuple[Array, PlanState, PlanView | None]:
        """Chooses actions in [-1, 1] for n environments, from running plans or new ones.

        Args:
            world: the learned world model.
            raw: `[n, O + G]`, observation and achieved goal.
            goals: `[n, G]`.
            plans: running plans, None for none.
            deterministic: whether the planner's noise is the same in each call.
            settings: planner and criteria of new plans; None for the controller's own.
            searches: searches that go on, changed in place; None completes all searches in this call. While a search
                goes on, the running plan is followed, or, without one that is near, the state is held.

        Returns:
            Actions `[n, A]`, running plans, and a view of the first one.
        """
        if not len(raw):
            return np.zeros((0, world.model.action_size), np.float32), self.blank(world, 0), None
        before = time.perf_counter()
        fits = plans is not None and plans.actions.shape[1] == self.horizon  # else the horizon was changed meanwhile
        plans = plans.copy() if plans is not None and fits else self.blank(world, len(raw))
        states, radius = self.encode(world, raw, plans), self.rule.radius(world)
        settings, aimed = settings or self.settings, partial(_aimed, world, states, goals)
        refused = plans.refusing(states, world.step_size / 2) & plans.aims_at(goals) & world.is_positional
        plans.remember_refused(np.flatnonzero(refused), states)
        delay = 0
        if searches is not None:
            delay = min(self.horizon, searches.begin_call((*settings, self.horizon, self.rule)))
        stale = refused | ~self._on_course(world, states, goals, plans, delay, settings.watches_goal)
        if searches is not None:
            stale = (stale | searches.provisional(len(raw))) & ~searches.cover(len(raw), aimed)
        begun = []
        if stale.any():
            rows = np.flatnonzero(stale)
            failures = np.zeros(len(rows), np.int64) if searches is None else searches.failures(rows, goals[rows])
            staged = searches is not None and self.rule.work is not None
            begun = self._replannings(
                world, states, goals, rows, delay, plans, deterministic, settings, staged, failures
            )
        answer = None if searches is None else self._actions(world, states, goals, plans)
        due = methodcaller("due", states, radius)
        complete = self._advanced(begun, searches, due, settings.planner.budget, before)
        stay = partial(self._stays, world, states, goals, plans) if settings.watches_goal else _never
        stored = np.concatenate([np.zeros(0, np.int64), *(r.store(plans, states, aimed, stay) for r in complete)])
        if len(stored) or answer is None:
            answer = self._actions(world, states, goals, plans)
        virtual = complete[0].virtual if 0 in stored else None
        view = self._view(world, states, plans, bool(answer[1][0]), 0 in stored, virtual)
        # Where no step counts as refused, none need be predicted.
        plans.advance(states, self._predicted(world, states, answer[0]) if world.is_positional else states)
        return answer[0], plans, view

    def _advanced(
        self, begun: list[Replanning], searches: Searches | None, due: Due, budget: float | None, before: float
    ) -> list[Replanning]:
        """Begins replannings and goes on with others, within a budget [s] since `before`; returns what is complete."""

        def left() -> float | None:
            return None if budget is None else max(_LEAST_TIME, budget - (time.perf_counter() - before))

        if searches is None or (self.rule.work is None and budget is None and not searches):
            for replanning in begun:
                replanning.run(left())
            return begun
        work = math.inf if self.rule.work is None else self.rule.work
        return searches.advance(begun, due, work, self.rule.total_work, left())

    @property
    def settings(self) -> PlannerSettings:
        """Planner and criteria of new plans."""
        return PlannerSettings(self.planner, self.criteria)

    def _replannings(
        self,
        world: World,
        states: Array,
        goals: Array,
        rows: NDArray[np.int64],
        delay: int,
        plans: PlanState,
        deterministic: bool,
        settings: PlannerSettings,
        staged: bool,
        failures: NDArray[np.int64],
    ) -> list[Replanning]:
        """Returns what plans for some rows, from the states that are expected `delay` steps after states `[n, S]`.

        Rows with and without a running plan are planned apart, so that a row's plan does not depend on the others. If
        it is `staged`, the latter get the best of the planner's proposals: soon, instead of a better plan later. After
        `failures` `[m]`, searches whose plans were not accepted, the planner's noise is another one.
        """
        planner, criteria, *_ = settings
        seed = self.seed if deterministic else int(self.random.integers(2**31))
        lost = ~(plans.valid[rows] & _aimed(world, states, goals, rows, plans.goals[rows]))  # nothing to follow
        kinds, begun = np.stack([lost, ~plans.aims_at(goals)[rows], failures]), []
        for kind in np.unique(kinds, axis=1).T:
            chosen, (none, cold, failed) = rows[(kinds == kind[:, None]).all(0)], kind
            running = plans.rows(chosen)
            provisional = staged and bool(none) and planner.proposals is not None
            ahead = delay // IMPROVING if provisional else delay
            pose = partial(self._posed, world, states[chosen], goals[chosen], running, ahead, criteria)
            left = None if cold else torch.from_numpy(running.remaining(ahead)).to(world.device)
            source = replace(planner, iterations=0) if provisional else planner
            if world.makes_contact and _repeats_contacts(planner):
                source = replace(planner, iterations=0, proposed=planner.candidates)
            noise = seed + int(failed)
            begun.append(Replanning(source, pose, chosen, goals[chosen], left, noise, ahead, provisional))
        return begun

    def _posed(
        self, world: World, states: Array, goals: Array, plans: PlanState, ahead: int, criteria: Criteria
    ) -> tuple[Problem, Tensor]:
        later = torch.from_numpy(self._forecast(world, states, goals, plans, ahead)).to(world.device)
        refusals = world.refusals(plans.refused)
        return world.problem_on_the_way(later, goals, plans.actions.shape[1], criteria, refusals)

    def _forecast(self, world: World, states: Array, goals: Array, plans: PlanState, steps: int) -> Array:
        """Returns the states `[n, S]` to which the running plans lead in some steps, by the model."""
        plans = plans.copy()
        refusals = world.refusals(plans.refused)
        for _ in range(steps):
            actions, followed = self._actions(world, states, goals, plans)
            before, predicted = states, self._predicted(world, states, actions)
            ends = (torch.from_numpy(part).to(world.device) for part in (before, predicted))
            held = refusals.any and (refusals.crossed(*ends) > _REFUSED).cpu().numpy()
            states = np.where(np.reshape(held, (-1, 1)), before, predicted)
            if not followed.any() and (np.linalg.norm(states - before, axis=-1) <= world.error).all():
                return before  # held, and at rest as far as the model can tell
            plans.step[:] += 1
        return states

    @staticmethod
    def _predicted(world: World, states: Array, actions: Array) -> Array:
        """Returns the predicted states `[n, S]` after actions `[n, A]`; the present ones where they are not finite."""
        following = world.step(*(torch.from_numpy(part).to(world.device) for part in (states, actions))).cpu().numpy()
        return np.where(np.isfinite(following), following, states)

    def _actions(self, world: World, states: Array, goals: Array, plans: PlanState) -> tuple[Array, NDArray[np.bool_]]:
        """Returns actions `[n, A]`, and where they follow the running plans, `[n]`; elsewhere they hold the state."""
        followed = plans.usable(states, _LOST * self.rule.radius(world))
        followed &= _aimed(world, states, goals, np.arange(len(goals)), plans.goals)
        actions = plans.feedback(states)
        if not followed.all():
            actions[~followed] = self._holding(world, states[~followed], goals[~followed])
        return actions, followed

    def _holding(self, world: World, states: Array, goals: Array) -> Array:
        """Returns actions `[n, A]` that hold states `[n, S]`, as far as one step can."""
        start = torch.from_numpy(states).to(world.device)
        known = self._holding_problem
        if known is None or known[0] is not world or known[1] != self.criteria:
            known = world, self.criteria, world.problem(start[:1], goals[:1], 1, self.criteria)
            self._holding_problem = known
        problem = known[2]
        rest = problem.rest.expand(len(states), -1)
        actions = Tracking(damping=self.criteria.damping).correct_together(problem, start, start, rest)
        return torch.where(actions.isfinite(), actions, rest).cpu().numpy()

    def _view(
        self, world: World, states: Array, plans: PlanState, followed: bool, fresh: bool, virtual: Tensor | None
    ) -> PlanView:
        shown = plans.states[0] if followed else np.repeat(states[:1], self.horizon + 1, 0)
        path = world.achieved(torch.from_numpy(shown).to(world.device))
        drawn = np.zeros((0, self.horizon, path.shape[-1]), np.float32) if virtual is None else world.achieved(virtual)
        accepted = followed and bool(plans.accepted[0])
        step = min(int(plans.step[0]), self.horizon - 1) if followed else 0
        return PlanView(path, drawn, step, fresh, accepted)


def _repeats_contacts(planner: Planner[Any]) -> bool:
    """Returns whether a planner starts from recorded contacts: no iteration improves these, see `ContactReplay`."""
    source = planner.proposals
    return isinstance(source.otherwise if isinstance(source, Roadmap) else source, ContactReplay)


def _never(rows: NDArray[np.int64], found: PlanState) -> NDArray[np.bool_]:
    """See `Stay`: nowhere."""
    return np.zeros(len(rows), np.bool_)


def _aimed(world: World, states: Array, goals: Array, rows: NDArray[np.int64], others: Goals) -> NDArray[np.bool_]:
    """Returns where plans to other goals are of use, `[m]`: these are near, for the distance that is left.

    Args:
        world: the world model.
        states: `[n, S]` [model units].
        goals: `[n, G]`.
        rows: `[m]`, indices of some of the states and goals.
        others: `[m, G]`, other goals for these.
    """
    same = (goals[rows] == others).all(-1)
    if same.all():
        return same
    achieved = world.achieved(torch.from_numpy(states[rows]).to(world.device))
    far = world.goal_distance(achieved, goals[rows])
    return world.goal_distance(others, goals[rows]) <= np.maximum(world.tolerance, _NEARBY * far)
