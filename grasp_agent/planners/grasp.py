"""GRASP: gradient planning over lifted virtual states.

Psenka, Rabbat, Krishnapriyan, LeCun and Bar (2026), "Parallel Stochastic Gradient-Based Planning for World Models",
arXiv 2602.00475. Equation numbers are that paper's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from grasp_agent.planners.base import Initial, Planner
from grasp_agent.planners.blocks import Recombination
from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.ilqr import ILQR
from grasp_agent.planners.lifted.first_order import Adam, Gradient, Relaxation
from grasp_agent.planners.noise import Coloured, NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.planners.proposals.initial import Line, Rollout, filled
from grasp_agent.planners.proposals.replayed import Roadmap
from grasp_agent.planners.shooting import GradientShooting
from grasp_agent.validation import at_least, whole


class Sync(Protocol):
    """Improves actions along their true rollout: `Tracking`, or any planner."""

    def refine(self, problem: Problem, given: Candidates, noise: NoiseSource) -> Tensor:
        """Returns improved actions `[B, N, H, A]`, given virtual states and actions."""
        ...


class Update(Protocol):
    """One lifted iteration: ONE batched model call over all time steps; D_a F only, never D_s F."""

    def start(self, candidates: Candidates) -> Any:
        """Returns the initial memory."""
        ...

    def apply(self, problem: Problem, candidates: Candidates, memory: Any, phase: float) -> tuple[Candidates, Any]:
        """Returns updated virtual states and actions, and the memory; `phase` falls from 1 after a sync towards 0."""
        ...


class GraspState(NamedTuple):
    """GRASP between two iterations."""

    states: Tensor
    """`[B, N, H, S]`, virtual states s_1 .. s_H; the last is at the goal."""
    actions: Tensor
    """`[B, N, H, A]`, actions a_0 .. a_{H-1}."""
    memory: Any
    """Memory of the update."""
    iteration: int


@dataclass(frozen=True, kw_only=True)
class GRASP(Planner[GraspState]):
    """Optimises virtual states and actions in parallel over time, candidates and problems.

    One iteration is one batched model call over `B * N * H` rows, with derivatives by the ACTION only; the derivative
    by the state input is never formed. The components are objects and can be exchanged. `GRASP.paper()` is the
    published algorithm.

    The first `opening` iterations are syncs only: often a good initial plan needs no more, and noise would degrade it.

    Attributes:
        initial: initial virtual states and actions, in addition to given ones.
        update: one lifted iteration.
        sigma: standard deviation of the noise on the virtual states [state units].
        noise: shape of that noise along time.
        anneal: True lets the noise fall linearly, towards zero, within each phase between two syncs.
        sync: the serial planner that repairs the relaxation.
        sync_every: K_sync, iterations between two syncs.
        pinned: number of last virtual states at the goal (1 as published: the goal is reached; more: it is held).
        reset_states: True resets the virtual states to the rollout after each sync.
        recombination: recombines candidates after a sync; None for none. It changes the order of candidates, so a GRASP
            that is the sync of another one must have none.
    """

    needs_goal: ClassVar[bool] = True

    candidates: int = 16
    proposals: Initial | None = field(default_factory=Roadmap)
    iterations: int = 4
    verify_every: int = 3
    opening: int = 1
    initial: Initial = field(default_factory=Rollout)
    update: Update = field(default_factory=Relaxation)
    sigma: float = 0.1
    noise: Coloured = Coloured(beta=3.0)
    anneal: bool = True
    sync: Sync = field(default_factory=lambda: ILQR(candidates=1, iterations=3))
    sync_every: int = 3
    pinned: int = 1
    reset_states: bool = True
    recombination: Recombination | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(1, sync_every=self.sync_every, pinned=self.pinned)
        at_least(0, sigma=self.sigma)
        for name, method in (("update", "apply"), ("sync", "refine")):
            if not callable(getattr(getattr(self, name), method, None)):
                raise ValueError(f"{name}: expected a part with the method {method}, got {getattr(self, name)!r}")
        if not callable(self.initial):
            raise ValueError(f"initial: expected a callable part, got {self.initial!r}")

    @classmethod
    def paper(cls, *, iterations: int = 1000, sigma: float = 0.5) -> GRASP:
        """Returns the published algorithm with the settings of the public code closest to the paper.

        One candidate from a straight line, Adam (0.1 for states, 0.001 for actions), white noise, gamma 1, every 100
        iterations 25 gradient steps (rate 0.1) through the rollout. What all planners here have is kept: the best
        candidate is returned instead of the last, actions stay inside their bounds, a plan that is good enough ends
        the search, and a sync that makes a candidate worse is rejected.

        Args:
            iterations: total number of iterations.
            sigma: standard deviation of the noise, relative to the scale of the state (0.5 is for unit scale).
        """
        return cls(
            candidates=1,
            proposals=None,
            iterations=iterations,
            verify_every=100,
            opening=0,
            initial=Line(),
            update=Relaxation(states=Adam(lr=0.1), actions=Gradient(optimiser=Adam(lr=0.001)), goal_weight=1.0),
            sigma=sigma,
            noise=Coloured(beta=0.0),
            anneal=False,
            sync=GradientShooting.sync(),
            sync_every=100,
            reset_states=False,
        )

    def init(self, problem: Problem, given: Candidates | None, noise: NoiseSource) -> GraspState:
        """See `Planner.init`."""
        states, actions = filled(problem, given, self.candidates, self.initial, noise).pair
        return self._fresh(Candidates(self._held(problem, states.clone()), actions), 0)

    def step(self, problem: Problem, state: GraspState, noise: NoiseSource) -> GraspState:
        """See `Planner.step`: a lifted iteration; every `sync_every`-th one is followed by a sync."""
        candidates = Candidates(state.states, state.actions)
        iteration = state.iteration + 1
        if iteration <= self.opening:
            return self._synced(problem, candidates, iteration, noise)
        phase = 1.0 - ((iteration - self.opening - 1) % self.sync_every) / self.sync_every
        moved, memory = self.update.apply(problem, candidates, state.memory, phase)
        states = moved.states
        if self.sigma:
            draw = self.noise.sample(noise, states.shape[1], states.shape[2], states.shape[3])
            states = torch.add(states, draw, alpha=self.sigma * (phase if self.anneal else 1.0))
        candidates = Candidates(self._held(problem, states), problem.clamp(moved.actions))
        if (iteration - self.opening) % self.sync_every == 0:
            return self._synced(problem, candidates, iteration, noise)
        return GraspState(*candidates.pair, memory, iteration)

    def actions(self, problem: Problem, state: GraspState) -> Tensor:
        """See `Planner.actions`."""
        return state.actions

    def _synced(self, problem: Problem, candidates: Candidates, iteration: int, noise: NoiseSource) -> GraspState:
        """Returns the state after a sync; each candidate keeps the better of its actions before and after."""
        states, actions = candidates.pair
        after = problem.clamp(self.sync.refine(problem, candidates, noise))
        path, path_after = problem.follow(actions), problem.follow(after)
        costs, costs_after = problem.scoring.part_merits(path), problem.scoring.part_merits(path_after)
        better = costs_after.sum(-1) < costs.sum(-1)
        keep = better[..., None, None]
        actions = torch.where(keep, after, actions)
        if self.reset_states:
            states = torch.where(keep, path_after, path)
        candidates = Candidates(states, actions)
        if self.recombination is not None:
            candidates = self.recombination(problem, candidates, torch.where(better[..., None], costs_after, costs))
        return self._fresh(Candidates(self._held(problem, candidates.states), candidates.actions), iteration)

    def _held(self, problem: Problem, states: Tensor) -> Tensor:
        """Returns the virtual states with the last ones moved to the goal, in place."""
        pinned = min(self.pinned, states.shape[2])
        last = states.narrow(2, states.shape[2] - pinned, pinned)
        last.copy_(problem.goal.project(last))
        return states

    def _fresh(self, candidates: Candidates, iteration: int) -> GraspState:
        return GraspState(*candidates.pair, self.update.start(candidates), iteration)


def lifted_loss(problem: Problem, states: Tensor, actions: Tensor, goal_weight: float) -> Tensor:
    """Returns the published loss `[B, N]` (eq. 10) of virtual states `[B, N, H, S]` and actions `[B, N, H, A]`.

    Zero on a true rollout that stays at the goal; with `goal_weight` 0, zero on every true rollout.
    """
    contexts = problem.contexts(states, actions).detach()
    predicted = problem.ensemble.step(contexts, actions)
    goal = problem.goal.cost(predicted).sum(-1)
    return (predicted - states).square().sum((-1, -2)) + goal_weight * goal
