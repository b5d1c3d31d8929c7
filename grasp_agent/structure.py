"""What is known of a task before anything is learned; environments may offer it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from grasp_agent.models import Frame
from grasp_agent.planners import Block


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What is known of a task before anything is learned.

    An environment offers it by attributes of the same names: `blocks` as pairs (entries of the observation, entries of
    the action), `frame` as a dict of `Frame`'s attributes.

    Attributes:
        blocks: parts of observation and action that move independently, each with a part of the goal.
        frame: a body around which everything looks the same wherever it is.
        goal_weights: `[G]`, what differences of the goal's entries are multiplied by before they are compared; empty
            for 1.
        rests: True where all stays as it is when nothing is done (blocks on a table): plans may stop at any time.

    Raises:
        ValueError: if a weight is not above 0, the frame is none, or there are both blocks and a frame.
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

    @classmethod
    def offered(cls, env: VecEnv, *, weighs_goal: bool = True) -> Structure:
        """What an environment says of itself.

        Args:
            env: the environment.
            weighs_goal: False leaves its weights of the goal out.

        Raises:
            ValueError: if an attribute of that name is something else.
        """
        inner, outer = env.get_attr("observation_space")[0], env.observation_space
        assert isinstance(outer, spaces.Dict)
        if inner not in (outer, outer["observation"]):
            return cls()  # a wrapper, such as VecFrameStack, shows something else than what the environment speaks of
        names = ("blocks", "frame", "rests", *(("goal_weights",) if weighs_goal else ()))
        known: dict[str, Any] = {name: env.get_attr(name)[0] for name in names if env.has_attr(name)}
        known = {name: value for name, value in known.items() if value is not None}
        try:
            if isinstance(known.get("frame"), Mapping):
                known["frame"] = Frame(**known["frame"])
            structure = cls(**known)
            structure.check(outer, env.action_space)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{error} (the environment's attributes {', '.join(known)} were taken for what is known of the task: "
                "structure=Structure() leaves them aside)"
            ) from error
        return structure

    def check(self, observation_space: spaces.Dict, action_space: spaces.Box) -> None:
        """Refuses what does not fit an environment.

        Raises:
            ValueError: if goal weights are too few or too many, or actions of a frame are not scaled alike.
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
