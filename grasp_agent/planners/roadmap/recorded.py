"""A roadmap of recorded moments: stitches pieces of different trajectories, for states of any size."""

from __future__ import annotations

import torch
from torch import Tensor

from grasp_agent.planners.protocols import Aim, Metric, Recording

# All values below are chosen by hand.
_NODES = 10_000  # most nodes: distances of all pairs are computed
_JUMPS = 8  # nearest nodes of other trajectories, to which a route may change
_RADIUS = 0.4  # greatest distance of these [steps]; always the nearest nodes of starts and goals
_PENALTY = 0.3  # of each change, beside its distance [steps]: the next actions were recorded in another state
_SOME = 16  # goals from which `connected` is estimated


class RecordedRoadmap:
    """Shortest routes over recorded moments, along recorded steps and changes between trajectories that pass nearby.

    Nodes are moments a whole number of steps after the start of their trajectory; of too many trajectories some are
    taken, evenly spread. As an edge is a recorded action or hardly any way at all, no edge has to be driven.

    Args:
        recording: the trajectories.
        metric: the distance of states, which decides where routes may change between trajectories.
    """

    def __init__(self, recording: Recording, metric: Metric) -> None:
        self._recording, self._metric = recording, metric
        self._rows, self._trajectory = _nodes(recording)
        device = self._rows.device
        index = torch.arange(len(self._rows), device=device)
        self._next = torch.where(recording.left[self._rows] > 0, index + 1, -1)
        self._embedded = metric.embedded(recording.states[self._rows])
        self._jumps, self._costs = self._neighbours()

    @property
    def connected(self) -> float:
        """See `Router.connected`; estimated from some goals."""
        some = torch.linspace(0, len(self._rows) - 1, min(_SOME, len(self._rows)), device=self._rows.device).long()
        return float(self._times_to_go(self._embedded[some]).isfinite().to(torch.float32).mean())

    def paths(self, start: Tensor, aim: Aim, count: int, horizon: int, stretch: float) -> Tensor:
        """See `Router.paths`: recorded states; `stretch` has no effect."""
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

    def ahead(self, start: Tensor, goal: Tensor, horizon: int) -> Tensor:
        """Returns the states `[B, S]` at step `horizon` of the best routes; the goal where it is nearer, or no route.

        Args:
            start: `[B, S]`.
            goal: `[B, S]`.
            horizon: steps.
        """
        nodes, taken, _ = self._routes(start, goal, 1, horizon)
        states = self._recording.states[self._rows[self._next[nodes[:, 0, -1]]]]
        return torch.where(taken[:, :, -1], states, goal)

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
        return jumps, torch.where(costs <= _RADIUS, costs + _PENALTY, torch.inf)

    def _times_to_go(self, goals: Tensor) -> Tensor:
        """Returns steps from each node to goals, `[B, E] -> [B, P]`, infinite where no route leads there."""
        times = _near(self._metric.pairwise(self._embedded, goals).T)
        while True:
            shorter = torch.minimum(self._onward(times), self._changed(times).amin(-1)).minimum(times)
            if torch.equal(shorter, times):
                return times
            times = shorter

    def _onward(self, times: Tensor) -> Tensor:
        """Returns the times by the recorded step, `[B, P]`, of those of all nodes."""
        return torch.where(self._next >= 0, 1 + times[:, self._next], torch.inf)

    def _changed(self, times: Tensor) -> Tensor:
        """Returns the times by each change of trajectory, `[B, P, J]`, of those of all nodes."""
        return self._costs + times[:, self._jumps]

    def _routes(self, start: Tensor, goal: Tensor, count: int, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the nodes along routes, `[B, count, H]`, whether a step is taken in them, and whether there is one.

        Routes end where the goal is as near as a change of trajectory, or nearer than by the next edge.
        """
        times = self._times_to_go(self._metric.embedded(goal))
        total = _near(self._metric.pairwise(self._metric.embedded(start), self._embedded)) + times
        node, found = self._first_nodes(total, count)
        end = _near(self._metric.pairwise(self._embedded, self._metric.embedded(goal)).T)
        onward, changed = self._onward(times), self._changed(times).min(-1)
        batch = torch.arange(len(start), device=start.device)[:, None]
        nodes, taken = [], []
        for _ in range(horizon):
            while True:  # each change shortens the time to go
                change, step, stop = changed.values[batch, node], onward[batch, node], end[batch, node]
                changes = found & (change < step) & (change < stop)
                if not changes.any():
                    break
                node = torch.where(changes, self._jumps[node, changed.indices[batch, node]], node)
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
    limit = (1.5 * distance.amin(-1, keepdim=True)).clamp_min(_RADIUS)
    return torch.where(distance <= limit, distance + _PENALTY, torch.inf)


def _nodes(recording: Recording) -> tuple[Tensor, Tensor]:
    """Returns the rows `[P]` of the nodes, and the numbers of their trajectories, from 0."""
    left, stride = recording.left, recording.stride
    rows = torch.arange(len(left), device=left.device)
    first = torch.ones_like(left, dtype=torch.bool)
    first[1:] = left[1:] > left[:-1]
    trajectory = first.long().cumsum(0) - 1
    begin = rows[first][trajectory]
    kept = (rows - begin) % stride == 0
    rows, trajectory = rows[kept], trajectory[kept]
    total, most = int(trajectory.max()) + 1, max(1, _NODES * (int(trajectory.max()) + 1) // len(rows))
    if most < total:
        chosen = torch.zeros(total, dtype=torch.bool, device=left.device)
        chosen[torch.linspace(0, total - 1, most, device=left.device).long()] = True
        rows, trajectory = rows[chosen[trajectory]], trajectory[chosen[trajectory]]
    return rows, torch.unique(trajectory, return_inverse=True)[1]
