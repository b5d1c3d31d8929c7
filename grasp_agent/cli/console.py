"""Output of the commands of `grasp`: progress on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from grasp_agent.files import explained, failure

if TYPE_CHECKING:
    from grasp_agent.evaluation.evaluate import Evaluation


_SECONDS_PER_LINE = 5.0  # of progress, where stderr is no terminal [s]; chosen by hand
_MOST_LINES = 20  # of the time so far, a line each twentieth; chosen by hand
_STDOUT = Path("standard output")


def complain(message: str) -> None:
    """Prints a message on stderr, on one line."""
    print("grasp:", " ".join(message.split()), file=sys.stderr)


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[object], None]]:
    """Shows progress on stderr until the work is done: a bar in a terminal, else a line every few seconds.

    The yielded function advances it by the number that it gets, or by one for another argument.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        of_total = "" if total is None else f" of {total:,}"
        with (
            contextlib.nullcontext()
            if console.is_terminal
            else lines(lambda: f"{what}: {int(bar.tasks[task].completed):,}{of_total}")
        ):
            yield lambda passed: bar.advance(task, passed if isinstance(passed, int) else 1)


@contextmanager
def lines(state: Callable[[], str]) -> Iterator[None]:
    """Prints the state of the work on stderr every few seconds, also while nothing advances; later on less often."""
    ended, began = threading.Event(), time.monotonic()

    def watch() -> None:
        passed = 0.0
        while not ended.wait(max(_SECONDS_PER_LINE, passed / _MOST_LINES)):
            passed = time.monotonic() - began
            complain(f"{state()}, {passed:.0f} s")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


@contextmanager
def warnings_on_one_line() -> Iterator[None]:
    """Prints warnings as messages of the command, without the line of code that they come from."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: complain(str(message))
        yield


def figures(outcome: Evaluation) -> tuple[str, str, str, str]:
    """Returns environment, successes at the end, median steps to the goal and ms per action, as text."""
    summary = outcome.summary()
    waits, ends = summary["steps_to_success_median"], [row.success_end for row in outcome.episodes]
    return (
        outcome.env_id,
        "-" if None in ends else f"{sum(map(bool, ends))}/{len(ends)}",
        "-" if waits is None else f"{waits:.0f}",
        f"{1000 * summary['seconds_per_action_mean']:.1f}",
    )


def print_outcome(outcome: Evaluation) -> None:
    """Prints an evaluation's figures."""
    summary = outcome.summary()
    last = outcome.seed + summary["episodes"] - 1
    rows = table("", "", title=f"{outcome.agent} in {outcome.env_id}, seeds {outcome.seed} to {last}")
    for name, what in (("success_end", "success at the end"), ("success_any", "success at any step")):
        if summary[name] is not None:
            rate, low, high = (100 * summary[key] for key in (name, f"{name}_low", f"{name}_high"))
            rows.add_row(what, f"{rate:.1f} %  (95 %: {low:.1f} to {high:.1f})")
    if summary["steps_to_success_median"] is not None:
        rows.add_row("steps to the goal, median", f"{summary['steps_to_success_median']:.0f}")
    rows.add_row("return, mean", f"{summary['return_mean']:.2f}")
    times = (f"{1000 * summary[f'seconds_per_action_{key}']:.1f}" for key in ("mean", "p50", "p99", "max"))
    rows.add_row("ms per action: mean/p50/p99/max", " / ".join(times))
    show(rows)


def table(*headers: str, title: str | None = None) -> Table:
    """Returns an empty table; where it has headers, all columns but the first are numbers."""
    rows = Table(title=title, title_justify="left", title_style="bold", show_header=any(headers), box=SIMPLE_HEAD)
    for index, header in enumerate(headers):
        rows.add_column(header, justify="right" if header and index else "left", no_wrap=True)
    return rows


def show(rows: Table) -> None:
    """Prints a table; in a file or a pipe it is not limited to a terminal's width."""
    console = _Console()
    with explained(_STDOUT):
        console.print(rows, width=None if console.is_terminal else 200)


def say(message: str) -> None:
    """Prints a message on stdout, unformatted and flushed, also into a pipe."""
    try:
        print(message, flush=True)
    except BrokenPipeError:
        raise OutputClosedError from None
    except OSError as error:
        raise failure(_STDOUT, error) from None


class OutputClosedError(Exception):
    """The reader of stdout, for example `head`, has closed it."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise OutputClosedError
