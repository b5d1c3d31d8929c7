"""Roadmaps of worlds that differ in what nothing changes, such as where a door is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from grasp_agent.planners.roadmap import RoadmapGraph
from grasp_agent.planners.steering import Aim, Driver

_DEGREE = 16  # neighbours that are tried for each node: a roadmap is made while somebody waits
_KEPT = 16  # roadmaps that are kept at hand


class ContextRoadmap:
    """A roadmap for each context, that is, for each value of the entries that no action changes.

    A context's roadmap is made when it is first asked for a way, and kept: the same nodes, seen in that context, joined
    where the model can drive there.

    Args:
        nodes: `[P, S]` replayed states, of any contexts.
        fixed: the entries that nothing changes.
        driver: verifies the edges; contexts in the same cell of a grid as wide as its tolerance share a roadmap.
    """

    def __init__(self, nodes: Tensor, fixed: Sequence[int], driver: Driver) -> None:
        self.nodes, self.fixed, self.driver = nodes, tuple(fixed), driver
        self._graphs: OrderedDict[tuple[int, ...], RoadmapGraph | None] = OrderedDict()

    @property
    def connected(self) -> float:
        """See `Router.connected`: on average over the contexts of a few nodes."""
        graphs = [self.graph(node[list(self.fixed)]) for node in self.nodes[:3]]
        return sum(0.0 if graph is None else graph.connected for graph in graphs) / len(graphs)

    def graph(self, context: Tensor) -> RoadmapGraph | None:
        """The roadmap of a context `[F]`; None where hardly any nodes connect."""
        cell = (context / self.driver.tolerance).round()
        key = tuple(map(int, cell.tolist()))
        if key not in self._graphs:
            nodes = self.nodes.clone()
            nodes[:, list(self.fixed)] = cell * self.driver.tolerance  # whatever context of the cell came first
            self._graphs[key] = RoadmapGraph.build(nodes, self.driver, degree=_DEGREE)
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def paths(self, start: Tensor, aim: Aim, count: int, horizon: int, stretch: float) -> Tensor:
        """See `Router.paths`."""
        found = []
        for row in range(len(start)):
            graph = self.graph(start[row, list(self.fixed)])

            def row_aim(states: Tensor, row: int = row) -> Tensor:
                every = states.expand(*states.shape[:-3], len(start), -1, -1)
                return aim(every)[..., row : row + 1, :, :]

            one = start[row : row + 1]
            if graph is None:
                found.append(one.new_full((1, count, horizon, one.shape[-1]), torch.nan))
            else:
                found.append(graph.paths(one, row_aim, count, horizon, stretch))
        while len(self._graphs) > max(_KEPT, len(start)):
            self._graphs.popitem(last=False)
        return torch.cat(found)

    def settle(self, states: Tensor) -> Tensor:
        """See `Router.settle`."""
        return self.driver.settle(states)
