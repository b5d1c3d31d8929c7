"""The configuration of a training, and its file of JSON, which runs no code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from gymnasium import spaces

from grasp_agent.agent.agent import GraspAgent
from grasp_agent.agent.reward.agent import RewardAgent
from grasp_agent.agent.saved_settings import CODEC, CODED, env_id_of, options_of
from grasp_agent.agent.settings import KINDS, AgentSettings
from grasp_agent.evaluation.participants import PLANNERS, planner_called, without_proposals
from grasp_agent.evaluation.rollout import made
from grasp_agent.files import atomic_write
from grasp_agent.planners import GRASP, Planner
from grasp_agent.planners.requirements import check_objective
from grasp_agent.reading import read_json, reading
from grasp_agent.task.goal import Goal
from grasp_agent.validation import at_least, finite, instance, whole
from grasp_envs import registered_id

FORMAT = 1
"""Version of the files."""
_PROBLEM = "no configuration of a training"
_PLANNER_NAMES = ("grasp", *PLANNERS)
_OWN = ("env", "env_kwargs", "steps", "seed")
_SETTINGS = tuple(known.name for known in fields(AgentSettings))
_REWARD_SETTINGS = ("planner", "horizon")
_GOAL_KEYS = ("tolerance", "weights", "running")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """All that a training depends on; two trainings of the same configuration give the same agent.

    Attributes:
        env: id of the environment, MODULE:ID for one that a module registers.
        steps: environment steps to learn from.
        env_kwargs: options with which the environment is made.
        seed: of everything random.
        settings: the agent's constructor arguments.

    Raises:
        ValueError: if one is not of its kind, or out of range.
    """

    env: str
    steps: int
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    settings: AgentSettings = AgentSettings()

    def __post_init__(self) -> None:
        if not isinstance(self.env, str) or not self.env:
            raise ValueError(f"env: expected the id of an environment, got {self.env!r}")
        object.__setattr__(self, "env", registered_id(self.env))
        options_of(self.env_kwargs)
        whole(1, steps=self.steps)
        whole(0, seed=self.seed)
        instance(AgentSettings, settings=self.settings)

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON form, in which None stands for a default.

        It does not name the module that registers the environment: no file lets a module be imported.

        Raises:
            ValueError: for a goal that is a function, or parts of the settings that are not of this package.
        """
        known = self.settings
        return {
            "format": FORMAT,
            "env": self.env.rpartition(":")[2],
            "env_kwargs": self.env_kwargs,
            "steps": self.steps,
            "seed": self.seed,
            "goal": None if known.goal is None else goal_to_json(known.goal),
            **{name: CODEC.encode(value) for name, value in known.arguments.items() if name != "goal"},
        }

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> TrainingConfig:
        """Returns the configuration of a JSON form; what it leaves out has its default, a planner may be a name.

        Raises:
            ValueError: that names the setting which is unknown, missing, of another kind or out of range.
        """
        if not isinstance(config, Mapping):
            raise ValueError(f"expected settings by name, got {str(config)[:80]}")
        known = ("format", *_OWN, *_SETTINGS)
        unknown = [name for name in config if name not in known]
        if unknown:
            raise ValueError(f"unknown setting {unknown[0]!r}; expected some of {', '.join(known)}")
        if config.get("format", FORMAT) != FORMAT:
            raise ValueError(f"format: expected {FORMAT}, got {config['format']!r}")
        if config.get("env") is not None:
            env_id_of({"env_id": config["env"]})
        own = {name: config[name] for name in _OWN if name in config}
        for name in ("env", "steps"):
            if name not in own:
                raise ValueError(f"{name}: expected one, got none")
        given = {name: _decoded(name, config[name]) for name in _SETTINGS if name in config}
        return cls(**own, settings=AgentSettings(**given))

    def write(self, path: Path) -> None:
        """Writes the configuration to a file."""
        text = json.dumps(self.to_json(), indent=1) + "\n"
        with atomic_write(path) as aside:
            aside.write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> TrainingConfig:
        """Reads a configuration from a file, which runs no code.

        Raises:
            ValueError: of one line that names the file and the setting, if it holds none.
        """
        held = read_json(path, _PROBLEM)
        with reading(path, _PROBLEM):
            return cls.from_json(held)

    def with_settings(self, **changes: Any) -> TrainingConfig:
        """Returns the configuration with other settings of the agent; a new tolerance is also that of its goal.

        Raises:
            ValueError: if one is not of its kind, or out of range.
        """
        known = replace(self.settings, **changes)
        if known.goal is not None and changes.get("goal_tolerance") is not None:
            known = replace(known, goal=replace(known.goal, tolerance=changes["goal_tolerance"]))
        return replace(self, settings=known)

    def summary(self) -> str:
        """Returns one line of what differs from the defaults."""
        options = [f"{name}={value}" for name, value in self.env_kwargs.items()]
        parts = [", ".join([self.env, *options]), f"{self.steps:,} steps", f"seed {self.seed}"]
        given = {name: value for name, value in self.settings.arguments.items() if value is not None}
        parts += [f"{name} {shown(value)}" for name, value in given.items()]
        return "; ".join([*parts, "the other settings by default"])


def _decoded(name: str, value: Any) -> Any:
    """Returns a setting of the agent from its JSON form."""
    if value is None:
        return None
    if name == "goal":
        return goal_from_json(value)
    if name == "planner" and isinstance(value, str):
        return planner_from_name(value)
    if name in (*CODED, "structure") and not isinstance(value, dict):
        raise ValueError(f"{name}: expected settings by name, with their type, got {str(value)[:80]}")
    if isinstance(value, dict) and "type" not in value:
        kind = GRASP if name == "planner" else KINDS[name]
        raise ValueError(f'{name}: expected a type among the settings, as "type": "{kind.__name__}", got none')
    if isinstance(value, int):
        CODEC.check_limit(name, value)
    with reading(name, "expected settings"):
        return CODEC.decode(value)


def make_agent(config: TrainingConfig, tensorboard_log: str | None = None) -> GraspAgent:
    """Returns an agent for goals that has not learned yet, on the CPU.

    Args:
        config: its environment and settings.
        tensorboard_log: folder of TensorBoard's logs.

    Raises:
        ValueError: if the environment cannot be made with its options, or an agent cannot learn in it.
    """
    env = made(config.env, config.env_kwargs) if config.env_kwargs else config.env
    given = {**config.settings.arguments, "seed": config.seed, "tensorboard_log": tensorboard_log}
    return GraspAgent("MultiInputPolicy", env, device="cpu", **given)


def make_learner(config: TrainingConfig, tensorboard_log: str | None = None) -> GraspAgent | RewardAgent:
    """Returns an agent as `make_agent` does, or one for rewards: where observations are a vector and there is no goal.

    Args:
        config: its environment and settings.
        tensorboard_log: folder of TensorBoard's logs.

    Raises:
        ValueError: as `make_agent`, and for a setting that only an agent for goals has.
    """
    env: Any = made(config.env, config.env_kwargs)
    if config.settings.goal is not None or not _learns_for_rewards(env):
        env.close()
        return make_agent(config, tensorboard_log)
    known = {**config.settings.arguments, "seed": config.seed, "tensorboard_log": tensorboard_log}
    given = {name: value for name, value in known.items() if value is not None}
    for name in given:
        if name in _SETTINGS and name not in _REWARD_SETTINGS:
            raise ValueError(
                f"{name}: expected with a goal; {config.env} has none, so that the agent learns for rewards, with "
                f"{' and '.join(_REWARD_SETTINGS)} alone"
            )
    if "planner" in given:
        given["planner"] = without_proposals(given["planner"])
    return RewardAgent("MlpPolicy", env, device="cpu", **given)


def _learns_for_rewards(env: Any) -> bool:
    """Returns whether an agent without a goal of its own learns for rewards: where observations are a vector."""
    space = env.observation_space
    return isinstance(space, spaces.Box) and len(space.shape) == 1


def check_planners(names: Iterable[str], env_id: str) -> None:
    """Checks that trained agents can plan with some of `PLANNERS`.

    Args:
        names: of the planners.
        env_id: the environment.

    Raises:
        ValueError: for one that needs a goal, where there is none, or an environment that cannot be made.
    """
    env = made(env_id, {})
    env.close()
    for name in names if _learns_for_rewards(env) else ():
        check_objective(without_proposals(planner_called(name)))


def planner_from_name(name: str) -> Planner[Any]:
    """Returns a planner with its defaults.

    Raises:
        ValueError: if there is none of this name.
    """
    if name not in _PLANNER_NAMES:
        raise ValueError(f"planner: expected one of {', '.join(_PLANNER_NAMES)}, got {name!r}")
    return GRASP() if name == "grasp" else planner_called(name)


def goal_to_json(goal: Goal) -> dict[str, Any]:
    """Returns the JSON form of a goal, from entries of the observation to target values.

    Raises:
        ValueError: if the goal is a function of the observation.
    """
    if goal.measure is not None:
        raise ValueError("goal: expected entries of the observation, got a function, which no file holds")
    config: dict[str, Any] = {str(entry): value for entry, value in zip(goal.entries, goal.values, strict=True)}
    config["tolerance"] = goal.tolerance
    if goal.weights:
        config["weights"] = {str(entry): weight for entry, weight in zip(goal.entries, goal.weights, strict=True)}
    if goal.running:
        config["running"] = True
    return config


def goal_from_json(config: Any, tolerance: float | None = None) -> Goal:
    """Returns the goal of a JSON form, such as `{"0": 1.0, "1": 0.5, "tolerance": 0.05}`.

    Args:
        config: target values by entry of the observation, and optionally the tolerance, weights by entry, and whether
            the distance is a running cost; see `Goal`.
        tolerance: greatest distance that counts as success, in place of that in `config`.

    Raises:
        ValueError: for anything else, or where no tolerance is given.
    """
    if not isinstance(config, Mapping):
        raise ValueError(f'goal: expected target values by entry, as in {{"0": 1.0, "2": 0.5}}, got {str(config)[:80]}')
    tolerance = config.get("tolerance") if tolerance is None else tolerance
    if tolerance is None:
        raise ValueError('goal: expected a tolerance too, as in {"0": 1.0, "tolerance": 0.05}, got none')
    at_least(0, **{"goal: tolerance": tolerance})
    running, weights = config.get("running", False), config.get("weights")
    if not isinstance(running, bool):
        raise ValueError(f"goal: running: expected true or false, got {running!r}")
    targets = {name: value for name, value in config.items() if name not in _GOAL_KEYS}
    known = None if weights is None else _by_entry("weights", weights)
    return Goal.at(_by_entry("target values", targets), tolerance=float(tolerance), weights=known, running=running)


def _by_entry(what: str, values: Any) -> dict[int | str, float]:
    """Returns numbers by entry of the observation."""
    if not isinstance(values, Mapping):
        raise ValueError(f'goal: expected {what} by entry, as in {{"0": 1.0, "2": 0.5}}, got {str(values)[:80]}')
    unknown = [name for name in values if not (name.isascii() and name.isdigit())]
    if unknown:
        raise ValueError(f"goal: expected an entry's index, or {', '.join(_GOAL_KEYS)}, got {unknown[0]!r}")
    finite(**{f"goal: {what}, entry {name}": value for name, value in values.items()})
    return {int(name): float(value) for name, value in values.items()}


def shown(value: Any) -> str:
    """Returns a setting as text; of settings by name those that differ from their defaults."""
    if not is_dataclass(value) or isinstance(value, type):
        return f"{value:g}" if isinstance(value, float) else str(value)
    changed = [
        f"{known.name} {type(part).__name__ if is_dataclass(part) else shown(part)}"
        for known in fields(value)
        if (part := getattr(value, known.name)) != _default(known)
    ]
    return type(value).__name__ + (f" ({', '.join(changed)})" if changed else "")


def _default(known: Field[Any]) -> Any:
    return known.default if known.default_factory is MISSING else known.default_factory()
