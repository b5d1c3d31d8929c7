"""New plans for some of several environments, made in one call or over several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grasp_agent.agent.plan_state import PlanState
from grasp_agent.agent.search import Search
from grasp_agent.planners import GraspState, Planner, Problem
from grasp_agent.planners.feedback import feedback

Array = NDArray[np.float32]


class Replanning:
    """The making of new plans, from states at one time.

    Args:
        planner: any planner of the family.
        pose: returns the problems of the rows.
        rows: `[m]`, indices of the environments.
        goals: `[m, G]`.
        running: `[m, H, A]`, what is left of their plans; None for none.
        seed: seed of the planner's noise.
        ahead: calls after which the problems' start is expected to be the present state.
    """

    def __init__(
        self,
        planner: Planner[Any],
        pose: Callable[[], Problem],
        rows: NDArray[np.int64],
        goals: Array,
        running: Tensor | None,
        seed: int,
        ahead: int = 0,
    ) -> None:
        self.rows, self.goals, self.ahead = rows, goals, ahead
        self.waited = 0
        """Calls since the first one, in which it began."""
        self._planner, self._pose, self._running, self._seed = planner, pose, running, seed
        self._latest: list[GraspState] = []
        self.found: PlanState | None = None
        """The new plans `[m]`, once they are made."""

    def run(self, *, limited: bool = True) -> None:
        """Makes the plans, within the planner's time budget if `limited`."""

        def keep_latest(_: int, state: Any) -> None:
            self._latest[:] = [state] if isinstance(state, GraspState) else []

        planner = self._planner if limited else replace(self._planner, budget=None)
        problem = self._pose()
        plan = planner.plan(problem, warm=self._running, seed=self._seed, on_step=keep_latest)
        along, start = feedback(problem, plan.states, plan.actions), problem.start
        self.found = PlanState(
            actions=along.actions.cpu().numpy(),
            states=torch.cat([start[:, None], plan.states], 1).cpu().numpy(),
            gains=along.gains.cpu().numpy(),
            goals=self.goals.astype(np.float64),
            step=np.zeros(len(self.rows), np.int64),
            accepted=plan.accepted.cpu().numpy(),
            valid=np.ones(len(self.rows), np.bool_),
        )

    @property
    def virtual(self) -> Tensor | None:
        """`[N, H, S]`, the virtual states of the first problem's candidates at the end; None if there were none."""
        return self._latest[0].states[0] if self._latest else None

    def store(self, plans: PlanState, states: Array, goals: Array) -> None:
        """Replaces running plans by the new ones, in place.

        Args:
            plans: of all n environments.
            states: `[n, S]`, the present states [model units]: a late plan begins at the step that is nearest to them.
            goals: `[n, G]`, the present goals; where one has changed, the plan is of no use.
        """
        if self.found is None:
            self.run()
        assert self.found is not None
        found, late = self.found, self.waited - self.ahead
        if late > 0:
            passed = found.states[:, : late + 1] - states[self.rows, None]
            found.step[:] = np.linalg.norm(passed, axis=-1).argmin(-1)
        same = (goals[self.rows] == self.goals).all(-1)
        plans.put(self.rows[same], found.rows(np.flatnonzero(same)))


class Searches:
    """Replannings that go on from call to call; a copy or a file holds none."""

    def __init__(self) -> None:
        self._running: list[tuple[Replanning, Search[None]]] = []
        self.delay = 0
        """Calls that the last search took after its first one."""

    def __reduce__(self) -> tuple[type[Searches], tuple[()]]:
        return Searches, ()

    def __bool__(self) -> bool:
        return bool(self._running)

    def clear(self) -> None:
        """Cancels all searches."""
        self._running.clear()
        self.delay = 0

    def cover(self, goals: Array) -> NDArray[np.bool_]:
        """Returns where plans to the present goals `[n, G]` are searched, `[n]`; drops searches for other goals."""
        covered, kept = np.zeros(len(goals), np.bool_), []
        for replanning, search in self._running:
            same = (goals[replanning.rows] == replanning.goals).all(-1)
            if search.alive and same.any():
                covered[replanning.rows] |= same
                kept.append((replanning, search))
        self._running = kept
        return covered

    def advance(self, begun: list[Replanning], work: int | None, seconds: float | None) -> list[Replanning]:
        """Adds replannings, goes on with all, and returns those whose plans are to be followed now.

        Args:
            begun: new ones.
            work: limit for all together [rows of a forward pass], None for none.
            seconds: wall-clock limit for all together [s], None for none.
        """
        if work is None and seconds is None and not self._running:
            return begun  # no thread is needed
        self._running += [(replanning, Search(partial(replanning.run, limited=False))) for replanning in begun]
        ready, count = [], len(self._running)
        share = np.inf if work is None else work / max(count, 1)
        try:
            for replanning, search in self._running:
                known = search.done
                if search.advance(share, None if seconds is None else seconds / count) and not known:
                    self.delay = replanning.waited
                if search.done and replanning.waited >= replanning.ahead:
                    ready.append(replanning)
                replanning.waited += 1
        except BaseException:
            self.clear()
            raise
        self._running = [pair for pair in self._running if pair[0] not in ready]
        return ready
