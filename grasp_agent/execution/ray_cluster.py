"""An executor on Ray (Moritz et al. 2018, arXiv 1712.05889)."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any, ParamSpec, TypeVar

from grasp_agent.execution.calls import Content

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_RETRIES = 10  # times that a call is made again after its worker or machine was lost; chosen by hand
_PLACE = re.compile(r"[^/]+:\d+")  # host and port
_PATIENCE = 3.0  # time in which a cluster has to answer [s]; chosen by hand

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # By default a worker is given back after half a second, and each longer call waits for another one: 7 % of 1 s.
    "RAY_worker_lease_timeout_milliseconds": "60000",
}


class RayExecutor(Executor):
    """Runs calls on a Ray cluster, one CPU each; a call whose worker or machine is lost is made again.

    Where a machine is lost after a call, but before its result has come here, Ray makes the call again, too. Each
    `Content` among the arguments is sent to a machine once. Workers end with this process.

    Args:
        address: of the cluster, "auto" for the one that runs on this machine; None starts one on this machine alone.

    Raises:
        ConnectionError: if there is no cluster at the address.
        ValueError: if it is no address.
        RuntimeError: if this process is connected to a cluster already.
    """

    def __init__(self, address: str | None = None) -> None:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        import ray  # reads settings from the environment

        if ray.is_initialized():
            raise RuntimeError("ray: this process is connected to a cluster already (ray.shutdown() ends that)")
        own: dict[str, Any] = {"include_dashboard": False} if address is None else {}
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            if address is not None:
                check_reachable(address)
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
        except ConnectionError as error:
            raise ConnectionError(
                f"ray: no cluster can be reached at {address!r} (`ray start --head` starts one; one that asks for a "
                "token needs RAY_AUTH_MODE=token)"
            ) from error
        if threading.current_thread() is threading.main_thread():  # Ray replaces them by its own
            for number, handler in handlers.items():
                signal.signal(number, handler)
        self._ray: Any = ray
        self._remote: dict[Callable[..., Any], Any] = {}
        self._sent: dict[int, tuple[Content, Any]] = {}
        self._pending: dict[Future[Any], Any] = {}

    def submit(
        self, fn: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """See `Executor.submit`."""
        remote = self._remote.get(fn)
        if remote is None:
            remote = self._remote[fn] = self._ray.remote(num_cpus=1, max_retries=_RETRIES)(fn)
        reference = remote.remote(*map(self._put, args), **kwargs)
        future: Future[Result] = Future()
        self._pending[future] = reference
        future.add_done_callback(self._end)
        reference.future().add_done_callback(lambda found: _answer(future, found))
        return future

    def _end(self, future: Future[Any]) -> None:
        reference = self._pending.pop(future, None)
        if future.cancelled() and reference is not None and self._ray.is_initialized():
            self._ray.cancel(reference)

    def _put(self, argument: Any) -> Any:
        if not isinstance(argument, Content):
            return argument
        if id(argument) not in self._sent:
            self._sent[id(argument)] = (argument, self._ray.put(argument))
        return self._sent[id(argument)][1]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Disconnects, which ends the workers, after all calls; those that have not finished may be given up.

        Args:
            wait: whether to wait for unfinished calls.
            cancel_futures: whether to give them up, also those that have begun.
        """
        if wait and not cancel_futures:
            futures.wait(list(self._pending))
        for future in list(self._pending):
            future.cancel()
        self._sent.clear()
        self._remote.clear()
        self._ray.shutdown()


def check_reachable(address: str) -> None:
    """Refuses an address where nothing listens: Ray itself would wait for minutes, during which no signal ends it.

    Args:
        address: HOST:PORT, ray://HOST:PORT, or "auto".

    Raises:
        ConnectionError: if nothing listens there, or "auto" finds no cluster.
        ValueError: if it is no address.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    kind, _, place = address.rpartition("://")
    if address == "local" or kind not in ("", "ray"):
        return  # Ray knows what to do
    if address != "auto" and not _PLACE.fullmatch(place):
        raise ValueError(f"address: expected HOST:PORT or auto, got {address!r}")
    resolved = place if kind else _resolved(address)
    if resolved is None:
        return
    host, _, port = resolved.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (OSError, UnicodeError, OverflowError) as error:  # the last two for what is no host and no port
        raise ConnectionError(f"{resolved}: {error}") from error


def _resolved(address: str) -> str | None:
    """Returns host and port as Ray finds them: "auto" by its files and processes, this machine by its own address."""
    try:
        from ray._private.services import canonicalize_bootstrap_address
    except ImportError:  # it is not public: a later Ray may lack it
        return None
    return canonicalize_bootstrap_address(address)


def _answer(future: Future[Any], found: Future[Any]) -> None:
    """Hands a result of Ray on, unless the call was cancelled; its errors about workers become one of executors."""
    if future.done():
        return
    error = found.exception()
    if error is None:
        future.set_result(found.result())
    else:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = next((line for line in reversed(lines) if "Error: " in line), lines[0])
        future.set_exception(BrokenExecutor(reason.strip()[:300]))
