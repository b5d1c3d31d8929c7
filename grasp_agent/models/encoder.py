"""From pictures to latents in which one step is predictable.

What is seen is where things are: maps of features become their centres of mass (spatial softmax; Levine et al. 2016,
arXiv 1504.00702; Finn et al. 2016, arXiv 1509.06113), turned onto their principal axes. Learned together with a
provisional predictor, some steps ahead in the latent, and a provisional painter, which both are thrown away. What keeps
latents from collapsing, and from following the agent alone: batch normalisation, the variance and covariance terms of
VICReg (Bardes, Ponce and LeCun 2022, arXiv 2105.04906), that the action between two latents must be readable from them
(Pathak et al. 2017, arXiv 1705.05363), and that the picture can be painted from the places (Jakab et al. 2018, arXiv
1806.07823).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from grasp_agent.models.axes import Axes
from grasp_agent.models.body import Body, find_body
from grasp_agent.models.painter import Painter
from grasp_agent.planners.checks import at_least, more_than, whole

_SMALLEST = 16  # height and width of a picture [pixels]
_MAP = 32  # height and width of a map of features, about [cells]
_SHARPNESS = 3.0  # of the softmax, once it is trained
_FAINT = 0.01  # variance of a colour below which it stays faint, as a share of the strongest one's
_SAMPLES, _WINDOWS = 4000, 20_000  # looked at for axes, and for a body
_EPISODES = 200  # that samples for axes come from, about: many samples of each tell what stays within it
_PUSH = 4  # steps after which one sees what actions have moved


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of a `PixelEncoder`, and how it is trained.

    Attributes:
        points: K, maps of features, each of which becomes the place where it is strongest.
        body: whether what is seen from above is an agent and one rigid body: then latents are where both are, and how
            the body is turned (see `Body`). Actions have two entries, which push the agent right and down.
        channels: of the two convolutions before them.
        sharpness: of the softmax, to begin with: how soon a map settles on one thing.
        whiten: whether it learns on colours that vary alike, so that what is small and bright counts beside what is
            large and dark.
        share: axes along which latents vary less than this share of the most are left out, once it is trained.
        ahead: steps ahead at which predictions are compared; the last is the length of the windows.
        gradient_steps: how many.
        batch_size: windows in each.
        lr: highest learning rate.
        variance: weight of the hinge that wants each entry to vary.
        covariance: weight of the term that wants entries to differ.
        inverse: weight of the action that must be readable.
        picture: weight of the picture that must be paintable.

    Raises:
        ValueError: if a number is out of range.
    """

    points: int = 8
    body: bool = False
    channels: tuple[int, int] = (8, 16)
    sharpness: float = 6.0
    whiten: bool = True
    share: float = 0.08
    ahead: tuple[int, ...] = (1, 2, 4, 8)
    gradient_steps: int = 700
    batch_size: int = 48
    lr: float = 4e-3
    variance: float = 1.0
    covariance: float = 0.01
    inverse: float = 1.0
    picture: float = 1.0

    def __post_init__(self) -> None:
        whole(1, points=self.points, gradient_steps=self.gradient_steps)
        whole(2, batch_size=self.batch_size)  # what keeps latents from collapsing compares pictures
        for name in ("channels", "ahead"):
            whole(1, **{f"{name}[{place}]": count for place, count in enumerate(getattr(self, name))})
        if len(self.channels) != 2:
            raise ValueError(f"channels: expected two numbers, got {self.channels}")
        if not self.ahead or self.ahead[0] != 1 or sorted(set(self.ahead)) != list(self.ahead):
            raise ValueError(f"ahead: expected growing numbers of steps from 1, got {self.ahead}")
        more_than(0, lr=self.lr, sharpness=self.sharpness)
        names = ("variance", "covariance", "inverse", "picture")
        at_least(0, **{name: getattr(self, name) for name in names})
        if not 0 <= self.share < 1:
            raise ValueError(f"share: expected a share in [0, 1), got {self.share}")


class PixelEncoder(nn.Module):
    """Convolutions, the centre of mass of each map, normalised over the batch, on principal axes.

    Args:
        shape: `(height, width, channels)` of a picture, at least 16 pixels high and wide.
        config: its shape.
        latent: D, entries of a latent; None for 2 K, as long as nothing is learned.
        seed: of its weights.

    Raises:
        ValueError: if pictures are smaller.
    """

    _places: Tensor
    _colours: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        config: EncoderConfig | None = None,
        latent: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(shape[:2]) < _SMALLEST:
            raise ValueError(
                f"pictures: expected at least {_SMALLEST} x {_SMALLEST} pixels, got {shape[0]} x {shape[1]}"
            )
        self.shape, self.config = shape, config or EncoderConfig()
        first, second = self.config.channels
        stride = max(2, round(min(shape[:2]) / _MAP))
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Conv2d(shape[2], first, 2 * stride, stride, stride // 2),
                nn.ReLU(),
                nn.Conv2d(first, second, 3, 1, 1),
                nn.ReLU(),
                nn.Conv2d(second, self.config.points, 3, 1, 1),
            )
            with torch.no_grad():
                height, width = self.layers(torch.zeros(1, shape[2], *shape[:2])).shape[2:]
            self.cells, size = (height, width), 2 * self.config.points
            self.readout = Body(size) if self.config.body else Axes(size, latent)
            self.painter = Painter(self.readout.spots, shape, self.cells, spread=1.0 if self.config.body else 0.5)
        rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
        places = torch.stack([columns.repeat(height), rows.repeat_interleave(width)], -1)
        self.register_buffer("_places", places, persistent=False)
        self.register_buffer("_colours", torch.eye(shape[2]), persistent=False)
        self._sharpness = _SHARPNESS
        self.norm = nn.BatchNorm1d(size, affine=False)

    @classmethod
    def restore(cls, shape: tuple[int, int, int], config: EncoderConfig, weights: Mapping[str, Tensor]) -> PixelEncoder:
        """The encoder whose `state_dict` this is; raises where it is none."""
        encoder = cls(shape, config, latent=None if config.body else weights["readout.axes"].shape[1])
        encoder.load_state_dict(weights)
        return encoder

    @property
    def latent(self) -> int:
        """D, entries of a latent."""
        return self.readout.size

    @property
    def device(self) -> torch.device:
        """Where it lives."""
        return self._places.device

    def points(self, pictures: Tensor) -> Tensor:
        """Where the maps are strongest, `[..., K, 2]` (x right, y down, in [-1, 1]), in pictures `[..., H, W, C]`."""
        flat = pictures.reshape(-1, *pictures.shape[-3:]).to(self._places.dtype) / 255 - 0.5
        flat = (flat @ self._colours).movedim(-1, 1)
        weights = (self._sharpness * self.layers(flat).flatten(2)).softmax(-1)
        return (weights @ self._places).reshape(*pictures.shape[:-3], -1, 2)

    @torch.no_grad()
    def ease(self, pictures: Tensor) -> None:
        """Makes learning easier until `fold`: on whitened colours of these `[n, height, width, channels]`, sharply."""
        self._sharpness = self.config.sharpness
        if self.config.whiten:
            apart = pictures.float() / 255
            apart = (apart - apart.mean(0)).flatten(0, -2)
            variances, axes = torch.linalg.eigh(apart.mT @ apart / len(apart))
            strongest = variances[-1].clamp_min(1e-12)
            self._colours = axes * (strongest / (variances.clamp_min(0) + _FAINT * strongest)).sqrt() @ axes.mT

    @torch.no_grad()
    def fold(self) -> None:
        """Takes what made learning easier into the weights: it sees as before, by itself."""
        first, last = self.layers[0], self.layers[-1]
        assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d) and last.bias is not None
        first.weight.copy_(torch.einsum("fdhw,cd->fchw", first.weight, self._colours))
        for parameter in (last.weight, last.bias):
            parameter.mul_(self._sharpness / _SHARPNESS)
        self._colours, self._sharpness = torch.eye(len(self._colours), device=self.device), _SHARPNESS

    def sketched(self, pictures: Tensor) -> Tensor:
        """Pictures `[n, height, width, channels]` without what all have in common, `[n, channels, *cells]`."""
        apart = pictures.movedim(-1, 1).float() / 255 - self.painter.mean
        coarse = nn.functional.adaptive_avg_pool2d(apart, self.cells)
        return torch.einsum("nchw,cd->ndhw", coarse, self._colours)

    def normalised(self, points: Tensor) -> Tensor:
        """Entries of places `[..., K, 2]`, each normalised over the batch, `[..., 2 K]`: what is trained."""
        entries = points.flatten(-2)
        return self.norm(entries.reshape(-1, entries.shape[-1])).reshape(entries.shape)

    def forward(self, pictures: Tensor) -> Tensor:
        """Latents `[..., D]` of pictures `[..., height, width, channels]`, uint8."""
        return self.readout(self.normalised(self.points(pictures)))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """What latents `[..., D]` look like, `[..., height, width, channels]`, uint8: for display, nothing else."""
        painted = self.painter(self.readout.spotted(latents.reshape(-1, self.latent))) + self.painter.mean
        pictures = (255 * painted.clamp(0, 1)).round().to(torch.uint8).movedim(1, -1)
        return pictures.reshape(*latents.shape[:-1], *self.shape)


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
        on_step: called after each gradient step.

    Raises:
        ValueError: if there is no window, windows are shorter than the steps to look ahead, there is no gradient step,
            or a body is sought that is not pushed right and down.
    """
    config, device = encoder.config, encoder.device
    steps = config.gradient_steps if steps is None else steps
    whole(1, steps=steps)
    if config.body and actions.shape[2] != 2:
        raise ValueError(f"body: expected actions of 2 entries, which push right and down, got {actions.shape[2]}")
    offsets, now = [0, *config.ahead], int(speeds)
    if not len(rows) or rows.shape[1] <= now + offsets[-1]:
        raise ValueError(f"windows: expected at least one of {now + offsets[-1]} steps, got {list(rows.shape)}")
    before, rows, actions = rows[:, :now], rows[:, now:], actions[:, now:]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        predictor = _Provisional(2 * config.points, actions.shape[2], speeds).to(device)
        painter = Painter(config.points, (*encoder.cells, encoder.shape[2]), encoder.cells).to(device)
    parameters = [p for module in (encoder.layers, predictor, painter) for p in module.parameters()]
    optimiser = torch.optim.AdamW(parameters, config.lr, weight_decay=1e-4)
    total = max(40, steps + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, total_steps=total, pct_start=0.1)
    sample = _newest(encoder, pictures, np.unique(rows[:: max(1, len(rows) // 500), 0]))
    encoder.painter.mean.copy_((sample.movedim(-1, 1).float() / 255).mean(0))
    encoder.ease(sample)
    contrast = encoder.sketched(sample).square().mean().clamp_min(1e-6)
    half = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    tail: list[tuple[float, ...]] = []
    encoder.train()
    for step in range(steps):
        batch = torch.randint(len(rows), (config.batch_size,), generator=generator).numpy()
        seen = _newest(encoder, pictures, np.concatenate([before[batch], rows[batch][:, offsets]], 1))
        with half:
            points = encoder.points(seen)
        latents, taken = encoder.normalised(points.float()), torch.from_numpy(actions[batch]).to(device)
        past, latents = latents[:, : now + 1], latents[:, now:]
        paintable = (painter(points[:, now].float()) - encoder.sketched(seen[:, now])).square().mean() / contrast
        ahead = predictor.ahead(past, taken[:, : offsets[-1]])[:, [place - 1 for place in config.ahead]]
        prediction = (ahead - latents[:, 1:]).square().mean()
        read = predictor.action(torch.cat([*past.unbind(1), latents[:, 1]], -1))
        loss = prediction + config.inverse * (read - taken[:, 0]).square().mean()
        loss = loss + config.variance * _hinge(latents) + config.covariance * _alike(latents)
        loss = loss + config.picture * paintable
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step >= 9 * steps // 10:
            still = (latents[:, :1] - latents[:, 1:]).square().mean()
            tail.append((prediction.item(), still.item(), *_shape(latents.detach())))
        if on_step is not None:
            on_step()
    encoder.eval()
    encoder.fold()
    for parameter in encoder.parameters():
        parameter.grad = None
    if isinstance(encoder.readout, Axes):
        some = _sampled(np.zeros(len(rows), np.int64) if episodes is None else episodes)
        seen, pushes = _pushed(encoder, pictures, rows[some], actions[some], offsets=(0,))
        origins = None if episodes is None else torch.from_numpy(episodes[some]).to(device).repeat(2)
        before, after = seen.unbind(1)
        encoder.readout.turn(torch.cat([before, after]), config.share, origins, after - before, pushes)
    else:
        _find_body(encoder, encoder.readout, pictures, rows, actions, steps, seed)
    shown = _learn_to_paint(encoder, pictures, rows[:, 0], max(1, steps // 2), generator)
    prediction, still, rank, spread = torch.tensor(tail).mean(0).tolist()
    return EncoderReport(prediction, still, rank, spread, shown)


def _find_body(
    encoder: PixelEncoder,
    body: Body,
    pictures: NDArray[np.uint8],
    rows: NDArray[np.int64],
    actions: NDArray[np.float32],
    steps: int,
    seed: int,
) -> None:
    """Looks at many windows and finds the body in them."""
    some = np.arange(0, len(rows), max(1, len(rows) // _WINDOWS))
    seen, pushes = _pushed(encoder, pictures, rows[some], actions[some], offsets=(0, 1))

    def coarse(chosen: Tensor) -> Tensor:
        return encoder.sketched(_newest(encoder, pictures, rows[some[chosen.numpy()], 0]))

    find_body(body, seen, pushes, coarse, encoder.cells, steps=steps, seed=seed)


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
    offsets: tuple[int, ...],
) -> tuple[Tensor, Tensor]:
    """Normalised places `[M, T', 2 K]` at some moments of windows and some steps on, and sums of actions until then."""
    far = min(_PUSH, rows.shape[1] - 1)
    index, place = np.unique(rows[:, [*offsets, far]], return_inverse=True)
    places = torch.from_numpy(place.reshape(len(rows), -1)).to(encoder.device)
    seen = _looked(encoder, pictures, index)[places]
    return seen, torch.from_numpy(actions[:, :far].sum(1)).to(seen)


@torch.no_grad()
def _looked(encoder: PixelEncoder, pictures: NDArray[np.uint8], index: NDArray[np.int64]) -> Tensor:
    """Normalised places `[M, 2 K]` in pictures."""
    pieces = [_newest(encoder, pictures, piece) for piece in np.array_split(index, -(-len(index) // 256))]
    return torch.cat([encoder.normalised(encoder.points(piece)) for piece in pieces])


def _learn_to_paint(
    encoder: PixelEncoder, pictures: NDArray[np.uint8], rows: NDArray[np.int64], steps: int, generator: torch.Generator
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
    for parameter in painter.parameters():
        parameter.grad = None
    return float(np.mean(tail))


def _newest(encoder: PixelEncoder, pictures: NDArray[np.uint8], rows: NDArray[Any]) -> Tensor:
    """Some pictures, `[*rows, height, width, channels]`, without those that are stacked before them."""
    chosen = np.ascontiguousarray(pictures[rows][..., -encoder.shape[2] :])
    return torch.from_numpy(chosen).to(encoder.device)


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
    spectrum = torch.linalg.eigvalsh(covariance).clamp_min(0)
    share = spectrum / spectrum.sum().clamp_min(1e-12)
    return float((-torch.xlogy(share, share).sum()).exp()), float(covariance.diag().clamp_min(0).sqrt().min())
