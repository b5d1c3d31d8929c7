"""Engines that run calls, by name."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from importlib.util import find_spec

ENGINES = ("processes", "ray")
"""Names of engines: processes of this machine, or Ray on one machine or a cluster."""


def check_engine(name: str, address: str | None = None) -> None:
    """Refuses an engine that cannot be started.

    Raises:
        ValueError: if there is no such engine, its package is not installed, or it takes no address.
    """
    if name not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {name!r}")
    if name == "processes" and address is not None:
        raise ValueError(f"address: expected none for the engine processes, got {address!r}")
    if name == "ray" and not _installed("ray"):
        raise ValueError('engine: ray is not installed; it comes with `pip install "grasp-agent[ray]"`')


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # of a module that is blocked
        return False


@contextmanager
def engine(name: str, address: str | None = None) -> Iterator[Executor | None]:
    """Starts an engine, and ends it with all of its calls.

    Args:
        name: one of `ENGINES`.
        address: of a Ray cluster, "auto" for the one that runs on this machine; None starts Ray on this machine alone.

    Yields:
        The executor; None for processes, as `results` expects.

    Raises:
        ValueError: see `check_engine`.
        ConnectionError: if no cluster is found at the address.
    """
    check_engine(name, address)
    if name == "processes":
        yield None
        return
    from grasp_agent.execution.ray_cluster import RayExecutor

    executor = RayExecutor(address)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)
