"""Tables and plots of the planner benchmark, from `benchmark.json` and `peers.json` in `benchmarks/results`.

    python -m benchmarks.report

Writes `docs/results/planners.md`, its summary `docs/results/duel.md`, the rows of each planner's page in
`docs/_generated`, and `docs/figures/horizon.png`. Intervals are Wilson's, 95 %; a paired
difference to the default GRASP is tested by McNemar's exact test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import pages
from benchmarks.planners import DUEL_BUDGETS, DUEL_HORIZONS, HORIZONS, PATIENCE
from benchmarks.report_cells import Cell, cells, complete
from benchmarks.report_plot import draw
from benchmarks.trials import PLANNERS, TASKS
from grasp_agent.evaluation import intervals

ROOT = Path(__file__).parent.parent


def load(name: str) -> dict[str, Any]:
    """A file of results, empty if there is none."""
    return pages.read(name, {})


def rate(outcomes: list[int]) -> str:
    """Returns the success rate with its interval."""
    found = intervals.proportion([bool(outcome) for outcome in outcomes])
    assert found is not None
    return f"{found.value:.2f} ({found.low:.2f}-{found.high:.2f})"


def mcnemar(first: list[int], second: list[int]) -> float:
    """Returns McNemar's p-value: the probability of so unequal discordant pairs if both are equally good."""
    found = intervals.paired(*([bool(outcome) for outcome in outcomes] for outcomes in (first, second)))
    assert found is not None
    return found.p


def duel_table(study: dict[str, Cell], peers: dict[str, Any], task: str, mode: str) -> list[str]:
    """Returns a table of all planners and peers on one task, against the default GRASP."""
    rows = cells(study, task, DUEL_HORIZONS[task], mode)
    if not rows:
        return []
    lines = [
        f"### {task}, {'one blind plan' if mode == 'open' else 'closed loop'}: H = {DUEL_HORIZONS[task]}, "
        f"at most {DUEL_BUDGETS[task]:g} s a plan, {len(next(iter(rows.values()))['end'])} episodes",
        "",
        f"| {' | '.join(DUEL_HEADS)} |",
        "|---|---|---|---|---|---|---|",
    ]
    best = rows.get("GRASP")
    for name, cell in rows.items():
        steps = [value for value in cell["steps"] if value is not None]
        pair = f"{mcnemar(best['end'], cell['end']):.1g}" if best and name != "GRASP" else ""
        arrival = f"{np.median(steps):.0f}" if steps else ""
        lines.append(
            f"| {name} | {rate(cell['end'])} | {rate(cell['any'])} | {pair} | "
            f"{np.median(cell['seconds']):.3f} | {iterations(cell)} | {arrival} |"
        )
    for key, cell in peers.items():
        its_task, peer, setting, its_mode = key.split("/")
        if (its_task, its_mode) != (task, mode):
            continue
        if "error" in cell:
            lines.append(f"| *{peer}*, {setting} | could not be run: {cell['error']} | | | | | |")
            continue
        paired = best is not None and len(best["end"]) == len(cell["success"])
        pair = f"{mcnemar(best['end'], cell['success']):.1g}" if paired and best else ""
        count = "" if paired else f", {len(cell['success'])} episodes"
        lines.append(
            f"| *{peer}*, {setting}{count} | {rate(cell['success'])} | {rate(cell['any'])} | {pair} | "
            f"{cell['seconds']:.3f} a plan | {cell['setting']['iterations']} | |"
        )
    return [*lines, ""]


DUEL_HEADS = (
    "planner",
    "success at the end",
    "at some step",
    "p against GRASP",
    "planning in all [s], median",
    "iterations, median",
    "steps to success, median",
)


def iterations(cell: Cell) -> str:
    """Returns the median number of iterations of a plan, where it is known."""
    known = [count for count in cell.get("iterations", ()) if count is not None]
    return f"{np.median(known):.0f}" if known else ""


def patience_table(study: dict[str, Cell]) -> list[str]:
    """Returns a table of one open-loop plan out of the trap, with more time."""
    by_budget = {
        budget: {key.split(" | ")[1]: cell for key, cell in study.items() if key.endswith(f"| {budget:g}")}
        for budget in PATIENCE
    }
    lines = [
        "| planner | " + " | ".join(f"at most {budget:g} s (iterations)" for budget in PATIENCE) + " |",
        "|---" * (len(PATIENCE) + 1) + "|",
    ]
    for name in PLANNERS:
        row = [by_budget[budget].get(name) for budget in PATIENCE]
        if any(row):
            lines.append(
                f"| {name} | " + " | ".join(f"{rate(c['end'])} ({iterations(c)})" if c else "" for c in row) + " |"
            )
    return lines


def summary(study: dict[str, Cell], peers: dict[str, Any]) -> list[str]:
    """Returns the README's table: success at the end of every planner in the four duels."""
    columns = [(task, mode) for task in DUEL_HORIZONS for mode in ("open", "closed")]
    heads = [f"{task}, {'one blind plan' if mode == 'open' else 'closed loop'}" for task, mode in columns]
    lines = [f"| planner | {' | '.join(heads)} |", "|---" * (len(columns) + 1) + "|"]
    found = [cells(study, task, DUEL_HORIZONS[task], mode) for task, mode in columns]
    for name in PLANNERS:
        if any(name in column for column in found):
            lines.append(f"| {name} | {' | '.join(rate(c[name]['end']) if name in c else '' for c in found)} |")
    names = dict.fromkeys(key.split("/")[1] for key, cell in peers.items() if "success" in cell)
    for name in names:
        row = [peers.get(f"{task}/{name}/equal-time/{mode}", {}).get("success") for task, mode in columns]
        lines.append(f"| *{name}* | {' | '.join(rate(outcomes) if outcomes else '' for outcomes in row)} |")
    return lines


def horizon_table(study: dict[str, Cell], task: str, mode: str) -> list[str]:
    """Returns a table of success at the end against the horizon."""
    columns = {length: cells(study, task, length, mode) for length in HORIZONS}
    names = [name for name in PLANNERS if any(name in column for column in columns.values())]
    if not names:
        return []
    lines = [
        f"### {task}, {'one blind plan' if mode == 'open' else 'closed loop'}",
        "",
        "| planner | " + " | ".join(f"H={length}" for length in HORIZONS) + " |",
        "|---" * (len(HORIZONS) + 1) + "|",
    ]
    for name in names:
        row = [horizon_cell(columns[length].get(name)) for length in HORIZONS]
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    return [*lines, ""]


def horizon_cell(cell: Cell | None) -> str:
    """Returns success at the end / at some step, and the median time to success [s]."""
    if cell is None:
        return ""
    times = [seconds for seconds, end in zip(cell["seconds"], cell["end"], strict=True) if end]
    wait = f", {np.median(times):.2f} s" if times else ""
    return f"{np.mean(cell['end']):.2f} / {np.mean(cell['any']):.2f}{wait}"


COMMAND = "python -m benchmarks.report"
MODES = {"open": "one blind plan", "closed": "closed loop"}
PLANNER_PAGES = {  # the planners that each page of `docs/planners` shows
    "grasp": ("GRASP", "GRASP, no roadmap", "GRASP, published"),
    "gradient_shooting": ("shooting", "GRASP"),
    "ilqr": ("iLQR", "GRASP"),
    "cem": ("CEM, coloured", "CEM, white", "GRASP"),
    "icem": ("iCEM", "iCEM, wide", "iCEM, roadmap", "GRASP"),
    "mppi": ("MPPI, coloured", "GRASP"),
    "collocation": ("LatCo", "GRASP"),
}


def page(results: dict[str, Any], peers: dict[str, Any]) -> str:
    """Returns the page of results."""
    duel, study, short, patience = (results.get(name, {}) for name in ("duel", "horizon", "short", "patience"))
    lines = [*INTRODUCTION, "", "## At equal time, against every rival", ""]
    for mode in ("open", "closed"):
        for task in DUEL_HORIZONS:
            lines += duel_table(duel, peers, task, mode)
    if patience:
        count = len(next(iter(patience.values()))["end"])
        lines += ["## With more time", "", f"One blind plan out of the trap, {count} episodes.", ""]
        lines += [*patience_table(patience), ""]
    if short:
        lines += ["## Short greedy tasks", "", *short_table(short), ""]
    if study:
        lines += ["## Success against the horizon", "", *HORIZON_NOTE]
        for mode in complete(study):
            for task in TASKS:
                lines += horizon_table(study, task, mode)
    return pages.page("Planners on the same models", COMMAND, "\n".join(lines))


def duel_page(results: dict[str, Any], peers: dict[str, Any]) -> str:
    """Returns the summary: success at the end of every planner in the four duels."""
    return pages.page(
        "Planners where the path leads away from the goal first",
        COMMAND,
        "Success at the end, in brackets Wilson's 95 % interval; 200 paired episodes. Other libraries (in "
        "italics) run in their "
        "own code on the same frozen model, starts and goals. A plan may take 0.1 s (trap) or 0.25 s (maze) on "
        "one core of a "
        "busy machine, which a first iteration may exceed. In that time the planners of this package finish one "
        "iteration or "
        "none, those of other libraries two to six, and the roadmap's routes need none.",
        "\n".join(summary(results.get("duel", {}), peers)),
    )


def planner_rows(results: dict[str, Any], names: tuple[str, ...]) -> str:
    """Returns a planner's own table, for its page in the documentation."""
    lines = [f"| task | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for task in DUEL_HORIZONS:
        for mode in MODES:
            found = cells(results["duel"], task, DUEL_HORIZONS[task], mode)
            row = [rate(found[name]["end"]) if name in found else "-" for name in names]
            lines.append(f"| {task}, {MODES[mode]} | {' | '.join(row)} |")
    for task in dict.fromkeys(key.split(" | ")[0] for key in results["short"]):
        found = {key.split(" | ")[1]: cell for key, cell in results["short"].items() if key.startswith(f"{task} | ")}
        row = [short_cell(found.get(name)) for name in names]
        lines.append(f"| {task}, one blind plan | {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def short_cell(cell: Cell | None) -> str:
    """Returns success at the end and the median time of a plan."""
    return f"{rate(cell['end'])}, {1000 * float(np.median(cell['seconds'])):.0f} ms" if cell else "-"


def main() -> None:
    """Writes what has been measured."""
    results, peers = load("benchmark"), load("peers")
    pages.publish("planners", page(results, peers))
    pages.publish("duel", duel_page(results, peers))
    for name, rows in PLANNER_PAGES.items():
        pages.write(ROOT / "docs" / "_generated" / f"{name}.md", planner_rows(results, rows))
    if results.get("horizon"):
        draw(results["horizon"], ROOT / "docs" / "figures" / "horizon.png")


def short_table(study: dict[str, Cell]) -> list[str]:
    """Returns a table of planning times in tasks that any planner should solve."""
    lines = ["| task | planner | success at the end | accepted | ms per plan, median |", "|---|---|---|---|---|"]
    for key, cell in study.items():
        task, name, *_ = key.split(" | ")
        milliseconds = 1000 * float(np.median(cell["seconds"]))
        accepted = float(np.mean(cell["accepted"]))
        lines.append(f"| {task} | {name} | {rate(cell['end'])} | {accepted:.2f} | {milliseconds:.0f} |")
    return lines


INTRODUCTION = [
    "Written by `python -m benchmarks.report` from what `python -m benchmarks.planners` measured.",
    "All planners have the same frozen models, starts, goals and bounds, the same scoring (members, support, hold),",
    "the same incumbent, coloured noise where they take it, the same feedback at execution, and the same limit on the",
    "time of a plan; *peers* (in italics, `python -m benchmarks.peers.run`) run in their own code. Success is real:",
    "the environment's own, in brackets Wilson's 95 % interval.",
]
HORIZON_NOTE = [
    "At most 0.2 s a plan; success at the end / at some step, and the median time of planning until success.",
    "10 episodes a cell: a success of 1.00 has a lower limit of 0.72. The closed loop is shown once all its horizons",
    "are measured.",
    "",
]


if __name__ == "__main__":
    tyro.cli(main)
