"""A roadmap of recorded moments: stitches pieces of different trajectories, for states of any size."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from grasp_agent.planners.protocols import Aim, Metric, Recording
from grasp_agent.planners.refusals import Refusals

# All values below are chosen by hand.
_NODES = 10_000  # nodes at most, about: distances of all pairs are computed
_PIECE = 100  # nodes of a trajectory that are taken or left out together, and between which no route jumps
_JUMPS = 8  # nearest nodes of other trajectories, to which a route may change
_RADIUS, _FARTHEST = 1.0, 3.0  # distance of these, and greatest one of the nearest nodes of starts and goals [steps]
_PENALTY, _DRIFT = 0.3, 2.0  # cost of a change, and of each step of its distance: no action covers it [steps]
_FASTER = 1.5  # than recorded steps, about, are plans
_KEPT = 2  # fields of goals: the agent's goal, and the state ahead on the way to it
_SOME = 16  # goals from which `connected` is estimated


class _Field(NamedTuple):
    """The ways from P nodes to B goals."""

    row: Tensor
    """`[B, 1]`, the numbers of the goals."""
    times: Tensor
    """`[B, P]`, steps to the goal; infinite where no route leads there."""
    onward: Tensor
    """`[B, P]`, those by the recorded step."""
    change: Tensor
    """`[B, P]`, those by the best change of trajectory."""
    after: Tensor
    """`[B, P]`, the node after that."""
    stop: Tensor
    """`[B, P]`, what it costs that the node is not the goal, infinite where it is far from it."""


class RecordedRoadmap:
    """Shortest routes over recorded moments, along recorded steps and changes between trajectories that pass nearby.

    Nodes are moments a whole number of steps after the start of their trajectory; of too many, pieces of trajectories
    are taken, evenly spread. As an edge is a recorded action or hardly any way at all, no edge has to be driven.

    Args:
        recording: the trajectories.
        metric: the distance of states, which decides where routes may change between trajectories.
    """

    def __init__(self, recording: Recording, metric: Metric) -> None:
        self._recording, self._metric = recording, metric
        self._rows, self._trajectory = _nodes(recording)
        device = self._rows.device
        index = torch.arange(len(self._rows), device=device)
        follows = torch.zeros_like(index, dtype=torch.bool)
        follows[:-1] = (
            self._rows[1:] == self._rows[:-1] + recording.stride
        )  # of the same trajectory, also of its next piece
        self._next = torch.where(follows & (recording.left[self._rows] > 0), index + 1, -1)
        self._embedded = metric.embedded(self.nodes)
        self._jumps, self._costs = self._neighbours()
        self._fields: list[tuple[Tensor, _Field]] = []  # of the last goals

    @property
    def nodes(self) -> Tensor:
        """The recorded states that routes pass, `[P, S]`."""
        return self._recording.states[self._rows]

    @property
    def connected(self) -> float:
        """See `Router.connected`; estimated from some goals."""
        some = torch.linspace(0, len(self._rows) - 1, min(_SOME, len(self._rows)), device=self._rows.device).long()
        return float(self.times_to_go(self.nodes[some]).isfinite().to(torch.float32).mean())

    def paths(
        self, start: Tensor, aim: Aim, count: int, horizon: int, stretch: float, refusals: Refusals | None = None
    ) -> Tensor:
        """See `Router.paths`: recorded states; `stretch` has no effect, nor have refusals: these steps were made."""
        nodes, taken, found = self._routes(start, aim(start[:, None])[:, 0], count, horizon)
        ends = torch.where(taken, self._next[nodes], nodes)
        return self._recording.states[self._rows[ends]].masked_fill(~found[..., None, None], torch.nan)

    def plans(self, start: Tensor, goal: Tensor, count: int, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns recorded actions along routes.

        Args:
            start: `[B, S]`.
            goal: `[B, S]`.
            count: number of routes for each problem, by different first trajectories as far as possible.
            horizon: H.

        Returns:
            Actions `[B, count, H, A]`, whether the goal is still ahead when they are taken, `[B, count, H]`, and
            whether there is a route, `[B, count]`.
        """
        nodes, taken, found = self._routes(start, goal, count, horizon)
        return self._recording.actions[self._rows[nodes]], taken, found

    def ahead(
        self, start: Tensor, aim: Aim, horizon: int, stretch: float = 1.0, refusals: Refusals | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Router.ahead`; `stretch` and refusals have no effect.

        A plan may be faster than what was recorded: goals up to half as far again, and those without a route, stay.
        """
        goal = aim(start[:, None])[:, 0]
        nodes, taken, _ = self._routes(start, goal, 1, math.ceil(_FASTER * horizon))
        states = self._recording.states[self._rows[self._next[nodes[:, 0, horizon - 1]]]]
        far = taken[:, 0, -1]
        return torch.where(far[:, None], states, goal), far

    def settle(self, states: Tensor) -> Tensor:
        """See `Router.settle`: no entry is known to be a velocity."""
        return states

    def _neighbours(self) -> tuple[Tensor, Tensor]:
        """Returns the nodes `[P, J]` to which a route may change, and what that costs, infinite where it may not."""
        found = []
        for rows in torch.arange(len(self._rows), device=self._rows.device).split(512):
            distance = self._metric.pairwise(self._embedded[rows], self._embedded)
            distance.masked_fill_(self._trajectory[rows, None] == self._trajectory, torch.inf)
            found.append(distance.topk(min(_JUMPS, len(self._rows)), largest=False))
        costs, jumps = (torch.cat(part) for part in zip(*found, strict=True))
        return jumps, _cost(costs, _RADIUS)

    def times_to_go(self, goals: Tensor) -> Tensor:
        """Returns steps from each node to goals, `[B, S] -> [B, P]`, infinite where no route leads there."""
        return self._field(goals).times

    def _field(self, goals: Tensor) -> _Field:
        """Returns the field of goals `[B, S]`; the last ones are kept, as goals seldom change from plan to plan."""
        known = [pair for pair in self._fields if torch.equal(pair[0], goals)]
        pair = known[0] if known else (goals, self._computed_field(goals))
        self._fields = [pair, *(other for other in self._fields if other is not pair)][:_KEPT]
        return pair[1]

    def _computed_field(self, goals: Tensor) -> _Field:
        """Returns the field of goals `[B, S]`, by value iteration."""
        stop = _near(self._metric.pairwise(self._embedded, self._metric.embedded(goals)).T)
        times = stop
        while True:
            onward = torch.where(self._next >= 0, 1 + times[:, self._next], torch.inf)
            change, jump = (self._costs + times[:, self._jumps]).min(-1)
            shorter = torch.minimum(onward, change).minimum(times)
            if torch.equal(shorter, times):
                break
            times = shorter
        row = torch.arange(len(times), device=times.device)[:, None]
        after = self._jumps[torch.arange(times.shape[1], device=times.device), jump]
        return _Field(row, times, onward, change, after, stop)

    def _routes(self, start: Tensor, goal: Tensor, count: int, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the nodes along routes, `[B, count, H]`, whether a step is taken in them, and whether there is one.

        Routes end where the goal is as near as a change of trajectory, or nearer than by the next edge.
        """
        field = self._field(goal)
        distance = self._metric.pairwise(self._metric.embedded(start), self._embedded)
        total = field.times + _near(distance.masked_fill(field.times.isinf(), torch.inf))
        node, found = self._first_nodes(total, count)
        nodes, taken = [], []
        for _ in range(horizon):
            while True:  # each change shortens the time to go
                step, change, stop = (part[field.row, node] for part in (field.onward, field.change, field.stop))
                changes = found & (change < step) & (change < stop)
                if not changes.any():
                    break
                node = torch.where(changes, field.after[field.row, node], node)
            steps = found & (step < stop)
            nodes.append(node)
            taken.append(steps)
            node = torch.where(steps, self._next[node], node)
        return torch.stack(nodes, 2), torch.stack(taken, 2), found

    def _first_nodes(self, total: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Returns the first nodes `[B, count]` of the best routes, one of each trajectory, and whether they lead on.

        Args:
            total: `[B, P]`, steps by each node.
            count: number of routes; with fewer trajectories on the way some are repeated.
        """
        trajectories = int(self._trajectory.max()) + 1
        wide = self._trajectory.expand_as(total)
        least = total.new_full((len(total), trajectories), torch.inf).scatter_reduce(1, wide, total, "amin")
        best = least.topk(min(count, trajectories), largest=False)
        usable = best.values.isfinite().sum(-1, keepdim=True).clamp_min(1)
        again = torch.arange(count, device=total.device) % usable
        chosen, values = best.indices.gather(1, again), best.values.gather(1, again)
        hit = (total[:, None] == values[..., None]) & (self._trajectory == chosen[..., None])
        return hit.to(torch.uint8).argmax(-1), values.isfinite()


def _near(distance: Tensor) -> Tensor:
    """Returns costs of changes `[B, P]` from or to a state; infinite where it is far, except for the nearest nodes."""
    return _cost(distance, (1.5 * distance.amin(-1, keepdim=True)).clamp(_RADIUS, _FARTHEST))


def _cost(distance: Tensor, limit: Tensor | float) -> Tensor:
    """Returns costs of changes over distances, infinite beyond a limit [steps]."""
    return torch.where(distance <= limit, _DRIFT * distance + _PENALTY, torch.inf)


def _nodes(recording: Recording) -> tuple[Tensor, Tensor]:
    """Returns the rows `[P]` of the nodes, and the numbers of the pieces of trajectories they belong to, from 0."""
    left, stride = recording.left, recording.stride
    rows = torch.arange(len(left), device=left.device)
    first = torch.ones_like(left, dtype=torch.bool)
    first[1:] = left[1:] > left[:-1]
    since = rows - rows[first][first.long().cumsum(0) - 1]  # the trajectory's start
    kept = since % stride == 0
    begins = kept & (since // stride % _PIECE == 0)
    trajectory = (begins.long().cumsum(0) - 1)[kept]
    rows, count = rows[kept], int(begins.sum())
    if len(rows) > _NODES:
        chosen = torch.zeros(count, dtype=torch.bool, device=left.device)
        chosen[torch.linspace(0, count - 1, max(1, _NODES * count // len(rows)), device=left.device).long()] = True
        rows, trajectory = rows[chosen[trajectory]], trajectory[chosen[trajectory]]
    return rows, torch.unique(trajectory, return_inverse=True)[1]
