"""Random numbers for planners: the same for all problems of a batch, white or smooth in time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from grasp_agent.validation import at_least, whole


class NoiseSource:
    """A seeded source of standard normal numbers that do not depend on the batch.

    The numbers are drawn for the candidates of ONE problem and shared by all problems of a batch, so the plan of a
    problem depends neither on its index in the batch nor on the other problems.

    Args:
        seed: seed of the stream.
        device: device of the numbers.
        dtype: their floating point type.
    """

    def __init__(self, seed: int, device: torch.device, dtype: torch.dtype) -> None:
        self._generator = torch.Generator(device=device).manual_seed(seed)
        self._like = {"device": device, "dtype": dtype}

    def normal(self, *shape: int) -> Tensor:
        """Returns independent standard normal numbers of the given shape."""
        return torch.empty(shape, **self._like).normal_(generator=self._generator)

    def seed(self) -> int:
        """Returns a seed for another stream."""
        return int(torch.randint(2**31, (), generator=self._generator, device=self._generator.device))


@dataclass(frozen=True, kw_only=True)
class Coloured:
    """Normal noise along the horizon with power spectrum 1 / f ** beta and variance 1 at every step.

    Attributes:
        beta: 0 is white noise (the published algorithm); 2 to 4 is smooth in time (Pinneri et al. 2020,
            arXiv 2008.06389, use such noise for the action sequences of iCEM).
        steps: actions of the environment that make up one of the plan, one after the other; the noise goes on along
            them. `size` has to be a multiple of it.
    """

    beta: float = 3.0
    steps: int = 1

    def __post_init__(self) -> None:
        at_least(0, beta=self.beta)
        whole(1, steps=self.steps)

    def sample(self, source: NoiseSource, candidates: int, horizon: int, size: int) -> Tensor:
        """Returns noise `[N, H, size]`."""
        if self.steps > 1:
            if size % self.steps:
                raise ValueError(f"steps: expected a divisor of the action's {size} entries, got {self.steps}")
            single = replace(self, steps=1).sample(source, candidates, horizon * self.steps, size // self.steps)
            return single.reshape(candidates, horizon, size)
        if self.beta == 0 or horizon < 3:
            return source.normal(candidates, horizon, size)
        white = source.normal(horizon, candidates * size)
        smooth = _colour(self.beta, horizon, white.device, white.dtype) @ white
        return smooth.view(horizon, candidates, size).transpose(0, 1)


@lru_cache(maxsize=32)
def _colour(beta: float, horizon: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Returns `[H, H]`, the root of the covariance of coloured noise; its product with white noise is coloured.

    It is the covariance of H out of 2 H steps of a periodic process: the ends of a whole period would be correlated.
    """
    length = 2 * horizon
    power = torch.fft.rfftfreq(length, dtype=torch.float64).clamp_min(1 / length) ** -beta
    covariance = torch.fft.irfft(power, n=length)
    lag = torch.arange(horizon)
    matrix = (covariance / covariance[0])[(lag[:, None] - lag).abs()]
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt() @ vectors.T).to(device, dtype)
