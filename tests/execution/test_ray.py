"""Ray runs calls as one process does; long tests kill nodes of a cluster meanwhile."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from grasp_agent import compare
from grasp_agent.evaluation.training import TrainingTask, train_agents
from grasp_agent.execution import calls, engine, installation, results

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

ENV = "grasp/BallNav-v0"
ENVIRONMENT = {**os.environ, "RAY_worker_niceness": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def double(value: int) -> int:
    if value < 0:
        raise ValueError("expected at least 0")
    return 2 * value


def die_once(path: Path) -> str:
    """Kills its worker, unless it has done that before."""
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


@pytest.fixture(scope="module")
def executor() -> Iterator[object]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)  # workers import this file
        with engine("ray") as executor:
            yield executor


def test_signals_are_handled_as_before(executor):
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, None)


def test_calls_and_their_errors(executor):
    assert sorted(results(double, range(30), executor=executor)) == [(value, 2 * value) for value in range(30)]
    with pytest.raises(ValueError, match=r"^expected at least 0$"):
        list(results(double, [1, -1], executor=executor))


def test_a_worker_with_other_versions_is_refused(executor, monkeypatch: pytest.MonkeyPatch):
    other = {**installation.installation(), "numpy": "0.1"}
    monkeypatch.setattr(calls, "installation", lambda: other)
    with pytest.raises(ValueError, match=r"^worker .*: expected numpy 0\.1"):
        list(results(double, [1], executor=executor))


def test_a_call_whose_worker_is_killed_is_made_again(executor, tmp_path: Path):
    assert [name for _, name in results(die_once, [tmp_path / "a"], executor=executor)] == ["a"]


def test_comparisons_and_trainings_are_those_of_one_process(executor, tmp_path: Path):
    def rows(executor: object) -> list[object]:
        task = TrainingTask("sac", ENV, 40, longer=1)
        trained = train_agents([task], tmp_path / str(executor is None), executor=executor)[task]  # type: ignore[arg-type]
        found = compare(ENV, [str(trained.files[0]), "random"], episodes=3, executor=executor)  # type: ignore[arg-type]
        timed = {"seconds_per_action_mean": 0.0, "seconds_per_action_max": 0.0}
        return [row._replace(**timed) for entry in found.entries for row in entry.evaluation.episodes]

    assert rows(executor) == rows(None)


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_where_nodes_are_killed():
    """In a process of its own, which is connected to no cluster."""
    script = "from benchmarks.cluster import same\nif __name__ == '__main__': print(same(2, 10.0, 40, 2))"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, check=True, timeout=900
    )
    found = ast.literal_eval(ended.stdout.splitlines()[-1])
    assert (found["nodes"], found["kills"]) == (3, 2)
    assert found["equal rows"] and found["equal trainings"]
    assert (found["episodes in each round"], found["trainings in each round"]) == (160, 2)


def write(path: Path) -> None:
    """Writes which process it is in, and waits."""
    aside = path.with_suffix(".aside")
    aside.write_text(str(os.getpid()))
    aside.rename(path)
    time.sleep(600)


def test_calls_end_with_the_engine(tmp_path: Path):
    """In a process of its own, which is interrupted."""
    begun = tmp_path / "begun"
    script = f"""
import _thread, threading, time
from pathlib import Path
from grasp_agent.execution import engine, results
from test_ray import write

def stop():
    while not begun.exists():
        time.sleep(0.1)
    _thread.interrupt_main()

if __name__ == "__main__":
    begun = Path({str(begun)!r})
    with engine("ray") as executor:
        threading.Thread(target=stop).start()
        list(results(write, [begun], executor=executor))
"""
    path = tmp_path / "asks.py"
    path.write_text(script)
    ended = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert "KeyboardInterrupt" in ended.stderr
    worker, end = int(begun.read_text()), time.monotonic() + 60
    while alive(worker):  # the call would have gone on for ten minutes
        assert time.monotonic() < end
        time.sleep(0.1)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
