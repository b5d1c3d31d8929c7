"""Random images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def images(count: int, shape: tuple[int, ...] = (24, 32, 3), seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)
