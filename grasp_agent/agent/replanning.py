"""New plans for some of several environments, made in one call or over several."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grasp_agent.agent.plan_state import PlanState
from grasp_agent.agent.search import Search
from grasp_agent.planners import GraspState, Planner, Problem
from grasp_agent.planners.feedback import feedback
from grasp_agent.planners.work import OutOfTime, metering

Array = NDArray[np.float32]
Aimed = Callable[[NDArray[np.int64], Array], NDArray[np.bool_]]
"""`(rows [m], goals [m, G]) -> [m]`: whether plans to these goals are of use to these environments now."""
Stay = Callable[[NDArray[np.int64], PlanState], NDArray[np.bool_]]
"""`(rows [m], new plans [m]) -> [m]`: whether these environments had better stay at the end of their running plans."""
_UNSCORED = (
    "ReplanRule(total_work={total_work}): a search ended before a plan was scored, and the agent holds its state; "
    "expected more work"
)
IMPROVING = 4
"""Times as many calls as scoring the proposals takes, to improve them; measured with the default planner."""
Due = Callable[["Replanning"], bool]
"""Whether found plans are to be followed now."""


class Replanning:
    """The making of new plans, from states at one time.

    Args:
        planner: any planner of the family.
        pose: returns the problems of the rows, and whether their goals are only states on the way, `[m]`.
        rows: `[m]`, indices of the environments.
        goals: `[m, G]`.
        running: `[m, H, A]`, what is left of their plans; None for none.
        seed: seed of the planner's noise.
        ahead: calls after which the problems' start is expected to be the present state.
        provisional: whether plans are followed only until better ones are found, unless they are accepted.
    """

    def __init__(
        self,
        planner: Planner[Any],
        pose: Callable[[], tuple[Problem, Tensor]],
        rows: NDArray[np.int64],
        goals: Array,
        running: Tensor | None,
        seed: int,
        ahead: int = 0,
        provisional: bool = False,
    ) -> None:
        self.rows, self.goals, self.ahead, self.provisional = rows, goals, ahead, provisional
        self.waited = 0
        """Calls since the first one, in which it began."""
        self._planner, self._pose, self._running, self._seed = planner, pose, running, seed
        self._latest: list[GraspState] = []
        self.found: PlanState | None = None
        """The new plans `[m]`, once they are made."""

    def run(self, seconds: float | None = None) -> None:
        """Makes the plans, within a wall-clock limit [s], None for none."""
        try:
            self._search(seconds)
        except OutOfTime as end:  # before the planner began
            if end.args[0] is not None:
                raise

    def due(self, states: Array, radius: float) -> bool:
        """Returns whether plans are to be followed in states `[n, S]`: on time, or where they begin within `radius`."""
        if self.found is None or self.waited >= self.ahead:
            return True
        return bool((np.linalg.norm(self.found.states[:, 0] - states[self.rows], axis=-1) <= radius).all())

    def _search(self, seconds: float | None) -> None:
        def keep_latest(_: int, state: Any) -> None:
            self._latest[:] = [state] if isinstance(state, GraspState) else []

        (problem, far), planner = self._pose(), self._planner
        if planner.budget != seconds:
            planner = replace(planner, budget=seconds)
        plan = planner.plan(problem, warm=self._running, seed=self._seed, on_step=keep_latest)
        start = problem.start
        try:
            along = feedback(problem, plan.states, plan.actions)
        except OutOfTime:  # what is found is kept, however late
            with metering(None):
                along = feedback(problem, plan.states, plan.actions)
        states = torch.cat([start[:, None], plan.states], 1).cpu().numpy()
        count, horizon, size = along.actions.shape
        blank = PlanState.blank(count, horizon, size, start.shape[1], self.goals.shape[1])
        self.found = blank._replace(
            actions=along.actions.cpu().numpy(),
            states=states,
            gains=along.gains.cpu().numpy(),
            goals=self.goals.astype(np.float64),
            accepted=plan.accepted.cpu().numpy(),
            valid=plan.cost.isfinite().cpu().numpy(),
            final=~far.cpu().numpy(),
        )

    @property
    def is_scored(self) -> bool:
        """Whether any plan was found and scored."""
        return self.found is not None and bool(self.found.valid.any())

    @property
    def virtual(self) -> Tensor | None:
        """`[N, H, S]`, the virtual states of the first problem's candidates at the end; None if there were none."""
        return self._latest[0].states[0] if self._latest else None

    def store(self, plans: PlanState, states: Array, aimed: Aimed, stay: Stay) -> NDArray[np.int64]:
        """Replaces running plans by the new ones, in place, where these were scored and are of use.

        Args:
            plans: of all n environments.
            states: `[n, S]`, the present states [model units]: a late plan begins at the step that is nearest to them.
            aimed: tells whether plans to other goals than the present ones are of use.
            stay: tells where it is better to stay at the end of the running plan than to follow the new one.

        Returns:
            The indices of the environments whose plans were replaced.
        """
        found, late = self.found, self.waited - self.ahead
        if found is None:
            return self.rows[:0]
        if late > 0:
            passed = found.states[:, : late + 1] - states[self.rows, None]
            found.step[:] = np.linalg.norm(passed, axis=-1).argmin(-1)
        useful = found.valid & aimed(self.rows, self.goals)
        stays = useful & stay(self.rows, found)
        plans.put(self.rows[stays], plans.rows(self.rows[stays]).staying())
        chosen = np.flatnonzero(useful & ~stays)
        plans.replace_plans(self.rows[chosen], found.rows(chosen))
        return self.rows[chosen]


class Searches:
    """Replannings that go on from call to call; a copy or a file holds none."""

    def __init__(self) -> None:
        self._running: list[tuple[Replanning, Search[None]]] = []
        self.delay = 0
        """Calls that the next search is expected to take after its first one."""
        self._provisional: set[int] = set()
        self._failures: dict[int, tuple[bytes, int]] = {}
        self._settings: tuple[object, ...] = ()

    def __reduce__(self) -> tuple[type[Searches], tuple[()]]:
        return Searches, ()

    def __bool__(self) -> bool:
        return bool(self._running)

    def clear(self) -> None:
        """Cancels all searches."""
        self._running.clear()
        self._provisional.clear()
        self._failures.clear()
        self.delay = 0

    def begin_call(self, settings: tuple[object, ...]) -> int:
        """Cancels searches with other settings than the present objects; returns the expected `delay` of new ones."""
        known = self._settings
        if len(settings) != len(known) or any(new is not old for new, old in zip(settings, known, strict=True)):
            self.clear()
            self._settings = settings
        return self.delay

    def failures(self, rows: NDArray[np.int64], goals: Array) -> NDArray[np.int64]:
        """Returns how many searches in a row of rows `[m]`, for goals `[m, G]`, found no accepted plan, `[m]`."""
        known = [self._failures.get(row, (b"", 0)) for row in rows.tolist()]
        return np.array(
            [n if goal.tobytes() == of else 0 for goal, (of, n) in zip(goals, known, strict=True)], np.int64
        )

    def provisional(self, count: int) -> NDArray[np.bool_]:
        """Returns which environments got a provisional plan, not accepted, in the last call, `[count]`."""
        found = np.isin(np.arange(count), list(self._provisional))
        self._provisional.clear()
        return found

    def cover(self, count: int, aimed: Aimed) -> NDArray[np.bool_]:
        """Returns for which of the environments a plan of use is searched, `[count]`; drops other searches."""
        covered, kept = np.zeros(count, np.bool_), []
        for replanning, search in self._running:
            useful = aimed(replanning.rows, replanning.goals)
            if search.alive and useful.any():
                covered[replanning.rows] |= useful
                kept.append((replanning, search))
        self._running = kept
        return covered

    def advance(
        self, begun: list[Replanning], due: Due, work: float, total_work: float, seconds: float | None
    ) -> list[Replanning]:
        """Adds replannings, goes on with all, and returns those whose plans are to be followed now.

        Args:
            begun: new ones.
            due: tells whether found plans are to be followed now.
            work: limit for all together [rows of a forward pass].
            total_work: limit for each search, which then ends with the best plan so far.
            seconds: wall-clock limit for all together [s], None for none.
        """
        self._running += [(replanning, Search(replanning.run, total_work)) for replanning in begun]
        ready, count = [], sum(not search.done for _, search in self._running)
        try:
            for replanning, search in self._running:
                share = work / max(count, 1), None if seconds is None else seconds / max(count, 1)
                if not search.done and search.advance(*share):
                    calls = 1 + replanning.waited
                    self.delay = calls * (IMPROVING if replanning.provisional else 1) - 1
                    if search.exhausted and not replanning.is_scored:
                        warnings.warn(_UNSCORED.format(total_work=total_work), RuntimeWarning, stacklevel=2)
                if search.done and due(replanning):
                    ready.append(replanning)
                replanning.waited += 1
        except BaseException:
            self.clear()
            raise
        self._running = [pair for pair in self._running if pair[0] not in ready]
        for replanning in ready:
            if replanning.found is not None:
                self._record(replanning, replanning.found.accepted)
        return ready

    def _record(self, replanning: Replanning, accepted: NDArray[np.bool_]) -> None:
        if replanning.provisional:
            self._provisional.update(replanning.rows[~accepted].tolist())
            return
        counts = self.failures(replanning.rows, replanning.goals).tolist()
        for row, goal, count, good in zip(replanning.rows.tolist(), replanning.goals, counts, accepted, strict=True):
            self._failures[row] = goal.tobytes(), 0 if good else count + 1
