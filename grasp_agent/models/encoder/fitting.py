"""Training of encoders: latents should be predictable one step ahead.

An encoder is trained together with a predictor, some steps ahead in the latent, and a decoder; both are used in
training only. These terms keep latents from collapsing, and from encoding the agent alone:

- batch normalisation, and the variance and covariance terms of VICReg (Bardes, Ponce and LeCun 2022, arXiv 2105.04906);
- an inverse model: the action between two latents is predicted from them (Pathak et al. 2017, arXiv 1705.05363);
- the image is reconstructed from the keypoints (Jakab et al. 2018, arXiv 1806.07823);
- images of one episode are closer than those of several (van den Oord, Li and Vinyals 2018, arXiv 1807.03748):
  otherwise static factors would be encoded badly.

A further term makes keypoints exact: each map has to concentrate at one position, which moves from image to image. A
nearly even map has a centre of mass, too, but one that depends on the brightness of what it follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grasp_agent.models.encoder.axes import Axes
from grasp_agent.models.encoder.encoder import EncoderConfig, PixelEncoder
from grasp_agent.models.encoder.objective import EncoderObjective
from grasp_agent.models.encoder.rigid_body import RigidBody, find_body, search_steps
from grasp_agent.models.encoder.windows import ImageWindows
from grasp_agent.models.optimisation import minimise
from grasp_agent.validation import whole

_SAMPLES, _WINDOWS = 4000, 20_000  # windows, about, from which axes are fitted, and a body is found; chosen by hand
_EPISODES = 200  # episodes of the samples for axes, about: static factors need many samples of each; chosen by hand
_WEIGHT_DECAY = 1e-4  # of AdamW; chosen by hand

OnStep = Callable[[], object]


class EncoderReport(NamedTuple):
    """Results of a training."""

    prediction: float
    """Mean squared error of the predictor, over the steps ahead, at the end of training [normalised keypoints]."""
    still: float
    """The same error of a constant prediction."""
    rank: float
    """Effective rank of normalised keypoints, 1 to 2 K: exponential of the entropy of their covariance's spectrum."""
    spread: float
    """Least standard deviation of an entry of normalised keypoints; 0 if one has collapsed."""
    reconstruction: float
    """Squared error of images decoded from latents, as a fraction of their variance."""


def fit_encoder(
    encoder: PixelEncoder,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    actions: NDArray[np.float32],
    *,
    episodes: NDArray[np.int64] | None = None,
    velocities: bool = False,
    steps: int | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> EncoderReport:
    """Trains an encoder in place, and leaves it in evaluation mode.

    Args:
        encoder: the encoder to train.
        images: see `ImageWindows`.
        rows: `[W, T + 1]`, windows of consecutive images, T steps long.
        actions: `[W, T, A]`, in [-1, 1], taken between them.
        episodes: `[W]`, the episode of each window; None if unknown.
        velocities: whether states have velocities, see `EncoderObjective`.
        steps: gradient steps; None for those of its config.
        seed: seed of the batches and the predictor's weights.
        on_step: called after each gradient step, `training_steps` times.

    Raises:
        ValueError: if there is no window, windows are shorter than the prediction, the number of episodes differs,
            there is no gradient step, or with `config.body` actions have not two entries or no body is found.
    """
    config = encoder.config
    steps = config.gradient_steps if steps is None else steps
    whole(1, steps=steps)
    if config.body and actions.shape[2] != 2:
        raise ValueError(f"body: expected actions of 2 entries, which push right and down, got {actions.shape[2]}")
    last = int(velocities) + config.ahead[-1]
    if not len(rows) or rows.shape[1] <= last:
        raise ValueError(f"windows: expected at least one of {last} steps, got {list(rows.shape)}")
    windows = ImageWindows(images, rows, actions, episodes, encoder.shape[2], encoder.device)
    generator = torch.Generator().manual_seed(seed)
    objective = EncoderObjective(encoder, windows, velocities=velocities, steps=steps, seed=seed, generator=generator)
    optimiser = torch.optim.AdamW(objective.parameters, config.lr, weight_decay=_WEIGHT_DECAY)
    encoder.train()
    tail = minimise(objective, optimiser, config.lr, steps, warmup=0.1, on_step=on_step)
    encoder.eval()
    encoder.fold()
    if isinstance(encoder.readout, Axes):
        _fit_axes(encoder, encoder.readout, windows, int(velocities))
    else:
        _find_body(encoder, encoder.readout, windows, int(velocities), steps, seed, on_step)
    reconstruction_error = _fit_decoder(encoder, windows, max(1, steps // 2), generator, on_step)
    prediction, still, rank, spread = torch.tensor(tail).mean(0).tolist()
    return EncoderReport(prediction, still, rank, spread, reconstruction_error)


def training_steps(config: EncoderConfig, steps: int) -> int:
    """Returns all gradient steps of `fit_encoder`: of the encoder, of the decoder, and of the search for a body."""
    return steps + max(1, steps // 2) + (search_steps(steps) if config.body else 0)


def _fit_axes(encoder: PixelEncoder, axes: Axes, windows: ImageWindows, now: int) -> None:
    """Fits the axes of latents to a sample of windows."""
    episodes = windows.episodes
    chosen = windows.subset(_sample_windows(np.zeros(len(windows), np.int64) if episodes is None else episodes))
    features, actions = _action_effects(encoder, chosen, now, [*range(now + 1)])
    origins = None if chosen.episodes is None else torch.from_numpy(chosen.episodes).to(encoder.device).repeat(2)
    before, after = features[:, now], features[:, -1]
    changes = torch.cat([after - before, before - features[:, 0]], 1)
    axes.fit(torch.cat([before, after]), encoder.config.share, origins, changes, actions)


def _find_body(
    encoder: PixelEncoder,
    body: RigidBody,
    windows: ImageWindows,
    now: int,
    steps: int,
    seed: int,
    on_step: OnStep | None,
) -> None:
    """Finds a rigid body in a sample of windows."""
    sample = windows.subset(slice(None, None, max(1, len(windows) // _WINDOWS)), now)
    features, actions = _action_effects(encoder, sample, 0, [0, 1])

    def coarse(chosen: Tensor) -> Tensor:
        return encoder.downsampled(sample.frames(sample.rows[chosen.numpy(), 0]))

    find_body(body, features, actions, coarse, encoder.cells, steps=steps, seed=seed, on_step=on_step)


def _sample_windows(episodes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns an even sample of the windows of episodes `[W]`, from whole episodes."""
    known = np.unique(episodes)
    kept = np.flatnonzero(np.isin(episodes, known[:: max(1, len(known) // _EPISODES)]))
    return kept[:: max(1, len(kept) // _SAMPLES)]


@torch.no_grad()
def _action_effects(
    encoder: PixelEncoder, windows: ImageWindows, now: int, moments: list[int]
) -> tuple[Tensor, Tensor]:
    """Returns normalised keypoints `[W, T', 2 K]`, and the sums of actions that changed them (see `ImageWindows`)."""
    index, position, actions = windows.action_effects(now, moments)
    batches = [windows.frames(batch) for batch in np.array_split(index, -(-len(index) // 256))]
    keypoints = torch.cat([encoder.normalised(encoder.points(batch)) for batch in batches])
    features = keypoints[torch.from_numpy(position).to(encoder.device)]
    return features, torch.from_numpy(actions).to(features)


def _fit_decoder(
    encoder: PixelEncoder, windows: ImageWindows, steps: int, generator: torch.Generator, on_step: OnStep | None
) -> float:
    """Trains the decoder of latents, for display; returns the error as a fraction of the variance."""
    decoder, config, rows = encoder.decoder, encoder.config, windows.rows[:, 0]

    def loss(_: int) -> tuple[Tensor, Callable[[], float]]:
        batch = torch.randint(len(rows), (config.batch_size,), generator=generator).numpy()
        frames = windows.frames(rows[batch])
        with torch.no_grad():
            keypoints = encoder.readout.keypoints_of(encoder(frames))
        target = frames.movedim(-1, 1).float() / 255 - decoder.mean
        error = (decoder(keypoints) - target).square().mean() / target.square().mean().clamp_min(1e-6)
        return error, error.item

    optimiser = torch.optim.Adam(decoder.parameters(), 2 * config.lr)
    return float(np.mean(minimise(loss, optimiser, 2 * config.lr, steps, warmup=0.3, on_step=on_step)))
