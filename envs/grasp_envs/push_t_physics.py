"""The physics of Push-T: a T-shaped block on a board, pushed by a disc (pymunk)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pymunk
from numpy.typing import ArrayLike, NDArray

from grasp_envs.drawing import Rectangle

SIZE = 512.0
"""Width and height of the board; x points right and y DOWN, as in the original task."""
AGENT_RADIUS = 15.0
"""Radius of the pusher."""
BARS: tuple[Rectangle, ...] = ((-60.0, 0.0, 60.0, 30.0), (-15.0, 30.0, 15.0, 120.0))
"""The block's two bars in its own frame, (x_low, y_low, x_high, y_high); its position is the origin of that frame."""
REACH = 100.0
"""Largest displacement of the pusher's target along an axis by one action."""

RIM = 64.0
"""Largest distance of the block's position beyond the board: a block can be squeezed into the thin frame."""

_LOW, _HIGH = 5.0, 506.0  # inner edges of the board's frame
_SUBSTEPS, _DT = 10, 0.01  # timesteps per action, their length [s]
_STIFFNESS, _DAMPING = 100.0, 20.0  # of the pusher's controller [1 / s^2], [1 / s]
_FRAME = ((_LOW, _LOW), (_HIGH, _LOW), (_HIGH, _HIGH), (_LOW, _HIGH))


def _corners(bar: Rectangle) -> list[tuple[float, float]]:
    x_low, y_low, x_high, y_high = bar
    return [(x_low, y_low), (x_high, y_low), (x_high, y_high), (x_low, y_high)]


_OUTLINES = [_corners(bar) for bar in BARS]
_INERTIA = 2.0 * pymunk.moment_for_poly(1.0, _OUTLINES[0])
_CENTRE = (0.0, 45.0)
"""Centre of gravity in the block's frame: midway between the bars' middles, though they differ in size."""


class Board:
    """A block and a pusher, whose state is `[x, y, vx, vy]` of the pusher and `[x, y, angle]` of the block.

    There is no other state: the block has no velocity of its own (the board brakes it at once).
    Settings are those of the diffusion policy's task (Chi et al. 2023, arXiv 2303.04137): mass 1, no friction between
    bodies, the pusher moved to a target by a controller (stiffness 100 / s^2, damping 20 / s) at 100 steps a second.
    """

    def __init__(self) -> None:
        self._state = np.array([*(SIZE / 2,) * 2, 0.0, 0.0, *(SIZE / 4,) * 2, 0.0])

    @property
    def state(self) -> NDArray[np.float64]:
        """`[7]`."""
        return self._state.copy()

    @state.setter
    def state(self, state: ArrayLike) -> None:
        self._state = np.array(state, dtype=np.float64)

    def push(self, target: ArrayLike) -> None:
        """Moves the pusher towards a target `[2]` for 0.1 s."""
        goal = pymunk.Vec2d(*map(float, np.asarray(target)))
        space, agent, block = _simulation(self._state)
        for _ in range(_SUBSTEPS):
            agent.velocity += (_STIFFNESS * (goal - agent.position) - _DAMPING * agent.velocity) * _DT
            space.step(_DT)
            _keep_on_board(agent)
        self._state = np.array([*agent.position, *agent.velocity, *block.position, block.angle])


def _simulation(state: NDArray[np.float64]) -> tuple[pymunk.Space, pymunk.Body, pymunk.Body]:
    """Returns a new space with pusher and block; each step has its own, since a used one caches contacts."""
    space = pymunk.Space()
    space.damping = 0.0
    x, y, vx, vy, block_x, block_y, angle = map(float, state)
    agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
    agent.position, agent.velocity = (x, y), (vx, vy)
    block = pymunk.Body(1.0, _INERTIA)
    bars = [pymunk.Poly(block, outline) for outline in _OUTLINES]
    block.center_of_gravity = _CENTRE
    block.angle = angle  # before the position, which depends on it: the centre of gravity lies elsewhere
    block.position = block_x, block_y
    walls = [pymunk.Segment(space.static_body, start, end, 2.0) for start, end in pairwise((*_FRAME, _FRAME[0]))]
    space.add(agent, pymunk.Circle(agent, AGENT_RADIUS), block, *bars, *walls)
    return space, agent, block


def _keep_on_board(agent: pymunk.Body) -> None:
    """Stops the pusher at the board's edge."""
    position = agent.position
    kept = pymunk.Vec2d(*(min(max(x, AGENT_RADIUS), SIZE - AGENT_RADIUS) for x in position))
    if kept != position:
        agent.velocity = pymunk.Vec2d(
            *(v if x == y else 0.0 for v, x, y in zip(agent.velocity, kept, position, strict=True))
        )
        agent.position = kept


def block_corners(pose: ArrayLike) -> NDArray[np.float64]:
    """Returns the corners `[2, 4, 2]` of the two bars of a block with pose `[x, y, angle]`."""
    x, y, angle = np.asarray(pose, dtype=np.float64)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.array(_OUTLINES) @ turn + (x, y)


def touches(agent: ArrayLike, pose: ArrayLike) -> bool:
    """Returns whether a pusher at `[x, y]` would overlap the block with pose `[x, y, angle]`."""
    x, y, angle = np.asarray(pose, dtype=np.float64)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    own = (np.asarray(agent, dtype=np.float64) - (x, y)) @ turn
    bars = np.array(BARS).reshape(-1, 2, 2)
    gap = np.maximum(np.maximum(bars[:, 0] - own, own - bars[:, 1]), 0.0)
    return bool(np.linalg.norm(gap, axis=-1).min() < AGENT_RADIUS)
