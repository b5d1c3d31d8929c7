"""Construction of a world's roadmap: its nodes, and the driver of its edges."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from grasp_agent.models.dynamics.base import WorldModel
from grasp_agent.models.dynamics.body_frame import FramedMLP
from grasp_agent.planners.protocols import Block
from grasp_agent.planners.refusals import Refusals
from grasp_agent.planners.regions import TerminalStates
from grasp_agent.planners.roadmap.blocks import block_dynamics, block_jacobian
from grasp_agent.planners.roadmap.contexts import ContextRoadmap
from grasp_agent.planners.roadmap.graph import RoadmapGraph, build_roadmap
from grasp_agent.planners.roadmap.linear_model import LinearModel
from grasp_agent.planners.roadmap.steering import InertialSteering, Steering
from grasp_agent.planners.work import metered

_CONNECTED = 0.8  # fraction of pairs that are joined, with which longer edges are not tried; chosen by hand
_NODES = 500  # of a roadmap that is built; chosen by hand
_MOST_NODES, _OF_BLOCKS = _NODES, 8000  # of a roadmap in a file, and of those of all blocks; chosen by hand

REACHES = (16, 64)
"""Greatest numbers of steps of an edge between states with velocities, tried in order: long ones for small steps."""

STRAIGHT_REACHES = (3, 12, 48)
"""Those between states without velocities."""


def most_nodes(blocks: int) -> int:
    """Returns the greatest number of nodes of a block's roadmap: time and memory grow with its square and more."""
    return max(1, min(_MOST_NODES, _OF_BLOCKS // blocks))


def static_entries(model: WorldModel, block: Block) -> tuple[int, ...]:
    """Returns the static entries of a block, by their indices in it."""
    return tuple(place for place, entry in enumerate(block.states) if entry in model.unchanging)


def whole_block(model: WorldModel) -> Block:
    """Returns one block of a model's whole state and action."""
    return Block(tuple(range(model.state_size)), tuple(range(model.action_size)))


def block_roadmap(
    model: WorldModel,
    block: Block,
    points: Tensor,
    middle: Tensor,
    named: Sequence[int] | None,
    linear: LinearModel | None,
    tolerance: float,
    terminal: TerminalStates | None = None,
    nodes: int = _MOST_NODES,
    refusals: Refusals | None = None,
) -> tuple[Tensor, RoadmapGraph | ContextRoadmap | None]:
    """Returns the points, nodes first, and a block's roadmap with edges as short as possible; None if there is none."""
    best, most = (points, None), 0.0
    for short, long in zip_longest(STRAIGHT_REACHES, REACHES):
        driver = make_driver(model, block, middle, named, linear, (short, long), tolerance)
        if driver is None:
            break
        ordered, graph = _graph(points, static_entries(model, block), driver, terminal, nodes, refusals)
        if graph is not None and graph.connected > most:
            best, most = (ordered, graph), graph.connected
        if most > _CONNECTED:
            break
    return best


def _graph(
    points: Tensor,
    fixed: tuple[int, ...],
    driver: Steering | InertialSteering,
    terminal: TerminalStates | None,
    nodes: int,
    refusals: Refusals | None,
) -> tuple[Tensor, RoadmapGraph | ContextRoadmap | None]:
    """Returns points in the order of nodes, and their roadmap."""
    if not fixed:
        return build_roadmap(points, driver, min(_NODES, nodes), terminal=terminal, refusals=refusals)
    contexts = ContextRoadmap(points, fixed, driver, terminal)
    return points, contexts if contexts.connected > 0.5 else None


def make_driver(
    model: WorldModel,
    block: Block,
    middle: Tensor,
    named: Sequence[int] | None,
    linear: LinearModel | None,
    reaches: tuple[int | None, int | None],
    tolerance: float,
) -> Steering | InertialSteering | None:
    """Returns a driver: straight if goals name all of a block's state, else by the linear model, for velocities.

    None if there is none, or `reaches`, the greatest numbers of steps of an edge of either, has none for it.
    """
    straight, inertial = reaches
    if isinstance(model, FramedMLP):
        return None  # a body is moved by contact, which neither driver models
    states, actions = list(block.states), list(block.actions)
    whole, rest = block == whole_block(model), middle.new_zeros(model.action_size)
    one_step = metered(model.step, "dynamics", model.effort)
    step = one_step if whole else block_dynamics(one_step, block, middle, rest)
    ones = middle.new_ones(len(actions))
    known = {*(states if named is None else named), *model.unchanging}
    aimed = torch.tensor([entry in known for entry in states], device=middle.device)
    if aimed.all():
        if straight is None:
            return None
        slopes = metered(model.action_jacobian, "action_jacobian", model.effort)
        jacobian = slopes if whole else block_jacobian(slopes, block, middle, rest)
        return Steering(
            dynamics=step,
            action_jacobian=jacobian,
            members=model.members,
            low=-ones,
            high=ones,
            reach=straight,
            tolerance=tolerance,
        )
    if linear is None or inertial is None:
        return None
    return InertialSteering(
        dynamics=step,
        members=model.members,
        linear=linear.part(states, actions),
        named=aimed,
        low=-ones,
        high=ones,
        reach=inertial,
    )
