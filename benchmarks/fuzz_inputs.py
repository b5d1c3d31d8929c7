"""Calls `predict` with malformed observations, states and episode starts, and counts what comes of them.

    python -m benchmarks.fuzz_inputs --cases 10000

Each call must return finite actions inside the bounds, or raise a ValueError of one line; else the exit status is 1.
"""

from __future__ import annotations

import argparse
import decimal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import grasp_agent
from grasp_agent import GRASP, Goal, GraspAgent

Random = np.random.Generator
Call = tuple[Any, Any, Any]
"""Observation, state, episode start."""
REFUSED, ANSWERED = "refused in one line", "answered"
FAULTS = ("other exception", "error of several lines", "non-finite", "out of bounds", "wrong shape")


class Broken:
    """An object that cannot be converted to an array."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("no array")

    def __len__(self) -> int:
        raise TypeError("no length")


def agents() -> dict[str, tuple[GraspAgent, Any]]:
    """Returns agents of all kinds, and an observation of each one's environment."""
    quick = {"planner": GRASP(candidates=2, iterations=2), "device": "cpu"}
    kinds = {name: grasp_agent.load(name, **quick) for name in ("ball-nav", "wall-pixels")}
    pendulum, goal = gym.make("Pendulum-v1"), Goal.at({0: 1.0, 1: 0.0}, tolerance=0.1)
    environments: dict[str, Any] = {}
    for name, agent in kinds.items():
        assert agent.env_id is not None
        environments[name] = gym.make(agent.env_id, **agent.env_kwargs)
    kinds["untrained"] = GraspAgent("MultiInputPolicy", pendulum, goal=goal, seed=0, device="cpu")
    environments["untrained"] = pendulum
    return {name: (agent, environments[name].reset(seed=0)[0]) for name, agent in kinds.items()}


def pick(random: Random, values: Sequence[Any]) -> Any:
    """Returns one of the values."""
    return values[int(random.integers(len(values)))]


def _ragged(value: np.ndarray[Any, Any], random: Random) -> Any:
    rows = value.reshape(-1).tolist()[:6]
    return [rows, rows[: int(random.integers(max(1, len(rows))))]]


def _spoiled(value: np.ndarray[Any, Any], random: Random, bad: float) -> Any:
    spoiled = np.array(value, np.float64)
    if spoiled.size:
        spoiled.reshape(-1)[random.integers(spoiled.size)] = bad
    return spoiled


VALUES: tuple[Callable[[np.ndarray[Any, Any], Random], Any], ...] = (
    lambda value, random: _spoiled(value, random, random.choice([np.nan, np.inf, -np.inf, 1e39, -1e300])),
    lambda value, random: value[..., : int(random.integers(value.shape[-1]))] if value.ndim else value,
    lambda value, random: np.concatenate([value, value], -1) if value.ndim else [value],
    lambda value, random: value[None],
    lambda value, random: value[None, None],
    lambda value, random: value.reshape(-1),
    lambda value, random: value.tolist(),
    lambda value, random: tuple(value.tolist()) if value.ndim else (value,),
    lambda value, random: value.astype(pick(random, ["?", "i1", "u8", "f2", ">f4", ">i8", "c8", "U5", "O", "M8[s]"])),
    lambda value, random: value.astype("f4")[..., ::-1],
    lambda value, random: np.ma.masked_array(value, random.integers(0, 2, value.shape)),
    lambda value, random: torch.from_numpy(value.astype("f8")).requires_grad_(),
    lambda value, random: torch.from_numpy(value.astype("f4")).to(torch.bfloat16),
    lambda value, random: torch.from_numpy(value.astype("f4")).to(pick(random, [torch.bool, torch.int8])),
    lambda value, random: torch.from_numpy(value.astype("f4")).to_sparse() if value.ndim else None,
    lambda value, random: torch.empty(value.shape, device="meta"),
    lambda value, random: _ragged(value, random),
    lambda value, random: np.zeros(value.shape, [("a", "f4"), ("b", "i4")]),
    lambda value, random: np.zeros(random.integers(0, 3, random.integers(0, 5)), "f4"),
    lambda value, random: [None] * max(1, len(value) if value.ndim else 1),
    lambda value, random: [Fraction(1, 3)] * (len(value) if value.ndim else 1),
    lambda value, random: [decimal.Decimal(1)] * (len(value) if value.ndim else 1),
    lambda value, random: [10**400] * (len(value) if value.ndim else 1),
    lambda value, random: list(map(str, value.reshape(-1)[:9])),
    lambda value, random: memoryview(np.ascontiguousarray(value).tobytes()) if value.ndim else b"",
    lambda value, random: {"value": value},
    lambda value, random: iter(value.reshape(-1)[:9].tolist()),
    lambda value, random: (value, {}),
    lambda value, random: pick(random, [None, "", "text", b"bytes", 0, 1.5, 2j, True, ..., float]),
    lambda value, random: Broken(),
)
"""Malformations of an array."""


def spoiled_observation(observation: Any, random: Random) -> Any:
    """Returns a malformed copy of an observation, a dict of arrays or an array."""
    change = VALUES[random.integers(len(VALUES))]
    if not isinstance(observation, dict):
        return change(np.asarray(observation), random)
    spoiled, keys = dict(observation), list(observation)
    kind = random.uniform()
    key = keys[random.integers(len(keys))]
    if kind < 0.1:
        del spoiled[key]
    elif kind < 0.15:
        spoiled = change(np.asarray(observation[key]), random)
    else:
        for name in keys if kind > 0.9 else [key]:
            spoiled[name] = change(np.asarray(observation[name]), random)
    return spoiled


def spoiled_state(state: Any, random: Random) -> Any:
    """Returns a malformed copy of what `predict` returned."""
    arrays, kind = list(state), random.uniform()
    if not arrays or kind < 0.15:
        return pick(random, [(1,), [None] * 6, "state", 3, 0, {}, np.zeros((6, 2)), Broken()])
    if kind < 0.25:
        return tuple(arrays[: random.integers(len(arrays))])
    if kind < 0.35:
        order = random.permutation(len(arrays))
        return tuple(arrays[row] for row in order)
    chosen = int(random.integers(len(arrays)))
    array = np.asarray(arrays[chosen])
    if kind < 0.5:
        arrays[chosen] = _spoiled(array, random, random.choice([np.nan, np.inf, -5, 1e30])).astype(array.dtype)
    elif kind < 0.6 and array.ndim > 1:
        arrays[chosen] = array[:, : random.integers(array.shape[1])]
    elif kind < 0.7:
        arrays = [np.concatenate([each, each]) for each in arrays]
    else:
        arrays[chosen] = VALUES[random.integers(len(VALUES))](array, random)
    return tuple(arrays)


def spoiled_start(count: int, random: Random) -> Any:
    """Returns a malformed `episode_start` of `count` environments."""
    values = [np.full(count, np.nan), np.ones(count + 1, bool), np.ones((count, 1), bool), np.full(count, 2), "yes"]
    values += [[None] * count, {}, np.array(["a"] * count), [[True], [True, False]], Broken(), np.zeros(0, bool), 1j]
    return pick(random, values)


def calls(agent: GraspAgent, observation: Any, random: Random) -> Iterator[Call]:
    """Yields malformed arguments of `predict`, without end."""
    _, state = agent.predict(observation, episode_start=np.ones(1, bool))
    while True:
        call: list[Any] = [observation, state if random.uniform() < 0.5 else None, None]
        parts = [0] if random.uniform() < 0.7 else random.integers(0, 3, 2).tolist()
        for part in set(parts):
            if part == 0:
                call[0] = spoiled_observation(observation, random)
            elif part == 1:
                call[1] = spoiled_state(state, random)
            else:
                call[2] = spoiled_start(1, random)
        yield call[0], call[1], call[2]


def outcome(agent: GraspAgent, call: Call) -> tuple[str, str]:
    """Returns what came of a call, and its details."""
    observation, state, start = call
    try:
        actions, _ = agent.predict(observation, state, start, deterministic=True)
    except ValueError as error:
        return (REFUSED if "\n" not in str(error) else "error of several lines"), str(error)
    except Exception as error:
        return "other exception", f"{type(error).__name__}: {error}"
    space = agent.action_space
    shape = space.shape or ()
    if actions.shape[-len(shape) :] != shape or actions.ndim > len(shape) + 1:
        return "wrong shape", str(actions.shape)
    if not np.isfinite(actions).all():
        return "non-finite", str(actions)
    rows = actions.reshape(-1, *shape)
    return (ANSWERED if all(map(space.contains, rows)) else "out of bounds"), str(actions)


def fuzz(cases: int, seed: int, names: tuple[str, ...] = ("ball-nav", "wall-pixels", "untrained")) -> Counter[str]:
    """Returns how often each outcome occurred for calls of several agents; prints the first faults."""
    found, known = Counter[str](), agents()
    for place, name in enumerate(names):
        agent, observation = known[name]
        random = np.random.default_rng((seed, place))
        stream = calls(agent, observation, random)
        for _ in range(cases // len(names) + (place < cases % len(names))):
            with np.errstate(all="ignore"):
                call = next(stream)
            kind, details = outcome(agent, call)
            if kind in FAULTS and found[kind] < 5:
                print(f"{name}: {kind}: {details[:300]}\n  {str(call)[:300]}", file=sys.stderr)
            found[kind] += 1
        action, _ = agent.predict(observation, episode_start=np.ones(1, bool))
        assert agent.action_space.contains(action), "a malformed call has damaged the agent"
    return found


def main() -> int:
    """Runs the calls, and prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = fuzz(options.cases, options.seed)
    for kind in (REFUSED, ANSWERED, *FAULTS):
        print(f"{kind:24}{found[kind]:8}")
    return int(any(found[kind] for kind in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
