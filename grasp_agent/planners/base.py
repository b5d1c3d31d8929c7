"""The driver loop of all planners: best candidate so far, running plan, early stop, bounds, time budget, NaN guard.

A planner is a frozen dataclass with three methods, `init`, `step` and `actions`. All that planners share is in this
loop (the design of optimistix, Rader et al. 2024, arXiv 2402.09983).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.noise import NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.planners.requirements import check_size
from grasp_agent.planners.work import Clock
from grasp_agent.validation import more_than, whole

State = TypeVar("State", bound=tuple[Any, ...])


class Plan(NamedTuple):
    """The best candidate that was found, for each of B problems."""

    actions: Tensor
    """`[B, H, A]`, finite and inside the bounds."""
    states: Tensor
    """`[B, H, S]`, predicted states after each action, the mean over the members; finite.

    The rollout has the feedback of execution: towards the mean prediction of the members, or towards the proposal's own
    states if the plan is a proposal."""
    cost: Tensor
    """`[B]`, cost of that rollout; infinite if nothing was scored in time, or no prediction was finite."""
    accepted: Tensor
    """`[B]`, True if that rollout is good enough under every member."""
    iterations: int
    """Number of iterations."""
    seconds: float
    """Wall-clock time [s]."""


class Initial(Protocol):
    """Initial virtual states and actions: any callable of this form."""

    def __call__(self, problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        """Returns `count` candidates for each problem."""
        ...


@dataclass(frozen=True, kw_only=True)
class Planner(ABC, Generic[State]):
    """The settings of a planner; its state is a separate NamedTuple.

    Attributes:
        candidates: N, plans that are improved in parallel.
        proposals: source of proposed plans (routes through replayed states, recorded trajectories, your own callable),
            which are scored first and then improved; None for none.
        proposed: number of proposals.
        iterations: greatest number of calls of `step`.
        verify_every: iterations between two scorings of the candidates in full rollouts.
        shortlist: of more candidates than this, only the best under their own members are scored under all.
        opening: iterations before `verify_every` begins to count; the candidates are scored after them, too.
        budget: wall-clock limit of a call [s], None for none: of `plan`, which returns the best plan scored until then,
            and of an agent's `predict`, whose search goes on in the next call (without `state`). With a budget, plans
            depend on the machine's speed.

    Raises:
        ValueError: if a setting is out of its range.
    """

    candidates: int = 1
    proposals: Initial | None = None
    proposed: int = 4
    iterations: int = 100
    verify_every: int = 1
    shortlist: int = 16
    opening: int = 0
    budget: float | None = None

    unbounded: ClassVar[tuple[str, ...]] = ()
    """Fields of the state that may be infinite, such as costs; in others, non-finite values are repaired."""
    needs_small_states: ClassVar[bool] = False
    """Whether it forms matrices `[S, S]`, see `Problem.is_small`."""
    needs_gradients: ClassVar[bool] = False
    """Whether it needs derivatives of the model."""
    needs_goal: ClassVar[bool] = False
    """Whether it needs a goal, and cannot plan for another `Problem.objective`."""

    def __post_init__(self) -> None:
        whole(0, iterations=self.iterations, opening=self.opening)
        names = ("candidates", "proposed", "verify_every", "shortlist")
        whole(1, **{name: getattr(self, name) for name in names})
        if self.budget is not None:
            more_than(0, budget=self.budget)
        if self.proposals is not None and (not callable(self.proposals) or isinstance(self.proposals, type)):
            raise ValueError(f"proposals: expected a callable (an instance, no class) or None, got {self.proposals!r}")

    @abstractmethod
    def init(self, problem: Problem, given: Candidates | None, noise: NoiseSource) -> State:
        """Returns the initial state.

        Args:
            problem: the problems to plan for.
            given: candidates to improve (proposals, then the running plan), if any; in `plan` at most `candidates`.
                They come first; if there are fewer, the planner adds its own.
            noise: random numbers.
        """

    @abstractmethod
    def step(self, problem: Problem, state: State, noise: NoiseSource) -> State:
        """Returns the state after one iteration."""

    @abstractmethod
    def actions(self, problem: Problem, state: State) -> Tensor:
        """Returns the candidates of a state, `[B, N, H, A]`; given ones keep their indices."""

    def refine(self, problem: Problem, given: Candidates, noise: NoiseSource) -> Tensor:
        """Improves given candidates by all iterations, without scoring, `[B, N, H, A]`: the planner as GRASP's sync."""
        state = self.init(problem, given, noise)
        for _ in range(self.iterations):
            state = self.step(problem, state, noise)
        return self.actions(problem, state)[:, : given.size]

    def plan(
        self,
        problem: Problem,
        *,
        warm: Tensor | None = None,
        seed: int = 0,
        on_step: Callable[[int, State], None] | None = None,
    ) -> Plan:
        """Plans for B problems.

        The running plan is scored first; if it is still good, planning ends. A problem keeps an accepted plan, so the
        plan of one problem never depends on the others.

        Args:
            problem: the problems to plan for.
            warm: `[B, H, A]`, the running plan's actions, shifted to the present step.
            seed: seed of the planner's noise; the same seed gives the same plan.
            on_step: called with the iteration's number and the state, from 0 for the initial state.

        Returns:
            The best candidate that was found, never worse than `warm`.

        Raises:
            ValueError: if the planner needs small states, and these are not (see `Problem.is_small`).
        """
        if not problem.is_small:
            check_size(self, problem.start.shape[1], has_history=problem.history is not None)
        clock = Clock(self.budget)
        noise = NoiseSource(seed, problem.start.device, problem.start.dtype)
        best = _Best(problem, self.shortlist, problem.resting(1)[:, 0] if warm is None else warm)
        with clock.limiting():
            self._improve(problem, warm, noise, best, clock, on_step)
        return best.plan(clock)

    def _improve(
        self,
        problem: Problem,
        warm: Tensor | None,
        noise: NoiseSource,
        best: _Best,
        clock: Clock,
        on_step: Callable[[int, State], None] | None,
    ) -> None:
        """Offers plans to `best`, until one is accepted, or the iterations or the time are used up."""
        # Plans that are scored as they are: rest, as no plan can stop before its first action; and the running plan.
        # Objectives accept none, so that they are scored with the first others, if these are sure to come.
        standing = [problem.resting(1)] if problem.criteria.stop else []
        if warm is not None:
            warm = problem.clamp(warm.nan_to_num())
            standing.append(warm[:, None])
        if standing and (problem.objective is None or self.budget is not None or self.proposals is not None):
            best.offer(torch.cat(standing, 1), clock, whole=True)
            standing = []
            if best.done or clock.over:
                return
        given = self._given(problem, warm, noise, best, clock)
        if best.done or clock.over:
            return
        state = sound = self.init(problem, given, noise)
        if on_step is not None:
            on_step(0, state)
        if self.iterations == 0 or given is None:
            best.offer(torch.cat([*standing, problem.resting(1), self.actions(problem, state)], dim=1), clock)
            standing = []
        while best.iterations < self.iterations and not best.done and not clock.over:
            best.iterations += 1
            with clock.timing("step"):
                state = self.step(problem, state, noise)
            if on_step is not None:
                on_step(best.iterations, state)
            last = best.iterations == self.iterations or clock.over
            past = best.iterations - self.opening
            if last or (past >= 0 and past % self.verify_every == 0):
                state = sound = _repair(state, sound, self.unbounded)
                best.offer(torch.cat([*standing, self.actions(problem, state)], dim=1), clock)
                standing = []

    def _given(
        self, problem: Problem, warm: Tensor | None, noise: NoiseSource, best: _Best, clock: Clock
    ) -> Candidates | None:
        """Returns candidates to improve: the proposals, which are scored here, and the running plan."""
        given = None
        if self.proposals is not None:
            given = _sound(problem, self.proposals(problem, self.proposed, noise))
            best.offer(given.actions, clock, given.rollouts if problem.criteria.feedback else None)
        if warm is not None and not best.done:
            copies = problem.members if problem.objective is None else 1  # one for each member that improves it
            actions = warm[:, None].expand(-1, copies, -1, -1)
            if problem.objective is None:
                states = problem.follow(actions)
            else:  # planners for objectives take actions alone
                states = problem.start[:, None, None].expand(-1, copies, problem.horizon, -1)
            running = Candidates(states, actions)
            given = running if given is None else given.join(running)
        if given is not None and given.size > self.candidates:
            merit = problem.merit(given.actions)
            chosen = merit.topk(self.candidates, largest=False).indices.sort(1).values[..., None, None]
            given = Candidates(given.states.take_along_dim(chosen, 1), given.actions.take_along_dim(chosen, 1))
        return given


class _Best:
    """The best candidate of each problem so far, `usual` before any is scored; an accepted one is never replaced."""

    def __init__(self, problem: Problem, shortlist: int, usual: Tensor) -> None:
        self._shortlist = shortlist
        size, horizon = problem.size, problem.horizon
        self._problem = problem
        self._actions = problem.executable(problem.clamp(usual.nan_to_num()))
        self._states = problem.start[:, None].expand(-1, horizon, -1).nan_to_num()
        self._cost = torch.full((size,), torch.inf, dtype=problem.start.dtype, device=problem.start.device)
        self._accepted = torch.zeros_like(self._cost, dtype=torch.bool)
        self.done, self.iterations = size == 0, 0

    def offer(self, actions: Tensor, clock: Clock, rollouts: Tensor | None = None, *, whole: bool = False) -> None:
        """Scores candidates `[B, N, H, A]`, by known rollouts if given, and keeps the better of old and new.

        With `Criteria.stop` they are cut where they should stop, unless they are scored as a `whole`.
        """
        if self.done:
            return
        with clock.timing("verify"):
            actions = self._problem.clamp(torch.where(actions.isfinite(), actions, self._problem.rest))
            actions = self._problem.executable(actions)
            if self._problem.criteria.stop and not whole:
                actions, rollouts = self._problem.cut(actions), None
            if rollouts is None and actions.shape[1] > self._shortlist:
                merit = self._problem.merit(actions)
                index = merit.topk(self._shortlist, largest=False).indices.sort(1).values
                actions = actions.take_along_dim(index[..., None, None], 1)
            verdict = self._problem.score(actions, rollouts)
            # An accepted candidate comes before a cheaper one that is not.
            index = (verdict.cost.masked_fill(~verdict.accepted, torch.inf)).argmin(1)
            index = torch.where(verdict.accepted.any(1), index, verdict.cost.argmin(1))
            rows = torch.arange(index.shape[0], device=index.device)
            cost, accepted = verdict.cost[rows, index], verdict.accepted[rows, index]
            better = ~self._accepted & (accepted | (cost < self._cost))
            self._actions = torch.where(better[:, None, None], actions[rows, index], self._actions)
            self._states = torch.where(better[:, None, None], verdict.states[rows, index], self._states)
            self._cost = torch.where(better, cost, self._cost)
            self._accepted = self._accepted | accepted
            self.done = bool(self._accepted.all())

    def plan(self, clock: Clock) -> Plan:
        return Plan(self._actions, self._states, self._cost, self._accepted, self.iterations, clock.seconds)


def _sound(problem: Problem, given: Candidates) -> Candidates:
    """Returns proposals with actions inside the bounds; candidates that are not finite are replaced by rest."""
    if not (isinstance(given, tuple) and len(given) == len(Candidates._fields) and isinstance(given[1], Tensor)):
        raise ValueError(f"proposals: expected them to return Candidates, got {type(given).__name__}")
    states, actions, rollouts = given
    batch, horizon, sizes = problem.size, problem.horizon, (problem.start.shape[1], problem.low.shape[0])
    for name, values, size in (("states", states, sizes[0]), ("actions", actions, sizes[1])):
        shape = tuple(values.shape)
        if len(shape) != 4 or (shape[0], *shape[2:]) != (batch, horizon, size) or shape[1] != actions.shape[1]:
            raise ValueError(f"proposals: expected {name} [{batch}, N, {horizon}, {size}], got {list(shape)}")
    lost = ~(states.isfinite().all(-1).all(-1) & actions.isfinite().all(-1).all(-1))[..., None, None]
    actions = problem.clamp(torch.where(lost, problem.rest, actions))
    if lost.any():
        states = torch.where(lost, problem.follow(problem.resting(given.size)), states)
    return Candidates(states, actions, rollouts)


def _repair(state: State, sound: State, unbounded: tuple[str, ...]) -> State:
    """Replaces non-finite values of a state by the last sound ones, except in fields that may be infinite."""
    names = getattr(state, "_fields", ("",) * len(state))
    fields = zip(names, state, sound, strict=True)
    repaired = (new if name in unbounded else _repaired(new, old, unbounded) for name, new, old in fields)
    return type(state)(*repaired)  # type: ignore[return-value]


def _repaired(new: Any, old: Any, unbounded: tuple[str, ...]) -> Any:
    if isinstance(new, tuple) and isinstance(old, tuple):
        return _repair(new, old, unbounded)
    if isinstance(new, Tensor) and new.is_floating_point():
        return torch.where(new.isfinite(), new, old)
    return new
