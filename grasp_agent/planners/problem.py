"""Planning problems: one-step dynamics, a goal or another objective, bounds, and the scoring of candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from grasp_agent.planners.candidates import Fold
from grasp_agent.planners.choices import check_choices, relaxed, rounded
from grasp_agent.planners.ensemble import Ensemble
from grasp_agent.planners.linalg.least_squares import least_squares
from grasp_agent.planners.objective import NoGoal, Objective
from grasp_agent.planners.protocols import Block, Dynamics, Goal, Jacobian, Pullback, Region
from grasp_agent.planners.refusals import Refusals
from grasp_agent.planners.regions import TerminalStates
from grasp_agent.planners.scoring import Criteria, Scoring, Verdict
from grasp_agent.planners.work import PASSES, SMALL_STEP, Effort, metered, spend

if TYPE_CHECKING:
    from grasp_agent.planners.protocols import History, Recording, ReplayWindows, Router

_MOST = 2**26  # numbers of rollouts that are kept at a time (256 MB); chosen by hand


@dataclass(frozen=True, kw_only=True)
class Problem:
    """B planning problems that share a model.

    Letters: B problems, N candidates, H horizon, S state, A action, K ensemble members.

    Attributes:
        dynamics: one-step dynamics of the K members.
        goal: the goals of the B problems; none where there is an objective.
        objective: what plans are worth, in place of a goal; candidates are compared under all members then, without
            feedback, and none is accepted before the search has ended. The criteria have no effect.
        start: `[B, S]` start states.
        low: `[A]` lower bounds of the actions.
        high: `[A]` upper bounds of the actions.
        choices: for discrete actions, how many entries belong to each choice, A in sum: actions are projected to
            mixtures of choices, and rounded to choices where plans are scored; they need bounds -1 and 1, and an
            objective.
        horizon: number of actions in a plan.
        members: K, number of members that `dynamics` evaluates.
        action_jacobian: the model's own derivative by the action; None uses autograd.
        action_pullback: the model's own vector-Jacobian product by the action; None uses autograd.
        jacobian: the model's own derivative by state and action; None uses autograd.
        state_jacobian: `[S, S]`, mean derivative of the next state by the state, regressed from replay; None takes the
            identity.
        metric: `[S, S]`, the metric `|metric d|` of state differences d in feedback; None for the Euclidean one.
        blocks: independent parts of state and action, in the order of the goal's parts; none for one block of all.
        support: region of states that the model was trained on, if known.
        terminal: states at which episodes ended for good, if any are known.
        roadmap: finds routes through replayed states, if there is one (see `grasp_agent.planners.roadmap.graph`).
        refusals: steps that the environment refused, which plans avoid, if any are known.
        replay: windows of recorded trajectories, if any (see `grasp_agent.planners.protocols`).
        recording: whole recorded trajectories, if any (see `grasp_agent.planners.protocols`).
        history: states and actions before the start, for a model that depends on them: `dynamics` and its derivatives
            are given contexts `[k, M, h S + (h - 1) A]`, the last h states and the h - 1 actions between them, in place
            of states. None for a model that depends on the present state only.
        forms_jacobians: whether derivatives `[S, S]` by the state may be formed; False where states are too large.
        criteria: how candidates are scored.
        effort: work of the model's functions, by which searches are limited.

    Raises:
        ValueError: if shapes, bounds or horizon do not fit.
    """

    dynamics: Dynamics
    goal: Goal = field(default_factory=lambda: cast(Goal, NoGoal()))
    objective: Objective | None = None
    start: Tensor
    low: Tensor
    high: Tensor
    horizon: int
    choices: tuple[int, ...] = ()
    members: int = 1
    action_jacobian: Jacobian | None = None
    action_pullback: Pullback | None = None
    jacobian: Jacobian | None = None
    state_jacobian: Tensor | None = None
    metric: Tensor | None = None
    blocks: tuple[Block, ...] = ()
    support: Region | None = None
    terminal: TerminalStates | None = None
    roadmap: Router | None = None
    refusals: Refusals | None = None
    replay: ReplayWindows | None = None
    recording: Recording | None = None
    history: History | None = None
    forms_jacobians: bool = True
    criteria: Criteria = field(default_factory=Criteria)
    effort: Effort = Effort()

    def __post_init__(self) -> None:
        if self.start.ndim != 2:
            raise ValueError(f"start: expected shape [B, S], got {list(self.start.shape)}")
        if self.low.ndim != 1 or self.low.shape != self.high.shape:
            raise ValueError(
                f"low, high: expected one shape [A], got {list(self.low.shape)} and {list(self.high.shape)}"
            )
        if not bool((self.low < self.high).all() and self.low.isfinite().all() and self.high.isfinite().all()):
            raise ValueError("low, high: expected finite bounds with low < high")
        if self.choices:
            check_choices(self.choices, self.low, self.high, self.objective)
        if isinstance(self.goal, NoGoal) == (self.objective is None):
            raise ValueError("problem: expected a goal or an objective, one of them")
        if self.horizon < 1:
            raise ValueError(f"horizon: expected at least 1, got {self.horizon}")
        if self.steppers < 1:
            raise ValueError(f"criteria.unused: expected fewer than {self.members} members, got {self.criteria.unused}")
        for name in PASSES:
            function = getattr(self, name)
            if function is not None:
                object.__setattr__(self, name, metered(function, name, self.effort))

    @property
    def size(self) -> int:
        """B, the number of problems."""
        return self.start.shape[0]

    @property
    def steppers(self) -> int:
        """Number of members, the first ones, that step candidates during planning."""
        return self.members - self.criteria.unused

    @cached_property
    def ensemble(self) -> Ensemble:
        """The model: steps and derivatives of candidates."""
        return Ensemble(
            dynamics=self.dynamics,
            steppers=self.steppers,
            action_jacobian=self.action_jacobian,
            action_pullback=self.action_pullback,
            jacobian=self.jacobian,
        )

    @cached_property
    def scoring(self) -> Scoring:
        """The scoring of rollouts."""
        return Scoring(self.goal, self.start, self.criteria, self.support, self.terminal, self.refusals)

    @property
    def spread(self) -> Tensor:
        """`[A]`, the unit of noise on actions: half their range, or all of it for choices."""
        return (self.high - self.low) / (1 if self.choices else 2)

    @property
    def rest(self) -> Tensor:
        """`[A]`, the middle of the bounds: zero for symmetric actions."""
        return (self.low + self.high) / 2

    @property
    def independent(self) -> tuple[Block, ...]:
        """The blocks; one of all entries if none are known."""
        return self.blocks or (Block(tuple(range(self.start.shape[1])), tuple(range(self.low.shape[0]))),)

    def resting(self, count: int) -> Tensor:
        """Returns actions at rest, `[B, count, H, A]`."""
        return self.rest.expand(self.size, count, self.horizon, -1)

    def shared(self, count: int) -> int:
        """Returns `count`, rounded up to a multiple of the members that step candidates."""
        return -(-count // self.steppers) * self.steppers

    def clamp(self, actions: Tensor) -> Tensor:
        """Returns actions `[..., A]` projected into the bounds, or to mixtures of choices."""
        return relaxed(actions, self.choices) if self.choices else actions.clamp(self.low, self.high)

    def executable(self, actions: Tensor) -> Tensor:
        """Returns actions `[..., A]` as they are executed: choices rounded, others as they are."""
        return rounded(actions, self.choices) if self.choices else actions

    def shifted(self, states: Tensor) -> Tensor:
        """Returns the states before a plan's actions: s_0 .. s_{H-1} of s_1 .. s_H, `[B, N, H, S]`."""
        first = self.start[:, None, None].expand(-1, states.shape[1], 1, -1)
        return torch.cat([first, states[:, :, :-1]], dim=2)

    @property
    def context(self) -> Tensor:
        """`[B, C]`, what the model is given at the start: the state, or see `history`."""
        if self.history is None:
            return self.start
        return torch.cat([self.history.states.flatten(1), self.start, self.history.actions.flatten(1)], -1)

    def contexts(self, states: Tensor, actions: Tensor) -> Tensor:
        """Returns what the model is given before each action of candidates, `[B, N, H, C]`; see `context`."""
        before = self.shifted(states)
        if self.history is None:
            return before
        earlier = [part[:, None].expand(-1, states.shape[1], -1, -1) for part in self.history]
        length = self.history.states.shape[1]
        known = torch.cat([earlier[0], before], 2).unfold(2, length + 1, 1).transpose(-1, -2).flatten(-2)
        taken = torch.cat([earlier[1], actions[:, :, :-1]], 2).unfold(2, length, 1).transpose(-1, -2).flatten(-2)
        return torch.cat([known, taken], -1)

    def pullback(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Returns F `[B, N, H, S]` of lifted states and actions, and its vector-Jacobian product by the actions.

        States have no gradient; actions have that of all contexts which they are part of.
        """
        if self.history is None:
            return self.ensemble.pullback(self.shifted(states), actions)
        leaf = actions.detach().requires_grad_()
        with torch.enable_grad():
            values = self.ensemble.step(self.contexts(states.detach(), leaf), leaf)
        return values.detach(), lambda cotangent: torch.autograd.grad(values, leaf, cotangent)[0]

    def advance(self, context: Tensor, action: Tensor, state: Tensor) -> Tensor:
        """Returns contexts `[..., C]` after actions `[..., A]` that led to states `[..., S]`."""
        if self.history is None:
            return state
        size, count = state.shape[-1], 1 + self.history.states.shape[1]
        states, actions = context[..., size : count * size], context[..., count * size + action.shape[-1] :]
        return torch.cat([states, state, actions, action], -1)

    def follow(self, actions: Tensor, members: int | None = None) -> Tensor:
        """Returns the rollout of each candidate under its own member: `[B, N, H, A] -> [B, N, H, S]`.

        Candidate n follows member n % `members`, a divisor of N; None for the largest up to those in use.
        """
        fold = Fold(tuple(actions.shape[:2]), members or Fold.of(actions[:, :, 0], self.steppers).members)
        context = fold.rows(self.context[:, None].expand(-1, actions.shape[1], -1))
        states = []
        for action in fold.rows(actions.flatten(2)).unflatten(-1, actions.shape[2:]).unbind(2):
            states.append(self.dynamics(context, action))
            context = self.advance(context, action, states[-1])
        return fold.back(torch.stack(states, dim=2))

    def rollout(self, actions: Tensor) -> Tensor:
        """Returns the rollout of each candidate under ALL members: `[B, N, H, A] -> [K, B, N, H, S]`."""
        rows = actions.flatten(0, 1).expand(self.members, -1, -1, -1)
        context = self.context[:, None].expand(-1, actions.shape[1], -1).flatten(0, 1).expand(self.members, -1, -1)
        together = self.criteria.feedback and self.members > 1 and self.objective is None
        step = self.step_together if together else self.dynamics
        states = []
        for action in rows.unbind(2):
            states.append(step(context, action))
            context = self.advance(context, action, states[-1])
        return torch.stack(states, dim=2).unflatten(1, actions.shape[:2])

    def part_merits(self, actions: Tensor) -> Tensor:
        """Returns the cost `[B, N, G]` of each part of candidates `[B, N, H, A]` under their own members.

        With an objective, they have one part, and are compared under all members.
        No more than `_MOST` numbers of their rollouts are kept at a time.
        """
        if self.objective is not None:
            each = max(1, _MOST // (actions.shape[0] * self.horizon * self.start.shape[1] * self.members))
            return torch.cat([self.score(part).cost for part in actions.split(each, 1)], 1)[..., None]
        together = Fold.of(actions[:, :, 0], self.steppers).members
        each = max(1, _MOST // (actions.shape[0] * self.horizon * self.start.shape[1] * together)) * together
        return torch.cat([self.scoring.part_merits(self.follow(part, together)) for part in actions.split(each, 1)], 1)

    def merit(self, actions: Tensor) -> Tensor:
        """Returns the sum of the parts' costs, `[B, N]`, see `part_merits`."""
        return self.part_merits(actions).sum(-1)

    @property
    def is_small(self) -> bool:
        """Whether derivatives `[S, S]` by the state can be formed."""
        return self.forms_jacobians and self.history is None

    def step_together(self, state: Tensor, action: Tensor) -> Tensor:
        """Returns next states `[K, M, S]`; actions are corrected towards the mean prediction of the scoring members."""
        predicted, slopes = self.ensemble.linearise_rows(state, action)
        mean = predicted[-self.criteria.unused :].mean(0)  # of the members that score: all, if none is unused
        change = self.correction(slopes, predicted - mean, self.criteria.damping)
        return self.dynamics(state, self.clamp(action - change))

    def correction(self, slopes: Tensor, deviation: Tensor, damping: float) -> Tensor:
        """Returns the action `[..., A]` that moves a state by `deviation` `[..., S]`, by least squares in D_a F."""
        spend(SMALL_STEP)
        if self.metric is None:
            return least_squares(slopes, deviation, damping)
        return least_squares(self.metric @ slopes, deviation @ self.metric.mT, damping)

    def cut(self, actions: Tensor) -> Tensor:
        """Returns candidates `[B, N, H, A]` that rest after the best step to stop at under their own members."""
        stops = self.scoring.stops(self.follow(actions))
        late = torch.arange(self.horizon, device=actions.device) > stops[..., None]
        return torch.where(late[..., None], self.rest, actions)

    def score(self, actions: Tensor, rollouts: Tensor | None = None) -> Verdict:
        """Scores candidates `[B, N, H, A]` by their rollouts under all members; see `Scoring.evaluate`.

        Args:
            actions: the candidates.
            rollouts: `[K, B, N, H, S]`, where they are known.
        """
        actions = self.executable(actions)
        rollouts = self.rollout(actions) if rollouts is None else rollouts
        if self.objective is None:
            return self.scoring.evaluate(rollouts)
        cost = self.objective.cost(self.start, rollouts, actions)
        finite = rollouts.isfinite().all(-1).all(-1).all(0) & cost.isfinite()
        return Verdict(torch.where(finite, cost, torch.inf), torch.zeros_like(finite), rollouts.mean(0))

    def loss(self, actions: Tensor, hold: int, running: float) -> Tensor:
        """Returns the sum of all candidates' costs, differentiable by actions `[B, N, H, A]`, under their own members.

        With an objective, under all members.

        Args:
            actions: the candidates.
            hold: see `Scoring.goal_weights`.
            running: see `Scoring.goal_weights`.
        """
        if self.objective is not None:
            return self.objective.cost(self.start, self.rollout(actions), actions).sum()
        path = self.follow(actions)
        return (self.goal.cost(path) * self.scoring.goal_weights(path, hold, running)).sum()
