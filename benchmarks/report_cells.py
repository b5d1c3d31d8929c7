"""Cells of the planner benchmark: what one planner did in one task, horizon and mode."""

from __future__ import annotations

from typing import Any

from benchmarks.planners import HORIZONS
from benchmarks.trials import PLANNERS

Cell = dict[str, list[Any]]


def cells(study: dict[str, Cell], task: str, horizon: int, mode: str) -> dict[str, Cell]:
    """Returns the planners' cells of one task, horizon and mode."""
    found = {}
    for key, cell in study.items():
        its_task, planner, length, its_mode, _ = key.split(" | ")
        if (its_task, int(length), its_mode) == (task, horizon, mode):
            found[planner] = cell
    return {name: found[name] for name in PLANNERS if name in found}


def complete(study: dict[str, Cell]) -> list[str]:
    """Returns the modes that were measured at all horizons."""
    return [mode for mode in ("open", "closed") if all(cells(study, "barrier", h, mode) for h in HORIZONS)]
