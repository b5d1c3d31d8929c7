"""What a candidate plan is worth: the rules, and how rollouts are scored by them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from grasp_agent.planners.protocols import Goal, Region
from grasp_agent.validation import at_least, whole


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """How a candidate is judged (all distances in units of the goal's tolerance).

    Attributes:
        hold: number of last steps during which the goal has to be kept.
        accept: a plan is good enough when its worst distance over those steps, under the worst ensemble member, plus
            its penalty for leaving the support, is not above this; a negative number accepts none.
        excursion: a plan that has come to the goal (within `accept`) must not go farther than this away again.
        running: weight of the mean distance along the way; prefers plans that arrive early.
        off_support: weight of each step that lies off the replayed support, on the way to the goal: two or three make
            a plan unacceptable, however long it is.
        stride: while planners search, the support is checked at each step of this many; a verdict checks all.
        feedback: True judges candidates as they are executed: with one tracking step on D_a F for each action, towards
            the members' common prediction. False judges the bare actions.
        damping: damping of that tracking step.
        disagreement: weight of the members' mean disagreement [tolerances per state unit].
        unused: this many members, the last ones, step no candidate while planners search, and they alone judge; 0 lets
            all members do both.
        stop: True for tasks that stay as they are when left alone (blocks on a table): a plan may stop at any time, is
            judged by where it is then, and rests from there on. `hold` has no meaning then.

    Raises:
        ValueError: if a number is out of range.
    """

    hold: int = 6
    accept: float = 0.6
    excursion: float = 1.0
    running: float = 0.1
    off_support: float = 0.25
    stride: int = 3
    feedback: bool = True
    damping: float = 0.01
    disagreement: float = 0.0
    unused: int = 0
    stop: bool = False

    def __post_init__(self) -> None:
        whole(1, hold=self.hold, stride=self.stride)
        whole(0, unused=self.unused)
        names = ("excursion", "running", "off_support", "damping", "disagreement")
        at_least(0, **{name: getattr(self, name) for name in names})
        at_least(-math.inf, accept=self.accept)


class Verdict(NamedTuple):
    """What `Problem.score` says of candidates."""

    cost: Tensor
    """`[B, N]`, lower is better; infinite where the model's answer is not finite."""
    accepted: Tensor
    """`[B, N]`, True where the candidate is good enough to stop searching."""
    states: Tensor
    """`[B, N, H, S]`, predicted states after each action, the mean over the members."""


class Scoring:
    """Scores rollouts, by the distance to the goal and the steps off the support.

    While planners search, candidates are compared by `merit`, under their own members; what is accepted is decided by
    `evaluate`, under all.

    Args:
        goal: the goals of B problems.
        start: `[B, S]` start states.
        criteria: the rules.
        support: region of states that the model knows, if it is known.
    """

    def __init__(self, goal: Goal, start: Tensor, criteria: Criteria, support: Region | None) -> None:
        self._goal, self._start, self._criteria, self._support = goal, start, criteria, support

    def distances(self, states: Tensor) -> Tensor:
        """Each part's distance to the goal in units of its tolerance, `[..., B, N, H, S] -> [..., B, N, H, G]`."""
        return self._goal.parts(states).clamp_min(0).sqrt() / self._goal.tolerance

    def part_merits(self, states: Tensor) -> Tensor:
        """What a planner should lower: each part's cost of rollouts `[B, N, H, S]`, `[B, N, G]`.

        As `score`, under the candidates' own members alone: hold at the end, way there, steps off the support.
        """
        rule = self._criteria
        if rule.stop:
            costs = self._stopping_costs(states)
            return costs.take_along_dim(self._best_stops(costs)[..., None, None], -2)[..., 0, :]
        distances = self.distances(states)
        cost = distances[..., -rule.hold :, :].amax(-2) + rule.running * distances.mean(-2)
        if self._support is not None and rule.off_support:
            cost = cost + self._penalties(states, distances).sum(-2)
        return torch.where(states.isfinite().all(-1).all(-1)[..., None], cost, torch.inf)

    def goal_weights(self, states: Tensor, hold: int, running: float) -> Tensor:
        """Weights of the goal's squared distances along `states` `[B, N, H, S]`, `[H]` or `[B, N, H]`.

        `running` in all, 1 over the last `hold`; where a plan may stop, 1 where it should. What is behind that keeps
        its share of `running`: else no gradient would ever lead farther.
        """
        horizon = states.shape[-2]
        weights = torch.full((horizon,), running / horizon, dtype=states.dtype, device=states.device)
        if not self._criteria.stop:
            weights[-hold:] += 1 / min(hold, horizon)
            return weights
        stops = self.stops(states)[..., None]
        return weights.expand(*stops.shape[:-1], -1).scatter_add(-1, stops, weights.new_ones(()).expand_as(stops))

    def _stopping_costs(self, states: Tensor) -> Tensor:
        """Each part's cost of stopping at each step of rollouts `[B, N, H, S]` and staying there, `[B, N, H, G]`."""
        rule, horizon = self._criteria, states.shape[-2]
        distances = self.distances(states)
        left = torch.arange(horizon - 1, -1, -1, dtype=states.dtype, device=states.device)[:, None]
        cost = distances + rule.running * (distances.cumsum(-2) + left * distances) / horizon
        if self._support is not None and rule.off_support:
            penalties = torch.zeros_like(cost)
            penalties[..., :: rule.stride, :] = self._penalties(states, distances)
            cost = cost + penalties.cumsum(-2)
        sound = states.isfinite().all(-1).cummin(-1).values
        return torch.where(sound[..., None], cost, torch.inf)

    def stops(self, states: Tensor) -> Tensor:
        """The best step to stop at, `[B, N]`, of rollouts `[B, N, H, S]`."""
        return self._best_stops(self._stopping_costs(states))

    def _best_stops(self, costs: Tensor) -> Tensor:
        return costs.sum(-1).argmin(-1)

    def _penalties(self, states: Tensor, distances: Tensor) -> Tensor:
        """For leaving the support on the way, at each step that is looked at while planners search."""
        assert self._support is not None
        rule = self._criteria
        strays = self._support.off(states[..., :: rule.stride, :]) & (distances[..., :: rule.stride, :] > 1)
        return rule.off_support * rule.stride * strays.to(states.dtype)

    def merit(self, states: Tensor) -> Tensor:
        """The sum of the parts' merits, `[B, N]`: lower is better."""
        return self.part_merits(states).sum(-1)

    def evaluate(self, rollouts: Tensor) -> Verdict:
        """Scores rollouts `[K, B, N, H, S]`; the worst member and part count."""
        rule = self._criteria
        rollouts = rollouts[-rule.unused :]  # all of them where none is unused
        distances = self.distances(rollouts)
        distance = distances.amax(-1)
        worst = distance[..., -(1 if rule.stop else rule.hold) :].amax(-1)
        if self._support is not None and rule.off_support:
            # Standing at a goal that was never visited is no detour: only the way there counts.
            strays = (self._support.off(rollouts) & (distances > 1)).any(-1)
            worst = worst + rule.off_support * strays.to(worst.dtype).sum(-1)
        cost = worst + rule.running * distance.mean(-1)
        if rule.disagreement:
            cost = cost + rule.disagreement * self.disagreement(rollouts).mean(-1)
        finite = rollouts.isfinite().all(-1).all(-1).all(0)
        cost = torch.where(finite, cost.amax(0), torch.inf)
        reached = (distance <= rule.accept).cummax(-1).values
        reached = reached | (self.distances(self._start[:, None, None]).amax(-1) <= rule.accept)
        stays = (distance <= rule.excursion) | ~reached
        accepted = finite & (worst.amax(0) <= rule.accept) & stays.all(-1).all(0)
        return Verdict(cost, accepted, rollouts.mean(0))

    def disagreement(self, rollouts: Tensor) -> Tensor:
        """The greatest distance of a member's state from the members' mean, `[K, B, N, H, S] -> [B, N, H]`."""
        return (rollouts - rollouts.mean(0)).norm(dim=-1).amax(0)
