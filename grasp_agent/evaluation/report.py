"""A comparison as a table, as files and as a figure."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grasp_agent.evaluation.compare import Comparison
from grasp_agent.evaluation.folder import check_no_links
from grasp_agent.evaluation.seeds_report import Curves, draw_curves
from grasp_agent.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEADERS = (
    "agent",
    "steps learned from",
    "training",
    "success at the end",
    "at any step",
    "difference to the first",
    "return",
    "steps",
    "path",
    "ms per action",
    "model",
)
TABLES = {
    "How well": (0, 3, 5),
    "Which path": (0, 4, 6, 8),
    "How fast": (0, 7, 9),
    "At what cost": (0, 1, 2, 10),
}
"""Narrower tables for a terminal, by title: columns of `HEADERS`."""
_FIRST, _OTHERS = "#2F6FDE", "#5B6472"


def cells(comparison: Comparison) -> list[tuple[str, ...]]:
    """Returns a row of text for each agent, under `HEADERS`; brackets hold 95 % intervals."""
    return [_cells(entry.row(), comparison.compared) for entry in comparison.entries]


def tables(comparison: Comparison, *parts: Sequence[int]) -> list[list[tuple[str, ...]]]:
    """Returns header and rows for each part, columns of `HEADERS`; columns without any value are left out."""
    rows = cells(comparison)
    found = []
    for part in parts:
        known = [column for column in part if not column or any(row[column] != "-" for row in rows)]
        found.append([tuple(row[column] for column in known) for row in (HEADERS, *rows)])
    return found


def _cells(row: dict[str, Any], compared: str) -> tuple[str, ...]:
    seconds = row["training_seconds"]
    difference = "-"
    if row["difference"] is not None:
        scale, digits, unit = (100, 0, " %") if compared == "success" else (1, 1, "")
        value, low, high = (f"{scale * row[f'difference{end}']:+.{digits}f}" for end in ("", "_low", "_high"))
        difference = f"{value}{unit} ({low} to {high}), p {_p(row['p'])}"
    times = " / ".join(_two_digits(1000 * row[f"seconds_per_action_{key}"]) for key in ("mean", "p50", "p99"))
    limits = f"{row['return_low']:.1f} to {row['return_high']:.1f}"
    return (
        row["agent"],
        "-" if row["environment_steps"] is None else f"{row['environment_steps']:,}",
        "-" if seconds is None else f"{seconds:.0f} s",
        _percentage(row, "success_end"),
        _percentage(row, "success_any"),
        difference,
        f"{row['return_mean']:.1f} ({limits})",
        "-" if row["steps_to_success_median"] is None else f"{row['steps_to_success_median']:g}",
        "-" if row["path_length_mean"] is None else f"{row['path_length_mean']:.3g}",
        times,
        "-" if row["model_bytes"] is None else f"{row['model_bytes'] / 2**20:.2f} MB",
    )


def _percentage(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return "-"
    return f"{100 * row[name]:.0f} % ({100 * row[f'{name}_low']:.0f}-{100 * row[f'{name}_high']:.0f})"


def _two_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def caption(comparison: Comparison) -> str:
    """Returns one sentence on the episodes that were played."""
    count = len(comparison.entries[0].evaluation.episodes)
    same = "the same starts and goals for all" if comparison.same_starts else "STARTS DIFFER between the agents"
    last = comparison.seed + count - 1
    return f"{comparison.env_id}: {count} episode{'s' * (count > 1)}, seeds {comparison.seed} to {last}, {same}."


def markdown(comparison: Comparison) -> str:
    """Returns the table in Markdown, with its caption above and its legend below."""
    [[header, *rows]] = tables(comparison, range(len(HEADERS)))
    lines = [caption(comparison), "", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", legend(comparison)]
    return "\n".join(lines) + "\n"


def legend(comparison: Comparison) -> str:
    """Returns an explanation of the table's figures."""
    first, known = comparison.entries[0].participant.name, comparison.compared == "success"
    pairs = f"differences to {first} on the same episodes"
    tango = "" if comparison.trainings else f", Tango's for {pairs} (p: McNemar's exact test)"
    fractions = f"Wilson's for fractions{tango}, bootstrapped for mean returns."
    means = f"bootstrapped{'' if comparison.trainings else f'; {pairs} are of returns (p: exchange of signs)'}."
    return (
        f"In brackets 95 % intervals: {fractions if known else means}"
        + (
            " Steps: median until the goal is reached. Path: mean distance that the achieved goal moves."
            if known
            else ""
        )
        + " Times: mean / p50 / p99 of all calls."
    )


def write(comparison: Comparison, folder: str | Path) -> list[Path]:
    """Writes `report.md`, `report.csv`, `report.json` and `report.png` into a folder.

    Returns:
        Their paths.

    Raises:
        ValueError: if one of them is a symbolic link.
        OSError: if one cannot be written: then none is replaced, unless a complete file cannot be moved to its place.
    """
    folder = Path(folder)
    rows = [entry.row() for entry in comparison.entries]
    about = {"env_id": comparison.env_id, "seed": comparison.seed, "same_starts": comparison.same_starts}
    content = {
        **about,
        "compared": comparison.compared,
        "episodes": len(comparison.entries[0].evaluation.episodes),
        "agents": rows,
    }
    paths = [folder / f"report.{suffix}" for suffix in ("md", "csv", "json", "png")]
    check_no_links(*paths)
    with ExitStack() as stack:  # none is moved to its place before all are complete
        text, lines, data, figure = (stack.enter_context(atomic_write(path)) for path in paths)
        text.write_text(markdown(comparison), encoding="utf-8")
        data.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        with lines.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, fieldnames=list(rows[0]))
            table.writeheader()
            table.writerows(rows)
        _figure(comparison).savefig(figure)
    return paths


def plot(comparison: Comparison, path: str | Path) -> None:
    """Plots a row for each agent: success, returns and time per action, with their intervals."""
    with atomic_write(path) as aside:
        _figure(comparison).savefig(aside)


def _figure(comparison: Comparison) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [entry.row() for entry in comparison.entries]
    figure = Figure(figsize=(11, 1.5 + 0.42 * len(rows)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    known = any(row["success_end"] is not None for row in rows)
    panels = figure.subplots(1, 2 + known, sharey=True, width_ratios=(1.3, 1, 1)[: 2 + known])
    *_, returns, times = panels
    if known:
        _marks(panels[0], rows, ("success_end", "success_end_low", "success_end_high"), 100)
        for index, row in enumerate(rows):
            if row["success_any"] is not None:
                panels[0].plot(100 * row["success_any"], index, "o", mfc="none", mec="#9AA3AF", ms=9, zorder=1)
        panels[0].set(xlim=(-3, 103), xlabel="success [%]: at the end (dot), at any step (ring)")
    _marks(returns, rows, ("return_mean", "return_low", "return_high"))
    returns.set(xlabel="mean return")
    spread = tuple(f"seconds_per_action_{key}" for key in ("mean", "p50", "p99"))
    _marks(times, rows, spread, 1000)
    times.set(xscale="log", xlabel="ms per action: mean (dot), p50 to p99")
    panels[0].set_yticks(range(len(rows)), [row["agent"] for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    for panel in panels:
        panel.grid(axis="x", color="#E4E7EB", lw=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
    figure.suptitle(caption(comparison), fontsize=10, x=0.01, ha="left")
    return figure


def _marks(panel: Axes, rows: Sequence[dict[str, Any]], keys: tuple[str, ...], scale: float = 1) -> None:
    """Plots a dot and an interval for each agent; the first agent's in a colour of its own."""
    for index, row in enumerate(rows):
        if row[keys[0]] is None:
            continue
        value, low, high = (scale * row[key] for key in keys)
        colour = _OTHERS if index else _FIRST
        panel.plot([low, high], [index, index], color=colour, lw=2.5, alpha=0.45, solid_capstyle="round")
        panel.plot(value, index, "o", color=colour, ms=6)


def curves(curves: Curves, env_id: str, path: str | Path) -> Path:
    """Plots agents' learning curves, against environment steps; returns the path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    draw_curves(panel, curves)
    panel.set(title=env_id)
    panel.grid(color="#E4E7EB", lw=0.8)
    panel.spines[["top", "right"]].set_visible(False)
    with atomic_write(path) as aside:
        figure.savefig(aside)
    return Path(path)
