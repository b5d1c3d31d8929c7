"""Comparisons and trainings on a Ray cluster of several nodes on one machine, whose nodes are killed meanwhile.

    python -m benchmarks.cluster                 # all parts, about half an hour on two cores
    python -m benchmarks.cluster --parts overhead --kills 0

*same*: four agents, 200 episodes each, and six trainings: the same rows as in one process. *kills*: the same, while a
node is killed with SIGKILL and replaced, again and again. *overhead*: tasks of one second of waiting, against the time
that as many slots need for them. *scale*: a thousand tasks for each of 100 nodes, simulated: what the driver keeps, and
how long it takes to hand tasks out. Writes `benchmarks/results/cluster.json` and `docs/results/cluster.md`.
"""

from __future__ import annotations

import os
import tempfile
import time
import tracemalloc
from concurrent.futures import Executor, Future
from functools import cache
from pathlib import Path
from typing import Any

import tyro

from benchmarks import pages
from benchmarks.ray_nodes import CPUS, NODES, cluster, killing
from grasp_agent import compare
from grasp_agent.evaluation.compare import Comparison
from grasp_agent.evaluation.participants import OwnFile
from grasp_agent.evaluation.training import TrainedAgent, TrainingTask, train_agents
from grasp_agent.execution import Content, engine, results

ENV, AGENTS, EPISODES, SEED = "grasp/BallNav-v0", ("grasp", "icem", "mppi", "random"), 200, 20_000
SEEDS, STEPS = 6, 300
PARTS = ("same", "kills", "overhead", "scale")
Row = dict[str, Any]


def rows_of(found: Comparison) -> list[tuple[Any, ...]]:
    """Returns all episodes without their times."""
    timed = {"seconds_per_action_mean": 0.0, "seconds_per_action_max": 0.0}
    return [
        (entry.participant.name, *row._replace(**timed)) for entry in found.entries for row in entry.evaluation.episodes
    ]


def trainings(folder: Path, executor: Executor | None = None, seeds: int = SEEDS) -> list[TrainedAgent]:
    """Trains one agent with several seeds."""
    tasks = [TrainingTask("grasp", ENV, STEPS, seed) for seed in range(seeds)]
    return list(train_agents(tasks, folder, executor=executor).values())


def played(executor: Executor | None = None, episodes: int = EPISODES) -> Comparison:
    """Compares the agents."""
    return compare(ENV, AGENTS, episodes=episodes, seed=SEED, executor=executor)


def scored(trained: list[TrainedAgent]) -> list[tuple[Any, ...]]:
    """Returns what trained agents do in ten episodes: equal parameters give equal rows."""
    files = [OwnFile(one.files[0]) for one in trained]
    return rows_of(compare(ENV, {"grasp": files}, episodes=10, seed=SEED))


def same(kills: int = 0, every: float = 10.0, episodes: int = EPISODES, seeds: int = SEEDS) -> Row:
    """Compares a cluster with one process; kills and replaces nodes meanwhile.

    Args:
        kills: number of nodes that are killed.
        every: time between them [s].
        episodes: of the comparison.
        seeds: number of trainings.
    """
    with tempfile.TemporaryDirectory() as folder, cluster() as nodes:
        import ray  # reads the token's environment variables when it is imported

        with engine("ray", nodes.address) as executor, killing(nodes, kills, every) as times:
            began, alive = time.monotonic(), sum(node["Alive"] for node in ray.nodes())
            rows, trained = [], []
            while not rows or len(times) < kills:  # until all kills fell into work
                rows.append(rows_of(played(executor, episodes)))
                trained.append(trainings(Path(folder) / f"cluster-{len(rows)}", executor, seeds))
            seconds = time.monotonic() - began
        here, alone = alone_with(episodes, seeds)
        return {
            "nodes": alive,
            "kills": len(times),
            "rounds": len(rows),
            "seconds": round(seconds, 1),
            "episodes in each round": len(here),
            "equal rows": all(found == here for found in rows),
            "trainings in each round": seeds,
            "equal trainings": all(scored(found) == alone for found in trained),
        }


@cache
def alone_with(episodes: int, seeds: int) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Returns the rows of one process, and those of its trained agents."""
    with tempfile.TemporaryDirectory() as folder:
        return rows_of(played(None, episodes)), scored(trainings(Path(folder), None, seeds))


def wait(seconds: float) -> float:
    """Waits."""
    time.sleep(seconds)
    return seconds


def overhead(count: int = 180) -> Row:
    """Returns how much longer tasks of one second take than their slots need."""
    slots = NODES * CPUS
    with cluster() as nodes, engine("ray", nodes.address) as executor:
        list(results(wait, [15.0] * slots, executor=executor))  # starts a worker on each node, which imports
        began = time.monotonic()
        list(results(wait, [1.0] * count, executor=executor))
        seconds = time.monotonic() - began
    return {
        "tasks": count,
        "slots": slots,
        "seconds": round(seconds, 2),
        "overhead": round(seconds * slots / count - 1, 4),
    }


class Simulated(Executor):
    """Nodes that finish a task as soon as they get it, and count what they were sent."""

    def __init__(self) -> None:
        self.bytes_sent = 0
        self._seen: set[int] = set()
        self._result: Any = None

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Counts what a task sends: content that an executor sends to each node once is counted once."""
        for argument in args:
            if isinstance(argument, Content) and id(argument) not in self._seen:
                self._seen.add(id(argument))
                self.bytes_sent += len(argument.data)
        future: Future[Any] = Future()
        if self._result is None:
            self._result = fn(*args, **kwargs)
        future.set_result(self._result)  # what the others' workers do is not the driver's part
        return future


def answer(_: int, __: Any = None) -> bytes:
    """Returns as much as ten episodes."""
    return b"0" * 4096


def scale(tasks: int = 100_000, size: int = 2**20) -> Row:
    """Hands out tasks of 100 nodes, all of which read one file of 1 MB."""
    with tempfile.NamedTemporaryFile(suffix=".zip") as file:
        file.write(os.urandom(size))
        file.flush()
        executor = Simulated()
        tracemalloc.start()
        began = time.process_time()
        count = sum(1 for _ in results(answer, range(tasks), executor=executor, files=lambda _: [Path(file.name)]))
        seconds, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return {
        "tasks": count,
        "microseconds per task": round(1e6 * seconds / count, 1),
        "peak MB of the driver": round(peak / 1e6, 1),
        "MB sent to each node": round(executor.bytes_sent / 1e6, 2),
        "MB if each task carried its file": round(tasks * size / 1e6),
    }


def page(found: dict[str, Row]) -> str:
    """Returns the page of results."""
    lines = []
    for name, row in found.items():
        lines += [f"| {name} | {what} | {value} |" for what, value in row.items()]
    return pages.page(
        "Many machines",
        "python -m benchmarks.cluster",
        f"A Ray cluster of {NODES} nodes with {CPUS} CPU each, on one machine with two cores; {len(AGENTS)} agents "
        f"({', '.join(AGENTS)}) in `{ENV}` with seeds from {SEED}, and {SEEDS} trainings of {STEPS} steps. *Equal*: "
        "all figures of all episodes but times, and all parameters as seen in the episodes of the trained agents, "
        "are bit for bit those of one process. *kills*: every few seconds all processes of a node get SIGKILL, and "
        "another node starts; work is repeated until all kills have happened. *overhead*: tasks of one second, after "
        "the start. *scale*: the driver's part of 100 nodes with 1,000 tasks each.",
        "| part | what | value |\n|---|---|---|\n" + "\n".join(lines),
        "What breaks first at 100 nodes is the size of what is sent: a task that carries its agent's file would send "
        "as many copies as there are tasks. So a file is put into the cluster's store once, and a task carries its "
        "name. Then comes the driver's memory: tasks are made and handed out as others finish, at most 1,000 are "
        "unfinished at a time, and results are written to their files as they come. Scheduling is last: a task costs "
        "the driver a fifth of a millisecond, without Ray's own part, which was not measured for so many nodes; "
        "comparisons hand out ten episodes at a time, which take seconds.",
    )


def main(parts: tuple[str, ...] = PARTS, kills: int = 10, publish: bool = True) -> None:
    """Measures and writes the page.

    Args:
        parts: what is measured, see `PARTS`.
        kills: nodes that are killed.
        publish: whether results and page are written.
    """
    measures = {
        "same": same,
        "kills": lambda: same(kills),
        "overhead": overhead,
        "scale": scale,
    }
    found = pages.read("cluster", {})
    for name in parts:
        found[name] = measures[name]()
        print(name, found[name], flush=True)
    if publish:
        ordered = {name: found[name] for name in PARTS if name in found}
        pages.keep("cluster", ordered)
        pages.publish("cluster", page(ordered))


if __name__ == "__main__":
    tyro.cli(main)
