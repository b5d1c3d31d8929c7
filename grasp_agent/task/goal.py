"""Goals for environments without goals of their own: target values of some entries of a vector observation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from grasp_agent.planners import Criteria
from grasp_agent.task.observation import Array, numbers
from grasp_agent.validation import finite, more_than, whole

Measure = Callable[[Array], Array]
"""From observations `[n, O]` to the achieved goals, `[n, G]`."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Target values of an observation, for environments whose observations are a Box.

        Goal.at({0: 1.0, 1: 0.0, 2: 0.0}, tolerance=0.2)  # entries 0, 1 and 2 of the observation
        Goal.of(lambda obs: obs[:, 17:20] - obs[:, 20:23], [0, 0, 0], tolerance=0.05)  # a function of it
        Goal.at({0: 1.0, 1: 0.0, 2: 0.0}, tolerance=0.2, running=True)  # each step away from it counts

    Attributes:
        values: `[G]`, target values [the observation's units].
        tolerance: greatest weighted Euclidean distance to them that counts as success.
        entries: `[G]`, the observation's entries that should take them; empty for a function.
        weights: `[G]`, weights of the differences; empty for 1.
        measure: the function of the observation; None for entries. It is not saved with an agent.
        running: True minimises the distance to the goal at every step (a running cost), and plans are improved in all
            iterations of the planner; False reaches the goal in time and stays there (a terminal cost), and the first
            plan that does so is accepted.

    Raises:
        ValueError: if sizes do not fit or a number is out of range.
    """

    values: tuple[float, ...]
    tolerance: float
    entries: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    measure: Measure | None = None
    running: bool = False

    def __post_init__(self) -> None:
        if not self.values or not np.isfinite(self.values).all():
            raise ValueError(f"goal: expected finite values, at least one, got {self.values}")
        more_than(0, **{"goal: tolerance": self.tolerance})
        if self.measure is None and (
            len(self.entries) != len(self.values)
            or len(set(self.entries)) != len(self.entries)
            or any(entry < 0 for entry in self.entries)
        ):
            raise ValueError(
                f"goal: expected {len(self.values)} different entries from 0, one for each value, got {self.entries}"
            )
        if self.weights and (len(self.weights) != len(self.values) or not all(w > 0 for w in self.weights)):
            raise ValueError(
                f"goal: expected {len(self.values)} weights of more than 0, one for each value, got {self.weights}"
            )

    @classmethod
    def at(
        cls,
        targets: Mapping[int | str, float],
        *,
        tolerance: float,
        weights: Mapping[int | str, float] | None = None,
        names: Sequence[str] = (),
        running: bool = False,
    ) -> Goal:
        """Returns a goal of target values of some entries.

        Args:
            targets: from an entry, by its index or its name, to its target value.
            tolerance: greatest weighted Euclidean distance to them that counts as success.
            weights: from an entry to the weight of its difference; 1 for the others.
            names: the entries' names, in order, if any entry is given by name.
            running: see `Goal`.

        Raises:
            ValueError: for an unknown name, or a weight without a target.
        """
        for what, given in (("target values", targets), ("weights", {} if weights is None else weights)):
            if not isinstance(given, Mapping):
                raise ValueError(f"goal: expected {what} by entry, as in {{0: 1.0, 2: 0.5}}, got {given!r}")
        weights = dict(weights or {})
        stray = set(weights) - set(targets)
        if stray:
            raise ValueError(f"goal: expected weights of {', '.join(map(str, targets))}, got one of {stray.pop()!r}")
        unknown = [key for key in targets if isinstance(key, str) and key not in names]
        if unknown:
            raise ValueError(f"goal: expected an index or one of {', '.join(names) or 'names=...'}, got {unknown[0]!r}")
        return cls(
            values=tuple(map(float, targets.values())),
            tolerance=tolerance,
            entries=tuple(names.index(key) if isinstance(key, str) else int(key) for key in targets),
            weights=tuple(float(weights.get(key, 1.0)) for key in targets) if weights else (),
            running=running,
        )

    @classmethod
    def of(cls, measure: Measure, values: Sequence[float], *, tolerance: float, running: bool = False) -> Goal:
        """Returns a goal of target values `[G]` of a function of the observations, `[n, O] -> [n, G]`."""
        return cls(values=tuple(map(float, values)), tolerance=float(tolerance), measure=measure, running=running)

    @property
    def criteria(self) -> Criteria:
        """The default criteria by which plans are scored."""
        return Criteria(running=1.0, accept=-1.0) if self.running else Criteria()

    def to_config(self) -> dict[str, Any]:
        """Returns the JSON form, without a function, which must be given again when the agent is loaded."""
        return {
            "values": list(self.values),
            "tolerance": self.tolerance,
            "entries": list(self.entries),
            "weights": list(self.weights),
            "function": self.measure is not None,
            "running": self.running,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Goal:
        """Restores a goal from `to_config`.

        Raises:
            ValueError: if the goal is a function.
        """
        if config["function"]:
            raise ValueError(
                "its goal is a function of the observation, which files do not hold: load(..., goal=Goal.of(...))"
            )
        values, entries, weights = (tuple(config[name]) for name in ("values", "entries", "weights"))
        whole(0, **{f"goal: entries[{place}]": entry for place, entry in enumerate(entries)})
        for name, values_of in (("values", values), ("weights", weights)):
            finite(**{f"goal: {name}[{place}]": number for place, number in enumerate(values_of)})
        tolerance, running = float(config["tolerance"]), bool(config["running"])
        return cls(values=values, tolerance=tolerance, entries=entries, weights=weights, running=running)

    def check_saved(self, config: Mapping[str, Any] | None) -> None:
        """Checks that this goal can replace a saved one: the model has learned its entries of the observation.

        Raises:
            ValueError: if there was none, or its number of values, its entries or its weights differ.
        """
        if config is None:
            raise ValueError("goal: expected none, the agent has learned in an environment with goals of its own")
        mine = self.to_config()
        for name in ("function", "entries", "weights"):
            if mine[name] != config[name]:
                what = f"the same {name} as when it was saved, {config[name]}"
                raise ValueError(f"goal: expected {what}, got {mine[name]} (values and tolerance may change)")
        if len(self.values) != len(config["values"]):
            raise ValueError(f"goal: expected {len(config['values'])} values, got {len(self.values)}")

    def achieved(self, observations: Array) -> Array:
        """Returns the achieved goals `[n, G]`, weighted, of observations `[n, O]`.

        Raises:
            ValueError: if there is no such entry, or the function does not return one value for each target.
        """
        if self.measure is not None:
            reached = np.asarray(self.measure(observations.copy()), observations.dtype)
            wanted = (len(observations), len(self.values))
            if reached.shape != wanted:
                raise ValueError(f"goal: expected the function to return shape {wanted}, got {reached.shape}")
        elif max(self.entries) >= observations.shape[-1]:
            raise ValueError(
                f"goal: expected entries below the observation's size {observations.shape[-1]}, got {self.entries}"
            )
        else:
            reached = observations[:, list(self.entries)]
        return reached * np.asarray(self.weights, reached.dtype) if self.weights else reached

    @property
    def desired(self) -> Array:
        """The desired goal `[G]`, weighted."""
        values = np.asarray(self.values)
        return values * np.asarray(self.weights) if self.weights else values

    def reached(self, observations: Array) -> NDArray[np.bool_]:
        """Returns whether observations `[n, O]` are within the tolerance, `[n]`."""
        achieved = self.achieved(numbers(observations, "observation"))
        return np.linalg.norm(achieved - self.desired.astype(achieved.dtype), axis=-1) <= self.tolerance

    def dict_space(self, space: spaces.Space[Any]) -> spaces.Dict:
        """Returns the space of a goal environment with this goal and observations of a Box.

        Raises:
            ValueError: unless it is a Box with one axis that has the entries.
        """
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"goal: expected observations of a Box with one axis, got {space}")
        self.achieved(np.zeros((1, *space.shape), np.float32))
        goals = spaces.Box(-np.inf, np.inf, (len(self.values),), np.float32)
        return spaces.Dict({"observation": space, "achieved_goal": goals, "desired_goal": goals})

    def goal_observation(self, observation: ArrayLike) -> dict[str, Array]:
        """Returns observations `[O]` or `[n, O]` in the form of a goal environment."""
        array = numbers(observation, "observation")
        if array.ndim not in (1, 2):
            raise ValueError(f"Error: Unexpected observation shape {array.shape}: expected a vector or a batch of them")
        achieved = self.achieved(array.reshape(-1, array.shape[-1])).reshape(*array.shape[:-1], len(self.values))
        return {
            "observation": array,
            "achieved_goal": achieved,
            "desired_goal": np.broadcast_to(self.desired.astype(achieved.dtype), achieved.shape),
        }


class GoalVecEnv(VecEnvWrapper):
    """A vector environment of Box observations in the form of a goal environment.

    Args:
        venv: the environment.
        goal: its goal.
    """

    def __init__(self, venv: VecEnv, goal: Goal) -> None:
        super().__init__(venv, observation_space=goal.dict_space(venv.observation_space))
        self.goal = goal

    def reset(self) -> dict[str, Array]:  # type: ignore[override]
        """Resets all environments."""
        return self.goal.goal_observation(self.venv.reset())  # type: ignore[arg-type]

    def step_wait(self) -> VecEnvStepReturn:
        """Steps all environments and converts observations; infos have `is_success`."""
        observations, rewards, dones, infos = self.venv.step_wait()
        lasts = numbers(observations, "observation")
        for row, info in enumerate(infos):
            if dones[row]:
                lasts[row] = info["terminal_observation"]
                info["terminal_observation"] = self.goal.goal_observation(lasts[row])
        for info, reached in zip(infos, self.goal.reached(lasts), strict=True):
            info.setdefault("is_success", bool(reached))
        return self.goal.goal_observation(observations), rewards, dones, infos  # type: ignore[arg-type, return-value]
