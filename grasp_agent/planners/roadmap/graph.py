"""A roadmap: a graph over replayed states whose edges the model can drive (after Kavraki et al. 1996)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from grasp_agent.planners.chunks import chunked
from grasp_agent.planners.protocols import Aim, Block, Driver, Dynamics, Jacobian, Router
from grasp_agent.planners.regions import TerminalStates
from grasp_agent.planners.work import SMALL_STEP, spend

# All values below are chosen by hand.
_ENTRY_NODES = 16  # nearest nodes to which starts and goals are joined
_LEAST_TIME = 0.01  # least time of an edge [steps]
_CONNECTED = 0.95  # fraction of pairs that nodes with clearance must join for the others to be left out
_DRIVEN = 4000  # entries of a network's intermediate results for an edge, of all members, about
_FALLBACK_NODES = 64  # nodes to which they are joined if that fails: the first ones, which cover the space


def build_roadmap(
    points: Tensor, driver: Driver, count: int, *, degree: int = 24, terminal: TerminalStates | None = None
) -> tuple[Tensor, RoadmapGraph | None]:
    """Returns points `[P, S]` in the order of nodes, and a roadmap of `count` of them, if possible with clearance only.

    Routes then keep a step's distance from obstacles, near which models are least accurate.
    """
    clear = driver.has_clearance(points)
    if not clear.all():
        ordered = torch.cat([points[clear], points[~clear]])
        graph = RoadmapGraph.build(ordered[: min(count, int(clear.sum()))], driver, degree=degree, terminal=terminal)
        if graph is not None and graph.connected > _CONNECTED:
            return ordered, graph
    return points, RoadmapGraph.build(points[:count], driver, degree=degree, terminal=terminal)


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
        self.driver, self._terminal = driver, terminal
        generator = torch.Generator().manual_seed(0)
        stretch = torch.rand(copies, *steps.shape, generator=generator).to(steps) * (jitter - 1) + 1
        stretch[0] = 1
        self._times = steps * stretch
        self._between = _shortest(self._times, neighbours)

    @classmethod
    def build(
        cls, states: Tensor, driver: Driver, *, degree: int = 24, terminal: TerminalStates | None = None
    ) -> RoadmapGraph | None:
        """Builds a graph of states joined where every member of the model can drive; None if hardly any connect.

        Args:
            states: `[P, S]`, for example the farthest points of the replayed states.
            driver: drives the model.
            degree: D, number of neighbours that are tried for each node.
            terminal: states through which no edge may lead.
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
        steps = steps.clamp_min(_LEAST_TIME)  # time to go must fall at each hop, also between coincident nodes
        steps = steps.to(torch.float16).to(states.dtype)  # as they are saved
        graph = cls(states, neighbours, steps, driver, terminal=terminal)
        return graph if graph.connected > 0.5 else None

    @property
    def connected(self) -> float:
        """Fraction of ordered node pairs that are joined by a route."""
        return float(self._between[0].isfinite().to(self.nodes.dtype).mean())

    def paths(self, start: Tensor, aim: Aim, count: int, horizon: int, stretch: float) -> Tensor:
        """See `Router.paths`."""
        points, times = self.routes(start, aim, count)
        states = self.driver.trace(points, times * stretch, horizon)
        return states.masked_fill(~times[..., -1:, None].isfinite(), torch.nan)

    def settle(self, states: Tensor) -> Tensor:
        """See `Router.settle`."""
        return self.driver.settle(states)

    def routes(self, start: Tensor, aim: Aim, copies: int) -> tuple[Tensor, Tensor]:
        """Returns routes from start to goal.

        Args:
            start: `[B, S]`.
            aim: the goal state of states `[..., B, M, S]`.
            copies: R, number of routes for each problem; those beyond the graph's copies repeat.

        Returns:
            Waypoints `[B, R, W, S]` (the first is the start, the last the goal) and the non-decreasing times at which
            they are passed `[B, R, W]` [steps]; infinite if there is no route.
        """
        batch = start.shape[0]
        index = torch.arange(copies, device=start.device) % self._between.shape[0]
        nodes = self.nodes.expand(batch, -1, -1)
        near = min(_ENTRY_NODES, len(self.nodes))
        first = self.driver.distance(start[:, None], nodes).topk(near, largest=False).indices
        last = self.driver.distance(nodes, aim(nodes)).topk(near, largest=False).indices
        enter, leave = self._enter(start, first), self._leave(aim, last)
        found = self._best_routes(index, first, enter, last, leave)
        lost = ~found.total.isfinite().any(-1)
        if lost.any():  # a start or goal off the support is joined to any node that the model can reach
            spread = torch.arange(min(_FALLBACK_NODES, len(self.nodes)), device=start.device).expand(batch, -1)
            astray = ~enter.isfinite().any(-1)
            outward = lost & astray
            onward = lost & (~leave.isfinite().any(-1) | ~astray)  # also where no route joins the two ends' nodes
            if outward.any():
                far = self._enter(start, spread, far=True).masked_fill(~outward[:, None], torch.inf)
                first, enter = torch.cat([first, spread], 1), torch.cat([enter, far], 1)
            if onward.any():
                far = self._leave(aim, spread, far=True).masked_fill(~onward[:, None], torch.inf)
                last, leave = torch.cat([last, spread], 1), torch.cat([leave, far], 1)
            found = self._best_routes(index, first, enter, last, leave)
        return self._descend(start, aim, found, index)

    def _enter(self, start: Tensor, first: Tensor, *, far: bool = False) -> Tensor:
        """Returns times from starts `[B, S]` to nodes `[B, F]`."""
        targets = self.nodes[first].flatten(0, 1)
        times = self.driver(start, lambda _: targets, each=first.shape[1], far=far).view(first.shape)
        return self._passable(times, start[:, None], self.nodes[first])

    def _leave(self, aim: Aim, last: Tensor, *, far: bool = False) -> Tensor:
        """Returns times from nodes `[B, L]` to the goals."""

        def goal_aim(states: Tensor) -> Tensor:
            return aim(states.unflatten(-2, last.shape)).flatten(-3, -2)

        times = self.driver(self.nodes[last].flatten(0, 1), goal_aim, far=far).view(last.shape)
        return self._passable(times, self.nodes[last], aim(self.nodes[last]))

    def _passable(self, times: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Returns times of edges between states `[..., S]`, infinite for those through terminal states."""
        return times if self._terminal is None else times.masked_fill(self._terminal.crossed(start, end), torch.inf)

    def _best_routes(self, index: Tensor, first: Tensor, enter: Tensor, last: Tensor, leave: Tensor) -> _Routes:
        """Returns the best routes in by nodes `[B, F]` and out by nodes `[B, L]`, in copies `[R]` of the graph."""
        between = self._between[index]  # [R, P, P]
        onward = (between[:, :, last].permute(2, 0, 1, 3) + leave[:, None, None]).amin(-1)
        total = (enter[:, None] + onward.gather(2, first[:, None].expand(-1, len(index), -1))).min(-1)
        return _Routes(onward, first.gather(1, total.indices), enter.gather(1, total.indices), total.values)

    def _descend(
        self,
        start: Tensor,
        aim: Aim,
        found: _Routes,
        index: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Follows the decreasing time to the goal from the entry nodes to the best last node."""
        onward, node, time, total = found
        batch, copies = node.shape
        rows = torch.arange(batch, device=node.device)[:, None]
        columns = torch.arange(copies, device=node.device)
        points, times = (
            [start[:, None].expand(-1, copies, -1), self.nodes[node]],
            [torch.zeros_like(time), time],
        )
        moving = total.isfinite()
        for _ in range(self.nodes.shape[0]):
            spend(SMALL_STEP)
            hops = self._times[index[None], node]  # [B, R, D]
            following = self.neighbours[node]
            through = hops + onward[rows[..., None], columns[:, None], following]
            best = through.min(-1)
            # A node from which the direct path to the goal is shortest is the last; time to go must fall at each hop.
            left = onward[rows, columns, node]
            after = onward[rows[..., None], columns[:, None], following].gather(-1, best.indices[..., None])[..., 0]
            moving = moving & (best.values <= left + 1e-4) & (after < left)
            if not moving.any():
                break
            step = best.indices[..., None]
            time = torch.where(moving, time + hops.gather(-1, step)[..., 0], time)
            node = torch.where(moving, following.gather(-1, step)[..., 0], node)
            points.append(self.nodes[node])
            times.append(time)
        end = aim(points[-1])
        points.append(end)
        times.append(total)
        return torch.stack(points, 2), torch.stack(times, 2)


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


class BlockRoadmap:
    """A roadmap for each block: n balls in a room need no roadmap of their joint positions.

    Args:
        graphs: the blocks' roadmaps, each over the block's entries only.
        blocks: the blocks.
    """

    def __init__(self, graphs: Sequence[Router], blocks: Sequence[Block]) -> None:
        self.graphs, self._blocks = tuple(graphs), tuple(blocks)

    @property
    def connected(self) -> float:
        """See `Router.connected`: of the worst block."""
        return min(graph.connected for graph in self.graphs)

    def settle(self, states: Tensor) -> Tensor:
        """See `Router.settle`."""
        settled = states.clone()
        for graph, block in zip(self.graphs, self._blocks, strict=True):
            settled[..., list(block.states)] = graph.settle(states[..., list(block.states)])
        return settled

    def paths(self, start: Tensor, aim: Aim, count: int, horizon: int, stretch: float) -> Tensor:
        """See `Router.paths`."""
        states = start[:, None, None].expand(-1, count, horizon, -1).clone()
        for graph, block in zip(self.graphs, self._blocks, strict=True):
            entries = list(block.states)

            def part_aim(parts: Tensor, entries: list[int] = entries) -> Tensor:
                whole = parts.new_zeros(*parts.shape[:-1], start.shape[-1])
                whole[..., entries] = parts
                return aim(whole)[..., entries]

            states[..., entries] = graph.paths(start[:, entries], part_aim, count, horizon, stretch)
        return states


def block_dynamics(dynamics: Dynamics, block: Block, others: Tensor, rest: Tensor) -> Dynamics:
    """Returns the dynamics of a block while the other blocks rest at `others` `[S]`."""
    return lambda state, action: dynamics(*_embedded(state, action, block, others, rest))[..., list(block.states)]


def block_jacobian(action_jacobian: Jacobian, block: Block, others: Tensor, rest: Tensor) -> Jacobian:
    """Returns the dynamics of a block with their derivative by the block's actions, see `block_dynamics`."""

    def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        states, actions = list(block.states), list(block.actions)
        following, slopes = action_jacobian(*_embedded(state, action, block, others, rest))
        return following[..., states], slopes[..., states, :][..., actions]

    return step


def _embedded(state: Tensor, action: Tensor, block: Block, others: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Returns states and actions of all blocks, with those of one block inserted."""
    whole, acting = others.expand(*state.shape[:-1], -1).clone(), rest.expand(*action.shape[:-1], -1).clone()
    whole[..., list(block.states)], acting[..., list(block.actions)] = state, action
    return whole, acting
