"""Engines that run calls, by name."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

ENGINES = ("processes", "ray")
"""Names of engines: processes of this machine, or Ray on one machine or a cluster."""


@contextmanager
def engine(name: str, address: str | None = None) -> Iterator[Executor | None]:
    """Starts an engine, and ends it with all of its calls.

    Args:
        name: one of `ENGINES`.
        address: of a Ray cluster, "auto" for the one that runs on this machine; None starts Ray on this machine alone.

    Yields:
        The executor; None for processes, as `results` expects.

    Raises:
        ValueError: if there is no such engine, or its package is not installed.
        ConnectionError: if no cluster is found at the address.
    """
    if name not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {name!r}")
    if name == "processes":
        if address is not None:
            raise ValueError(f"address: expected none for the engine processes, got {address!r}")
        yield None
        return
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError('engine: ray is not installed; it comes with `pip install "grasp-agent[ray]"`') from error
    from grasp_agent.execution.ray_cluster import RayExecutor

    executor = RayExecutor(address)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)
