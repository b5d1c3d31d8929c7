"""Roadmaps of worlds with static factors (contexts), such as the position of a door."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from grasp_agent.planners.protocols import Aim, Driver
from grasp_agent.planners.refusals import Refusals
from grasp_agent.planners.regions import TerminalStates
from grasp_agent.planners.roadmap.covering import farthest_points
from grasp_agent.planners.roadmap.graph import RoadmapGraph

# Chosen by hand; fewer than in `RoadmapGraph`, as the roadmap is built during planning.
_NODES, _DEGREE = 300, 16  # nodes of a context's roadmap, and neighbours of each that are tried
_CANDIDATES_PER_NODE = 6  # states per node, those of the nearest contexts, from which nodes are chosen
_CACHED = 16  # roadmaps that are cached


class ContextRoadmap:
    """A roadmap for each context, that is, for each value of the static entries.

    A context's roadmap is built at the first query and cached. Its nodes cover the replayed states of the nearest
    contexts and are joined where the model can drive, so that no edge leads through an obstacle.

    Args:
        states: `[P, S]` replayed states, of many contexts.
        fixed: the static entries.
        driver: verifies the edges; contexts in the same cell of a grid as wide as its tolerance share a roadmap.
        terminal: states through which no edge may lead.
    """

    def __init__(
        self, states: Tensor, fixed: Sequence[int], driver: Driver, terminal: TerminalStates | None = None
    ) -> None:
        self.states, self.fixed, self.driver, self._terminal = states, tuple(fixed), driver, terminal
        self._moving = [entry for entry in range(states.shape[1]) if entry not in self.fixed]
        self._graphs: OrderedDict[tuple[int, ...], RoadmapGraph | None] = OrderedDict()

    @property
    def connected(self) -> float:
        """See `Router.connected`: the mean over the contexts of a few states."""
        graphs = [self.graph(state[list(self.fixed)]) for state in self.states[:3]]
        return sum(0.0 if graph is None else graph.connected for graph in graphs) / len(graphs)

    def graph(self, context: Tensor) -> RoadmapGraph | None:
        """Returns the roadmap of a context `[F]`; None if hardly any nodes connect."""
        if not context.isfinite().all():
            return None
        cell = (context / self.driver.tolerance).round()
        key = tuple(map(int, cell.tolist()))
        if key not in self._graphs:
            nodes = self._nodes(cell * self.driver.tolerance)
            self._graphs[key] = RoadmapGraph.build(nodes, self.driver, degree=_DEGREE, terminal=self._terminal)
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def _nodes(self, context: Tensor) -> Tensor:
        """Returns states `[P', S]` of a context `[F]` that cover the replayed states of the nearest ones."""
        far = (self.states[:, list(self.fixed)] - context).square().sum(-1)
        local = self.states[far.topk(min(_CANDIDATES_PER_NODE * _NODES, len(far)), largest=False).indices]
        nodes = local[farthest_points(local[:, self._moving], _NODES)[0]]
        nodes[:, list(self.fixed)] = context
        return nodes

    def paths(
        self, start: Tensor, aim: Aim, count: int, horizon: int, stretch: float, refusals: Refusals | None = None
    ) -> Tensor:
        """See `Router.paths`."""
        found = []
        for graph, one, row_aim, own in self._rows(start, aim, refusals):
            if graph is None:
                found.append(one.new_full((1, count, horizon, one.shape[-1]), torch.nan))
            else:
                found.append(graph.paths(one, row_aim, count, horizon, stretch, own))
        return torch.cat(found)

    def ahead(
        self, start: Tensor, aim: Aim, horizon: int, stretch: float, refusals: Refusals | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Router.ahead`."""
        found = [
            (row_aim(one[:, None])[:, 0], torch.zeros(1, dtype=torch.bool, device=one.device))
            if graph is None
            else graph.ahead(one, row_aim, horizon, stretch, own)
            for graph, one, row_aim, own in self._rows(start, aim, refusals)
        ]
        states, far = (torch.cat(part) for part in zip(*found, strict=True))
        return states, far

    def _rows(
        self, start: Tensor, aim: Aim, refusals: Refusals | None
    ) -> Iterator[tuple[RoadmapGraph | None, Tensor, Aim, Refusals | None]]:
        """Yields each problem's roadmap, start `[1, S]`, goal and refusals."""
        for row in range(len(start)):

            def row_aim(states: Tensor, row: int = row) -> Tensor:
                every = states.expand(*states.shape[:-3], len(start), -1, -1)
                return aim(every)[..., row : row + 1, :, :]

            own = None if refusals is None else refusals.of_problem(row)
            yield self.graph(start[row, list(self.fixed)]), start[row : row + 1], row_aim, own
        while len(self._graphs) > max(_CACHED, len(start)):
            self._graphs.popitem(last=False)

    def settle(self, states: Tensor) -> Tensor:
        """See `Router.settle`."""
        return self.driver.settle(states)
