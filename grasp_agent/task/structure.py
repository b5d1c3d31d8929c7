"""Prior knowledge of a task, which environments may offer as attributes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from grasp_agent.planners import Block

_ALMOST_NOTHING = 0.005  # part of the greatest weight up to which an entry of the goal does not count; chosen by hand

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The frame of a body in the plane, given by entries of the observation and of the action.

    Attributes:
        origin: the body's position, x and y.
        heading: cosine and sine of its angle.
        points: other positions, in the same units.
        vectors: velocities and other vectors, which rotate with the plane but do not shift.
        actions: entries of the action that are such vectors.
        lever: length of a shift that counts as much as a rotation by one radian [the positions' units].

    Raises:
        ValueError: if an entry is named twice, or a pair has not two entries.
    """

    origin: Pair
    heading: Pair
    points: tuple[Pair, ...] = ()
    vectors: tuple[Pair, ...] = ()
    actions: tuple[Pair, ...] = ()
    lever: float = 1.0

    def __post_init__(self) -> None:
        for name in ("origin", "heading"):
            object.__setattr__(self, name, tuple(map(int, getattr(self, name))))
        for name in ("points", "vectors", "actions"):
            object.__setattr__(self, name, tuple(tuple(map(int, pair)) for pair in getattr(self, name)))
        object.__setattr__(self, "lever", float(self.lever))
        for pairs in ((self.origin, self.heading, *self.points, *self.vectors), self.actions):
            entries = [entry for pair in pairs for entry in pair]
            if any(len(pair) != 2 for pair in pairs) or len(set(entries)) < len(entries) or min(entries, default=0) < 0:
                raise ValueError(f"frame: expected pairs of different entries from 0, got {pairs}")
        if not self.lever > 0:
            raise ValueError(f"frame: expected a lever of more than 0, got {self.lever}")

    @property
    def positions(self) -> tuple[Pair, ...]:
        """All positions, the body's first."""
        return (self.origin, *self.points)

    def check(self, state_size: int, action_size: int) -> None:
        """Checks that the frame fits states and actions.

        Raises:
            ValueError: if it names an entry that does not exist.
        """
        named = max(chain(*self.positions, self.heading, *self.vectors)), max(chain(*self.actions), default=-1)
        if named[0] >= state_size or named[1] >= action_size:
            raise ValueError(f"frame: expected entries below {state_size} and {action_size}, got {self}")


@dataclass(frozen=True, kw_only=True)
class Structure:
    """Prior knowledge of a task.

    An environment offers it by attributes of the same names: `blocks` as pairs (entries of the observation, entries of
    the action), `frame` as a dict of `Frame`'s attributes.

    Attributes:
        blocks: independent parts of observation and action, each with a part of the goal.
        frame: the frame of a body in which the dynamics do not depend on its position and orientation.
        goal_weights: `[G]`, weights of the differences of the goal's entries; empty for 1.
        rests: True if the state stays without actions (blocks on a table): plans may stop at any time.

    Raises:
        ValueError: if a weight is not above 0, `frame` is no `Frame`, or there are both blocks and a frame.
    """

    blocks: tuple[Block, ...] = ()
    frame: Frame | None = None
    goal_weights: tuple[float, ...] = ()
    rests: bool = False

    def __post_init__(self) -> None:
        pairs = tuple(Block(tuple(map(int, states)), tuple(map(int, actions))) for states, actions in self.blocks)
        object.__setattr__(self, "blocks", pairs)
        if not isinstance(self.rests, (bool, np.bool_)):
            raise ValueError(f"rests: expected True or False, got {self.rests!r}")
        object.__setattr__(self, "rests", bool(self.rests))
        object.__setattr__(self, "goal_weights", tuple(map(float, self.goal_weights)))
        if not all(0 < weight < math.inf for weight in self.goal_weights):
            raise ValueError(f"goal_weights: expected finite numbers of more than 0, got {self.goal_weights}")
        if not (self.frame is None or isinstance(self.frame, Frame)):
            raise ValueError(f"frame: expected a Frame or None, got {self.frame!r}")
        if self.blocks and self.frame is not None:
            raise ValueError("structure: expected blocks or a frame, got both")

    def counting(self, goal_index: Sequence[int]) -> tuple[int, ...]:
        """Returns those of a goal's entries of the state `[G]` that count: not those whose weights are almost 0.

        Raises:
            ValueError: if the number of weights is wrong.
        """
        if not self.goal_weights:
            return tuple(goal_index)
        if len(self.goal_weights) != len(goal_index):
            raise ValueError(f"goal_weights: expected {len(goal_index)}, got {len(self.goal_weights)}")
        least = _ALMOST_NOTHING * max(self.goal_weights)
        return tuple(i for i, weight in zip(goal_index, self.goal_weights, strict=True) if weight >= least)

    @classmethod
    def from_env(cls, env: VecEnv, *, weighs_goal: bool = True) -> Structure:
        """Reads prior knowledge from an environment's attributes.

        Args:
            env: the environment.
            weighs_goal: False leaves out its weights of the goal.

        An attribute of such a name that is something else is ignored with a warning.

        Raises:
            ValueError: if there are both blocks and a frame.
        """
        inner, outer = env.get_attr("observation_space")[0], env.observation_space
        assert isinstance(outer, spaces.Dict)
        if inner not in (outer, outer["observation"]):
            return cls()  # a wrapper, such as VecFrameStack, has changed the entries of observations
        names = ("blocks", "frame", "rests", *(("goal_weights",) if weighs_goal else ()))
        known: dict[str, Any] = {}
        for name in names:
            value = env.get_attr(name)[0] if env.has_attr(name) else None
            if value is None:
                continue
            try:
                value = Frame(**value) if name == "frame" and isinstance(value, Mapping) else value
                cls(**{name: value}).check(outer, env.action_space)  # type: ignore[arg-type]
            except (TypeError, ValueError) as error:
                warnings.warn(
                    f"the environment's attribute {name} is no prior knowledge of the task, and is ignored: {error} "
                    "(structure=Structure() ignores all such attributes without a warning)",
                    stacklevel=2,
                )
            else:
                known[name] = value
        structure = cls(**known)
        structure.check(outer, env.action_space)  # type: ignore[arg-type]
        return structure

    def check(self, observation_space: spaces.Dict, action_space: spaces.Box) -> None:
        """Checks that the structure fits an environment.

        Raises:
            ValueError: if the number of goal weights is wrong, or actions of a frame have different scales.
        """
        size = observation_space["desired_goal"].shape[0]  # type: ignore[index]
        if len(self.goal_weights) not in (0, size):
            raise ValueError(f"goal_weights: expected {size}, got {len(self.goal_weights)}")
        if self.frame is None:
            return
        self.frame.check(observation_space["observation"].shape[0], action_space.shape[0])  # type: ignore[index]
        for pair in self.frame.actions:
            low, high = action_space.low[list(pair)], action_space.high[list(pair)]
            if not (np.ptp(low) == np.ptp(high) == 0 and (low == -high).all()):
                raise ValueError(f"frame: expected actions {pair} with the same symmetric bounds, got {low} to {high}")
