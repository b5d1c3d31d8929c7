"""The loss that encoders are trained with: one step should be predictable, and latents must not collapse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from grasp_agent.models.encoder.decoder import Decoder
from grasp_agent.models.encoder.encoder import EncoderConfig, PixelEncoder
from grasp_agent.models.encoder.losses import Pairs, alike, hinge, rank_and_spread, scattered
from grasp_agent.models.encoder.windows import ImageWindows

_SEARCH, _FOCUSING = 0.2, 0.4  # fractions of the training: before maps have to settle, and until that counts in full
_WORLD, _PAIRED = 4, 4  # numbers by which episodes are told apart, and windows that a batch needs for that
_STILLS = 500  # images, about, that tell what all have in common

Figures = tuple[float, float, float, float]
"""Errors of the predictor and of one that says that nothing moves, effective rank, least spread."""


class _Provisional(nn.Module):
    """Predicts the next latent, and reads the action between two; what moves by itself is told by the step before."""

    def __init__(self, latent: int, actions: int, speeds: bool, width: int = 128) -> None:
        super().__init__()
        known = (1 + speeds) * latent
        self.change = nn.Sequential(
            nn.Linear(known + actions, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, latent)
        )
        self.action = nn.Sequential(nn.Linear(known + latent, width), nn.SiLU(), nn.Linear(width, actions))

    def ahead(self, past: Tensor, actions: Tensor) -> Tensor:
        """The latents `[B, T, D]` that follow the last 1 or 2, `[B, P, D]`, under actions `[B, T, A]`."""
        latents = list(past.unbind(1))
        for action in actions.unbind(1):
            speed = [latents[-1] - latents[-2]] if past.shape[1] > 1 else []
            change = self.change(torch.cat([latents[-1], *speed, action], -1))
            latents.append(sum(speed, latents[-1] + change))
        return torch.stack(latents[past.shape[1] :], 1)


class EncoderObjective:
    """Losses of batches, of an encoder and provisional networks that are thrown away.

    Args:
        encoder: what is trained; it is prepared for training.
        windows: at least one.
        velocities: whether things move by themselves: then the first image and action of a window only tell how fast.
        steps: gradient steps.
        seed: of the provisional networks.
        generator: draws the batches.
    """

    def __init__(
        self,
        encoder: PixelEncoder,
        windows: ImageWindows,
        *,
        velocities: bool,
        steps: int,
        seed: int,
        generator: torch.Generator,
    ) -> None:
        self._encoder, self._windows, self._steps, self._generator = encoder, windows, steps, generator
        config, device = encoder.config, encoder.device
        self._now = int(velocities)  # the place in a window from which one looks ahead
        self._moments = [*range(self._now + 1), *(self._now + far for far in config.ahead)]
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(seed)
            count = windows.actions.shape[2]
            self._predictor = _Provisional(2 * config.points, count, velocities).to(device)
            self._painter = Decoder(config.points, (*encoder.cells, encoder.shape[2]), encoder.cells).to(device)
            self._world = nn.Linear(2 * config.points, _WORLD, bias=False).to(device)  # tells episodes apart
        sample = windows.frames(np.unique(windows.rows[:: max(1, len(windows) // _STILLS), 0]))
        encoder.painter.mean.copy_((sample.movedim(-1, 1).float() / 255).mean(0))
        encoder.ease(sample)
        self._brightness = encoder.sketched(sample).square().mean().clamp_min(1e-6)
        self._pairs = _paired(config, windows.episodes)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that is trained."""
        modules = (self._encoder.layers, self._predictor, self._painter, self._world)
        return [parameter for module in modules for parameter in module.parameters()]

    def __call__(self, step: int) -> tuple[Tensor, Callable[[], Figures]]:
        """Returns the loss of a random batch, and a function that tells of it."""
        encoder, config, now = self._encoder, self._encoder.config, self._now
        batch = torch.randint(len(self._windows), (config.batch_size,), generator=self._generator).numpy()
        if self._pairs is not None:
            batch = self._pairs.batch(batch, self._generator)
        seen = self._windows.frames(self._windows.rows[batch][:, self._moments])
        maps = encoder.maps(seen)
        points = encoder.placed(maps)
        latents = encoder.normalised(points)
        taken = torch.from_numpy(self._windows.actions[batch, now : now + config.ahead[-1]]).to(encoder.device)
        past, latents = latents[:, : now + 1], latents[:, now:]
        error = (self._painter(points[:, now]) - encoder.sketched(seen[:, now])).square().mean() / self._brightness
        ahead = self._predictor.ahead(past, taken)[:, [far - 1 for far in config.ahead]]
        prediction = (ahead - latents[:, 1:]).square().mean()
        read = self._predictor.action(torch.cat([*past.unbind(1), latents[:, 1]], -1))
        loss = prediction + config.inverse * (read - taken[:, 0]).square().mean()
        loss = loss + config.variance * hinge(latents) + config.covariance * alike(latents)
        loss = loss + config.picture * error
        if self._pairs is not None:
            loss = loss + config.contrast * self._pairs.confused(self._world(latents[:, 0]), batch)
        focus = config.focus * min(1, max(0, step / self._steps - _SEARCH) / _FOCUSING)
        if focus:
            loss = loss + focus * scattered(encoder, maps, points).log1p().mean()

        def figures() -> Figures:
            still = (latents[:, :1] - latents[:, 1:]).square().mean()
            return prediction.item(), still.item(), *rank_and_spread(latents.detach())

        return loss, figures


def _paired(config: EncoderConfig, episodes: NDArray[np.int64] | None) -> Pairs | None:
    """Batches in which episodes can be told apart, where that is wanted and there are some."""
    if episodes is None or not config.contrast or config.batch_size < _PAIRED:
        return None
    pairs = Pairs(episodes)
    return pairs if pairs.several else None
