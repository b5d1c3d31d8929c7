"""Shortest routes from a start to a goal over a roadmap."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from grasp_agent.planners.protocols import Aim, Driver
from grasp_agent.planners.refusals import Refusals
from grasp_agent.planners.regions import TerminalStates
from grasp_agent.planners.work import SMALL_STEP, spend

# All values below are chosen by hand.
_ENTRY_NODES = 16  # nearest nodes to which starts and goals are joined
_FALLBACK_NODES = 64  # nodes to which they are joined if that fails: the first ones, which cover the space
_HEADED = 1.0  # time from the nearest node to a goal that no edge reaches [steps]
_REFUSED = 30.0  # cost of an edge that leads where the environment refused a step [steps]


class Graph(Protocol):
    """The interface of roadmaps to queries, see `RoadmapGraph`."""

    nodes: Tensor
    neighbours: Tensor
    times: Tensor
    costs: Tensor
    between: Tensor
    driver: Driver
    terminal: TerminalStates | None


class _Routes(NamedTuple):
    """The best routes of B problems over R copies of a graph of P nodes."""

    onward: Tensor
    """`[B, R, P]`, time from every node to the goal, by the best last node."""
    node: Tensor
    """`[B, R]`, the best first node."""
    time: Tensor
    """`[B, R]`, time from the start to it."""
    total: Tensor
    """`[B, R]`, time from the start to the goal."""


class Query:
    """The routes of B problems over a roadmap.

    Args:
        graph: the roadmap.
        start: `[B, S]`.
        aim: the goal state of states `[..., B, M, S]`.
        copies: R, number of routes for each problem; those beyond the graph's copies repeat.
        refusals: steps that the environment refused, which routes avoid.
    """

    def __init__(self, graph: Graph, start: Tensor, aim: Aim, copies: int, refusals: Refusals | None = None) -> None:
        self._graph, self._start, self._aim = graph, start, aim
        self._refusals = refusals if refusals is not None and refusals.any else None
        self._index = torch.arange(copies, device=start.device) % len(graph.times)
        self._costs = graph.costs[self._index][None]  # [B or 1, R, P, D]
        if self._refusals is not None:
            ends = graph.nodes[graph.neighbours].expand(len(start), -1, -1, -1)
            refused = self._refusals.crossed(graph.nodes[:, None].expand_as(ends), ends)
            self._costs = self._costs + _REFUSED * refused[:, None]

    def routes(self) -> tuple[Tensor, Tensor]:
        """See `RoadmapGraph.routes`."""
        graph, start = self._graph, self._start
        nodes = graph.nodes.expand(len(start), -1, -1)
        near = min(_ENTRY_NODES, len(graph.nodes))
        first = graph.driver.distance(start[:, None], nodes).topk(near, largest=False).indices
        last = graph.driver.distance(nodes, self._aim(nodes)).topk(near, largest=False).indices
        enter, leave = self._enter(first), self._leave(last)
        found = self._best_routes(first, enter, last, leave)
        lost = ~found.total.isfinite().any(-1)
        if not lost.any():
            return self._descend(found)
        # A start or goal off the support is joined to any node that the model can reach.
        spread = torch.arange(min(_FALLBACK_NODES, len(graph.nodes)), device=start.device).expand(len(start), -1)
        astray = ~enter.isfinite().any(-1)
        outward = lost & astray
        onward = lost & (~leave.isfinite().any(-1) | ~astray)  # also where no route joins the two ends' nodes
        if outward.any():
            far = self._enter(spread, far=True).masked_fill(~outward[:, None], torch.inf)
            first, enter = torch.cat([first, spread], 1), torch.cat([enter, far], 1)
        if onward.any():
            far = self._leave(spread, far=True).masked_fill(~onward[:, None], torch.inf)
            last, leave = torch.cat([last, spread], 1), torch.cat([leave, far], 1)
        found = self._best_routes(first, enter, last, leave)
        lost = ~found.total.isfinite().any(-1)
        if lost.any():
            nearest, time = self._nearest_reached(first, enter, lost)
            found = self._best_routes(first, enter, torch.cat([last, nearest], 1), torch.cat([leave, time], 1))
        return self._descend(found)

    def _nearest_reached(self, first: Tensor, enter: Tensor, lost: Tensor) -> tuple[Tensor, Tensor]:
        """Returns, of the nodes reached from starts, those next to the goals `[B, 1]`, and times from there.

        Goals without any route, `lost`, are headed for from there.
        """
        graph = self._graph
        nodes = graph.nodes.expand(len(first), -1, -1)
        reached = (enter[..., None] + graph.between[0][first]).amin(1).isfinite()  # [B, P]
        distance = graph.driver.distance(nodes, self._aim(nodes)).masked_fill(~reached, torch.inf)
        nearest = distance.min(-1, keepdim=True)
        time = torch.full_like(nearest.values, _HEADED)
        return nearest.indices, time.masked_fill(~(lost[:, None] & nearest.values.isfinite()), torch.inf)

    def _enter(self, first: Tensor, *, far: bool = False) -> Tensor:
        """Returns times from starts to nodes `[B, F]`."""
        ends = self._graph.nodes[first]
        targets = ends.flatten(0, 1)
        times = self._graph.driver(self._start, lambda _: targets, each=first.shape[1], far=far).view(first.shape)
        return self._passable(times, self._start[:, None].expand_as(ends), ends)

    def _leave(self, last: Tensor, *, far: bool = False) -> Tensor:
        """Returns times from nodes `[B, L]` to the goals."""

        def goal_aim(states: Tensor) -> Tensor:
            return self._aim(states.unflatten(-2, last.shape)).flatten(-3, -2)

        nodes = self._graph.nodes[last]
        times = self._graph.driver(nodes.flatten(0, 1), goal_aim, far=far).view(last.shape)
        return self._passable(times, nodes, self._aim(nodes))

    def _passable(self, times: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Returns times `[B, M]` of edges between states `[B, M, S]`, infinite for those through terminal states."""
        if self._refusals is not None:
            times = times + _REFUSED * self._refusals.crossed(start, end)
        terminal = self._graph.terminal
        return times if terminal is None else times.masked_fill(terminal.crossed(start, end), torch.inf)

    def _best_routes(self, first: Tensor, enter: Tensor, last: Tensor, leave: Tensor) -> _Routes:
        """Returns the best routes in by nodes `[B, F]` and out by nodes `[B, L]`, in copies `[R]` of the graph."""
        onward = self._onward(last, leave)
        total = (enter[:, None] + onward.gather(2, first[:, None].expand(-1, onward.shape[1], -1))).min(-1)
        return _Routes(onward, first.gather(1, total.indices), enter.gather(1, total.indices), total.values)

    def _onward(self, last: Tensor, leave: Tensor) -> Tensor:
        """Returns times from all nodes by last nodes `[B, L]` to the goal, `[B, R, P]`."""
        if self._refusals is None:
            between = self._graph.between[self._index]  # [R, P, P]
            return (between[:, :, last].permute(2, 0, 1, 3) + leave[:, None, None]).amin(-1)
        start = leave.new_full((len(leave), len(self._graph.nodes)), torch.inf)
        start.scatter_reduce_(1, last, leave, "amin")
        onward = start[:, None].expand(-1, len(self._index), -1)
        while True:  # after Bellman 1958
            spend(SMALL_STEP)
            through = (self._costs + onward[:, :, self._graph.neighbours]).amin(-1)
            shorter = torch.minimum(onward, through)
            if torch.equal(shorter, onward):
                return onward
            onward = shorter

    def _descend(self, found: _Routes) -> tuple[Tensor, Tensor]:
        """Follows the decreasing time to the goal from the entry nodes to the best last node."""
        onward, node, time, total = found
        graph, (batch, copies) = self._graph, node.shape
        rows = torch.arange(batch, device=node.device)[:, None]
        columns = torch.arange(copies, device=node.device)
        every, paces = self._costs.expand(batch, -1, -1, -1), graph.times[self._index]
        points, times = (
            [self._start[:, None].expand(-1, copies, -1), graph.nodes[node]],
            [torch.zeros_like(time), time],
        )
        moving = total.isfinite()
        for _ in range(graph.nodes.shape[0]):
            spend(SMALL_STEP)
            hops = every[rows, columns, node]  # [B, R, D]
            following = graph.neighbours[node]
            through = hops + onward[rows[..., None], columns[:, None], following]
            best = through.min(-1)
            # A node from which the direct path to the goal is shortest is the last; time to go must fall at each hop.
            left = onward[rows, columns, node]
            after = onward[rows[..., None], columns[:, None], following].gather(-1, best.indices[..., None])[..., 0]
            moving = moving & (best.values <= left + 1e-4) & (after < left)
            if not moving.any():
                break
            step = best.indices[..., None]
            time = torch.where(moving, time + paces[columns, node].gather(-1, step)[..., 0], time)
            node = torch.where(moving, following.gather(-1, step)[..., 0], node)
            points.append(graph.nodes[node])
            times.append(time)
        points.append(self._aim(points[-1]))
        times.append(torch.where(total.isfinite(), time + onward[rows, columns, node], total))
        return torch.stack(points, 2), torch.stack(times, 2)
