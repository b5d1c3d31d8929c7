"""Recorded pieces of trajectories, from which plans are retrieved."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class ReplayWindows(NamedTuple):
    """M pieces of T steps each."""

    states: Tensor
    """`[M, T + 1, S]`."""
    actions: Tensor
    """`[M, T, A]`."""
