"""The training loss of encoders: one step should be predictable, and latents must not collapse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from grasp_agent.models.encoder.decoder import Decoder
from grasp_agent.models.encoder.encoder import EncoderConfig, PixelEncoder
from grasp_agent.models.encoder.losses import (
    EpisodePairs,
    covariance_penalty,
    rank_and_spread,
    relative_spread,
    variance_hinge,
)
from grasp_agent.models.encoder.windows import ImageWindows

_CONTRAST_SIZE = 4  # entries of the projection in which episodes are contrasted; chosen by hand
_LEAST_BATCH = 4  # windows of a batch with pairs: two pairs
_MEAN_SAMPLES = 500  # images, about, from which the mean image is computed; chosen by hand

Diagnostics = tuple[float, float, float, float]
"""Errors of the predictor and of a constant prediction, effective rank, least standard deviation."""


class _Provisional(nn.Module):
    """A predictor of the next latent and an inverse model of the action, used in training only.

    Velocities are the difference to the step before.
    """

    def __init__(self, latent: int, actions: int, velocities: bool, width: int = 128) -> None:
        super().__init__()
        known = (1 + velocities) * latent
        self.change = nn.Sequential(
            nn.Linear(known + actions, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, latent)
        )
        self.action = nn.Sequential(nn.Linear(known + latent, width), nn.SiLU(), nn.Linear(width, actions))

    def ahead(self, past: Tensor, actions: Tensor) -> Tensor:
        """Predicts latents `[B, T, D]` after the last 1 or 2, `[B, P, D]`, under actions `[B, T, A]`."""
        latents = list(past.unbind(1))
        for action in actions.unbind(1):
            velocity = [latents[-1] - latents[-2]] if past.shape[1] > 1 else []
            change = self.change(torch.cat([latents[-1], *velocity, action], -1))
            latents.append(sum(velocity, latents[-1] + change))
        return torch.stack(latents[past.shape[1] :], 1)


class EncoderObjective:
    """The loss of batches, with provisional networks that are used in training only.

    Args:
        encoder: the encoder to train; it is prepared for training.
        windows: at least one window.
        velocities: whether states have velocities: then the first image and action of a window only determine these.
        steps: gradient steps.
        seed: seed of the provisional networks.
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
        self._now = int(velocities)  # the step in a window from which the predictor starts
        self._moments = [*range(self._now + 1), *(self._now + steps_ahead for steps_ahead in config.ahead)]
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(seed)
            count = windows.actions.shape[2]
            self._predictor = _Provisional(2 * config.points, count, velocities).to(device)
            self._decoder = Decoder(config.points, (*encoder.cells, encoder.shape[2]), encoder.cells).to(device)
            self._episode_head = nn.Linear(2 * config.points, _CONTRAST_SIZE, bias=False).to(device)
        sample = windows.frames(np.unique(windows.rows[:: max(1, len(windows) // _MEAN_SAMPLES), 0]))
        encoder.decoder.mean.copy_((sample.movedim(-1, 1).float() / 255).mean(0))
        encoder.precondition(sample)
        self._brightness = encoder.downsampled(sample).square().mean().clamp_min(1e-6)
        self._pairs = _episode_pairs(config, windows.episodes)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters that are trained."""
        modules = (self._encoder.layers, self._predictor, self._decoder, self._episode_head)
        return [parameter for module in modules for parameter in module.parameters()]

    def __call__(self, step: int) -> tuple[Tensor, Callable[[], Diagnostics]]:
        """Returns the loss of a random batch, and a function that returns its diagnostics."""
        encoder, config, now = self._encoder, self._encoder.config, self._now
        batch = torch.randint(len(self._windows), (config.batch_size,), generator=self._generator).numpy()
        if self._pairs is not None:
            batch = self._pairs.batch(batch, self._generator)
        frames = self._windows.frames(self._windows.rows[batch][:, self._moments])
        maps = encoder.maps(frames)
        points = encoder.centres_of_mass(maps)
        latents = encoder.normalised(points)
        taken = torch.from_numpy(self._windows.actions[batch, now : now + config.ahead[-1]]).to(encoder.device)
        past, latents = latents[:, : now + 1], latents[:, now:]
        error = (self._decoder(points[:, now]) - encoder.downsampled(frames[:, now])).square().mean() / self._brightness
        ahead = self._predictor.ahead(past, taken)[:, [steps_ahead - 1 for steps_ahead in config.ahead]]
        prediction = (ahead - latents[:, 1:]).square().mean()
        read = self._predictor.action(torch.cat([*past.unbind(1), latents[:, 1]], -1))
        loss = prediction + config.inverse * (read - taken[:, 0]).square().mean()
        loss = loss + config.variance * variance_hinge(latents) + config.covariance * covariance_penalty(latents)
        loss = loss + config.reconstruction * error
        if self._pairs is not None:
            loss = loss + config.contrast * self._pairs.contrastive_loss(self._episode_head(latents[:, 0]), batch)
        focus = config.focus * min(1, max(0, step / self._steps - config.focus_start) / config.focus_rise)
        if focus:
            loss = loss + focus * relative_spread(encoder, maps, points).log1p().mean()

        def diagnostics() -> Diagnostics:
            still = (latents[:, :1] - latents[:, 1:]).square().mean()
            return prediction.item(), still.item(), *rank_and_spread(latents.detach())

        return loss, diagnostics


def _episode_pairs(config: EncoderConfig, episodes: NDArray[np.int64] | None) -> EpisodePairs | None:
    """Returns what draws contrastive batches; None without such a loss, or without several episodes."""
    if episodes is None or not config.contrast or config.batch_size < _LEAST_BATCH:
        return None
    pairs = EpisodePairs(episodes)
    return pairs if pairs.has_several_episodes else None
