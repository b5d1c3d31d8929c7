"""A study as a table, as files and as a figure."""

from __future__ import annotations

import csv
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grasp_agent.evaluation.config import shown
from grasp_agent.evaluation.folder import check_no_links
from grasp_agent.evaluation.tuning.trials import Trial, Tuned, ranked
from grasp_agent.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = ("best.json", "trials.csv", "history.png")
HEADERS = ("trial", "score", "further trainings", "CPU s per training")
_TRIAL, _BEST, _WINNER = "#5B6472", "#2F6FDE", "#C8553D"


def cells(tuned: Tuned, most: int = 10) -> list[tuple[str, ...]]:
    """Returns a row of text under `HEADERS` for the defaults, the winner, and the best other trials."""
    further = [trial for trial in tuned.trials if trial.confirmed]
    further.sort(key=lambda trial: trial.number != tuned.winner.number)
    others = [trial for trial in ranked(list(tuned.trials)) if not trial.confirmed]
    return [_cells(trial, tuned) for trial in [*further, *others][: max(most, len(further))]]


def _cells(trial: Trial, tuned: Tuned) -> tuple[str, ...]:
    marks = [word for word, holds in (("defaults", trial.is_default), ("winner", _won(trial, tuned))) if holds]
    name = f"{trial.number} ({', '.join(marks)})" if marks else str(trial.number)
    confirmed = "-" if trial.confirmed_mean is None else _number(trial.confirmed_mean, tuned.is_success)
    return (
        name,
        "-" if trial.score is None else _number(trial.score, tuned.is_success),
        confirmed,
        f"{trial.seconds:.0f}",
    )


def _won(trial: Trial, tuned: Tuned) -> bool:
    return trial.number == tuned.winner.number


def _number(score: float, is_success: bool) -> str:
    return f"{100 * score:.0f} %" if is_success else f"{score:.4g}"


def _changes(trial: Trial, default: Trial) -> str:
    """Returns the parameters that are not those of the defaults."""
    changed = {name: value for name, value in trial.params.items() if default.params.get(name, None) != value}
    return ", ".join(f"{name} {shown(round(v, 6) if isinstance(v, float) else v)}" for name, v in changed.items())


def conclusion(tuned: Tuned) -> str:
    """Returns one sentence on the winner."""
    count, default = len(tuned.winner.confirmed), tuned.trials[0]
    rule = f"in {count} further training{'s' * (count > 1)} of each of the best trials and of the defaults"
    if tuned.winner.is_default:
        return f"The defaults win: no other trial was better by more than the standard error {rule}."
    scores = [_number(trial.confirmed_mean or 0.0, tuned.is_success) for trial in (tuned.winner, default)]
    changes = _changes(tuned.winner, default)
    return f"Trial {tuned.winner.number} wins with {changes}: {scores[0]}, the defaults {scores[1]}, {rule}."


def write(tuned: Tuned, folder: Path) -> list[Path]:
    """Writes `best.json`, a configuration for a training, `trials.csv` and `history.png` into a folder.

    Returns:
        Their paths.

    Raises:
        ValueError: if one of them is a symbolic link.
        OSError: if one cannot be written.
    """
    paths = [folder / name for name in FILES]
    check_no_links(*paths)
    with ExitStack() as stack:  # none is moved to its place before all are complete
        best, table, figure = (stack.enter_context(atomic_write(path)) for path in paths)
        tuned.config.write(best)
        rows = [_row(trial, tuned) for trial in tuned.trials]
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)
        _figure(tuned).savefig(figure)
    return paths


def _row(trial: Trial, tuned: Tuned) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "score": trial.score,
        "cpu_seconds": round(trial.seconds, 2),
        "further_score": trial.confirmed_mean,
        "winner": _won(trial, tuned),
        "problem": " ".join(trial.problem.split()),
        **trial.params,
    }


def _figure(tuned: Tuned) -> Figure:
    """Returns a plot of each trial's score, and of the best so far."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panel, scale = figure.subplots(), 100 if tuned.is_success else 1
    points = [(trial.number, scale * trial.score) for trial in tuned.trials if trial.score is not None]
    numbers, scores = zip(*points, strict=True)
    panel.plot(numbers, scores, "o", color=_TRIAL, ms=5, label="trial")
    panel.step(numbers, list(accumulate(scores, max)), where="post", color=_BEST, lw=2, label="best so far")
    panel.axhline(scores[0], color=_TRIAL, lw=1, ls=":", label="defaults")
    if tuned.winner.score is not None:
        panel.plot(tuned.winner.number, scale * tuned.winner.score, "o", mfc="none", mec=_WINNER, ms=12, label="winner")
    measure = "success at the end [%]" if tuned.is_success else "mean return"
    panel.set(xlabel="trial", ylabel=measure, title=tuned.config.env)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    if tuned.is_success:
        panel.set_ylim(-3, 103)
    panel.grid(color="#E4E7EB", lw=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False)
    return figure
