"""The planner family's one driver loop: best-so-far, incumbent, early stop, bounds, time budget, NaN guard.

A planner is a frozen dataclass with three methods, `init`, `step` and `actions`; all that is not its own idea lives
here, once, for every planner alike (the shape of optimistix, Rader et al. 2024, arXiv 2402.09983).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.noise import NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.validation import more_than, whole

State = TypeVar("State", bound=tuple[Any, ...])


class Plan(NamedTuple):
    """The best candidate that was met, for each of B problems."""

    actions: Tensor
    """`[B, H, A]`, finite and inside the bounds."""
    states: Tensor
    """`[B, H, S]`, predicted states after each action, the mean over the members; finite.

    Actions are steered on the way as they will be executed: towards where the members meet, or towards a proposal's own
    states, where the plan is one."""
    cost: Tensor
    """`[B]`, of that rollout; infinite where nothing was judged in time, or the model gave nothing finite."""
    accepted: Tensor
    """`[B]`, True where that rollout is good enough under every member."""
    iterations: int
    """Iterations done."""
    seconds: float
    """Wall-clock time it took."""


class Initial(Protocol):
    """Makes virtual states and actions to start from: any callable of this form."""

    def __call__(self, problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        """`count` candidates for each problem."""
        ...


@dataclass(frozen=True, kw_only=True)
class Planner(ABC, Generic[State]):
    """A planner's settings; its state lives outside, in a NamedTuple.

    Attributes:
        candidates: N, plans that are improved side by side.
        proposals: plans from elsewhere (routes through replayed states, recorded pieces, a callable of yours), which
            are judged first and then improved; None for none.
        proposed: how many of them.
        iterations: greatest number of calls of `step`.
        verify_every: every that many iterations the candidates are judged in full rollouts.
        shortlist: of more candidates than that, only the best under their own members are judged under all.
        opening: iterations before this count begins; the candidates are judged after them, too.
        budget: wall-clock limit in seconds, None for none. Another iteration is begun only where it should fit with its
            verification; the first start and the first iteration, whose length is unknown, may exceed it. With a budget
            a plan depends on the machine's speed.

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
    """Fields of the state that may be infinite, such as costs; in others, what is not finite is repaired."""

    def __post_init__(self) -> None:
        whole(0, iterations=self.iterations, opening=self.opening)
        names = ("candidates", "proposed", "verify_every", "shortlist")
        whole(1, **{name: getattr(self, name) for name in names})
        if self.budget is not None:
            more_than(0, budget=self.budget)
        if self.proposals is not None and not callable(self.proposals):
            raise ValueError(f"proposals: expected a callable or None, got {self.proposals!r}")

    @abstractmethod
    def init(self, problem: Problem, given: Candidates | None, noise: NoiseSource) -> State:
        """The first state.

        Args:
            problem: what to plan for.
            given: candidates to improve (proposals, then the running plan), if there are any: in `plan` at most
                `candidates`. They come first; where there are fewer, the planner adds its own.
            noise: random numbers.
        """

    @abstractmethod
    def step(self, problem: Problem, state: State, noise: NoiseSource) -> State:
        """One iteration."""

    @abstractmethod
    def actions(self, problem: Problem, state: State) -> Tensor:
        """The candidates that the state stands for, `[B, N, H, A]`; improved given ones keep their places."""

    def refine(self, problem: Problem, given: Candidates, noise: NoiseSource) -> Tensor:
        """Improves given candidates by all iterations, unjudged, `[B, N, H, A]`: the planner as GRASP's sync."""
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

        The running plan is judged first: where it is still good, nothing else is done. A problem whose plan has been
        accepted keeps it, so that what happens to one problem never depends on the others.

        Args:
            problem: what to plan for.
            warm: `[B, H, A]`, the running plan's actions, moved up to the present step.
            seed: seed of the planner's noise; the same seed gives the same plan.
            on_step: called with the iteration's number and the state, from 0 for the first state.

        Returns:
            The best candidate that was met, never worse than `warm`.
        """
        clock = _Clock(self.budget)
        noise = NoiseSource(seed, problem.start.device, problem.start.dtype)
        best = _Best(problem, self.shortlist)
        # Plans as they stand: nothing at all, where no plan can stop before its first action; and the running plan.
        standing = [problem.resting(1)] if problem.criteria.stop else []
        if warm is not None:
            warm = problem.clamp(warm.nan_to_num())
            standing.append(warm[:, None])
        if standing:
            best.offer(torch.cat(standing, 1), clock, whole=True)
            if best.done or clock.over:
                return best.plan(0, clock)
        given = self._given(problem, warm, noise, best, clock)
        if best.done or clock.over:
            return best.plan(0, clock)
        state = sound = self.init(problem, given, noise)
        if on_step is not None:
            on_step(0, state)
        iteration = 0
        if self.iterations == 0 or given is None:
            best.offer(torch.cat([problem.resting(1), self.actions(problem, state)], dim=1), clock)
        while iteration < self.iterations and not best.done and not clock.over:
            iteration += 1
            with clock.timing("step"):
                state = self.step(problem, state, noise)
            if on_step is not None:
                on_step(iteration, state)
            last = iteration == self.iterations or clock.over
            regular = iteration >= self.opening and (iteration - self.opening) % self.verify_every == 0
            if last or regular:
                state = sound = _repair(state, sound, self.unbounded)
                best.offer(self.actions(problem, state), clock)
        return best.plan(iteration, clock)

    def _given(
        self, problem: Problem, warm: Tensor | None, noise: NoiseSource, best: _Best, clock: _Clock
    ) -> Candidates | None:
        """What to improve: the proposals, which are judged here, and the running plan."""
        given = None
        if self.proposals is not None:
            given = _sound(problem, self.proposals(problem, self.proposed, noise))
            best.offer(given.actions, clock, given.rollouts if problem.criteria.feedback else None)
        if warm is not None and not best.done:
            actions = warm[:, None].expand(-1, problem.members, -1, -1)  # each member may improve it in its own way
            running = Candidates(problem.follow(actions), actions)
            given = running if given is None else given.join(running)
        if given is not None and given.size > self.candidates:
            merit = problem.scoring.merit(problem.follow(given.actions))
            chosen = merit.topk(self.candidates, largest=False).indices.sort(1).values[..., None, None]
            given = Candidates(given.states.take_along_dim(chosen, 1), given.actions.take_along_dim(chosen, 1))
        return given


class _Clock:
    """Keeps the time budget: `over` tells when another step and its verification would not fit any more."""

    def __init__(self, budget: float | None) -> None:
        self._begin = time.perf_counter()
        self._budget = budget
        self._longest: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._begin

    @property
    def over(self) -> bool:
        return self._budget is not None and self.seconds + sum(self._longest.values()) > self._budget

    def timing(self, part: str) -> _Timing:
        return _Timing(self, part)

    def record(self, part: str, seconds: float) -> None:
        self._longest[part] = max(self._longest.get(part, 0.0), seconds)


class _Timing:
    def __init__(self, clock: _Clock, part: str) -> None:
        self._clock = clock
        self._part = part

    def __enter__(self) -> None:
        self._begin = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._clock.record(self._part, time.perf_counter() - self._begin)


class _Best:
    """The best candidate so far of each problem; an accepted one is never replaced."""

    def __init__(self, problem: Problem, shortlist: int) -> None:
        self._shortlist = shortlist
        size, horizon = problem.size, problem.horizon
        self._problem = problem
        self._actions = problem.rest.expand(size, horizon, -1).clone()
        self._states = problem.start[:, None].expand(-1, horizon, -1).nan_to_num()
        self._cost = torch.full((size,), torch.inf, dtype=problem.start.dtype, device=problem.start.device)
        self._accepted = torch.zeros_like(self._cost, dtype=torch.bool)
        self.done = size == 0

    def offer(self, actions: Tensor, clock: _Clock, rollouts: Tensor | None = None, *, whole: bool = False) -> None:
        """Judges candidates `[B, N, H, A]`, by known rollouts if given, and keeps the better of old and new.

        Where plans may stop they are cut there, unless they are judged as a `whole`.
        """
        if self.done:
            return
        with clock.timing("verify"):
            actions = self._problem.clamp(torch.where(actions.isfinite(), actions, self._problem.rest))
            if self._problem.criteria.stop and not whole:
                actions, rollouts = self._problem.cut(actions), None
            if rollouts is None and actions.shape[1] > self._shortlist:
                merit = self._problem.scoring.merit(self._problem.follow(actions))
                index = merit.topk(self._shortlist, largest=False).indices.sort(1).values
                actions = actions.take_along_dim(index[..., None, None], 1)
            verdict = self._problem.score(actions) if rollouts is None else self._problem.scoring.evaluate(rollouts)
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

    def plan(self, iterations: int, clock: _Clock) -> Plan:
        return Plan(self._actions, self._states, self._cost, self._accepted, iterations, clock.seconds)


def _sound(problem: Problem, given: Candidates) -> Candidates:
    """Proposals with their actions inside the bounds; what is not finite rests instead."""
    states, actions, rollouts = given
    lost = ~(states.isfinite().all(-1).all(-1) & actions.isfinite().all(-1).all(-1))[..., None, None]
    actions = problem.clamp(torch.where(lost, problem.rest, actions))
    if lost.any():
        states = torch.where(lost, problem.follow(problem.resting(given.size)), states)
    return Candidates(states, actions, rollouts)


def _repair(state: State, sound: State, unbounded: tuple[str, ...]) -> State:
    """Replaces what is not finite in a state's tensors by the last sound values, but in fields that may be infinite."""
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
