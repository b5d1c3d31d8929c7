"""How encoders learn: in order that one step is predictable.

Together with a provisional predictor, some steps ahead in the latent, and a provisional painter, which both are thrown
away. What keeps latents from collapsing, and from following the agent alone: batch normalisation, the variance and
covariance terms of VICReg (Bardes, Ponce and LeCun 2022, arXiv 2105.04906), that the action between two latents must be
readable from them (Pathak et al. 2017, arXiv 1705.05363), that the image can be painted from the places (Jakab et al.
2018, arXiv 1806.07823), and that images of one episode are more alike than those of several (van den Oord, Li and
Vinyals 2018, arXiv 1807.03748), or else what stays where it is would be seen badly. What makes places exact: each map
has to settle, to be strong in one place, which moves from image to image; what is nearly even has a centre, too,
but one that depends on how bright a thing is drawn.
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

_SAMPLES, _WINDOWS = 4000, 20_000  # looked at for axes, and for a body
_EPISODES = 200  # that samples for axes come from, about: many samples of each tell what stays within it

OnStep = Callable[[], object]


class EncoderReport(NamedTuple):
    """What came of a training."""

    prediction: float
    """Mean squared error of the provisional predictor, over the steps ahead, at the end [normalised places]."""
    still: float
    """The same of a predictor that says that nothing moves."""
    rank: float
    """Effective rank of normalised places, 1 to 2 K: the exponential of the entropy of their covariance's spectrum."""
    spread: float
    """Least standard deviation of a normalised place's entries; 0 where one has collapsed."""
    picture: float
    """Squared error of images painted from latents, as a share of their variance."""


def fit_encoder(
    encoder: PixelEncoder,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    actions: NDArray[np.float32],
    *,
    episodes: NDArray[np.int64] | None = None,
    speeds: bool = False,
    steps: int | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> EncoderReport:
    """Trains an encoder in place, and leaves it in evaluation mode.

    Args:
        encoder: what is trained.
        images: see `ImageWindows`.
        rows: `[W, T + 1]`, windows of consecutive images, T steps long.
        actions: `[W, T, A]`, in [-1, 1], taken between them.
        episodes: `[W]`, the episode that each window belongs to, where that is known.
        speeds: see `EncoderObjective`.
        steps: gradient steps; None for as many as its config says.
        seed: of the batches and the predictor's weights.
        on_step: called after each gradient step, `training_steps` times.

    Raises:
        ValueError: if there is no window, windows are shorter than the steps to look ahead, episodes are not as many,
            there is no gradient step, or a body is sought that is not pushed right and down, or not found.
    """
    config = encoder.config
    steps = config.gradient_steps if steps is None else steps
    whole(1, steps=steps)
    if config.body and actions.shape[2] != 2:
        raise ValueError(f"body: expected actions of 2 entries, which push right and down, got {actions.shape[2]}")
    last = int(speeds) + config.ahead[-1]
    if not len(rows) or rows.shape[1] <= last:
        raise ValueError(f"windows: expected at least one of {last} steps, got {list(rows.shape)}")
    windows = ImageWindows(images, rows, actions, episodes, encoder.shape[2], encoder.device)
    generator = torch.Generator().manual_seed(seed)
    objective = EncoderObjective(encoder, windows, velocities=speeds, steps=steps, seed=seed, generator=generator)
    optimiser = torch.optim.AdamW(objective.parameters, config.lr, weight_decay=1e-4)
    encoder.train()
    tail = minimise(objective, optimiser, config.lr, steps, rise=0.1, on_step=on_step)
    encoder.eval()
    encoder.fold()
    if isinstance(encoder.readout, Axes):
        _turn_axes(encoder, encoder.readout, windows, int(speeds))
    else:
        _find_body(encoder, encoder.readout, windows, int(speeds), steps, seed, on_step)
    shown = _fit_decoder(encoder, windows, max(1, steps // 2), generator, on_step)
    prediction, still, rank, spread = torch.tensor(tail).mean(0).tolist()
    return EncoderReport(prediction, still, rank, spread, shown)


def training_steps(config: EncoderConfig, steps: int) -> int:
    """Gradient steps of all that `fit_encoder` learns: to see, to find a body where one is sought, and to paint."""
    return steps + max(1, steps // 2) + (search_steps(steps) if config.body else 0)


def _turn_axes(encoder: PixelEncoder, axes: Axes, windows: ImageWindows, now: int) -> None:
    """Chooses the axes of latents by some windows."""
    episodes = windows.episodes
    some = windows.some(_sampled(np.zeros(len(windows), np.int64) if episodes is None else episodes))
    seen, pushes = _pushed(encoder, some, now, [*range(now + 1)])
    origins = None if some.episodes is None else torch.from_numpy(some.episodes).to(encoder.device).repeat(2)
    before, after = seen[:, now], seen[:, -1]
    changes = torch.cat([after - before, before - seen[:, 0]], 1)
    axes.turn(torch.cat([before, after]), encoder.config.share, origins, changes, pushes)


def _find_body(
    encoder: PixelEncoder,
    body: RigidBody,
    windows: ImageWindows,
    now: int,
    steps: int,
    seed: int,
    on_step: OnStep | None,
) -> None:
    """Finds a rigid body in many windows."""
    some = windows.some(slice(None, None, max(1, len(windows) // _WINDOWS)), now)
    seen, pushes = _pushed(encoder, some, 0, [0, 1])

    def coarse(chosen: Tensor) -> Tensor:
        return encoder.sketched(some.frames(some.rows[chosen.numpy(), 0]))

    find_body(body, seen, pushes, coarse, encoder.cells, steps=steps, seed=seed, on_step=on_step)


def _sampled(episodes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Some windows of those that belong to episodes `[W]`, evenly, from whole episodes."""
    known = np.unique(episodes)
    kept = np.flatnonzero(np.isin(episodes, known[:: max(1, len(known) // _EPISODES)]))
    return kept[:: max(1, len(kept) // _SAMPLES)]


@torch.no_grad()
def _pushed(encoder: PixelEncoder, windows: ImageWindows, now: int, moments: list[int]) -> tuple[Tensor, Tensor]:
    """Normalised places `[W, T', 2 K]` at some moments of windows and some steps on, and sums of actions until then."""
    index, place, pushes = windows.pushed(now, moments)
    batches = [windows.frames(batch) for batch in np.array_split(index, -(-len(index) // 256))]
    places = torch.cat([encoder.normalised(encoder.points(batch)) for batch in batches])
    seen = places[torch.from_numpy(place).to(encoder.device)]
    return seen, torch.from_numpy(pushes).to(seen)


def _fit_decoder(
    encoder: PixelEncoder, windows: ImageWindows, steps: int, generator: torch.Generator, on_step: OnStep | None
) -> float:
    """Teaches the decoder, for display, what latents look like; returns the error, as a fraction of the variance."""
    painter, config, rows = encoder.painter, encoder.config, windows.rows[:, 0]

    def loss(_: int) -> tuple[Tensor, Callable[[], float]]:
        batch = torch.randint(len(rows), (config.batch_size,), generator=generator).numpy()
        seen = windows.frames(rows[batch])
        with torch.no_grad():
            entries = encoder.readout.spotted(encoder(seen))
        wanted = seen.movedim(-1, 1).float() / 255 - painter.mean
        missed = (painter(entries) - wanted).square().mean() / wanted.square().mean().clamp_min(1e-6)
        return missed, missed.item

    optimiser = torch.optim.Adam(painter.parameters(), 2 * config.lr)
    return float(np.mean(minimise(loss, optimiser, 2 * config.lr, steps, rise=0.3, on_step=on_step)))
