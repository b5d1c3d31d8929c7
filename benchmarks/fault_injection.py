"""Kills processes at random moments and fills disks, and looks at what is left.

`python -m benchmarks.fault_injection --kills 50`

Exits with 1 if a file was lost, success was said over a damaged file, a traceback was printed, files were left behind
after the next run, or a process outlived its parent.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import grasp_agent
from grasp_agent import ExploreConfig, GraspAgent, MLPConfig, TrainConfig
from grasp_agent.cli import console, demo
from grasp_agent.cli.main import main as grasp
from grasp_agent.models import EncoderConfig
from grasp_agent.video.encoding import count_frames

ENV, MODEL = "grasp/BallNav-v0", "ball-nav"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
FAULTS = (
    "lost the old file",
    "success over a damaged file",
    "traceback",
    "left files behind",
    "worker lived on",
    "wrong exit status or message",
    "cannot be resumed",
)
_GRACE = 10.0  # time that processes have to end after their parent [s]
_COMPARED = ("random", "sac")
_EPISODES = 60


def tiny(pixels: bool) -> GraspAgent:
    """Returns an agent that learns in seconds."""
    import gymnasium as gym

    options: dict[str, Any] = {"observation": "pixels", "goal": "pixels"} if pixels else {}
    encoder = EncoderConfig(points=2, channels=(2, 4), ahead=(1, 2), gradient_steps=5, batch_size=8)
    return GraspAgent(
        "MultiInputPolicy",
        gym.make(ENV, **options),
        model=MLPConfig(members=2, width=16, depth=1),
        train=TrainConfig(gradient_steps=20, batch_size=32),
        explore=ExploreConfig(learning_starts=100),
        encoder=encoder if pixels else None,
        seed=0,
        device="cpu",
    )


def learn(folder: str, pixels: bool) -> None:
    tiny(pixels).learn(10**6, checkpoint=Path(folder) / "run.zip")


def save(folder: str) -> None:
    agent = grasp_agent.load(MODEL, device="cpu")
    while True:
        agent.save(Path(folder) / "run.zip")


def whole(folder: Path) -> bool:
    """Returns whether every file in a folder, temporary ones left out, can be read."""
    for path in folder.rglob("*"):
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        try:
            if path.suffix == ".zip":
                GraspAgent.load(path, device="cpu")
            elif path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".mp4" and not count_frames(path):
                return False
        except ValueError:
            return False
    return True


def left(folder: Path) -> list[str]:
    """Returns the names of temporary files and locks in a folder."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*")]


class Job(NamedTuple):
    """Something that is killed."""

    name: str
    command: Callable[[Path], list[str]]
    """Its arguments after the interpreter."""
    again: Callable[[Path], object]
    """The next run, which also continues what was begun."""
    seconds: float
    """Latest moment of a kill, after it has begun [s]; chosen by hand."""


def _call(text: str) -> Callable[[Path], list[str]]:
    return lambda folder: ["-c", f"from benchmarks import fault_injection as f; f.{text.format(repr(str(folder)))}"]


def _cli(*arguments: str) -> Callable[[Path], list[str]]:
    return lambda folder: ["-m", "grasp_agent.cli.main", *(word.format(folder) for word in arguments)]


def _learn_on(pixels: bool) -> Callable[[Path], object]:
    def again(folder: Path) -> None:
        path = folder / "run.zip"
        before = GraspAgent.load(path, device="cpu").num_timesteps if path.exists() else 0
        after = tiny(pixels).learn(before + 3, checkpoint=path)
        assert after.num_timesteps == before + 3, "not resumed"

    return again


def _record(folder: Path) -> None:
    agent = grasp_agent.load(MODEL, device="cpu")
    grasp_agent.record(agent, str(agent.env_id), folder / "run.mp4", force=True, size=64)


def _compare(folder: Path) -> None:
    grasp_agent.compare(ENV, _COMPARED, episodes=_EPISODES, out=folder)


_COMPARE = ("compare", ENV, "--agents", ",".join(_COMPARED), "--episodes", str(_EPISODES), "--jobs", "2", "--out", "{}")
JOBS = (
    Job("learn", _call("learn({}, False)"), _learn_on(False), 4),
    Job("learn from images", _call("learn({}, True)"), _learn_on(True), 6),
    Job("save", _call("save({})"), lambda folder: grasp_agent.load(MODEL).save(folder / "run.zip"), 4),
    Job("record", _cli("record", MODEL, "{}/run.mp4", "--force"), _record, 5),
    Job("compare", _cli(*_COMPARE), _compare, 8),
)


def members(group: int) -> list[int]:
    """Returns the processes of a group that have not ended."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True).stdout
    rows = (line.split() for line in listed.splitlines())
    return [int(pid) for pid, of, state in rows if int(of) == group and not state.startswith("Z")]


def _begun(process: subprocess.Popen[bytes], is_command: bool) -> None:
    """Waits until a process handles SIGTERM; where the system does not tell, a while."""
    status, end = Path(f"/proc/{process.pid}/status"), time.monotonic() + 20
    while status.exists() and is_command and time.monotonic() < end and process.poll() is None:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.02)
    time.sleep(2)


def kill(job: Job, number: signal.Signals, after: float, folder: Path) -> set[str]:
    """Kills a job after some seconds; returns the faults that were found."""
    command = [sys.executable, *job.command(folder)]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background jobs ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    is_command = job.command(folder)[0] == "-m"
    _begun(process, is_command)
    time.sleep(after)
    early = process.poll() is not None
    process.send_signal(number)
    end = time.monotonic() + _GRACE
    faults = set()
    while members(process.pid) and time.monotonic() < end:
        time.sleep(0.05)
    if members(process.pid):
        faults.add("worker lived on")
        os.killpg(process.pid, signal.SIGKILL)
    said = process.communicate()[1].decode(errors="replace")
    if "Traceback" in said and (is_command or number != signal.SIGINT):  # a script's Ctrl-C shows where it was
        faults.add("traceback")
    ended = (0, 128 + number) if said else (0, 128 + number, -number)  # without a word: Python was already leaving
    if is_command and number != signal.SIGKILL and not early and process.returncode not in ended:
        faults.add("wrong exit status or message")
    if not whole(folder):
        faults.add("lost the old file")
    try:
        job.again(folder)
    except (Exception, SystemExit) as error:
        print(f"  {job.name}: {error!r}")
        faults.add("cannot be resumed")
    if left(folder):
        faults.add("left files behind")
    if faults:
        print(f"  {job.name}, {number.name} after {after:.2f} s: {sorted(faults)}, {left(folder)}\n{said[-1500:]}")
    return faults


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files of this process, and of those that it starts, cannot grow beyond a size [bytes]: a portable full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Writer(NamedTuple):
    """A command that writes files."""

    name: str
    arguments: str
    old: tuple[str, ...]
    """Files that it replaces."""


_SHORT = f"--agents {','.join(_COMPARED)} --episodes 3"
WRITERS = (
    Writer("train", f"train {ENV} --steps 3 --out {{}}/run.zip --force", ("run.zip",)),
    Writer("train --resume", f"train {ENV} --steps 24 --out {{}}/run.zip --resume", ("run.zip",)),
    Writer("record", f"record {MODEL} {{}}/run.mp4 --force", ("run.mp4",)),
    Writer("record GIF", f"record {MODEL} {{}}/run.gif --force --size 64", ("run.gif",)),
    Writer("plan", f"plan {MODEL} --out {{}}/run.mp4 --force", ("run.mp4",)),
    Writer("evaluate", f"evaluate {MODEL} --episodes 3 --json {{}}/run.json", ("run.json",)),
    Writer("compare", f"compare {ENV} {_SHORT} --out {{}}", ("report.md", "report.csv", "report.json", "report.png")),
    Writer("compare --video", f"compare {ENV} {_SHORT} --video --video-episodes 1 --out {{}}", ("video.mp4",)),
    Writer("demo", "demo --episodes 1 --out {}", (f"{MODEL}.mp4",)),
)


def _prepared(writer: Writer, folder: Path) -> dict[str, bytes]:
    """Makes the files that will be replaced; returns their content."""
    for name in writer.old:
        (folder / name).write_bytes(b"old")
    if writer.name == "train --resume":
        (folder / "run.zip").unlink()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            grasp(f"train {ENV} --steps 12 --out {folder}/run.zip --resume".split())
    return {name: (folder / name).read_bytes() for name in writer.old}


def refuse(writer: Writer, folder: Path, limit: int | None) -> set[str]:
    """Runs a command that cannot write, or can write only so many bytes; returns the faults that were found."""
    old, faults, said = _prepared(writer, folder), set[str](), io.StringIO()
    shown = demo._DEFAULT_MODELS, console._SECONDS_PER_LINE
    demo._DEFAULT_MODELS, console._SECONDS_PER_LINE = (MODEL,), 1e6  # no lines of progress
    if limit is None:
        folder.chmod(0o555)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(said),
            contextlib.nullcontext() if limit is None else largest_file(limit),
        ):
            status = grasp(writer.arguments.format(folder).split())
    except Exception as error:
        status = None
        faults.add("traceback")
        print(f"  {writer.name}: {error!r}")
    finally:
        demo._DEFAULT_MODELS, console._SECONDS_PER_LINE = shown
        folder.chmod(0o755)
    now = {name: (folder / name).read_bytes() for name in old if (folder / name).exists()}
    if status == 0 and not (whole(folder) and b"old" not in now.values()):
        faults.add("success over a damaged file")
    elif status == 1 and now != old:
        faults.add("lost the old file")
    message = said.getvalue()
    if status not in (0, 1) or (status == 1 and (message.count("\n") != 1 or "Errno" in message)):
        faults.add("wrong exit status or message")
    if left(folder):
        faults.add("left files behind")
    if faults:
        print(f"  {writer.name}, {limit} bytes: {sorted(faults)}, status {status}, {left(folder)}\n{message[-1500:]}")
    return faults


def _tried(attempt: Callable[[Path], set[str]]) -> set[str]:
    with tempfile.TemporaryDirectory() as folder:
        return attempt(Path(folder))


def run(kills: int, limits: Sequence[int | None], seed: int, writers: Sequence[Writer] = WRITERS) -> Counter[str]:
    """Runs all trials, prints a table of counts, and returns the number of each fault."""
    random, total = np.random.default_rng(seed), Counter[str]()
    rows: dict[str, Counter[str]] = {}
    for index in range(kills):
        job, number = JOBS[index % len(JOBS)], SIGNALS[index // len(JOBS) % len(SIGNALS)]
        after = float(random.uniform(0, job.seconds))
        faults = _tried(lambda folder, job=job, number=number, after=after: kill(job, number, after, folder))
        rows.setdefault(f"{job.name}, {number.name}", Counter()).update(["trials", *faults])
    for writer in writers:
        for limit in limits:
            faults = _tried(lambda folder, writer=writer, limit=limit: refuse(writer, folder, limit))
            what = "folder without permission" if limit is None else "full disk"
            rows.setdefault(f"{writer.name}, {what}", Counter()).update(["trials", *faults])
    for name, counts in rows.items():
        found = ", ".join(f"{counts[fault]} x {fault}" for fault in FAULTS if counts[fault]) or "no fault"
        print(f"{name:40} {counts['trials']:3} trials: {found}")
        total.update({fault: counts[fault] for fault in FAULTS})
    print(f"{sum(counts['trials'] for counts in rows.values())} trials, {sum(total.values())} faults")
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="number of processes to kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    limits: list[int | None] = [0, 200, 5_000, 60_000]
    if os.geteuid() != 0:  # root may write everywhere
        limits.append(None)
    return int(sum(run(options.kills, limits, options.seed).values()) > 0)


if __name__ == "__main__":
    assert shutil.which("ps"), "expected the program ps"
    sys.exit(main())
