"""Agents with several trainings each: aggregates over training seeds as a table, as files and as a figure."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from grasp_agent.evaluation import aggregates
from grasp_agent.evaluation.aggregates import Scores, scores_of
from grasp_agent.evaluation.folder import check_no_links
from grasp_agent.evaluation.intervals import Interval
from grasp_agent.evaluation.training import Point
from grasp_agent.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEADERS = (
    "agent",
    "trainings",
    "interquartile mean",
    "mean",
    "worst to best",
    "difference to the first",
    "better than the first",
    "seeds needed",
)
TABLES = {"Over training seeds": (0, 1, 2, 3), "From seed to seed": (0, 4, 7), "Against the first": (0, 5, 6)}
"""Narrower tables for a terminal, by title: columns of `HEADERS`."""
COLOURS = ("#2F6FDE", "#C8553D", "#2B8A66", "#8A5CC2", "#B58900", "#5B6472")
_THRESHOLDS = 201
Curves = Mapping[str, Sequence[Sequence[Point]]]
"""Learning curves of each agent, one for each training seed."""


def rows(scores: Mapping[str, ArrayLike]) -> list[dict[str, Any]]:
    """Returns the aggregates of each agent, ready for JSON; the others are compared with the first.

    Args:
        scores: `[R, M]`, or `[R]` for one environment: of R trainings in M environments, by the agent's name.

    Raises:
        ValueError: if there are none, or they are not finite.
    """
    if not scores:
        raise ValueError("scores: expected those of at least one agent, got none")
    known = {name: scores_of(values) for name, values in scores.items()}
    first = next(iter(known.values()))
    found: list[dict[str, Any]] = []
    for index, (name, values) in enumerate(known.items()):
        middle = _shown(aggregates.interval(aggregates.iqm, values), len(values))
        each = values.mean(1)
        row: dict[str, Any] = {
            "agent": name,
            "trainings": len(values),
            **dict(zip(("iqm", "iqm_low", "iqm_high"), middle, strict=True)),
            "mean": float(values.mean()),
            "worst": float(each.min()),
            "best": float(each.max()),
        }
        keys = [f"{what}{end}" for what in ("difference", "improvement") for end in ("", "_low", "_high")]
        row |= dict.fromkeys([*keys, "seeds_needed"])
        if index:
            found_here = aggregates.improvement(values, first)
            count = min(len(values), len(first))
            limits = [_shown(one, count) for one in (found_here.difference, found_here.probability)]
            row |= dict(zip(keys, (*limits[0], *limits[1]), strict=True))
            row["seeds_needed"] = found_here.seeds
        found.append(row)
    return found


def _shown(found: Interval, trainings: int) -> tuple[float, float | None, float | None]:
    """Returns an interval, without limits where one training tells nothing of others."""
    return (found.value, found.low, found.high) if trainings > 1 else (found.value, None, None)


def table(scores: Mapping[str, ArrayLike]) -> list[tuple[str, ...]]:
    """Returns `HEADERS` and a row of text for each agent; brackets hold 95 % intervals."""
    return [HEADERS, *map(_cells, rows(scores))]


def tables(scores: Mapping[str, ArrayLike]) -> dict[str, list[tuple[str, ...]]]:
    """Returns `TABLES`, each with its header and a row of text for each agent."""
    whole = table(scores)
    return {title: [tuple(row[column] for column in part) for row in whole] for title, part in TABLES.items()}


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    def ranged(name: str, sign: str = "") -> str:
        if row[name] is None:
            return "-"
        if row[f"{name}_low"] is None:
            return _number(row[name], sign)
        value, low, high = (_number(row[f"{name}{end}"], sign) for end in ("", "_low", "_high"))
        return f"{value} ({low} to {high})"

    needed = row["seeds_needed"]
    return (
        row["agent"],
        str(row["trainings"]),
        ranged("iqm"),
        _number(row["mean"]),
        f"{_number(row['worst'])} to {_number(row['best'])}",
        ranged("difference", "+"),
        ranged("improvement"),
        "-" if needed is None else str(needed),
    )


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.2f}" if abs(value) < 10 else f"{value:{sign}.1f}"


def advice(scores: Mapping[str, ArrayLike]) -> list[str]:
    """Returns a sentence for each other agent with several trainings: how many a comparison with the first needs."""
    found, known = rows(scores), {name: scores_of(values) for name, values in scores.items()}
    first = found[0]
    said = []
    for row in found[1:]:
        count, needed = min(first["trainings"], row["trainings"]), row["seeds_needed"]
        pair = f"{row['agent']} and {first['agent']}"
        if count < 2:
            continue  # not trained, as random actions, or nothing can be said of other seeds
        if not aggregates.differ(known[row["agent"]], known[first["agent"]]):
            said.append(f"{pair}: no difference was seen in {count} trainings")
        elif needed is None:
            said.append(f"{pair}: the difference seen is too small to be told in 1,000 trainings of each")
        elif needed > count:
            more = needed - count
            said.append(f"{pair}: a difference as seen needs {needed} trainings of each, {more} more, to be told")
        else:
            said.append(f"{pair}: {count} trainings of each are enough for a difference as seen ({needed} needed)")
    return said


def legend() -> str:
    """Returns an explanation of the table's figures."""
    return (
        "In brackets 95 % intervals, by stratified bootstrap over trainings; with fewer than five they are too narrow. "
        "Interquartile mean: that of the middle half of all trainings. Better than the first: probability that a "
        "training of this agent has a higher score than one of the first (Agarwal et al. 2021, arXiv 2108.13264). "
        "Seeds needed: trainings of each with which a difference of means as large as the one seen would be found in "
        "four of five comparisons (Welch's test, 5 %)."
    )


def markdown(scores: Mapping[str, ArrayLike], *, explained: bool = True) -> str:
    """Returns the table in Markdown, advice on the number of seeds and, if it is to be `explained`, the legend."""
    header, *body = table(scores)
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *(f"| {' | '.join(row)} |" for row in body), ""]
    lines += [f"- {sentence}." for sentence in advice(scores)]
    return "\n".join([*lines, *(["", legend()] if explained else [])]) + "\n"


def write(
    scores: Mapping[str, ArrayLike], folder: str | Path, *, curves: Curves | None = None, title: str = ""
) -> list[Path]:
    """Writes `seeds.md`, `seeds.csv`, `seeds.json` and `seeds.png` into a folder.

    Args:
        scores: see `rows`.
        folder: the folder.
        curves: learning curves, which the figure shows, too.
        title: of the figure.

    Returns:
        Their paths.

    Raises:
        ValueError: if one of them is a symbolic link.
        OSError: if one cannot be written: then none is replaced, unless a complete file cannot be moved to its place.
    """
    paths = [Path(folder) / f"seeds.{suffix}" for suffix in ("md", "csv", "json", "png")]
    check_no_links(*paths)
    found = rows(scores)
    with ExitStack() as stack:
        text, lines, data, drawn = (stack.enter_context(atomic_write(path)) for path in paths)
        text.write_text(markdown(scores), encoding="utf-8")
        with lines.open("w", newline="", encoding="utf-8") as file:
            written = csv.DictWriter(file, fieldnames=list(found[0]))
            written.writeheader()
            written.writerows(found)
        each = {name: scores_of(values).tolist() for name, values in scores.items()}
        data.write_text(json.dumps({"agents": found, "scores": each}, indent=1) + "\n", encoding="utf-8")
        figure(scores, curves=curves, title=title).savefig(drawn)
    return paths


def figure(scores: Mapping[str, ArrayLike], *, curves: Curves | None = None, title: str = "") -> Figure:
    """Draws interquartile means, performance profiles and, where there are some, learning curves."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = {name: scores_of(values) for name, values in scores.items()}
    shown = Figure(figsize=(14 if curves else 10, 1.8 + 0.4 * max(4, len(known))), dpi=110, layout="constrained")
    FigureCanvasAgg(shown)
    means, profiles, *rest = shown.subplots(1, 3 if curves else 2)
    _draw_means(means, known)
    _draw_profiles(profiles, known)
    if curves:
        draw_curves(rest[0], curves)
    for panel in (means, profiles, *rest):
        panel.grid(color="#E4E7EB", lw=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    shown.suptitle(title, fontsize=10, x=0.01, ha="left")
    return shown


def _draw_means(panel: Axes, known: Mapping[str, Scores]) -> None:
    for index, (values, colour) in enumerate(zip(known.values(), _colours(known), strict=True)):
        middle, low, high = aggregates.interval(aggregates.iqm, values)
        panel.plot(values.mean(1), np.full(len(values), index + 0.18), "|", color=colour, ms=7, alpha=0.6)
        panel.plot([low, high], [index, index], color=colour, lw=6, alpha=0.35, solid_capstyle="butt")
        panel.plot(middle, index, "o", color=colour, ms=6)
    panel.set_yticks(range(len(known)), list(known))
    panel.set(ylim=(len(known) - 0.5, -0.5), xlabel="interquartile mean (dot), 95 %, and trainings (ticks)")


def _draw_profiles(panel: Axes, known: Mapping[str, Scores]) -> None:
    every = np.concatenate([values.ravel() for values in known.values()])
    thresholds = np.linspace(every.min(), every.max(), _THRESHOLDS)
    for (name, values), colour in zip(known.items(), _colours(known), strict=True):
        panel.plot(thresholds, aggregates.profile(values, thresholds.tolist()), color=colour, label=name, lw=2)
    panel.set(xlabel="score", ylabel="fraction of trainings with a higher score", ylim=(-0.02, 1.02))
    panel.legend(frameon=False, fontsize=8)


def draw_curves(panel: Axes, curves: Curves) -> None:
    """Draws learning curves: interquartile means over training seeds, with their intervals where there are several."""
    for (name, runs), colour in zip(curves.items(), _colours(curves), strict=True):
        steps = sorted({point.steps for run in runs for point in run})
        at = {count: scores_of([p.success for run in runs for p in run if p.steps == count]) for count in steps}
        found = [aggregates.interval(aggregates.iqm, values) for values in at.values()]
        middle, low, high = zip(*found, strict=True)
        panel.plot(steps, middle, "o-", color=colour, label=name, lw=2, ms=5)
        if len(runs) > 1:
            panel.fill_between(steps, low, high, color=colour, alpha=0.15, lw=0)
            panel.vlines(steps, low, high, color=colour, lw=1.5)
    panel.set(xscale="log", xlabel="environment steps", ylabel="success at the end, or mean return")
    panel.legend(frameon=False, fontsize=8)


def _colours(names: Mapping[str, object]) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(len(names))]
