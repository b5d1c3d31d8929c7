"""Scoring of candidate plans: criteria, and the cost of rollouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from grasp_agent.planners.protocols import Goal, Region
from grasp_agent.planners.refusals import Refusals
from grasp_agent.planners.regions import TerminalStates
from grasp_agent.validation import at_least, finite, whole


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """How a candidate is scored (all distances in units of the goal's tolerance).

    Attributes:
        hold: number of last steps during which the plan has to stay at the goal.
        accept: a plan is accepted if its greatest distance over those steps, under the worst ensemble member, plus its
            penalty for leaving the support, is at most this; a negative number accepts none.
        excursion: a plan that has reached the goal (within `accept`) must not leave it farther than this.
        running: weight of the mean distance along the trajectory; favours plans that arrive early.
        off_support: weight of each step off the replayed support before the goal: two or three make a plan
            unacceptable, however long it is.
        termination: a plan that, before the goal, enters a state at which episodes ended for good (`terminated`
            without success) costs this more than to wait at its farthest state, and is never accepted; 0 ignores them.
        refused: weight of each step that leads where the environment refused one, see `Refusals`.
        stride: during planning, the support is checked at every step of this many; the final score checks all.
        feedback: True scores candidates as they are executed: with one tracking step on D_a F for each action, towards
            the members' mean prediction. False scores the open-loop actions.
        damping: damping of that tracking step.
        disagreement: weight of the members' mean disagreement [tolerances per state unit].
        unused: number of members, the last ones, that step no candidate during planning and alone decide on the final
            score; 0 uses all members for both.
        stop: True for tasks whose state stays without actions (blocks on a table): a plan may stop at any time, is
            scored by its state then, and rests from there on. `hold` has no effect then.

    Raises:
        ValueError: if a number is out of range.
    """

    hold: int = 6
    accept: float = 0.6
    excursion: float = 1.0
    running: float = 0.1
    off_support: float = 0.25
    termination: float = 100.0
    refused: float = 1.0
    stride: int = 3
    feedback: bool = True
    damping: float = 0.01
    disagreement: float = 0.0
    unused: int = 0
    stop: bool = False

    def __post_init__(self) -> None:
        whole(1, hold=self.hold, stride=self.stride)
        whole(0, unused=self.unused)
        names = ("excursion", "running", "off_support", "termination", "refused", "damping", "disagreement")
        at_least(0, **{name: getattr(self, name) for name in names})
        finite(accept=self.accept)


class Verdict(NamedTuple):
    """The scores of candidates, see `Problem.score`."""

    cost: Tensor
    """`[B, N]`, lower is better; infinite if a prediction is not finite."""
    accepted: Tensor
    """`[B, N]`, True if the candidate is good enough to end planning."""
    states: Tensor
    """`[B, N, H, S]`, predicted states after each action, the mean over the members."""


class Scoring:
    """Scores rollouts by their distance to the goal and the steps off the support.

    During planning, candidates are compared by `merit`, under their own members; `evaluate`, under all members, decides
    on acceptance.

    Args:
        goal: the goals of B problems.
        start: `[B, S]` start states.
        criteria: the criteria.
        support: region of states that the model was trained on, if known.
        terminal: states at which episodes ended for good, if any are known.
        refusals: steps that the environment refused, if any are known.
    """

    def __init__(
        self,
        goal: Goal,
        start: Tensor,
        criteria: Criteria,
        support: Region | None,
        terminal: TerminalStates | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        self._goal, self._start, self._criteria, self._support = goal, start, criteria, support
        self._terminal = terminal if criteria.termination else None
        self._refusals = refusals if refusals is not None and criteria.refused and refusals.any else None

    def distances(self, states: Tensor) -> Tensor:
        """Returns each part's distance to the goal [tolerances], `[..., B, N, H, S] -> [..., B, N, H, G]`."""
        return self._goal.parts(states).clamp_min(0).sqrt() / self._goal.tolerance

    def part_merits(self, states: Tensor) -> Tensor:
        """Returns the cost `[B, N, G]` of each part of rollouts `[B, N, H, S]`, which planners minimise.

        Its terms are those of `evaluate`, under the candidates' own members only: distance over the last steps, mean
        distance, steps off the support.
        """
        rule = self._criteria
        if rule.stop:
            costs = self._stopping_costs(states)
            return costs.take_along_dim(self._best_stops(costs)[..., None, None], -2)[..., 0, :]
        distances = self.distances(states)
        cost = distances[..., -rule.hold :, :].amax(-2) + rule.running * distances.mean(-2)
        if self._support is not None and rule.off_support:
            cost = cost + self._penalties(states, distances).sum(-2)
        if self._refusals is not None:
            cost = cost + self._refused(states)[..., -1:]
        if self._terminal is not None:
            cost = cost + self._termination(distances) * self._ends(states, distances)[..., -1:].to(cost.dtype)
        return torch.where(states.isfinite().all(-1).all(-1)[..., None], cost, torch.inf)

    def goal_weights(self, states: Tensor, hold: int, running: float) -> Tensor:
        """Returns weights `[H]` or `[B, N, H]` of the goal's squared distances along `states` `[B, N, H, S]`.

        They sum to `running` over all steps, plus 1 over the last `hold`; with `Criteria.stop`, plus 1 at the best step
        to stop at. Later steps keep their fraction of `running`: without it, no gradient would lead to later stops.
        """
        horizon = states.shape[-2]
        weights = torch.full((horizon,), running / horizon, dtype=states.dtype, device=states.device)
        if not self._criteria.stop:
            weights[-hold:] += 1 / min(hold, horizon)
            return weights
        stops = self.stops(states)[..., None]
        return weights.expand(*stops.shape[:-1], -1).scatter_add(-1, stops, weights.new_ones(()).expand_as(stops))

    def _stopping_costs(self, states: Tensor) -> Tensor:
        """Returns each part's cost `[B, N, H, G]` of stopping at each step of rollouts `[B, N, H, S]`."""
        rule, horizon = self._criteria, states.shape[-2]
        distances = self.distances(states)
        left = torch.arange(horizon - 1, -1, -1, dtype=states.dtype, device=states.device)[:, None]
        cost = distances + rule.running * (distances.cumsum(-2) + left * distances) / horizon
        if self._support is not None and rule.off_support:
            penalties = torch.zeros_like(cost)
            penalties[..., :: rule.stride, :] = self._penalties(states, distances)
            cost = cost + penalties.cumsum(-2)
        if self._refusals is not None:
            cost = cost + self._refused(states)[..., None]
        if self._terminal is not None:
            ends = self._ends(states, distances)[..., None].to(cost.dtype)
            cost = cost + self._termination(distances)[..., None, :] * ends
        sound = states.isfinite().all(-1).cummin(-1).values
        return torch.where(sound[..., None], cost, torch.inf)

    def stops(self, states: Tensor) -> Tensor:
        """Returns the best step to stop at, `[B, N]`, of rollouts `[B, N, H, S]`."""
        return self._best_stops(self._stopping_costs(states))

    def _best_stops(self, costs: Tensor) -> Tensor:
        return costs.sum(-1).argmin(-1)

    def _penalties(self, states: Tensor, distances: Tensor) -> Tensor:
        """Returns the penalties for leaving the support before the goal, at every `stride`-th step."""
        assert self._support is not None
        rule = self._criteria
        strays = self._support.off(states[..., :: rule.stride, :]) & (distances[..., :: rule.stride, :] > 1)
        return rule.off_support * rule.stride * strays.to(states.dtype)

    def _refused(self, states: Tensor) -> Tensor:
        """Returns costs `[B, N, H]`, up to each step of rollouts `[B, N, H, S]`, of going where steps were refused."""
        assert self._refusals is not None
        start = self._start[:, None, None].expand(-1, states.shape[1], 1, -1)
        crossed = self._refusals.crossed(torch.cat([start, states[:, :, :-1]], 2), states)
        return self._criteria.refused * crossed.cumsum(-1)

    def _termination(self, distances: Tensor) -> Tensor:
        """Returns what it costs to end the episode, `[..., B, N, G]`: more than to wait, however far the goal is."""
        rule = self._criteria
        greatest = torch.maximum(distances.amax(-2), self.distances(self._start[:, None, None])[..., 0, :])
        return rule.termination + (1 + rule.running) * greatest

    def _ends(self, states: Tensor, distances: Tensor) -> Tensor:
        """Returns whether a terminal state was entered before the goal, up to each step, `[..., H]`."""
        assert self._terminal is not None
        entered = self._terminal.contains(states) & (distances > 1).any(-1)
        return entered.cummax(-1).values

    def merit(self, states: Tensor) -> Tensor:
        """Returns the sum of the parts' merits, `[B, N]`: lower is better."""
        return self.part_merits(states).sum(-1)

    def evaluate(self, rollouts: Tensor) -> Verdict:
        """Scores rollouts `[K, B, N, H, S]` under the worst member and part."""
        rule = self._criteria
        rollouts = rollouts[-rule.unused :]  # all of them, if none is unused
        distances = self.distances(rollouts)
        distance = distances.amax(-1)
        worst = distance[..., -(1 if rule.stop else rule.hold) :].amax(-1)
        if self._support is not None and rule.off_support:
            # A goal off the support is no fault of the plan: only steps before it count.
            strays = (self._support.off(rollouts) & (distances > 1)).any(-1)
            worst = worst + rule.off_support * strays.to(worst.dtype).sum(-1)
        if self._refusals is not None:
            worst = worst + torch.stack([self._refused(states)[..., -1] for states in rollouts])
        if self._terminal is not None:
            ends = self._ends(rollouts, distances)[..., -1]
            price = self._termination(distances).amax(-1).clamp_min(rule.accept + 1)
            worst = torch.where(ends, worst + price, worst)
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
        """Returns the greatest distance of a member's state to the members' mean, `[K, B, N, H, S] -> [B, N, H]`."""
        return (rollouts - rollouts.mean(0)).norm(dim=-1).amax(0)
