"""GRASP: gradient planning over lifted virtual states.

Psenka, Rabbat, Krishnapriyan, LeCun and Bar (2026), "Parallel Stochastic Gradient-Based Planning for World Models",
arXiv 2602.00475. Equation numbers are that paper's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from grasp_agent.planners.base import Planner
from grasp_agent.planners.descent import (
    ActionUpdate,
    Adam,
    Descent,
    GaussNewton,
    Gradient,
    Moments,
    Optimiser,
)
from grasp_agent.planners.initial import Initial, Line, Portfolio, Roadmap, Rollout
from grasp_agent.planners.noise import Coloured, NoiseSource
from grasp_agent.planners.problem import Problem
from grasp_agent.planners.shooting import ILQR, ShootingGradient


class Sync(Protocol):
    """Brings actions and their true rollout together: `(problem, states, actions) -> actions`."""

    def __call__(self, problem: Problem, states: Tensor, actions: Tensor) -> Tensor:
        """Better actions `[B, N, H, A]`, given virtual states `[B, N, H, S]`."""
        ...


class GraspState(NamedTuple):
    """GRASP between two iterations."""

    states: Tensor
    """`[B, N, H, S]`, virtual states s_1 .. s_H; the last is at the goal."""
    actions: Tensor
    """`[B, N, H, A]`, actions a_0 .. a_{H-1}."""
    state_memory: Moments | None
    action_memory: Moments | None
    iteration: int


@dataclass(frozen=True, kw_only=True)
class GRASP(Planner[GraspState]):
    """Optimises virtual states and actions in parallel over time, candidates and problems.

    One iteration is one batched model call over `B * N * H` rows and derivatives by the ACTION only; the derivative by
    the state input is never formed. The parts are objects and can be exchanged. `GRASP.paper()` is the published
    algorithm.

    The first `opening` iterations are syncs alone: often the start needs nothing else, and noise would spoil it.

    Attributes:
        initial: where virtual states and actions start.
        state_update: how virtual states move along their gradient.
        action_update: how actions move.
        goal_weight: gamma, weight of the dense goal term.
        sigma: standard deviation of the noise on the virtual states [state units].
        noise: shape of that noise along time.
        anneal: True lets the noise fall linearly, towards zero, within each phase between two syncs.
        sync: the serial planner that repairs the relaxation.
        sync_every: K_sync, iterations between two syncs.
        reset_states: True puts the virtual states onto the rollout after each sync.
        warm_share: share of the candidates that start from the running plan, if there is one.
    """

    candidates: int = 16
    iterations: int = 4
    verify_every: int = 3
    opening: int = 1
    initial: Initial = field(default_factory=lambda: Portfolio(first=Roadmap(), second=Rollout()))
    state_update: Optimiser = field(default_factory=lambda: Descent(lr=0.25))
    action_update: ActionUpdate = field(default_factory=GaussNewton)
    goal_weight: float = 0.01
    sigma: float = 0.1
    noise: Coloured = Coloured(beta=3.0)
    anneal: bool = True
    sync: Sync = field(default_factory=ILQR)
    sync_every: int = 3
    reset_states: bool = True
    warm_share: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sync_every < 1:
            raise ValueError(f"sync_every: expected at least 1, got {self.sync_every}")
        for name in ("goal_weight", "sigma"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        for name in ("state_update", "action_update"):
            if not callable(getattr(getattr(self, name), "apply", None)):
                raise ValueError(f"{name}: expected a part with the method apply, got {getattr(self, name)!r}")
        for name in ("initial", "sync"):
            if not callable(getattr(self, name)):
                raise ValueError(f"{name}: expected a callable part, got {getattr(self, name)!r}")
        if not 0 <= self.warm_share <= 1:
            raise ValueError(f"warm_share: expected a share in [0, 1], got {self.warm_share}")

    @classmethod
    def paper(cls, *, iterations: int = 1000, sigma: float = 0.5) -> GRASP:
        """The published algorithm with the settings of the public code closest to the paper.

        One candidate from a straight line, Adam (0.1 for states, 0.001 for actions), white noise, gamma 1, every 100
        iterations 25 gradient steps (rate 0.1) through the rollout. What every planner here gets is kept: the best
        candidate is returned instead of the last, actions stay inside their bounds, a plan that is good enough ends
        the search, and a sync that makes a candidate worse is not taken.

        Args:
            iterations: total number of iterations.
            sigma: noise; to be read relative to the scale of the state (0.5 is for unit scale).
        """
        return cls(
            candidates=1,
            iterations=iterations,
            verify_every=100,
            opening=0,
            initial=Line(),
            state_update=Adam(lr=0.1),
            action_update=Gradient(optimiser=Adam(lr=0.001)),
            goal_weight=1.0,
            sigma=sigma,
            noise=Coloured(beta=0.0),
            anneal=False,
            sync=ShootingGradient(steps=25, optimiser=Descent(lr=0.1)),
            sync_every=100,
            reset_states=False,
            warm_share=1.0,
        )

    def init(self, problem: Problem, warm: Tensor | None, noise: NoiseSource) -> GraspState:
        """See `Planner.init`."""
        states, actions = self.initial(problem, self.candidates, noise)
        count = round(self.warm_share * self.candidates)
        if warm is not None and count:
            kept = warm[:, None].expand(-1, count, -1, -1)
            actions = torch.cat([actions[:, : self.candidates - count], kept], 1)
            path = problem.follow(actions)[:, self.candidates - count :]
            states = torch.cat([states[:, : self.candidates - count], path], 1)
        states = torch.cat([states[:, :, :-1], problem.goal.project(states[:, :, -1:])], 2)
        return self._fresh(states, actions, 0)

    def step(self, problem: Problem, state: GraspState, noise: NoiseSource) -> GraspState:
        """One lifted iteration; every `sync_every`-th one is followed by a sync."""
        states, actions, state_memory, action_memory, iteration = state
        iteration += 1
        if iteration <= self.opening:
            return self._synced(problem, states, actions, iteration)
        previous = _shifted(problem, states)
        predicted, actions, action_memory = self.action_update.apply(
            problem, previous, states, actions, self.goal_weight, action_memory
        )
        actions = problem.clamp(actions)
        # With s_t free of gradient, |F(s_t, a_t) - s_{t+1}|^2 pulls s_{t+1} to its prediction and nothing else.
        states, state_memory = self.state_update.apply(states, 2 * (states - predicted), state_memory)
        if self.sigma:
            draw = self.noise.sample(noise, states.shape[1], states.shape[2], states.shape[3])
            states = states + self.sigma * self._temperature(iteration) * draw
        states[:, :, -1:] = problem.goal.project(states[:, :, -1:])
        if (iteration - self.opening) % self.sync_every == 0:
            return self._synced(problem, states, actions, iteration)
        return GraspState(states, actions, state_memory, action_memory, iteration)

    def actions(self, problem: Problem, state: GraspState) -> Tensor:
        """See `Planner.actions`."""
        return state.actions

    def _temperature(self, iteration: int) -> float:
        if not self.anneal:
            return 1.0
        return 1.0 - ((iteration - self.opening - 1) % self.sync_every) / self.sync_every

    def _synced(self, problem: Problem, states: Tensor, actions: Tensor, iteration: int) -> GraspState:
        """Each candidate keeps the better of its actions before and after the sync."""
        after = problem.clamp(self.sync(problem, states, actions))
        path, path_after = problem.follow(actions), problem.follow(after)
        better = (problem.own_cost(path_after) < problem.own_cost(path))[..., None, None]
        actions = torch.where(better, after, actions)
        if self.reset_states:
            states = torch.where(better, path_after, path)
            states[:, :, -1:] = problem.goal.project(states[:, :, -1:])
        return self._fresh(states, actions, iteration)

    def _fresh(self, states: Tensor, actions: Tensor, iteration: int) -> GraspState:
        memories = self.state_update.start(states), self.action_update.start(actions)
        return GraspState(states, actions, *memories, iteration)


def lifted_loss(problem: Problem, states: Tensor, actions: Tensor, goal_weight: float) -> Tensor:
    """The published loss (eq. 10) of virtual states `[B, N, H, S]` and actions `[B, N, H, A]`, `[B, N]`.

    Zero on a true rollout that stays at the goal; with `goal_weight` 0, zero on every true rollout.
    """
    predicted = problem.step(_shifted(problem, states), actions)
    goal = problem.goal.cost(predicted).sum(-1)
    return (predicted - states).square().sum((-1, -2)) + goal_weight * goal


def _shifted(problem: Problem, states: Tensor) -> Tensor:
    """s_0 .. s_{H-1}, without gradient."""
    first = problem.start[:, None, None].expand(-1, states.shape[1], 1, -1)
    return torch.cat([first, states[:, :, :-1]], dim=2).detach()
