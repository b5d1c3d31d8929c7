"""How encoders learn: in order that one step is predictable.

Together with a provisional predictor, some steps ahead in the latent, and a provisional painter, which both are thrown
away. What keeps latents from collapsing, and from following the agent alone: batch normalisation, the variance and
covariance terms of VICReg (Bardes, Ponce and LeCun 2022, arXiv 2105.04906), that the action between two latents must be
readable from them (Pathak et al. 2017, arXiv 1705.05363), that the picture can be painted from the places (Jakab et al.
2018, arXiv 1806.07823), and that pictures of one episode are more alike than those of several (van den Oord, Li and
Vinyals 2018, arXiv 1807.03748), or else what stays where it is would be seen badly. What makes places exact: each map
has to settle, to be strong in one place, which moves from picture to picture; what is nearly even has a centre, too,
but one that depends on how bright a thing is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from grasp_agent.models.encoder.axes import Axes
from grasp_agent.models.encoder.decoder import Painter
from grasp_agent.models.encoder.encoder import EncoderConfig, PixelEncoder
from grasp_agent.models.encoder.losses import Pairs, alike, hinge, rank_and_spread, scattered
from grasp_agent.models.encoder.rigid_body import Body, find_body, search_steps
from grasp_agent.validation import whole

_SAMPLES, _WINDOWS = 4000, 20_000  # looked at for axes, and for a body
_EPISODES = 200  # that samples for axes come from, about: many samples of each tell what stays within it
_PUSH = 4  # steps after which one sees what actions have moved
_SEARCH, _FOCUSING = 0.2, 0.4  # shares of the training: before maps have to settle, and until that counts in full
_WORLD, _PAIRED = 4, 4  # numbers by which episodes are told apart, and windows that a batch needs for that
_STILLS = 500  # pictures, about, that tell what all have in common


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
    """Squared error of pictures painted from latents, as a share of their variance."""


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


def fit_encoder(
    encoder: PixelEncoder,
    pictures: NDArray[np.uint8],
    rows: NDArray[np.int64],
    actions: NDArray[np.float32],
    *,
    episodes: NDArray[np.int64] | None = None,
    speeds: bool = False,
    steps: int | None = None,
    seed: int = 0,
    on_step: Callable[[], object] | None = None,
) -> EncoderReport:
    """Trains an encoder in place, and leaves it in evaluation mode.

    Args:
        encoder: what is trained.
        pictures: `[M, height, width, channels]`, uint8; may be a memory map: only what a batch needs is read. Of more
            channels than the encoder takes, the last ones count.
        rows: `[W, T + 1]`, windows of consecutive pictures, T steps long.
        actions: `[W, T, A]`, in [-1, 1], taken between them.
        episodes: `[W]`, the episode that each window belongs to, where that is known.
        speeds: whether things move by themselves: then the first picture and action of a window only tell how fast.
        steps: gradient steps; None for as many as its config says.
        seed: of the batches and the predictor's weights.
        on_step: called after each gradient step, `training_steps` times.

    Raises:
        ValueError: if there is no window, windows are shorter than the steps to look ahead, episodes are not as many,
            there is no gradient step, or a body is sought that is not pushed right and down, or not found.
    """
    config, device = encoder.config, encoder.device
    steps = config.gradient_steps if steps is None else steps
    whole(1, steps=steps)
    if config.body and actions.shape[2] != 2:
        raise ValueError(f"body: expected actions of 2 entries, which push right and down, got {actions.shape[2]}")
    now = int(speeds)  # the place in a window from which one looks ahead
    last = now + config.ahead[-1]
    if not len(rows) or rows.shape[1] <= last:
        raise ValueError(f"windows: expected at least one of {last} steps, got {list(rows.shape)}")
    if episodes is not None and len(episodes) != len(rows):
        raise ValueError(f"episodes: expected one for each of {len(rows)} windows, got {len(episodes)}")
    looks = [*range(now + 1), *(now + far for far in config.ahead)]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        predictor = _Provisional(2 * config.points, actions.shape[2], speeds).to(device)
        painter = Painter(config.points, (*encoder.cells, encoder.shape[2]), encoder.cells).to(device)
        world = nn.Linear(2 * config.points, _WORLD, bias=False).to(device)  # what episodes are told apart by
    parameters = [p for module in (encoder.layers, predictor, painter, world) for p in module.parameters()]
    optimiser = torch.optim.AdamW(parameters, config.lr, weight_decay=1e-4)
    total = max(40, steps + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, total_steps=total, pct_start=0.1)
    sample = _newest(encoder, pictures, np.unique(rows[:: max(1, len(rows) // _STILLS), 0]))
    encoder.painter.mean.copy_((sample.movedim(-1, 1).float() / 255).mean(0))
    encoder.ease(sample)
    brightness = encoder.sketched(sample).square().mean().clamp_min(1e-6)
    pairs = _paired(config, episodes)
    tail: list[tuple[float, ...]] = []
    encoder.train()
    for step in range(steps):
        batch = torch.randint(len(rows), (config.batch_size,), generator=generator).numpy()
        if pairs is not None:
            batch = pairs.batch(batch, generator)
        seen = _newest(encoder, pictures, rows[batch][:, looks])
        maps = encoder.maps(seen)
        points = encoder.placed(maps)
        latents, taken = encoder.normalised(points), torch.from_numpy(actions[batch, now:last]).to(device)
        past, latents = latents[:, : now + 1], latents[:, now:]
        paintable = (painter(points[:, now]) - encoder.sketched(seen[:, now])).square().mean() / brightness
        ahead = predictor.ahead(past, taken)[:, [far - 1 for far in config.ahead]]
        prediction = (ahead - latents[:, 1:]).square().mean()
        read = predictor.action(torch.cat([*past.unbind(1), latents[:, 1]], -1))
        loss = prediction + config.inverse * (read - taken[:, 0]).square().mean()
        loss = loss + config.variance * hinge(latents) + config.covariance * alike(latents)
        loss = loss + config.picture * paintable
        if pairs is not None:
            loss = loss + config.contrast * pairs.confused(world(latents[:, 0]), batch)
        focus = config.focus * min(1, max(0, step / steps - _SEARCH) / _FOCUSING)
        if focus:
            loss = loss + focus * scattered(encoder, maps, points).log1p().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step >= 9 * steps // 10:
            still = (latents[:, :1] - latents[:, 1:]).square().mean()
            tail.append((prediction.item(), still.item(), *rank_and_spread(latents.detach())))
        if on_step is not None:
            on_step()
    encoder.eval()
    encoder.fold()
    for parameter in encoder.parameters():
        parameter.grad = None
    if isinstance(encoder.readout, Axes):
        some = _sampled(np.zeros(len(rows), np.int64) if episodes is None else episodes)
        seen, pushes = _pushed(encoder, pictures, rows[some], actions[some], now, looks[: now + 1])
        origins = None if episodes is None else torch.from_numpy(episodes[some]).to(device).repeat(2)
        before, after = seen[:, now], seen[:, -1]
        changes = torch.cat([after - before, before - seen[:, 0]], 1)
        encoder.readout.turn(torch.cat([before, after]), config.share, origins, changes, pushes)
    else:
        _find_body(encoder, encoder.readout, pictures, rows[:, now:], actions[:, now:], steps, seed, on_step)
    shown = _learn_to_paint(encoder, pictures, rows[:, 0], max(1, steps // 2), generator, on_step)
    prediction, still, rank, spread = torch.tensor(tail).mean(0).tolist()
    return EncoderReport(prediction, still, rank, spread, shown)


def training_steps(config: EncoderConfig, steps: int) -> int:
    """Gradient steps of all that `fit_encoder` learns: to see, to find a body where one is sought, and to paint."""
    return steps + max(1, steps // 2) + (search_steps(steps) if config.body else 0)


def _paired(config: EncoderConfig, episodes: NDArray[np.int64] | None) -> Pairs | None:
    """Batches in which episodes can be told apart, where that is wanted and there are some."""
    if episodes is None or not config.contrast or config.batch_size < _PAIRED:
        return None
    pairs = Pairs(episodes)
    return pairs if pairs.several else None


def _find_body(
    encoder: PixelEncoder,
    body: Body,
    pictures: NDArray[np.uint8],
    rows: NDArray[np.int64],
    actions: NDArray[np.float32],
    steps: int,
    seed: int,
    on_step: Callable[[], object] | None,
) -> None:
    """Looks at many windows and finds the body in them."""
    some = np.arange(0, len(rows), max(1, len(rows) // _WINDOWS))
    seen, pushes = _pushed(encoder, pictures, rows[some], actions[some], 0, [0, 1])

    def coarse(chosen: Tensor) -> Tensor:
        return encoder.sketched(_newest(encoder, pictures, rows[some[chosen.numpy()], 0]))

    find_body(body, seen, pushes, coarse, encoder.cells, steps=steps, seed=seed, on_step=on_step)


def _sampled(episodes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Some windows of those that belong to episodes `[W]`, evenly, from whole episodes."""
    known = np.unique(episodes)
    kept = np.flatnonzero(np.isin(episodes, known[:: max(1, len(known) // _EPISODES)]))
    return kept[:: max(1, len(kept) // _SAMPLES)]


def _pushed(
    encoder: PixelEncoder,
    pictures: NDArray[np.uint8],
    rows: NDArray[np.int64],
    actions: NDArray[np.float32],
    now: int,
    looks: list[int],
) -> tuple[Tensor, Tensor]:
    """Normalised places `[M, T', 2 K]` at some moments of windows and some steps on, and sums of actions until then."""
    far = min(now + _PUSH, rows.shape[1] - 1)
    index, place = np.unique(rows[:, [*looks, far]], return_inverse=True)
    places = torch.from_numpy(place.reshape(len(rows), -1)).to(encoder.device)
    seen = _looked(encoder, pictures, index)[places]
    return seen, torch.from_numpy(actions[:, now:far].sum(1)).to(seen)


@torch.no_grad()
def _looked(encoder: PixelEncoder, pictures: NDArray[np.uint8], index: NDArray[np.int64]) -> Tensor:
    """Normalised places `[M, 2 K]` in pictures."""
    pieces = [_newest(encoder, pictures, piece) for piece in np.array_split(index, -(-len(index) // 256))]
    return torch.cat([encoder.normalised(encoder.points(piece)) for piece in pieces])


def _learn_to_paint(
    encoder: PixelEncoder,
    pictures: NDArray[np.uint8],
    rows: NDArray[np.int64],
    steps: int,
    generator: torch.Generator,
    on_step: Callable[[], object] | None,
) -> float:
    """Teaches the painter, for display, what latents look like; returns the error, as a share of the variance."""
    painter, config = encoder.painter, encoder.config
    optimiser = torch.optim.Adam(painter.parameters(), 2 * config.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2 * config.lr, total_steps=max(40, steps + 1))
    tail: list[float] = []
    for step in range(steps):
        batch = torch.randint(len(rows), (config.batch_size,), generator=generator).numpy()
        seen = _newest(encoder, pictures, rows[batch])
        with torch.no_grad():
            entries = encoder.readout.spotted(encoder(seen))
        wanted = seen.movedim(-1, 1).float() / 255 - painter.mean
        loss = (painter(entries) - wanted).square().mean() / wanted.square().mean().clamp_min(1e-6)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step >= 9 * steps // 10:
            tail.append(loss.item())
        if on_step is not None:
            on_step()
    for parameter in painter.parameters():
        parameter.grad = None
    return float(np.mean(tail))


def _newest(encoder: PixelEncoder, pictures: NDArray[np.uint8], rows: NDArray[Any]) -> Tensor:
    """Some pictures, `[*rows, height, width, channels]`, without those that are stacked before them."""
    chosen = np.ascontiguousarray(pictures[rows][..., -encoder.shape[2] :])
    return torch.from_numpy(chosen).to(encoder.device)
