"""A roadmap: a graph over replayed states whose edges the model can drive (after Kavraki et al. 1996)."""

from __future__ import annotations

import torch
from torch import Tensor

from grasp_agent.planners.chunks import chunked
from grasp_agent.planners.protocols import Aim, Driver
from grasp_agent.planners.refusals import Refusals
from grasp_agent.planners.regions import TerminalStates
from grasp_agent.planners.roadmap.query import Query

# All values below are chosen by hand.
_CERTAIN = 0.5  # weight of refused steps for which an edge is left out
_LEAST_TIME = 0.01  # least time of an edge [steps]
_CLEAR = 0.6  # fraction of nodes with clearance, where there are enough
_HINDERED = 3.0  # factor on the cost of edges from or to states without clearance
_SPACINGS = 3.0  # distance at which a point counts as near to others, in those of neighbouring points
_DRIVEN = 4000  # entries of a network's intermediate results for an edge, of all members, about


def build_roadmap(
    points: Tensor,
    driver: Driver,
    count: int,
    *,
    degree: int = 24,
    terminal: TerminalStates | None = None,
    refusals: Refusals | None = None,
) -> tuple[Tensor, RoadmapGraph | None]:
    """Returns points `[P, S]` in the order of nodes, and a roadmap of `count` of them.

    More of these are points with clearance, and the others points where none of those is near.
    """
    clear = driver.has_clearance(points)
    if clear.any() and not clear.all():
        gap = ~clear & ~_near(points, points[clear])
        order = torch.cat([part.nonzero()[:, 0] for part in (clear, gap, ~clear & ~gap)])
        count_clear, count_gap = int(clear.sum()), int(gap.sum())
        kept = min(count_clear, max(count - count_gap, round(_CLEAR * count)))  # the first ones cover their part
        order = torch.cat([order[:kept], order[count_clear:], order[kept:count_clear]])
        points = points[order]
    return points, RoadmapGraph.build(points[:count], driver, degree=degree, terminal=terminal, refusals=refusals)


def _near(points: Tensor, others: Tensor) -> Tensor:
    """Returns which of points `[P, S]` are within some spacings of the nearest of others `[M, S]`, `[P]`."""
    apart = torch.cdist(points, points).fill_diagonal_(torch.inf).amin(-1)
    return torch.cdist(points, others).amin(-1) <= _SPACINGS * apart.median()


class RoadmapGraph:
    """Shortest routes over replayed states.

    Args:
        nodes: `[P, S]` replayed states.
        neighbours: `[P, D]`, indices of each node's neighbours.
        steps: `[P, D]`, steps from a node to that neighbour; infinite if the model cannot drive there.
        driver: has verified the edges; also joins starts and goals.
        jitter: greatest factor on the edge times in copies but the first, for different routes.
        copies: number of copies.
        terminal: states through which no edge may lead.

    Attributes:
        times: `[R, P, D]`, times of the edges in each copy [steps].
        costs: `[R, P, D]`, what routes minimise: times, more near obstacles, where models are least accurate.
        between: `[R, P, P]`, least costs between nodes.
    """

    def __init__(
        self,
        nodes: Tensor,
        neighbours: Tensor,
        steps: Tensor,
        driver: Driver,
        *,
        jitter: float = 1.3,
        copies: int = 4,
        terminal: TerminalStates | None = None,
    ) -> None:
        self.nodes, self.neighbours, self.steps = nodes, neighbours, steps
        self.driver, self.terminal = driver, terminal
        generator = torch.Generator().manual_seed(0)
        stretch = torch.rand(copies, *steps.shape, generator=generator).to(steps) * (jitter - 1) + 1
        stretch[0] = 1
        clear = driver.has_clearance(nodes)
        free = clear[:, None] & clear[neighbours]
        self.times = steps * stretch
        self.costs = self.times * torch.where(free, 1.0, _HINDERED).to(steps)
        self.between = _shortest(self.costs, neighbours)

    @classmethod
    def build(
        cls,
        states: Tensor,
        driver: Driver,
        *,
        degree: int = 24,
        terminal: TerminalStates | None = None,
        refusals: Refusals | None = None,
    ) -> RoadmapGraph | None:
        """Builds a graph of states joined where every member of the model can drive; None if hardly any connect.

        Args:
            states: `[P, S]`, for example the farthest points of the replayed states.
            driver: drives the model.
            degree: D, number of neighbours that are tried for each node.
            terminal: states through which no edge may lead.
            refusals: steps that the environment refused, though the model predicts them: no edge leads there.
        """
        count = states.shape[0]
        degree = min(degree, count - 1)
        if degree < 1:
            return None

        def driven(start: Tensor, ends: Tensor) -> Tensor:
            targets = ends.flatten(0, 1)
            return driver(start, lambda _: targets, each=degree).view(-1, degree)

        distance = chunked(
            lambda start: driver.distance(start[:, None], states[None]), states, width=2 * states.numel()
        )
        distance.fill_diagonal_(torch.inf)
        neighbours = distance.topk(degree, largest=False).indices
        steps = chunked(driven, states, states[neighbours], width=degree * _DRIVEN)
        if terminal is not None:
            steps = steps.masked_fill(terminal.crossed(states[:, None], states[neighbours]), torch.inf)
        if refusals is not None and refusals.any:
            ends = states[neighbours]
            crossed = refusals.crossed(states[None, :, None].expand_as(ends[None]), ends[None])[0]
            steps = steps.masked_fill(crossed > _CERTAIN, torch.inf)
        steps = steps.clamp_min(_LEAST_TIME)  # time to go must fall at each hop, also between coincident nodes
        steps = steps.to(torch.float16).to(states.dtype)  # as they are saved
        graph = cls(states, neighbours, steps, driver, terminal=terminal)
        return graph if graph.connected > 0.5 else None

    @property
    def connected(self) -> float:
        """Fraction of ordered node pairs that are joined by a route."""
        return float(self.between[0].isfinite().to(self.nodes.dtype).mean())

    def paths(
        self, start: Tensor, aim: Aim, count: int, horizon: int, stretch: float, refusals: Refusals | None = None
    ) -> Tensor:
        """See `Router.paths`."""
        points, times = self.routes(start, aim, count, refusals)
        states = self.driver.trace(points, times * stretch, horizon)
        return states.masked_fill(~times[..., -1:, None].isfinite(), torch.nan)

    def ahead(
        self, start: Tensor, aim: Aim, horizon: int, stretch: float, refusals: Refusals | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Router.ahead`."""
        points, times = self.routes(start, aim, 1, refusals)
        last = stretch * times[:, 0, -1]
        far = last.isfinite() & (last > horizon)
        on_way = self.driver.trace(points, times * stretch, horizon)[:, 0, -1]
        return torch.where(far[:, None], on_way, aim(start[:, None])[:, 0]), far

    def settle(self, states: Tensor) -> Tensor:
        """See `Router.settle`."""
        return self.driver.settle(states)

    def routes(self, start: Tensor, aim: Aim, copies: int, refusals: Refusals | None = None) -> tuple[Tensor, Tensor]:
        """Returns routes from start to goal.

        Args:
            start: `[B, S]`.
            aim: the goal state of states `[..., B, M, S]`.
            copies: R, number of routes for each problem; those beyond the graph's copies repeat.
            refusals: steps that the environment refused, which routes avoid.

        Returns:
            Waypoints `[B, R, W, S]` (the first is the start, the last the goal) and the non-decreasing times at which
            they are passed `[B, R, W]` [steps]; infinite if there is no route.
        """
        return Query(self, start, aim, copies, refusals).routes()


def _shortest(times: Tensor, neighbours: Tensor) -> Tensor:
    """Returns all-pairs shortest times `[C, P, P]` of graphs with edge times `[C, P, D]` (Floyd 1962)."""
    copies, count, _ = times.shape
    between = torch.full((copies, count, count), torch.inf, dtype=times.dtype, device=times.device)
    between.scatter_(2, neighbours.expand(copies, -1, -1), times)
    between.diagonal(dim1=1, dim2=2).zero_()
    for graph in between:  # one after the other: each fits into a processor's cache
        through = torch.empty_like(graph)
        for via in range(count):
            torch.minimum(graph, torch.add(graph[:, via, None], graph[None, via], out=through), out=graph)
    return between
