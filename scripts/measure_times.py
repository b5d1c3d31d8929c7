"""Measures the README's times: `make demo`, `make test`, and a training, on an idle machine.

    python scripts/measure_times.py            # waits until the machine is idle; some minutes
    python scripts/measure_times.py --no-wait  # refuses a busy one

Downloads are not counted: what `make` installs is installed before. Writes `benchmarks/results/times.json` and the
paragraph of the README that begins with `<!-- times`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks import pages
from grasp_agent import GraspAgent

ROOT = Path(__file__).parent.parent
PARTS = ("demo", "test", "training")
STEPS = 3000  # of the README's training
_IDLE = 0.3  # largest load of an idle machine: running processes, averaged over the last minute


def main(wait: bool = True) -> None:
    """Measures and writes.

    Args:
        wait: wait until the machine is idle, instead of refusing a busy one.
    """
    figures: dict[str, Any] = {}
    subprocess.run(["make", ".venv/installed-dev"], cwd=ROOT, check=True)
    for part in PARTS:
        idle(wait)
        figures[part] = round(training() if part == "training" else made(part), 1)
        print(f"{part}: {figures[part]} s", flush=True)
    figures |= {"cores": os.cpu_count(), "python": sys.version.split()[0], "torch": torch.__version__}
    figures["date"] = date.today().isoformat()
    pages.keep("times", figures)
    readme = ROOT / "README.md"
    pages.write(readme, pages.spliced(readme.read_text(encoding="utf-8"), "times", paragraph(figures)))


def paragraph(figures: dict[str, Any]) -> str:
    """Returns the README's paragraph."""
    demo, test, training = (f"{float(figures[part]) / 60:.1f} minutes" for part in PARTS)
    return (
        f"Measured on {figures['cores']} idle cores, downloads not counted: `make demo` {demo}, `make test` {test}, "
        f"the training below {training}."
    )


def idle(wait: bool) -> None:
    """Waits until the machine is idle, or refuses a busy one.

    Raises:
        SystemExit: on a busy machine, without `wait`.
    """
    while os.getloadavg()[0] > _IDLE:
        if not wait:
            sys.exit(f"expected an idle machine, got a load of {os.getloadavg()[0]:.1f}")
        time.sleep(5)


def made(target: str) -> float:
    """Returns the wall-clock time of a target of the Makefile [s]."""
    began = time.monotonic()
    subprocess.run(["make", target], cwd=ROOT, check=True)
    return time.monotonic() - began


def training() -> float:
    """Returns the wall-clock time of the README's training [s]."""
    agent = GraspAgent("MultiInputPolicy", "grasp/BallNav-v0", seed=0)
    began = time.monotonic()
    agent.learn(STEPS)
    return time.monotonic() - began


if __name__ == "__main__":
    tyro.cli(main)
