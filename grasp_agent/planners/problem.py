"""What a planner is given: one-step dynamics, a goal, bounds, and the one way in which candidates are judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from grasp_agent.planners.candidates import Fold, derivative
from grasp_agent.planners.linalg.least_squares import least_squares
from grasp_agent.planners.protocols import Block, Dynamics, Goal, Jacobian, Pullback, Region
from grasp_agent.planners.scoring import Criteria, Verdict

if TYPE_CHECKING:
    from grasp_agent.planners.protocols import ReplayWindows, Router


@dataclass(frozen=True, kw_only=True)
class Problem:
    """B planning problems that share a model.

    Letters: B problems, N candidates, H horizon, S state, A action, K ensemble members.

    Attributes:
        dynamics: one-step dynamics of the K members.
        goal: the goals of the B problems.
        start: `[B, S]` start states.
        low: `[A]` lower bounds of the actions.
        high: `[A]` upper bounds of the actions.
        horizon: number of actions in a plan.
        members: K, how many members `dynamics` evaluates.
        action_jacobian: the model's own derivative by the action; None lets torch compute it.
        action_pullback: the model's own vector-Jacobian product by the action; None lets torch compute it.
        jacobian: the model's own derivative by state and action; None lets torch compute it.
        state_jacobian: `[S, S]`, how the next state depends on the state on average, regressed from replay; None takes
            the identity.
        metric: `[S, S]`, in which feedback measures how far states are apart, `|metric d|`; None for the Euclidean one.
        blocks: independent parts of state and action, in the order of the goal's parts; none for one block of all.
        support: region of states that the model knows, if it is known.
        roadmap: finds routes through replayed states, if there is one (see `grasp_agent.planners.roadmap.graph`).
        replay: recorded pieces of trajectories, if there are any (see `grasp_agent.planners.protocols`).
        criteria: how candidates are judged.

    Raises:
        ValueError: if shapes, bounds or horizon do not fit.
    """

    dynamics: Dynamics
    goal: Goal
    start: Tensor
    low: Tensor
    high: Tensor
    horizon: int
    members: int = 1
    action_jacobian: Jacobian | None = None
    action_pullback: Pullback | None = None
    jacobian: Jacobian | None = None
    state_jacobian: Tensor | None = None
    metric: Tensor | None = None
    blocks: tuple[Block, ...] = ()
    support: Region | None = None
    roadmap: Router | None = None
    replay: ReplayWindows | None = None
    criteria: Criteria = field(default_factory=Criteria)

    def __post_init__(self) -> None:
        if self.start.ndim != 2:
            raise ValueError(f"start: expected shape [B, S], got {list(self.start.shape)}")
        if self.low.ndim != 1 or self.low.shape != self.high.shape:
            raise ValueError(
                f"low, high: expected one shape [A], got {list(self.low.shape)} and {list(self.high.shape)}"
            )
        if not bool((self.low < self.high).all() and self.low.isfinite().all() and self.high.isfinite().all()):
            raise ValueError("low, high: expected finite bounds with low < high")
        if self.horizon < 1:
            raise ValueError(f"horizon: expected at least 1, got {self.horizon}")
        if self.steppers < 1:
            raise ValueError(f"criteria.unused: expected fewer than {self.members} members, got {self.criteria.unused}")

    @property
    def size(self) -> int:
        """B, the number of problems."""
        return self.start.shape[0]

    @property
    def steppers(self) -> int:
        """How many members step candidates while planners search: the first ones."""
        return self.members - self.criteria.unused

    @property
    def rest(self) -> Tensor:
        """`[A]`, the middle of the bounds: zero for symmetric actions."""
        return (self.low + self.high) / 2

    @property
    def independent(self) -> tuple[Block, ...]:
        """The blocks; one of everything where none are known."""
        return self.blocks or (Block(tuple(range(self.start.shape[1])), tuple(range(self.low.shape[0]))),)

    def resting(self, count: int) -> Tensor:
        """Actions at rest, `[B, count, H, A]`."""
        return self.rest.expand(self.size, count, self.horizon, -1)

    def shared(self, count: int) -> int:
        """At least `count` candidates, as many for each member that steps them."""
        return -(-count // self.steppers) * self.steppers

    def clamp(self, actions: Tensor) -> Tensor:
        """Actions `[..., A]` projected into the bounds."""
        return actions.clamp(self.low, self.high)

    def shifted(self, states: Tensor) -> Tensor:
        """The states that the actions of a plan start from: s_0 .. s_{H-1} of s_1 .. s_H, `[B, N, H, S]`."""
        first = self.start[:, None, None].expand(-1, states.shape[1], 1, -1)
        return torch.cat([first, states[:, :, :-1]], dim=2)

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """One step of each candidate under its own member: `[B, N, ..., S], [B, N, ..., A] -> [B, N, ..., S]`.

        Candidate n is stepped by member n % k, where k is the largest divisor of N up to the number of members in use.
        """
        fold = Fold.of(states, self.steppers)
        return fold.back(self.dynamics(fold.rows(states), fold.rows(actions)))

    def linearise(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """As `step`, with the derivative by the action: `[B, N, ..., S]` and `[B, N, ..., S, A]`.

        The derivative by the state is not formed.
        """
        fold = Fold.of(states, self.steppers)
        following, slopes = self.linearise_rows(fold.rows(states), fold.rows(actions))
        return fold.back(following), fold.back(slopes)

    def pullback(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """As `step`, with the product of a cotangent `[B, N, ..., S]` and D_a F, a function to `[B, N, ..., A]`."""
        fold = Fold.of(states, self.steppers)
        pullback = self.action_pullback or self._generic_pullback
        following, pull = pullback(fold.rows(states), fold.rows(actions))
        return fold.back(following), lambda cotangent: fold.back(pull(fold.rows(cotangent)))

    def jacobians(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `step`, with the derivatives by the state, `[B, N, ..., S, S]`, and by the action, `[B, N, ..., S, A]`.

        For planners that follow true rollouts, and for full collocation; GRASP's lifted iteration never calls it.
        """
        fold = Fold.of(states, self.steppers)
        jacobian = self.jacobian or self._generic_full_jacobian
        following, slopes = map(fold.back, jacobian(fold.rows(states), fold.rows(actions)))
        return following, slopes[..., : states.shape[-1]], slopes[..., states.shape[-1] :]

    def follow(self, actions: Tensor) -> Tensor:
        """Rollout of each candidate under its own member: `[B, N, H, A] -> [B, N, H, S]`."""
        fold = Fold.of(actions[:, :, 0], self.steppers)
        state = fold.rows(self.start[:, None].expand(-1, actions.shape[1], -1))
        states = []
        for action in fold.rows(actions.flatten(2)).unflatten(-1, actions.shape[2:]).unbind(2):
            state = self.dynamics(state, action)
            states.append(state)
        return fold.back(torch.stack(states, dim=2))

    def rollout(self, actions: Tensor) -> Tensor:
        """Rollout of each candidate under ALL members: `[B, N, H, A] -> [K, B, N, H, S]`."""
        rows = actions.flatten(0, 1).expand(self.members, -1, -1, -1)
        state = self.start[:, None].expand(-1, actions.shape[1], -1).flatten(0, 1).expand(self.members, -1, -1)
        advance = self.step_together if self.criteria.feedback and self.members > 1 else self.dynamics
        states = []
        for action in rows.unbind(2):
            state = advance(state, action)
            states.append(state)
        return torch.stack(states, dim=2).unflatten(1, actions.shape[:2])

    def linearise_rows(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Next states of rows `[k, M, S]`, and their derivative by the action `[k, M, S, A]`."""
        return (self.action_jacobian or self._generic_jacobian)(state, action)

    def step_together(self, state: Tensor, action: Tensor) -> Tensor:
        """Next states `[K, M, S]`, the actions corrected so that every member comes to where the judging ones meet."""
        predicted, slopes = self.linearise_rows(state, action)
        meeting = predicted[-self.criteria.unused :].mean(0)  # of those that judge: all, where none is unused
        change = self.correction(slopes, predicted - meeting, self.criteria.damping)
        return self.dynamics(state, self.clamp(action - change))

    def correction(self, slopes: Tensor, deviation: Tensor, damping: float) -> Tensor:
        """The action `[..., A]` that moves a state by `deviation` `[..., S]`, as far as D_a F `[..., S, A]` can."""
        if self.metric is None:
            return least_squares(slopes, deviation, damping)
        return least_squares(self.metric @ slopes, deviation @ self.metric.mT, damping)

    def distances(self, states: Tensor) -> Tensor:
        """Each part's distance to the goal in units of its tolerance, `[..., B, N, H, S] -> [..., B, N, H, G]`."""
        return self.goal.parts(states).clamp_min(0).sqrt() / self.goal.tolerance

    def part_merits(self, states: Tensor) -> Tensor:
        """What a planner should lower: each part's cost of rollouts `[B, N, H, S]`, `[B, N, G]`.

        As `score`, under the candidates' own members alone: hold at the end, way there, steps off the support.
        """
        rule = self.criteria
        if rule.stop:
            costs = self._stopping_costs(states)
            return costs.take_along_dim(self._stops(costs)[..., None, None], -2)[..., 0, :]
        distances = self.distances(states)
        cost = distances[..., -rule.hold :, :].amax(-2) + rule.running * distances.mean(-2)
        if self.support is not None and rule.off_support:
            cost = cost + self._penalties(states, distances).sum(-2)
        return torch.where(states.isfinite().all(-1).all(-1)[..., None], cost, torch.inf)

    def cut(self, actions: Tensor) -> Tensor:
        """Candidates `[B, N, H, A]` that rest from where their own members say that they should stop."""
        stops = self._stops(self._stopping_costs(self.follow(actions)))
        late = torch.arange(self.horizon, device=actions.device) > stops[..., None]
        return torch.where(late[..., None], self.rest, actions)

    def goal_weights(self, states: Tensor, hold: int, running: float) -> Tensor:
        """Weights of the goal's squared distances along `states` `[B, N, H, S]`, `[H]` or `[B, N, H]`.

        `running` in all, 1 over the last `hold`; where a plan may stop, 1 where it should. What is behind that keeps
        its share of `running`: else no gradient would ever lead farther.
        """
        horizon = states.shape[-2]
        weights = torch.full((horizon,), running / horizon, dtype=states.dtype, device=states.device)
        if not self.criteria.stop:
            weights[-hold:] += 1 / min(hold, horizon)
            return weights
        stops = self._stops(self._stopping_costs(states))[..., None]
        return weights.expand(*stops.shape[:-1], -1).scatter_add(-1, stops, weights.new_ones(()).expand_as(stops))

    def _stopping_costs(self, states: Tensor) -> Tensor:
        """Each part's cost of stopping at each step of rollouts `[B, N, H, S]` and staying there, `[B, N, H, G]`."""
        rule, horizon = self.criteria, states.shape[-2]
        distances = self.distances(states)
        left = torch.arange(horizon - 1, -1, -1, dtype=states.dtype, device=states.device)[:, None]
        cost = distances + rule.running * (distances.cumsum(-2) + left * distances) / horizon
        if self.support is not None and rule.off_support:
            penalties = torch.zeros_like(cost)
            penalties[..., :: rule.stride, :] = self._penalties(states, distances)
            cost = cost + penalties.cumsum(-2)
        sound = states.isfinite().all(-1).cummin(-1).values
        return torch.where(sound[..., None], cost, torch.inf)

    def _stops(self, costs: Tensor) -> Tensor:
        """The best step to stop at, `[B, N]`, of costs `[B, N, H, G]`."""
        return costs.sum(-1).argmin(-1)

    def _penalties(self, states: Tensor, distances: Tensor) -> Tensor:
        """For leaving the support on the way, at each step that is looked at while planners search."""
        assert self.support is not None
        rule = self.criteria
        strays = self.support.off(states[..., :: rule.stride, :]) & (distances[..., :: rule.stride, :] > 1)
        return rule.off_support * rule.stride * strays.to(states.dtype)

    def merit(self, states: Tensor) -> Tensor:
        """The sum of the parts' merits, `[B, N]`: lower is better."""
        return self.part_merits(states).sum(-1)

    def score(self, actions: Tensor) -> Verdict:
        """Judges candidates `[B, N, H, A]` by their rollouts under all members."""
        return self.verdict(self.rollout(actions))

    def verdict(self, rollouts: Tensor) -> Verdict:
        """Judges rollouts `[K, B, N, H, S]`; the worst member and part count."""
        rule = self.criteria
        rollouts = rollouts[-rule.unused :]  # all of them where none is unused
        distances = self.distances(rollouts)
        distance = distances.amax(-1)
        worst = distance[..., -(1 if rule.stop else rule.hold) :].amax(-1)
        if self.support is not None and rule.off_support:
            # Standing at a goal that was never visited is no detour: only the way there counts.
            strays = (self.support.off(rollouts) & (distances > 1)).any(-1)
            worst = worst + rule.off_support * strays.to(worst.dtype).sum(-1)
        cost = worst + rule.running * distance.mean(-1)
        if rule.disagreement:
            cost = cost + rule.disagreement * self.disagreement(rollouts).mean(-1)
        finite = rollouts.isfinite().all(-1).all(-1).all(0)
        cost = torch.where(finite, cost.amax(0), torch.inf)
        reached = (distance <= rule.accept).cummax(-1).values
        reached = reached | (self.distances(self.start[:, None, None]).amax(-1) <= rule.accept)
        stays = (distance <= rule.excursion) | ~reached
        accepted = finite & (worst.amax(0) <= rule.accept) & stays.all(-1).all(0)
        return Verdict(cost, accepted, rollouts.mean(0))

    def disagreement(self, rollouts: Tensor) -> Tensor:
        """The greatest distance of a member's state from the members' mean, `[K, B, N, H, S] -> [B, N, H]`."""
        return (rollouts - rollouts.mean(0)).norm(dim=-1).amax(0)

    def _generic_jacobian(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        return derivative(lambda a: self.dynamics(states, a), actions)

    def _generic_full_jacobian(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        size = states.shape[-1]
        rows = torch.cat([states, actions], dim=-1)
        return derivative(lambda x: self.dynamics(x[..., :size], x[..., size:]), rows)

    def _generic_pullback(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        leaf = actions.detach().requires_grad_()
        with torch.enable_grad():
            values = self.dynamics(states, leaf)
        return values.detach(), lambda cotangent: torch.autograd.grad(values, leaf, cotangent)[0]
