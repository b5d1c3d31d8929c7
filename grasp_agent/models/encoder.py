"""From pictures to latents in which one step is predictable.

Trained together with a provisional predictor, which is thrown away: some steps ahead in the latent, without a decoder.
What keeps latents from collapsing: batch normalisation, the variance and covariance terms of VICReg (Bardes, Ponce and
LeCun 2022, arXiv 2105.04906), and that the action between two latents must be readable from them (Pathak et al. 2017,
arXiv 1705.05363).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from grasp_agent.planners.checks import at_least, more_than, whole


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of a `PixelEncoder`, and how it is trained.

    Attributes:
        latent: D, entries of a latent.
        channels: of its three convolutions.
        steps_ahead: length of the windows that the provisional predictor follows.
        gradient_steps: how many.
        batch_size: windows in each.
        lr: highest learning rate.
        variance: weight of the hinge that wants each entry to vary.
        covariance: weight of the term that wants entries to differ.
        inverse: weight of the action that must be readable.

    Raises:
        ValueError: if a number is out of range.
    """

    latent: int = 32
    channels: tuple[int, int, int] = (32, 48, 64)
    steps_ahead: int = 8
    gradient_steps: int = 800
    batch_size: int = 48
    lr: float = 2e-3
    variance: float = 1.0
    covariance: float = 0.01
    inverse: float = 1.0

    def __post_init__(self) -> None:
        names = ("latent", "steps_ahead", "gradient_steps", "batch_size")
        whole(1, **{name: getattr(self, name) for name in names})
        whole(1, **{f"channels[{place}]": count for place, count in enumerate(self.channels)})
        more_than(0, lr=self.lr)
        at_least(0, variance=self.variance, covariance=self.covariance, inverse=self.inverse)


class PixelEncoder(nn.Module):
    """Three convolutions and a linear layer, normalised over the batch without parameters of its own.

    Args:
        shape: `(height, width, channels)` of a picture, at least 16 pixels high and wide.
        config: its shape.
        seed: of its weights.

    Raises:
        ValueError: if pictures are smaller.
    """

    def __init__(self, shape: tuple[int, int, int], config: EncoderConfig | None = None, seed: int = 0) -> None:
        super().__init__()
        if min(shape[:2]) < 16:
            raise ValueError(f"shape: expected pictures of at least 16 x 16 pixels, got {shape[0]} x {shape[1]}")
        self.shape, self.config = shape, config or EncoderConfig()
        first, second, third = self.config.channels
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Conv2d(shape[2], first, 4, 4),
                nn.SiLU(),
                nn.Conv2d(first, second, 3, 2, 1),
                nn.SiLU(),
                nn.Conv2d(second, third, 3, 2, 1),
                nn.SiLU(),
                nn.Flatten(),
            )
            with torch.no_grad():
                size = self.layers(torch.zeros(1, shape[2], *shape[:2])).shape[1]
            self.head = nn.Linear(size, self.config.latent)
        self.norm = nn.BatchNorm1d(self.config.latent, affine=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Latents `[..., D]` of pictures `[..., height, width, channels]`, uint8."""
        flat = pictures.flatten(0, -4).movedim(-1, 1).to(self.head.weight.dtype) / 255 - 0.5
        return self.norm(self.head(self.layers(flat))).unflatten(0, pictures.shape[:-3])


class EncoderReport(NamedTuple):
    """What came of a training."""

    prediction: float
    """Mean squared error of the provisional predictor, over the steps ahead, at the end [latent units]."""
    still: float
    """The same of a predictor that says that nothing moves."""
    rank: float
    """Effective rank of the latents, from 1 to D: the exponential of the entropy of their covariance's spectrum."""
    spread: float
    """Least standard deviation of a latent's entries; 0 where one has collapsed."""


class _Provisional(nn.Module):
    """Predicts the next latent, and reads the action between two."""

    def __init__(self, latent: int, actions: int, width: int = 128) -> None:
        super().__init__()
        self.change = nn.Sequential(
            nn.Linear(latent + actions, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, latent)
        )
        self.action = nn.Sequential(nn.Linear(2 * latent, width), nn.SiLU(), nn.Linear(width, actions))

    def ahead(self, latent: Tensor, actions: Tensor) -> Tensor:
        """The latents `[B, T, D]` that follow `[B, D]` under actions `[B, T, A]`."""
        found = []
        for action in actions.unbind(1):
            latent = latent + self.change(torch.cat([latent, action], -1))
            found.append(latent)
        return torch.stack(found, 1)


def fit_encoder(
    encoder: PixelEncoder,
    pictures: Tensor,
    actions: Tensor,
    windows: Tensor,
    *,
    seed: int = 0,
    on_step: Callable[[], object] | None = None,
) -> EncoderReport:
    """Trains an encoder in place, and leaves it in evaluation mode.

    Args:
        encoder: what is trained.
        pictures: `[M, height, width, channels]`, uint8, in the order in which they were seen.
        actions: `[M, A]`, in [-1, 1], taken at each of them.
        windows: `[W]`, where windows of `steps_ahead` steps may begin: none leads over an episode's end.
        seed: of the batches and the predictor's weights.
        on_step: called after each gradient step.

    Raises:
        ValueError: if there is no window.
    """
    config, device = encoder.config, encoder.head.weight.device
    if not len(windows):
        raise ValueError(f"windows: expected at least one of {config.steps_ahead} steps, got none")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        predictor = _Provisional(config.latent, actions.shape[1]).to(device)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *predictor.parameters()], config.lr, weight_decay=1e-4)
    total = max(40, config.gradient_steps + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, total_steps=total, pct_start=0.1)
    offsets, tail = torch.arange(config.steps_ahead + 1), []
    encoder.train()
    for step in range(config.gradient_steps):
        first = windows[torch.randint(len(windows), (config.batch_size,), generator=generator)]
        rows = first[:, None] + offsets
        latents = encoder(pictures[rows].to(device))
        taken = actions[rows[:, :-1]].to(device)
        ahead = predictor.ahead(latents[:, 0], taken)
        prediction = (ahead - latents[:, 1:]).square().mean()
        read = predictor.action(torch.cat([latents[:, :-1], latents[:, 1:]], -1))
        loss = prediction + config.inverse * (read - taken).square().mean()
        loss = loss + config.variance * _hinge(latents) + config.covariance * _alike(latents)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step >= 9 * config.gradient_steps // 10:
            still = (latents[:, :1] - latents[:, 1:]).square().mean()
            tail.append((prediction.item(), still.item(), *_shape(latents.detach())))
        if on_step is not None:
            on_step()
    encoder.eval()
    return EncoderReport(*torch.tensor(tail).mean(0).tolist())


def _covariance(latents: Tensor) -> Tensor:
    return latents.flatten(0, -2).mT.cov()


def _hinge(latents: Tensor) -> Tensor:
    """How far entries vary less than by 1, over the batch at each time: what moves in a window is too little."""
    return (1 - (latents.var(0) + 1e-4).sqrt()).relu().mean()


def _alike(latents: Tensor) -> Tensor:
    """Squared covariances of different entries, per entry."""
    covariance = _covariance(latents)
    return (covariance - covariance.diag().diag()).square().sum() / len(covariance)


def _shape(latents: Tensor) -> tuple[float, float]:
    """Effective rank and least spread."""
    covariance = _covariance(latents)
    spectrum = torch.linalg.eigvalsh(covariance).clamp_min(1e-12)
    share = spectrum / spectrum.sum()
    return float((-(share * share.log()).sum()).exp()), float(covariance.diag().clamp_min(0).sqrt().min())
