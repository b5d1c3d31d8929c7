"""Ray nodes on this machine, which can be killed."""

from __future__ import annotations

import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

NODES, CPUS = 3, 1
_WATCHED = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}  # a lost node is seen in 3 s


class Cluster:
    """Ray nodes on this machine, each a process group of its own.

    Args:
        nodes: number of them, the head included.
        cpus: that each offers.
    """

    def __init__(self, nodes: int = NODES, cpus: int = CPUS) -> None:
        self._cpus = cpus
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # others on this network stay outside
        os.environ["RAY_AUTH_MODE"] = "token"
        self._folder = tempfile.TemporaryDirectory(prefix="ray-")
        self.nodes: list[subprocess.Popen[bytes]] = []
        self._all: list[subprocess.Popen[bytes]] = []
        try:
            self._start("--head", "--port=0", "--include-dashboard=false")
            self.address = self._address()
            self.nodes = [self._start(f"--address={self.address}") for _ in range(nodes - 1)]
        except BaseException:
            self.end()
            raise

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        ray = Path(sys.executable).parent / "ray"
        command = [str(ray), "start", "--block", f"--num-cpus={self._cpus}", *options, "--disable-usage-stats"]
        environment = {**os.environ, "RAY_worker_niceness": "0", **_WATCHED}
        path = Path(self._folder.name) / f"{time.monotonic_ns()}.log"
        with path.open("wb") as log:
            node = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
        self._all.append(node)
        end = time.monotonic() + 120
        while "Ray runtime started" not in path.read_text(
            errors="replace"
        ):  # nodes that start together take equal ports
            if node.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"ray: a node did not start: {path.read_text(errors='replace')[-500:]}")
            time.sleep(0.2)
        return node

    def _address(self) -> str:
        [log] = Path(self._folder.name).glob("*.log")
        lines = log.read_text(errors="replace").splitlines()
        return next(line.partition("--address=")[2].strip("' ") for line in lines if "--address=" in line)

    def replace(self, index: int) -> None:
        """Kills all processes of a node, and starts another one in its place."""
        self._kill(self.nodes[index])
        self.nodes[index] = self._start(f"--address={self.address}")

    def _kill(self, node: subprocess.Popen[bytes]) -> None:
        # workers and agents lead groups of their own: they are found as descendants
        for process in (*descendants(node.pid), node.pid):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        node.wait()

    def end(self) -> None:
        """Ends all nodes."""
        for node in reversed(self._all):
            if node.poll() is None:
                self._kill(node)
        self._folder.cleanup()


def descendants(process: int) -> list[int]:
    """Returns the ids of all processes that descend from one."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listed.splitlines():
        own, parent = map(int, line.split())
        children.setdefault(parent, []).append(own)
    found, queue = [], [process]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Starts nodes and ends them."""
    nodes = Cluster()
    try:
        yield nodes
    finally:
        nodes.end()


@contextmanager
def killing(nodes: Cluster, kills: int, every: float) -> Iterator[list[float]]:
    """Kills a node and starts another, up to so many times; yields the times of kills so far [s]."""
    ended, times, began = threading.Event(), list[float](), time.monotonic()

    def run() -> None:
        try:
            while len(times) < kills and not ended.wait(every):
                nodes.replace(len(times) % len(nodes.nodes))
                times.append(time.monotonic() - began)
        except BaseException:
            times.extend([math.nan] * kills)  # nobody waits for further ones
            raise

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        try:
            yield times
        finally:
            ended.set()
            running.result()  # raises what the thread has raised
