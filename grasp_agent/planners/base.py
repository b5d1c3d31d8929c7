"""The planner family's one driver loop: best-so-far, incumbent, early stop, bounds, time budget, NaN guard.

A planner is a frozen dataclass with three methods, `init`, `step` and `actions`; all that is not its own idea lives
here, once, for every planner alike (the shape of optimistix, Rader et al. 2024, arXiv 2402.09983).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from grasp_agent.planners.noise import NoiseSource
from grasp_agent.planners.problem import Problem

State = TypeVar("State", bound=tuple[Any, ...])


class Plan(NamedTuple):
    """The best candidate that was met, for each of B problems."""

    actions: Tensor
    """`[B, H, A]`, finite and inside the bounds."""
    states: Tensor
    """`[B, H, S]`, predicted states after each action, the mean over the members; finite."""
    cost: Tensor
    """`[B]`; infinite where the model gave nothing finite."""
    accepted: Tensor
    """`[B]`, True where the plan is good enough under every member."""
    iterations: int
    """Iterations done."""
    seconds: float
    """Wall-clock time it took."""


@dataclass(frozen=True, kw_only=True)
class Planner(ABC, Generic[State]):
    """A planner's settings; its state lives outside, in a NamedTuple.

    Attributes:
        candidates: N, plans that are improved side by side.
        iterations: greatest number of calls of `step`.
        verify_every: every that many iterations the candidates are judged in full rollouts.
        opening: iterations before this count begins; the candidates are judged after them, too.
        budget: wall-clock limit in seconds, None for none. With a budget a plan depends on the machine's speed.

    Raises:
        ValueError: if a setting is out of its range.
    """

    candidates: int = 1
    iterations: int = 100
    verify_every: int = 1
    opening: int = 0
    budget: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("candidates", 1), ("iterations", 0), ("verify_every", 1), ("opening", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}: expected a whole number of at least {least}, got {value}")
        if self.budget is not None and not self.budget > 0:
            raise ValueError(f"budget: expected seconds > 0 or None, got {self.budget}")

    @abstractmethod
    def init(self, problem: Problem, warm: Tensor | None, noise: NoiseSource) -> State:
        """The first state; `warm` is the running plan's actions `[B, H, A]`, if there is one."""

    @abstractmethod
    def step(self, problem: Problem, state: State, noise: NoiseSource) -> State:
        """One iteration."""

    @abstractmethod
    def actions(self, problem: Problem, state: State) -> Tensor:
        """The candidates that the state stands for, `[B, N, H, A]`."""

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
        best = _Best(problem)
        if warm is not None:
            warm = problem.clamp(warm.nan_to_num())
            best.offer(warm[:, None], clock)
            if best.done or clock.over:
                return best.plan(0, clock)
        state = sound = self.init(problem, warm, noise)
        if on_step is not None:
            on_step(0, state)
        rest = problem.rest.expand(problem.size, 1, problem.horizon, -1)
        best.offer(torch.cat([rest, self.actions(problem, state)], dim=1), clock)
        iteration = 0
        while iteration < self.iterations and not best.done and not clock.over:
            iteration += 1
            with clock.timing("step"):
                state = self.step(problem, state, noise)
            if on_step is not None:
                on_step(iteration, state)
            last = iteration == self.iterations or clock.over
            regular = iteration >= self.opening and (iteration - self.opening) % self.verify_every == 0
            if last or regular:
                state = sound = _repair(state, sound)
                best.offer(self.actions(problem, state), clock)
        return best.plan(iteration, clock)


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

    def __init__(self, problem: Problem) -> None:
        size, horizon = problem.size, problem.horizon
        self._problem = problem
        self._actions = problem.rest.expand(size, horizon, -1).clone()
        self._states = problem.start[:, None].expand(-1, horizon, -1).nan_to_num()
        self._cost = torch.full((size,), torch.inf, dtype=problem.start.dtype, device=problem.start.device)
        self._accepted = torch.zeros_like(self._cost, dtype=torch.bool)
        self.done = size == 0

    def offer(self, actions: Tensor, clock: _Clock) -> None:
        """Judges candidates `[B, N, H, A]` and keeps the better of old and new."""
        if self.done:
            return
        with clock.timing("verify"):
            actions = self._problem.clamp(torch.where(actions.isfinite(), actions, self._problem.rest))
            verdict = self._problem.score(actions)
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


def _repair(state: State, sound: State) -> State:
    """Replaces what is not finite in a state's tensors by the last sound values."""
    return type(state)(*(_repaired(new, old) for new, old in zip(state, sound, strict=True)))  # type: ignore[return-value]


def _repaired(new: Any, old: Any) -> Any:
    if isinstance(new, tuple) and isinstance(old, tuple):
        return _repair(new, old)
    if isinstance(new, Tensor) and new.is_floating_point():
        return torch.where(new.isfinite(), new, old)
    return new
