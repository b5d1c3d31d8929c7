"""Training of an encoder on an image replay buffer."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import torch
from tqdm import tqdm

from grasp_agent.models.encoder.encoder import EncoderConfig, PixelEncoder
from grasp_agent.models.encoder.fitting import EncoderReport, fit_encoder, training_steps
from grasp_agent.replay.image_buffer import ImageReplayBuffer

_COLLAPSED = 0.05  # least standard deviation of a keypoint entry, below which a warning is given; chosen by hand
_WARN_STEPS = 50  # gradient steps before a warning is given; chosen by hand


def learn_encoder(
    buffer: ImageReplayBuffer,
    shape: tuple[int, int, int],
    config: EncoderConfig,
    *,
    velocities: bool,
    seed: int,
    device: torch.device | str,
    progress_bar: bool = False,
) -> tuple[PixelEncoder, EncoderReport]:
    """Trains a fresh encoder; if episodes are short, it predicts fewer steps ahead.

    Args:
        buffer: at least one episode.
        shape: `(height, width, channels)` of one frame.
        config: shape of the encoder, and how it is trained.
        velocities: whether observations stack several frames, so that states have velocities.
        seed: seed of weights and batches.
        device: device of the encoder.
        progress_bar: show progress.

    Returns:
        The encoder, in evaluation mode, and a report on its training.

    Raises:
        ValueError: see `fit_encoder`.
    """
    lengths = [len(episode.actions) for episode in buffer.episodes]
    typical = float(np.median(lengths)) if lengths else 0.0  # at least half of the episodes are as long
    longest = max(1, typical - velocities)
    config = replace(config, ahead=tuple(steps for steps in config.ahead if steps <= longest))
    rows, actions, episodes = buffer.windows(velocities + config.ahead[-1])
    encoder = PixelEncoder(shape, config, seed=seed).to(device)
    steps = min(config.gradient_steps, max(1, config.max_passes * len(rows) // config.batch_size))
    with tqdm(total=training_steps(config, steps), desc="encoder", leave=False, disable=not progress_bar) as bar:
        report = fit_encoder(
            encoder,
            buffer.images,
            rows,
            actions,
            episodes=episodes,
            velocities=velocities,
            steps=steps,
            seed=seed,
            on_step=bar.update,
        )
    if steps >= _WARN_STEPS and not report.spread > _COLLAPSED:
        figures = f"rank {report.rank:.1f}, spread {report.spread:.2f}"
        warnings.warn(f"images: found nothing in them that moves ({figures}); do they show it?", stacklevel=2)
    return encoder, report
