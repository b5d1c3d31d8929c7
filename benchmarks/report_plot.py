"""The plot of the planner benchmark: success against the horizon."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot

from benchmarks.planners import HORIZONS
from benchmarks.report_cells import Cell, cells, complete
from benchmarks.trials import TASKS

COLOURS = ("#3b6fb6", "#6fa8dc", "#8a6fc0", "#c06f9f", "#d9803f", "#e0a96d", "#b5651d", "#f0c27b", "#7a8a99", "#a3b1bd")


SHOWN = (
    "GRASP",
    "GRASP, no roadmap",
    "GRASP, ILQR sync, no roadmap",
    "GRASP, published",
    "iCEM",
    "iCEM, wide",
    "CEM, coloured",
    "MPPI, coloured",
    "shooting",
    "LatCo",
)


def draw(study: dict[str, Cell], path: Path) -> None:
    """Plots success at the end against the horizon, with a panel for each task and each completely measured mode."""
    matplotlib.use("agg")
    modes = complete(study)
    size = (2.6 * len(TASKS), 1 + 2 * len(modes))
    figure, axes = pyplot.subplots(
        len(modes), len(TASKS), figsize=size, dpi=110, layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    for row, mode in enumerate(modes):
        for column, task in enumerate(TASKS):
            panel = axes[row][column]
            for name, colour in zip(SHOWN, COLOURS, strict=False):
                points = [(h, cells(study, task, h, mode).get(name)) for h in HORIZONS]
                known = [(h, np.mean(cell["end"])) for h, cell in points if cell is not None]
                if known:
                    panel.plot(*zip(*known, strict=True), "o-", ms=3, color=colour, label=name)
            panel.set_title(f"{task}, {mode} loop", fontsize=9)
            panel.set(xticks=HORIZONS, ylim=(-0.03, 1.03))
            panel.tick_params(labelsize=7)
            panel.grid(alpha=0.25)
            panel.spines[["top", "right"]].set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("horizon [steps]", fontsize=9)
    figure.supylabel("success at the end", fontsize=9)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=5, frameon=False, fontsize=8)
    figure.savefig(path)
    pyplot.close(figure)
