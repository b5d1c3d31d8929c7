"""An index of an agent's replay data: their support, the roadmap through it, and windows of trajectories."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from grasp_agent.models import WorldModel
from grasp_agent.models.roadmaps import (
    REACHES,
    STRAIGHT_REACHES,
    block_roadmap,
    make_driver,
    most_nodes,
    static_entries,
    whole_block,
)
from grasp_agent.models.support import half_precision, make_support, novelty, terminal_states
from grasp_agent.planners import (
    Block,
    BlockRoadmap,
    BlockSupport,
    ContextRoadmap,
    InertialSteering,
    LinearModel,
    Refusals,
    ReplayWindows,
    RoadmapGraph,
    Steering,
    Support,
    TerminalStates,
    farthest_points,
)

_POOL = 20_000  # states from which covering points are chosen; chosen by hand
_POINTS = 1000  # covering points of a support; chosen by hand
_CONTEXT_SLACK = 2.0  # factor of the tolerance with contexts, where members have few data each; chosen by hand
_WINDOWS = 128  # windows of trajectories that are kept; chosen by hand


@dataclass(frozen=True)
class ReplayIndex:
    """Support and roadmap of one model; for a factored world, of each block.

    Attributes:
        blocks: the blocks, at least one.
        supports: for each block, the region of its entries in the replay data.
        roadmaps: for each block, a roadmap of that region; empty if the model cannot drive from state to state.
        middle: `[S]`, the state nearest to the mean: where the other blocks rest while one is driven.
        replay: windows of recorded trajectories, if any are long enough.
        linear: a linear model of a step, regressed from replay.
        terminal: states at which episodes ended for good, if there are any.
    """

    blocks: tuple[Block, ...]
    supports: tuple[Support, ...]
    roadmaps: tuple[RoadmapGraph | ContextRoadmap, ...]
    middle: Tensor
    replay: ReplayWindows | None = None
    linear: LinearModel | None = None
    terminal: TerminalStates | None = None

    @property
    def support(self) -> Support | BlockSupport:
        """The region of whole states."""
        return self.supports[0] if len(self.blocks) == 1 else BlockSupport(self.supports, self.blocks)

    @property
    def roadmap(self) -> RoadmapGraph | ContextRoadmap | BlockRoadmap | None:
        """The roadmap of whole states; None if there is none."""
        if not self.roadmaps:
            return None
        return self.roadmaps[0] if len(self.blocks) == 1 else BlockRoadmap(self.roadmaps, self.blocks)

    @cached_property
    def metric(self) -> Tensor | None:
        """`[S, S]`, the metric of feedback along the roadmap's routes; None for the Euclidean one."""
        inertial = any(isinstance(graph.driver, InertialSteering) for graph in self.roadmaps)
        return self.linear.metric() if inertial and self.linear is not None else None

    @property
    def points(self) -> Tensor:
        """States `[P, S]` that cover the region; points of different blocks are combined in their order."""
        if len(self.blocks) == 1:
            return self.supports[0].points
        count = min(len(support.points) for support in self.supports)
        points = self.supports[0].points.new_empty(count, sum(len(block.states) for block in self.blocks))
        for support, block in zip(self.supports, self.blocks, strict=True):
            points[:, list(block.states)] = support.points[:count]
        return points

    @classmethod
    @torch.no_grad()
    def build(
        cls,
        model: WorldModel,
        states: Tensor,
        episodes: Tensor,
        terminal: Tensor | None = None,
        *,
        blocks: Sequence[Block] = (),
        named: Sequence[int] | None = None,
        replay: ReplayWindows | None = None,
        error: float = 0.0,
        refusals: Refusals | None = None,
        preferred: Tensor | None = None,
        seed: int = 0,
    ) -> ReplayIndex:
        """Builds an index from replayed states.

        Args:
            model: the fitted model.
            states: `[M, S]` [model units].
            episodes: `[M]`, the episode of each state.
            terminal: `[M]`, whether each is terminal, so that no step can be taken from it; None for none.
            blocks: independent parts of the state; none for one of all.
            named: entries of the state that goals name; None for all.
            replay: windows of the same data `[M', T + 1, S]`; a random choice is kept.
            refusals: steps of the data that the model predicts wrongly, as refused ones.
            preferred: `[M']`, windows with greater numbers are kept first; None for equal ones.
            error: mean error of a step [state units], a lower bound of the tolerance of targets.
            seed: seed of the choice of states if there are many.
        """
        parts = tuple(blocks) or (whole_block(model),)
        generator = torch.Generator().manual_seed(seed)
        terminal = torch.zeros(len(states), dtype=torch.bool) if terminal is None else terminal
        left = torch.nonzero(~terminal)[:, 0]  # support and roadmap are of the states from which steps were seen
        order = left[torch.randperm(len(left), generator=generator)[:_POOL]]
        pool, origin = states[order.to(states.device)], episodes[order].to(states.device)
        ends = None
        if len(left) < len(states):
            cover = pool[farthest_points(pool, _POINTS)[0]]
            ends = terminal_states(pool, origin, states[terminal.to(states.device)], cover)
        alone = ends if len(parts) == 1 else None  # an end depends on the whole state
        supports, roadmaps, nodes = [], [], most_nodes(len(parts))
        linear = None if replay is None else LinearModel.regress(replay)
        middle = pool[(pool - pool.mean(0)).square().sum(-1).argmin()]
        for block in parts:
            own = pool[:, list(block.states)]
            invariants = model.invariants(own)
            index, radius = farthest_points(invariants, _POINTS)
            points, tolerance = own[index], max(Steering.tolerance, error)
            if static_entries(model, block):
                slack = _CONTEXT_SLACK * tolerance
                _, graph = block_roadmap(model, block, half_precision(own), middle, named, linear, slack, alone)
            else:
                given = (model, block, points, middle, named, linear, tolerance, alone, nodes)
                points, graph = block_roadmap(*given, None if refusals is None else refusals.of_block(block.states))
            supports.append(make_support(model, points, max(radius, novelty(invariants, origin))))
            roadmaps.append(graph)
        whole = tuple(graph for graph in roadmaps if graph is not None)
        replay = replay and _some(replay, preferred, generator)
        return cls(parts, tuple(supports), whole if len(whole) == len(parts) else (), middle, replay, linear, ends)

    def tensors(self) -> dict[str, Tensor]:
        """Returns the tensors to save."""
        saved = {"middle": self.middle}
        for part, support in enumerate(self.supports):
            saved[f"support.{part}.points"] = support.points
            saved[f"support.{part}.radius"] = torch.tensor(support.radius)
        for part, graph in enumerate(self.roadmaps):
            if isinstance(graph, ContextRoadmap):
                saved[f"roadmap.{part}.nodes"] = graph.states.to(torch.float16)
            else:  # the nodes are the first of the support's points
                saved[f"roadmap.{part}.neighbours"] = graph.neighbours.to(torch.int16)
                saved[f"roadmap.{part}.steps"] = graph.steps.to(torch.float16)
            if isinstance(graph.driver, (InertialSteering, Steering)):
                saved[f"roadmap.{part}.reach"] = torch.tensor(graph.driver.reach)
            if isinstance(graph.driver, Steering):
                saved[f"roadmap.{part}.error"] = torch.tensor(graph.driver.tolerance)
        if self.replay is not None:
            saved["replay.states"] = self.replay.states.to(torch.float16)
            saved["replay.actions"] = self.replay.actions.to(torch.float16)
        if self.linear is not None:
            saved["linear"] = self.linear.packed
        if self.terminal is not None:
            saved["terminal.ends"] = self.terminal.ends.to(torch.float16)
            saved["terminal.starts"] = self.terminal.starts.to(torch.float16)
            saved["terminal.ratio"] = torch.tensor(self.terminal.ratio)
        return saved

    @classmethod
    def restore(
        cls,
        model: WorldModel,
        tensors: Mapping[str, Tensor],
        blocks: Sequence[Block] = (),
        named: Sequence[int] | None = None,
    ) -> ReplayIndex:
        """Restores an index from `tensors`; raises if some are missing or do not fit."""
        parts = tuple(blocks) or (whole_block(model),)
        size, action_size = model.state_size, model.action_size
        middle = _checked(tensors, "middle", (size,))
        linear = None
        if "linear" in tensors:
            linear = LinearModel.unpack(_checked(tensors, "linear", (size, size + action_size + 1)))
        terminal = _terminal(tensors, size)
        supports, roadmaps = [], []
        for part, block in enumerate(parts):
            points = _checked(tensors, f"support.{part}.points", (None, len(block.states)))
            radius = float(tensors[f"support.{part}.radius"])
            if not 0 <= radius < math.inf or not 0 < len(points) <= _POOL:
                raise ValueError(f"support: expected 1 to {_POOL} points and a radius, got {len(points)}, {radius}")
            supports.append(make_support(model, points, radius))
            own = {
                name.removeprefix(f"roadmap.{part}."): t for name, t in tensors.items() if f"roadmap.{part}." in name
            }
            if not {"nodes", "steps", "neighbours"} & set(own):
                continue
            straight = int(own.get("reach", STRAIGHT_REACHES[0]))
            reach, tolerance = int(own.get("reach", REACHES[0])), float(own.get("error", Steering.tolerance))
            driver = make_driver(model, block, middle, named, linear, (straight, reach), tolerance)
            known = STRAIGHT_REACHES if isinstance(driver, Steering) else REACHES
            if driver is None or driver.reach not in known or not 0 < tolerance < math.inf:
                raise ValueError("roadmap: expected the linear model that drives along it, and a reach of it")
            avoided, nodes = terminal if len(parts) == 1 else None, points[: most_nodes(len(parts))]
            roadmaps.append(_roadmap(own, nodes, static_entries(model, block), driver, avoided))
        if roadmaps and len(roadmaps) != len(parts):
            raise ValueError(f"roadmap: expected one for each of {len(parts)} blocks, got {len(roadmaps)}")
        replay = None
        if any(name.startswith("replay.") for name in tensors):
            states = _checked(tensors, "replay.states", (None, None, size))
            wanted = (states.shape[0], states.shape[1] - 1, action_size)
            if not 0 < len(states) <= _POOL or not wanted[1] > 0:
                raise ValueError(f"replay: expected 1 to {_POOL} windows of steps, got {list(states.shape)}")
            replay = ReplayWindows(states, _checked(tensors, "replay.actions", wanted))
        return cls(parts, tuple(supports), tuple(roadmaps), middle, replay, linear, terminal)


def _some(windows: ReplayWindows, preferred: Tensor | None, generator: torch.Generator) -> ReplayWindows:
    """Returns a random choice of windows, of the preferred ones first."""
    chosen = torch.randperm(len(windows.states), generator=generator)
    if preferred is not None:
        chosen = chosen[preferred.cpu()[chosen].argsort(descending=True, stable=True)]
    chosen = chosen[:_WINDOWS].to(windows.states.device)
    return ReplayWindows(*(half_precision(values[chosen]) for values in windows))


def _checked(tensors: Mapping[str, Tensor], name: str, shape: tuple[int | None, ...]) -> Tensor:
    """Returns a saved tensor of fractions as float32, after a check of its shape; None allows any length."""
    tensor = tensors[name]
    if not tensor.is_floating_point():
        raise ValueError(f"{name}: expected floating-point numbers, got {tensor.dtype}")
    if tensor.ndim != len(shape) or any(s not in (None, t) for s, t in zip(shape, tensor.shape, strict=True)):
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(tensor.shape)}")
    return tensor.float()


def _roadmap(
    tensors: Mapping[str, Tensor],
    points: Tensor,
    fixed: tuple[int, ...],
    driver: Steering | InertialSteering,
    terminal: TerminalStates | None,
) -> RoadmapGraph | ContextRoadmap:
    """Returns the saved roadmap of a block, of which no more nodes are read than `points`."""
    if "nodes" in tensors and "steps" not in tensors:
        if not fixed:
            raise ValueError("roadmap: expected a model with static entries, got none")
        nodes = _checked(tensors, "nodes", (None, points.shape[1]))
        if not 0 < len(nodes) <= _POOL:
            raise ValueError(f"roadmap: expected 1 to {_POOL} nodes, got {len(nodes)}")
        return ContextRoadmap(nodes, fixed, driver, terminal)
    if not {"steps", "neighbours"} <= set(tensors):
        raise ValueError(f"roadmap: expected steps and neighbours, got {', '.join(tensors)}")
    steps, neighbours = tensors["steps"].float(), tensors["neighbours"].long()
    if steps.ndim != 2 or steps.shape != neighbours.shape or not 0 < len(steps) <= len(points):
        raise ValueError(f"roadmap: {list(steps.shape)} and {list(neighbours.shape)} do not fit")
    if not steps.numel() or neighbours.min() < 0 or neighbours.max() >= len(steps) or steps.min() < 0:
        raise ValueError("roadmap: its neighbours and times of at least 0 do not fit its nodes")
    return RoadmapGraph(points[: len(steps)], neighbours, steps, driver, terminal=terminal)


def _terminal(tensors: Mapping[str, Tensor], size: int) -> TerminalStates | None:
    """Returns the saved region of terminal states, if any."""
    if "terminal.ends" not in tensors:
        return None
    ends, starts = (_checked(tensors, f"terminal.{name}", (None, size)) for name in ("ends", "starts"))
    ratio = float(tensors["terminal.ratio"])
    if not (0 < len(ends) <= _POOL and 0 < len(starts) <= _POOL and 0 < ratio < math.inf):
        raise ValueError(f"terminal: expected 1 to {_POOL} states and a ratio, got {len(ends)}, {len(starts)}, {ratio}")
    return TerminalStates(ends, starts, ratio)
