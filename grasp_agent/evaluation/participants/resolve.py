"""Resolves participants of a comparison from a name, a file or an object."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
from numpy.typing import NDArray

from grasp_agent import planners
from grasp_agent.agent.agent import GraspAgent
from grasp_agent.agent.reward.saved import KIND as REWARD
from grasp_agent.evaluation.participants import archives
from grasp_agent.evaluation.participants.base import TEXT, Given, OwnFile, Participant, check
from grasp_agent.evaluation.rollout import Predictor, label, made, own_goal
from grasp_agent.planners import Planner
from grasp_agent.zoo import baselines
from grasp_agent.zoo.algorithms import ALGORITHMS
from grasp_agent.zoo.pretrained import bundled, load

PLANNERS: dict[str, Callable[[], Planner[Any]]] = {
    "grasp-paper": planners.GRASP.paper,
    "shooting": planners.GradientShooting,
    "ilqr": planners.ILQR,
    "cem": planners.CEM,
    "icem": planners.ICEM,
    "mppi": planners.MPPI,
    "latco": planners.Collocation,
}
"""Planners that are compared on the model of `grasp`, or of a file."""

HOW = (
    f"grasp, {', '.join(PLANNERS)}, random, {', '.join(ALGORITHMS)} (with @STEPS for one of several), a bundled model, "
    "a saved file (PATH, ALGORITHM:PATH or PLANNER:PATH), or MODULE:OBJECT"
)


class Random:
    """Draws actions from the action space.

    Args:
        env: the environment.
        seed: of the draws.
    """

    name = "random"

    def __init__(self, env: gym.Env[Any, Any], seed: int) -> None:
        self._space = deepcopy(env.action_space)
        self._space.seed(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[NDArray[Any], None]:
        """Returns a random action; `deterministic` is ignored."""
        return self._space.sample(), None


def participant(given: Given, env_id: str) -> Participant:
    """Resolves one participant.

    Args:
        given: a name, a file, `module:object`, or anything with `predict`.
        env_id: the environment of the comparison.

    Raises:
        ValueError: if it is unknown, or a package is missing.
    """
    if isinstance(given, OwnFile):
        return _own_file(given, env_id)
    if not isinstance(given, (str, Path)):
        return _object(given)
    found = (resolve(str(given), env_id) for resolve in (_random, _grasp, _planner, _model, _algorithm, _file, _module))
    who = next((who for who in found if who is not None), None)
    if who is None:
        raise ValueError(f"agents: expected {HOW}; got {str(given)!r}")
    return who


def participants(agents: Sequence[Given] | Mapping[str, Given], env_id: str) -> list[Participant]:
    """Resolves several participants, with distinct names.

    Args:
        agents: see `participant`; by name, if they have names.
        env_id: the environment of the comparison.

    Raises:
        ValueError: if one is unknown, or there is none.
    """
    if not agents:
        raise ValueError("agents: expected at least one, got none")
    if isinstance(agents, Mapping):
        return [_probed(participant(given, env_id), env_id)._replace(name=name) for name, given in agents.items()]
    if isinstance(agents, str) or not isinstance(agents, Sequence):
        raise ValueError(f"agents: expected a list, or a dict by name, got {agents!r}")
    known = [_probed(participant(given, env_id), env_id) for given in agents]
    stems = [Path(str(given)).stem if isinstance(given, TEXT) and "/" in str(given) else "" for given in agents]
    return [who._replace(name=name) for who, name in zip(known, distinct_names(known, stems), strict=True)]


def _probed(who: Participant, env_id: str) -> Participant:
    """Builds an agent whose goal is not known before that, which also checks that it can be built; gives its notice."""
    if who.notice is not None:
        warnings.warn(who.notice, stacklevel=4)
    if who.goal_known:
        return who
    env = made(env_id, {})
    goal = own_goal(who.make(env, 0))
    env.close()
    return who._replace(goal=goal, goal_known=True)


def distinct_names(known: Sequence[Participant], extras: Sequence[str]) -> list[str]:
    """Returns distinct names; equal ones get the file's stem, or a number."""
    names = [who.name for who in known]
    distinct = [
        name if names.count(name) == 1 else f"{name} {extra or f'#{number}'}"
        for number, (name, extra) in enumerate(zip(names, extras, strict=True), 1)
    ]
    return (
        distinct
        if len(set(distinct)) == len(distinct)
        else [f"{name} #{number}" for number, name in enumerate(names, 1)]
    )


def _object(given: Predictor) -> Participant:
    steps, seconds = (getattr(given, name, None) for name in ("num_timesteps", "training_seconds"))
    check(given, repr(given))
    return Participant(label(given), lambda *_: given, None, steps, seconds or None, goal=own_goal(given))


def _own_file(given: OwnFile, env_id: str) -> Participant:
    """Resolves a file that the user has not named; one of another program, which may run code, is refused."""
    archive = archives.read_archive(given.path)
    if not archive.config:
        raise ValueError(f"agents: {given.path}: expected a file of this package, which runs no code (remove it)")
    if given.planner:
        return cast("Participant", _planner(f"{given.planner}:{given.path}", env_id))
    return _of_archive(archive)


def _of_archive(archive: archives.Archive) -> Participant:
    if "algorithm" in archive.config:
        return archives.from_policy(archive)
    return archives.from_agent(archive, partial(GraspAgent.load, archive.path))


def _file(given: str, env_id: str) -> Participant | None:
    path = archives.existing(given)
    if path is None and Path(given).suffix == ".zip" and ":" not in given:
        raise ValueError(f"agents: no such file {given}")
    if path is None:
        return None
    archive = archives.read_archive(path)
    if archive.config:
        return _of_archive(archive)
    return archives.from_theirs(archive, archives.algorithm_of(archive))


def _random(given: str, env_id: str) -> Participant | None:
    return Participant("random", Random, "random", steps=0) if given == "random" else None


def _grasp(given: str, env_id: str) -> Participant | None:
    name, steps = _with_steps(given)
    return archives.from_bundled(_model_for(env_id, steps)) if name == "grasp" else None


def _planner(given: str, env_id: str) -> Participant | None:
    """Resolves another planner with the environment's bundled model, or with that of a file."""
    name, _, rest = given.partition(":")
    base, steps = _with_steps(name)
    if base not in PLANNERS:
        return None
    archive: Any = None
    if rest:
        path = archives.existing(rest)
        archive = archives.read_archive(path) if path else None
        if archive is None or not archive.config or "algorithm" in archive.config:
            raise ValueError(f"agents: {given}: expected a saved agent of ours, got {rest}")
        who, source = archives.from_agent(archive, partial(GraspAgent.load, archive.path)), archive.path
        name = f"{base} {who.name}"
    else:
        source = _model_for(env_id, steps)
        who = archives.from_bundled(source)
    planner = planner_called(base)
    if archive is not None and archive.config.get("kind") == REWARD:
        planner = without_proposals(planner)
    key = f"{who.key} {planner!r}"
    return who._replace(name=name, make=lambda *_: _planned(source, planner, base), key=key)


def planner_called(name: str) -> Planner[Any]:
    """Returns one of `PLANNERS`, with the proposals of GRASP; the published algorithm has none."""
    planner = PLANNERS[name]()
    return planner if name == "grasp-paper" else replace(planner, proposals=planners.GRASP().proposals)


def without_proposals(planner: Planner[Any]) -> Planner[Any]:
    """Returns a planner without proposals, as plans for rewards have no goal to propose for."""
    return replace(planner, proposals=None)


def _planned(source: str | Path, planner: Planner[Any], name: str) -> GraspAgent:
    agent = load(source, device="cpu", planner=planner)  # also of a file whose own planner is not of this package
    agent.name = name
    return agent


def _model(given: str, env_id: str) -> Participant | None:
    return archives.from_bundled(given)._replace(name=given) if given in bundled() else None


def _algorithm(given: str, env_id: str) -> Participant | None:
    """Resolves a bundled baseline, or a file and the algorithm that wrote it."""
    name, _, rest = given.partition(":")
    base, steps = _with_steps(name)
    if base not in ALGORITHMS:
        return None
    if not rest:
        return archives.from_baseline(baselines.find(base, env_id, steps))
    path = archives.existing(rest)
    if path is None:
        raise ValueError(f"agents: no such file {rest}")
    archive = archives.read_archive(path)
    if archive.config.get("algorithm") == base:
        return archives.from_policy(archive)
    if not archive.data:
        raise ValueError(f"agents: {rest} is no saved agent of {base}")
    written = archives.written_by(archive)
    if written is not None and written != ("td3" if base == "ddpg" else base):
        raise ValueError(f"agents: {given}: expected a file of {base}, got one of {written}")
    return archives.from_theirs(archive, base)


def _module(given: str, env_id: str) -> Participant | None:
    """Resolves a user's object, or a user's class or function that builds one for an environment."""
    home, colon, name = given.partition(":")
    if not colon:
        return None
    try:
        module = import_module(home)
        found: Any = getattr(module, name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"agents: {given}: {error}; expected {HOW}") from error
    key = _source_key(module, given)
    if isinstance(found, type) or not hasattr(found, "predict"):
        if not callable(found):
            raise ValueError(f"agents: {given}: expected something with predict, or what makes it from an environment")
        build = cast("Callable[[gym.Env[Any, Any]], Predictor]", found)
        return Participant(name, lambda env, _: _built(build, env, given), key, goal_known=False)
    check(found, given)
    return Participant(name, lambda *_: found, key, goal=own_goal(found))


def is_object(given: str) -> bool:
    """Returns whether a name can only be that of a user's object, MODULE:OBJECT, whose module would be imported."""
    home, colon, name = given.partition(":")
    is_ours = _with_steps(home)[0] in (*PLANNERS, *ALGORITHMS)
    return bool(colon) and not is_ours and name.isidentifier() and archives.existing(given) is None


def _source_key(module: Any, given: str) -> str | None:
    """Returns a key of the module's source code, without that of its imports."""
    try:
        source = inspect.getsource(module)
    except (OSError, TypeError):
        return None
    return f"{given} {hashlib.sha256(source.encode()).hexdigest()}"


def _with_steps(given: str) -> tuple[str, int | None]:
    name, at, digits = given.partition("@")
    if at and name in ("grasp", *PLANNERS, *ALGORITHMS) and not digits.isdigit():
        raise ValueError(f"agents: expected a number of steps after @, got {given!r}")
    return name, int(digits) if digits.isdigit() else None


def _model_for(env_id: str, steps: int | None) -> str:
    """Returns the bundled model of an environment as it is registered; without `steps`, the one with most."""
    known = {name: entry.steps for name, entry in bundled().items() if entry.env_id == env_id and not entry.options}
    fitting = {name: count for name, count in known.items() if steps in (None, count)}
    if not fitting:
        names = ", ".join(f"grasp@{count}" for count in known.values()) or "none"
        wanted = "grasp" if steps is None else f"grasp@{steps}"
        raise ValueError(
            f"no bundled model {wanted!r} for {env_id} (choose from {names}; or give a file, or --train one)"
        )
    return max(fitting, key=lambda name: fitting[name])


def _built(build: Callable[[gym.Env[Any, Any]], Predictor], env: gym.Env[Any, Any], given: str) -> Predictor:
    try:
        made = build(env)
    except TypeError as error:
        raise ValueError(f"agents: {given}: expected what makes an agent from an environment: {error}") from error
    check(made, given)
    return made
