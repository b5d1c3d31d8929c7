"""Adapters of environments to the vector environments of Stable-Baselines3."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import NormalizeObservation
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm, maybe_make_env
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecMonitor, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from grasp_agent.task.actions import check_actions
from grasp_agent.task.goal import Goal, GoalVecEnv
from grasp_agent.task.observation import KEYS, check_spaces
from grasp_agent.task.pixels import PixelLayout
from grasp_envs import registered_id

Environment = gym.Env[Any, Any] | VectorEnv[Any, Any, Any] | VecEnv
"""A single environment, or a vector environment of either library."""


def vectorised(env: Environment | str, verbose: int = 0) -> gym.Env[Any, Any] | VecEnv:
    """Returns an environment, or that of an id (see `grasp_envs.registered_id`), in the form of Stable-Baselines3.

    Raises:
        ValueError: if it is no environment.
    """
    if isinstance(env, str):
        return maybe_make_env(registered_id(env), verbose)
    if isinstance(env, VectorEnv):
        return VecMonitor(FromGymnasium(env))
    if not isinstance(env, (gym.Env, VecEnv)):
        raise ValueError(f"env: expected an environment or its id, got {env!r}")
    inner = env.observation_space.spaces if isinstance(env.observation_space, spaces.Dict) else {}
    for key, space in inner.items():
        if not isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)):
            raise ValueError(
                f"observation space: expected a Box, Discrete, MultiBinary or MultiDiscrete under {key!r}, got {space}"
                "; gymnasium.wrappers.FilterObservation leaves it out"
            )
    return env


def spec_of(env: VecEnv) -> EnvSpec | None:
    """Returns the spec of the first environment; None where there is none, and for environments in other processes.

    There a spec that cannot be pickled, with a lambda as an option, would end the process that is asked for it.
    """
    return None if isinstance(env.unwrapped, SubprocVecEnv) else env.get_attr("spec")[0]


def time_limit(env: VecEnv) -> int | None:
    """Returns the steps of an episode, of the environment's spec or of a `TimeLimit` around it; None without any."""
    limit = getattr(spec_of(env), "max_episode_steps", None)
    if limit is None and env.has_attr("_max_episode_steps"):
        limit = env.get_attr("_max_episode_steps")[0]
    return limit if isinstance(limit, int) else None


def refuse_drifting(env: gym.Env[Any, Any] | VecEnv) -> None:
    """Refuses observations that are normalised with running statistics, in which no goal stays where it is.

    Raises:
        ValueError: if a wrapper of the environment is Gymnasium's `NormalizeObservation`.
    """
    if isinstance(env, VecEnv):
        drifts = any(env.env_is_wrapped(NormalizeObservation))
    else:
        drifts = is_wrapped(env, NormalizeObservation)
    if drifts:
        raise ValueError(
            "NormalizeObservation: expected an environment without it; its statistics change, so goals would move, and "
            "the world model normalises observations itself"
        )


def goal_env(env: gym.Env[Any, Any] | VecEnv, goal: Goal | None, verbose: int = 0) -> gym.Env[Any, Any] | VecEnv:
    """Returns the environment with a goal, if one is given.

    Raises:
        ValueError: if an agent could not plan in it.
    """
    if PixelLayout.of(env.observation_space) is not None:
        check_actions(env.action_space)
        if goal is not None:
            raise ValueError("goal: expected none where observations are images; see set_goal")
        return env
    if goal is not None:
        check_actions(env.action_space)
        env = GoalVecEnv(BaseAlgorithm._wrap_env(env, verbose), goal)
    check_spaces(env.observation_space, env.action_space)
    assert isinstance(env.observation_space, spaces.Dict)
    unused = sorted(set(env.observation_space.spaces) - set(KEYS))
    if unused:
        warnings.warn(
            f"observation space: the agent does not use {', '.join(unused)}; it uses {', '.join(KEYS)}", stacklevel=2
        )
    refuse_drifting(env)
    normalize = unwrap_vec_normalize(env) if isinstance(env, VecEnv) else None
    if normalize is not None and normalize.norm_obs:  # achieved and desired goals would have different scales
        raise ValueError("VecNormalize: expected norm_obs=False; the world model normalises observations itself")
    return env


class FromGymnasium(VecEnv):
    """A vector environment of Gymnasium with the interface of `VecEnv`, with any autoreset mode.

    Args:
        env: a vector environment with `get_attr` and `call`, such as SyncVectorEnv and AsyncVectorEnv.

    Raises:
        ValueError: if it has not.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        if not callable(getattr(env, "get_attr", None)) or not callable(getattr(env, "call", None)):
            raise ValueError(f"env: expected a SyncVectorEnv or an AsyncVectorEnv, got {type(env).__name__}")
        self._env: Any = env
        self._same_step = env.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP
        self._actions: NDArray[Any] | None = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        """Resets all environments."""
        seeds = None if None in self._seeds else self._seeds
        if any(options != self._options[0] for options in self._options):
            raise ValueError("options: expected the same for all environments of Gymnasium's vectors")
        observations, infos = self._env.reset(seed=seeds, options=dict(self._options[0]) or None)
        self.reset_infos = [_of_row(infos, row) for row in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Sets the actions of the next step."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Steps all environments; ended episodes are reset, and their last observation is in the info."""
        observations, rewards, terminated, truncated, infos = self._env.step(self._actions)
        dones = terminated | truncated
        rows = [_of_row(infos, row) for row in range(self.num_envs)]
        lasts = {row: _observation_of(observations, row) for row in range(self.num_envs) if dones[row]}
        if self._same_step:
            lasts = {row: rows[row].pop("final_obs") for row in lasts}
            finals = [info.pop("final_info", None) for info in rows]
            begun, rows = rows, [info if final is None else final for info, final in zip(rows, finals, strict=True)]
        elif dones.any():
            observations, infos = self._env.reset(options={"reset_mask": dones})
            begun = [_of_row(infos, row) for row in range(self.num_envs)]
        else:
            begun = rows
        for row in lasts:
            self.reset_infos[row] = begun[row]
        for row, info in enumerate(rows):
            info["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
            if dones[row]:
                info["terminal_observation"] = lasts[row]
        return observations, rewards.astype(np.float32), dones, rows

    def close(self) -> None:
        """Closes all environments."""
        self._env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Returns an attribute of each environment."""
        return self._of(self._env.get_attr(attr_name), indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets an attribute of some environments."""
        rows = set(self._get_indices(indices))
        known = [None] * self.num_envs if len(rows) == self.num_envs else self._env.get_attr(attr_name)
        values = [value if row in rows else old for row, old in enumerate(known)]
        self._env.set_attr(attr_name, values)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Returns the results of a method for some environments; it is called for all of them."""
        return self._of(self._env.call(method_name, *method_args, **method_kwargs), indices)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:  # type: ignore[type-arg]
        """Returns whether each is wrapped in a class; environments in other processes count as not wrapped."""
        found = [_is_wrapped(env, wrapper_class) for env in getattr(self._env, "envs", [None] * self.num_envs)]
        return self._of(found, indices)

    def _of(self, values: Sequence[Any], indices: VecEnvIndices) -> list[Any]:
        return [values[row] for row in self._get_indices(indices)]


def _is_wrapped(env: gym.Env[Any, Any] | None, kind: type) -> bool:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, kind):
            return True
        env = env.env
    return False


def _observation_of(observations: Any, row: int) -> Any:
    """Returns a copy of one environment's observation."""
    if isinstance(observations, dict):
        return {key: np.array(value[row]) for key, value in observations.items()}
    return np.array(observations[row])


def _of_row(infos: dict[str, Any], row: int) -> dict[str, Any]:
    """Returns one environment's info from those of Gymnasium: `_name` masks the environments that have `name`."""
    found = {}
    for name, values in infos.items():
        if not name.startswith("_") and infos.get(f"_{name}", np.ones(row + 1, bool))[row]:
            found[name] = _of_row(values, row) if isinstance(values, dict) else values[row]
    return found
