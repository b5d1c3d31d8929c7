"""What an agent remembers of its experience: the replayed support, the roadmap through it, and pieces of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from grasp_agent.models import WorldModel
from grasp_agent.planners import (
    Block,
    BlockRoadmap,
    BlockSupport,
    ReplayWindows,
    RoadmapGraph,
    Steering,
    Support,
    block_dynamics,
    farthest_points,
)

_POOL = 20_000  # states among which covering points are sought
_POINTS = 1000
_NODES = 500
_PIECES = 128


@dataclass(frozen=True)
class Memory:
    """Support and roadmap of one model; for a world that falls apart, of each block.

    Attributes:
        blocks: the blocks, at least one.
        supports: for each block, the region of its entries' values that the model has seen.
        roadmaps: for each block, routes through them; none where the model cannot drive from state to state in a few
            steps.
        middle: `[S]`, a state in the midst of all: where the other blocks stand while one is driven.
        replay: pieces of recorded trajectories, if any are long enough.
        state_jacobian: `[S, S]`, how the next state depends on the state on average, regressed from replay.
    """

    blocks: tuple[Block, ...]
    supports: tuple[Support, ...]
    roadmaps: tuple[RoadmapGraph, ...]
    middle: Tensor
    replay: ReplayWindows | None = None
    state_jacobian: Tensor | None = None

    @property
    def support(self) -> Support | BlockSupport:
        """The region of all states."""
        return self.supports[0] if len(self.blocks) == 1 else BlockSupport(self.supports, self.blocks)

    @property
    def roadmap(self) -> RoadmapGraph | BlockRoadmap | None:
        """Routes through all states; None where there are none."""
        if not self.roadmaps:
            return None
        return self.roadmaps[0] if len(self.blocks) == 1 else BlockRoadmap(self.roadmaps, self.blocks)

    @property
    def points(self) -> Tensor:
        """States `[P, S]` that cover the region; blocks are put together as they come."""
        if len(self.blocks) == 1:
            return self.supports[0].points
        count = min(len(support.points) for support in self.supports)
        points = self.supports[0].points.new_empty(count, sum(len(block.states) for block in self.blocks))
        for support, block in zip(self.supports, self.blocks, strict=True):
            points[:, list(block.states)] = support.points[:count]
        return points

    @classmethod
    def build(
        cls,
        model: WorldModel,
        states: Tensor,
        episodes: Tensor,
        *,
        blocks: Sequence[Block] = (),
        replay: ReplayWindows | None = None,
        seed: int = 0,
    ) -> Memory:
        """Builds it from replayed states.

        Args:
            model: the model, already fitted.
            states: `[M, S]` [model units].
            episodes: `[M]`, the episode that each state belongs to.
            blocks: independent parts of the state; none for one of all.
            replay: pieces of the same experience `[M', T + 1, S]`; a random choice is kept.
            seed: of the choice of states where there are many.
        """
        parts = tuple(blocks) or (_everything(model),)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(states), generator=generator)[:_POOL]
        pool, origin = states[order.to(states.device)], episodes[order].to(states.device)
        supports, roadmaps = [], []
        middle = pool[(pool - pool.mean(0)).square().sum(-1).argmin()]
        for block in parts:
            own = pool[:, list(block.states)]
            index, radius = farthest_points(own, _POINTS)
            supports.append(Support(own[index], max(radius, _novelty(own, origin))))
            steering = _steering(model, block, middle)
            roadmaps.append(RoadmapGraph.build(supports[-1].points[:_NODES], steering))
        whole = tuple(graph for graph in roadmaps if graph is not None)
        jacobian = None
        if replay is not None:
            jacobian = _regressed(replay)
            chosen = torch.randperm(len(replay.states), generator=generator)[:_PIECES].to(states.device)
            replay = ReplayWindows(*(values[chosen] for values in replay))
        return cls(parts, tuple(supports), whole if len(whole) == len(parts) else (), middle, replay, jacobian)

    def tensors(self) -> dict[str, Tensor]:
        """What has to be saved."""
        saved = {"middle": self.middle}
        for part, support in enumerate(self.supports):
            saved[f"support.{part}.points"] = support.points
            saved[f"support.{part}.radius"] = torch.tensor(support.radius)
        for part, graph in enumerate(self.roadmaps):
            # The nodes are the first of the support's points.
            saved[f"roadmap.{part}.neighbours"] = graph.neighbours.to(torch.int16)
            saved[f"roadmap.{part}.steps"] = graph.steps.to(torch.float16)
        if self.replay is not None:
            saved["replay.states"] = self.replay.states.to(torch.float16)
            saved["replay.actions"] = self.replay.actions.to(torch.float16)
        if self.state_jacobian is not None:
            saved["state_jacobian"] = self.state_jacobian
        return saved

    @classmethod
    def restore(cls, model: WorldModel, tensors: Mapping[str, Tensor], blocks: Sequence[Block] = ()) -> Memory:
        """The inverse of `tensors`; raises where tensors are missing or do not fit."""
        parts = tuple(blocks) or (_everything(model),)
        size, action_size = model.state_size, model.action_size
        middle = _shaped(tensors, "middle", (size,))
        supports, roadmaps = [], []
        for part, block in enumerate(parts):
            points = _shaped(tensors, f"support.{part}.points", (None, len(block.states)))
            supports.append(Support(points, float(tensors[f"support.{part}.radius"])))
            if f"roadmap.{part}.steps" not in tensors:
                continue
            steps = tensors[f"roadmap.{part}.steps"].to(points.dtype)
            neighbours = tensors[f"roadmap.{part}.neighbours"].long()
            if steps.shape != neighbours.shape or len(steps) > len(points) or neighbours.max() >= len(steps):
                raise ValueError(f"roadmap: {list(steps.shape)} and {list(neighbours.shape)} do not fit")
            graph = RoadmapGraph(points[: len(steps)], neighbours, steps, _steering(model, block, middle))
            roadmaps.append(graph)
        if roadmaps and len(roadmaps) != len(parts):
            raise ValueError(f"roadmap: expected one for each of {len(parts)} blocks, got {len(roadmaps)}")
        replay = jacobian = None
        if any(name.startswith("replay.") for name in tensors):
            states = _shaped(tensors, "replay.states", (None, None, size)).to(middle.dtype)
            wanted = (states.shape[0], states.shape[1] - 1, action_size)
            replay = ReplayWindows(states, _shaped(tensors, "replay.actions", wanted).to(middle.dtype))
        if "state_jacobian" in tensors:
            jacobian = _shaped(tensors, "state_jacobian", (size, size))
        return cls(parts, tuple(supports), tuple(roadmaps), middle, replay, jacobian)


def _shaped(tensors: Mapping[str, Tensor], name: str, shape: tuple[int | None, ...]) -> Tensor:
    """A saved tensor whose shape has been checked; None allows any length."""
    tensor = tensors[name]
    if tensor.ndim != len(shape) or any(s not in (None, t) for s, t in zip(shape, tensor.shape, strict=True)):
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(tensor.shape)}")
    return tensor


def _everything(model: WorldModel) -> Block:
    return Block(tuple(range(model.state_size)), tuple(range(model.action_size)))


def _regressed(replay: ReplayWindows) -> Tensor:
    """How the next state depends on the state, by least squares over all recorded steps, `[S, S]`."""
    states, actions = replay.states[:, :-1].flatten(0, 1), replay.actions.flatten(0, 1)
    inputs = torch.cat([states, actions, torch.ones_like(states[:, :1])], -1)
    changes = (replay.states[:, 1:] - replay.states[:, :-1]).flatten(0, 1)
    normal = inputs.mT @ inputs + 1e-4 * len(inputs) * torch.eye(inputs.shape[1], device=inputs.device)
    slopes = torch.linalg.solve(normal, inputs.mT @ changes)[: states.shape[1]].mT
    return slopes + torch.eye(states.shape[1], device=states.device)


def _novelty(states: Tensor, episodes: Tensor) -> float:
    """How far a new episode strays from the old ones: 95 % quantile of the distance to other episodes' states."""
    sample = slice(None, None, max(1, len(states) // _POINTS))
    distance = torch.cdist(states[sample], states)
    distance[episodes[sample, None] == episodes] = torch.inf
    nearest = distance.amin(-1)
    nearest = nearest[nearest.isfinite()]
    return float(nearest.quantile(0.95)) if len(nearest) else 0.0


def _steering(model: WorldModel, block: Block, middle: Tensor) -> Steering:
    rest = middle.new_zeros(model.action_size)
    jacobian = model.action_jacobian
    if block != _everything(model):
        jacobian = block_dynamics(jacobian, block, middle, rest)
    ones = middle.new_ones(len(block.actions))
    return Steering(action_jacobian=jacobian, members=model.members, low=-ones, high=ones)
