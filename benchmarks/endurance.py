"""Calls `predict` for many episodes, and shows whether memory, file descriptors and threads stay as they are.

    python -m benchmarks.endurance --calls ball-nav=100000 wall-pixels=20000

The exit status is 1 where memory has grown by more than 2 MB in the second half of the calls, or descriptors or threads
have grown.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np

import grasp_agent

_LARGEST_GROWTH = 2.0  # of the resident memory in the second half of the calls [MB]; chosen by hand
_SHOWN = 10  # rows of the table


class Usage(NamedTuple):
    """What a process holds."""

    memory: float
    """Resident memory [MB]."""
    descriptors: int
    """Open file descriptors."""
    threads: int
    """Threads, of Python and of libraries."""

    @classmethod
    def now(cls) -> Usage:
        """Returns the usage of this process, on Linux."""
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        threads = max(int(status["Threads"]), threading.active_count())
        return cls(int(status["VmRSS"].split()[0]) / 1024, len(os.listdir("/proc/self/fd")), threads)


def watch(model: str, calls: int) -> list[tuple[int, Usage]]:
    """Returns the usage at several numbers of calls of a bundled model, printed as they come."""
    agent = grasp_agent.load(model, device="cpu")
    assert agent.env_id is not None
    env = gym.make(agent.env_id, **agent.env_kwargs)
    observation, _ = env.reset(seed=0)
    episode, found, began, wrong = 0, list[tuple[int, Usage]](), time.process_time(), 0
    for call in range(1, calls + 1):
        action, _ = agent.predict(observation, deterministic=bool(episode % 2))
        wrong += not (np.isfinite(action).all() and env.action_space.contains(action))
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            episode += 1
            observation, _ = env.reset(seed=episode)
        if call % max(1, calls // _SHOWN) == 0:
            usage, seconds = Usage.now(), (time.process_time() - began) / call
            found.append((call, usage))
            print(
                f"{model:12} {call:8} calls {episode:5} episodes {usage.memory:8.1f} MB {usage.descriptors:3}"
                f" descriptors {usage.threads:3} threads {1000 * seconds:6.2f} ms of processor time per call",
                flush=True,
            )
    env.close()
    if wrong:
        raise RuntimeError(f"{model}: {wrong} actions were not finite or out of bounds")
    return found


def flat(found: list[tuple[int, Usage]]) -> bool:
    """Returns whether nothing has grown in the second half of the calls."""
    middle, last = found[len(found) // 2 - 1][1], found[-1][1]
    grown = last.memory - middle.memory
    return grown <= _LARGEST_GROWTH and last.descriptors <= middle.descriptors and last.threads <= middle.threads


def main() -> int:
    """Calls the models, and prints what the process holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", nargs="+", default=["ball-nav=100000", "wall-pixels=20000"], metavar="MODEL=CALLS")
    options = parser.parse_args()
    parts = [given.split("=") for given in options.calls]
    steady = [flat(watch(model, int(calls))) for model, calls in parts]
    print("flat" if all(steady) else "not flat")
    return int(not all(steady))


if __name__ == "__main__":
    sys.exit(main())
