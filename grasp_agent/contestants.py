"""Who takes part in a comparison: from a name, a file or an object to something with `predict`."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, cast
from uuid import uuid4

import gymnasium as gym
from numpy.typing import NDArray

from grasp_agent import baselines, planners, saving
from grasp_agent.agent import GraspAgent
from grasp_agent.evaluation import Predictor, label
from grasp_agent.planners import Planner
from grasp_agent.pretrained import BundledModel, bundled, load
from grasp_agent.reinforcement import ALGORITHMS, algorithm

PLANNERS: dict[str, Callable[[], Planner[Any]]] = {
    "grasp-paper": planners.GRASP.paper,
    "shooting": planners.GradientShooting,
    "ilqr": planners.ILQR,
    "cem": planners.CEM,
    "icem": planners.ICEM,
    "mppi": planners.MPPI,
    "latco": planners.Collocation,
}
"""Planners that take part with the model of `grasp`."""

HOW = (
    f"grasp, {', '.join(PLANNERS)}, random, {', '.join(ALGORITHMS)} (with @STEPS for one of several), a bundled model, "
    "a saved file (PATH, or ALGORITHM:PATH), or MODULE:OBJECT"
)


class Contestant(NamedTuple):
    """One who takes part."""

    name: str
    """In tables."""
    make: Callable[[gym.Env[Any, Any], int], Predictor]
    """Makes it for an environment; the seed is for what is random in it."""
    key: str
    """Changes when it becomes another one."""
    steps: int | None = None
    """Environment steps that it learned from; None where that is not known, 0 where it learns nothing."""
    seconds: float | None = None
    """Time of its training [s], where that is known."""
    size: int | None = None
    """Of its file [bytes], where there is one."""


class Random:
    """Draws actions from their space.

    Args:
        env: whose actions.
        seed: of the draws.
    """

    name = "random"

    def __init__(self, env: gym.Env[Any, Any], seed: int) -> None:
        self._space = deepcopy(env.action_space)
        self._space.seed(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[NDArray[Any], None]:
        """An action for one observation; nothing here is deterministic."""
        return self._space.sample(), None


def contestant(given: str | Predictor, env_id: str) -> Contestant:
    """Finds out who is meant.

    Args:
        given: a name, a file, `module:object`, or anything with `predict`.
        env_id: the environment of the comparison.

    Raises:
        ValueError: if nobody is, or a package is missing.
    """
    if not isinstance(given, str):
        name = label(given)
        known = getattr(given, "num_timesteps", None), getattr(given, "training_seconds", None)
        return Contestant(name, lambda *_: given, uuid4().hex, *known)
    if Path(given).is_file():
        return _file(Path(given))
    name, _, rest = given.partition(":")
    base, at, digits = given.partition("@")
    if at and not digits.isdigit() and Path(given).suffix != ".zip":
        raise ValueError(f"agents: expected a number of steps after @, got {given!r}")
    steps = int(digits) if digits.isdigit() else None
    if given == "random":
        return Contestant("random", Random, "random", steps=0)
    if base == "grasp":
        return _bundled(*_model(env_id, steps))
    if base in PLANNERS:
        model, entry = _model(env_id, steps)
        known = _bundled(model, entry)
        make = partial(_planned, name=base, model=model)
        return known._replace(name=given, make=make, key=f"{base} {known.key}")
    if given in bundled():
        return _bundled(given, bundled()[given])._replace(name=given)
    if base in ALGORITHMS:
        return _baseline(baselines.find(base, env_id, steps))
    if name in ALGORITHMS:
        return _file(Path(rest), name)
    if Path(given).suffix == ".zip":
        return _file(Path(given))
    if rest:
        return _own(given, name, rest)
    raise ValueError(f"agents: expected {HOW}; got {given!r}")


def _model(env_id: str, steps: int | None) -> tuple[str, BundledModel]:
    """The bundled model of an environment; that with most steps where none are named."""
    known = {name: entry for name, entry in bundled().items() if entry.env_id == env_id}
    fitting = {name: entry for name, entry in known.items() if steps in (None, entry.steps)}
    if not fitting:
        names = ", ".join(f"grasp@{entry.steps}" for entry in known.values()) or "none"
        wanted = "grasp" if steps is None else f"grasp@{steps}"
        raise ValueError(f"no bundled model {wanted!r} for {env_id} (choose from {names}; or give a file)")
    return max(fitting.items(), key=lambda item: item[1].steps)


def _bundled(name: str, entry: BundledModel) -> Contestant:
    path = Path(str(import_module("grasp_agent.pretrained").__file__)).parent / f"{name}.zip"
    return _agent(path, entry.sha256, make=lambda *_: load(name, device="cpu"))


def _planned(env: gym.Env[Any, Any], seed: int, *, name: str, model: str) -> GraspAgent:
    """The bundled model with another planner, which gets the same proposals as GRASP."""
    agent = load(model, device="cpu")
    planner = PLANNERS[name]()
    if name != "grasp-paper":
        planner = replace(planner, proposals=planners.GRASP().proposals)
    agent.policy.planner, agent.name = planner, name
    return agent


def _baseline(entry: baselines.Baseline) -> Contestant:
    path = Path(str(baselines.__file__)).parent / entry.file
    return Contestant(
        name=f"{entry.algorithm}@{entry.steps}",
        make=lambda *_: baselines.baseline(entry.algorithm, entry.env_id, entry.steps),
        key=entry.sha256,
        steps=entry.steps,
        seconds=entry.seconds,
        size=path.stat().st_size,
    )


def _file(path: Path, name: str | None = None) -> Contestant:
    """A saved agent of ours, or of Stable-Baselines3, whose files run code when they are loaded."""
    if not path.is_file():
        raise ValueError(f"agents: no such file {path}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            data = json.loads(archive.read("data")) if "data" in names else {}
            config = json.loads(archive.read("config.json")) if "config.json" in names else {}
        if not isinstance(config, dict) or not isinstance(data, dict):
            raise ValueError("expected settings by name")
        if config and name is None and "algorithm" not in config:
            return _agent(path, digest, make=lambda *_: GraspAgent.load(path, device="cpu"))
        if config:
            baselines.restored(*saving.read(path))  # refused here, if at all
    except (zipfile.BadZipFile, ValueError, OSError, KeyError, TypeError) as error:
        raise ValueError(f"agents: {path} is no saved agent: {error}") from error
    if "algorithm" in config and name in (None, config["algorithm"]):
        return Contestant(
            name=f"{config['algorithm']}@{config['num_timesteps']}",
            make=lambda *_: baselines.restored(*saving.read(path)),
            key=digest,
            steps=config["num_timesteps"],
            seconds=config.get("training_seconds"),
            size=path.stat().st_size,
        )
    if not data:
        raise ValueError(f"agents: {path} is no saved agent{f' of {name}' if name else ''}")
    name = name or _algorithm_of(path, data)
    steps = data.get("num_timesteps")
    return Contestant(
        name=f"{path.stem}" if name in path.stem else f"{name} {path.stem}",
        make=lambda env, _: _theirs(str(name), path, env),
        key=f"{name} {digest}",
        steps=steps if isinstance(steps, int) else None,
        size=path.stat().st_size,
    )


def _theirs(name: str, path: Path, env: gym.Env[Any, Any]) -> Predictor:
    """Loads what Stable-Baselines3 has saved; with hindsight it wants an environment."""
    try:
        return algorithm(name).load(path, env=env, device="cpu")
    except (ValueError, AttributeError, AssertionError, TypeError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"agents: {path} cannot be loaded as {name} for this environment: {reason}") from error


def _agent(path: Path, key: str, make: Callable[..., GraspAgent]) -> Contestant:
    """One of ours, whose file tells how it was trained."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    steps, size = int(config.get("num_timesteps", 0)), path.stat().st_size
    seconds = float(config.get("training_seconds", 0.0)) or None
    entry = bundled().get(path.stem)
    steps = entry.steps if entry is not None and entry.sha256 == key else steps
    return Contestant(f"grasp@{steps}" if steps else "grasp", make, key, steps or None, seconds, size)


def _algorithm_of(path: Path, data: dict[str, Any]) -> str:
    """The algorithm whose policies are at home where the saved one is."""
    home = str(data.get("policy_class", {}).get("__module__", ""))
    for name, kind in ALGORITHMS.items():
        package = kind.split(".")[0]
        if name in ("td3", "ddpg"):
            continue  # they share their policies
        if home.startswith(f"{package}.{name}."):
            return name
    raise ValueError(f"agents: which algorithm made {path} cannot be seen; say it, for example ppo:{path}")


def _own(given: str, module: str, name: str) -> Contestant:
    """An object of the user's, or what a class or a function of theirs makes for an environment."""
    try:
        found: Any = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"agents: {given}: {error}; expected {HOW}") from error
    if isinstance(found, type) or not hasattr(found, "predict"):
        if not callable(found):
            raise ValueError(f"agents: {given}: expected something with predict, or what makes it from an environment")
        build = cast("Callable[[gym.Env[Any, Any]], Predictor]", found)
        return Contestant(name, lambda env, _: _built(build, env, given), given)
    return Contestant(name, lambda *_: found, given)


def _built(build: Callable[[gym.Env[Any, Any]], Predictor], env: gym.Env[Any, Any], given: str) -> Predictor:
    try:
        made = build(env)
    except TypeError as error:
        raise ValueError(f"agents: {given}: expected what makes an agent from an environment: {error}") from error
    if not hasattr(made, "predict"):
        raise ValueError(f"agents: {given}: expected something with predict, got {made!r}")
    return made
