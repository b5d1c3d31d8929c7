"""Computation in chunks of rows, which limits the memory of intermediate results."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_ENTRIES = 4_000_000  # of an intermediate result, 16 MB in single precision; chosen by hand


def chunked(function: Callable[..., Tensor], *rows: Tensor, width: int) -> Tensor:
    """Returns `function(*rows)` `[M, ...]` of tensors `[M, ...]`, some rows at a time.

    Args:
        function: treats each row by itself.
        *rows: tensors of M rows.
        width: entries of its largest intermediate result for each row.
    """
    size = max(1, _ENTRIES // max(1, width))
    if len(rows[0]) <= size:
        return function(*rows)
    return torch.cat([function(*part) for part in zip(*(values.split(size) for values in rows), strict=True)])
