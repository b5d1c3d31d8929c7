"""From images to latents: maps of features become their centres of mass, and these are turned onto axes.

Spatial softmax: Levine et al. 2016, arXiv 1504.00702; Finn et al. 2016, arXiv 1509.06113. How it is trained:
`models/encoder/fitting.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from grasp_agent.models.encoder.axes import Axes
from grasp_agent.models.encoder.decoder import Decoder
from grasp_agent.models.encoder.rigid_body import RigidBody
from grasp_agent.validation import at_least, more_than, whole

_SMALLEST = 16  # height and width of an image [pixels]
_MAP = 32  # height and width of a map of features, about [cells]
_SHARPNESS = 3.0  # of the softmax, once it is trained
_FAINT = 0.02  # variance of a colour that is as likely to mean nothing as something, as a share of the strongest one's


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of a `PixelEncoder`, and how it is trained.

    Attributes:
        points: K, maps of features, each of which becomes the place where it is strongest.
        body: whether what is seen from above is an agent and one rigid body: then latents are where both are, and how
            the body is turned (see `RigidBody`). Actions have two entries, which push the agent right and down.
        channels: of the two convolutions before these maps.
        sharpness: of the softmax, to begin with: how soon a map settles on one thing.
        whiten: whether it learns on colours that vary alike, so that what is small and bright counts beside what is
            large and dark.
        share: axes along which latents vary less than this share of the most are left out, once it is trained.
        ahead: steps ahead at which predictions are compared; the last is the length of the windows.
        gradient_steps: how many.
        batch_size: windows in each, in pairs of the same episode where episodes are told apart.
        lr: highest learning rate.
        variance: weight of the hinge that wants each entry to vary.
        covariance: weight of the term that wants entries to differ.
        inverse: weight of the action that must be readable.
        picture: weight of the image that must be paintable.
        focus: weight of the term that wants each map to be strong in one place, which moves from image to image;
            none to begin with, as long as maps look for what they could settle on.
        contrast: weight of the term that wants episodes to be told apart, where there are several: without it, what
            nothing moves, such as a door, may be seen badly. What it is worth over seeds: docs/encoders.md.
        frames: how many images an observation shows, one behind the other on the axis of colours; None: as many as
            goals say, or else three colours make an image where channels are a multiple of three, and one elsewhere.

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
    focus: float = 0.2
    contrast: float = 0.3
    frames: int | None = None

    def __post_init__(self) -> None:
        whole(1, points=self.points, gradient_steps=self.gradient_steps)
        whole(2, batch_size=self.batch_size)  # what keeps latents from collapsing compares images
        if self.frames is not None:
            whole(1, frames=self.frames)
        for name in ("channels", "ahead"):
            if not isinstance(getattr(self, name), tuple | list):
                raise ValueError(f"{name}: expected several whole numbers, got {getattr(self, name)!r}")
            whole(1, **{f"{name}[{place}]": count for place, count in enumerate(getattr(self, name))})
        if len(self.channels) != 2:
            raise ValueError(f"channels: expected two numbers, got {self.channels}")
        if not self.ahead or self.ahead[0] != 1 or sorted(set(self.ahead)) != list(self.ahead):
            raise ValueError(f"ahead: expected growing numbers of steps from 1, got {self.ahead}")
        more_than(0, lr=self.lr, sharpness=self.sharpness)
        names = ("variance", "covariance", "inverse", "picture", "focus", "contrast")
        at_least(0, **{name: getattr(self, name) for name in names})
        if not 0 <= self.share < 1:
            raise ValueError(f"share: expected a share in [0, 1), got {self.share}")


class PixelEncoder(nn.Module):
    """Convolutions, the centre of mass of each map, normalised over the batch, on principal axes.

    Args:
        shape: `(height, width, channels)` of an image, at least 16 pixels high and wide.
        config: its shape.
        latent: D, entries of a latent; None for 2 K, as long as nothing is learned.
        seed: of its weights.

    Raises:
        ValueError: if images are smaller, or a body is sought in images that are not square.
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
            raise ValueError(f"images: expected at least {_SMALLEST} x {_SMALLEST} pixels, got {shape[0]} x {shape[1]}")
        self.shape, self.config = shape, config or EncoderConfig()
        if self.config.body and shape[0] != shape[1]:
            raise ValueError(f"body: expected square images, in which it turns, got {shape[0]} x {shape[1]} pixels")
        first, second = self.config.channels
        stride = max(2, round(min(shape[:2]) / _MAP))
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(seed)
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
            self.readout = RigidBody(size) if self.config.body else Axes(size, latent)
            self.painter = Decoder(self.readout.spots, shape, self.cells, spread=1.0 if self.config.body else 0.5)
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

    def points(self, images: Tensor) -> Tensor:
        """Where the maps are strongest, `[..., K, 2]` (x right, y down, in [-1, 1]), in images `[..., H, W, C]`."""
        return self.placed(self.maps(images))

    def placed(self, maps: Tensor) -> Tensor:
        """Centres of mass `[..., K, 2]` of maps `[..., K, cells]`."""
        return maps @ self._places

    def scatter(self, maps: Tensor, points: Tensor) -> Tensor:
        """Mean squares `[..., K]` of how far maps `[..., K, cells]` are spread around their points `[..., K, 2]`."""
        return maps @ self._places.square().sum(-1) - points.square().sum(-1)

    def maps(self, images: Tensor) -> Tensor:
        """How strong each map is in each cell, `[..., K, cells]`, in shares, of images `[..., H, W, C]`."""
        flat = images.reshape(-1, *images.shape[-3:]).to(self._places.dtype) / 255 - 0.5
        flat = (flat @ self._colours).movedim(-1, 1)
        with torch.autocast(flat.device.type, torch.bfloat16, enabled=self.training and flat.is_cuda):
            strong = self.layers(flat)
        strong = (self._sharpness * strong.float().flatten(2)).softmax(-1)
        return strong.reshape(*images.shape[:-3], *strong.shape[1:])

    @torch.no_grad()
    def ease(self, images: Tensor) -> None:
        """Makes learning easier until `fold`: on whitened colours of these `[n, height, width, channels]`, sharply."""
        self._sharpness = self.config.sharpness
        if self.config.whiten:
            apart = images.float() / 255
            apart = (apart - apart.mean(0)).flatten(0, -2)
            variances, axes = torch.linalg.eigh(apart.mT @ apart / len(apart))
            shares = (variances / variances[-1].clamp_min(1e-12)).clamp_min(1e-9)
            meant = shares.square() / (shares.square() + _FAINT**2)  # what is faint is how things are drawn
            self._colours = axes * (1 + meant * (shares.rsqrt() - 1)) @ axes.mT

    @torch.no_grad()
    def fold(self) -> None:
        """Takes what made learning easier into the weights: it sees as before, by itself."""
        first, last = self.layers[0], self.layers[-1]
        assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d) and last.bias is not None
        first.weight.copy_(torch.einsum("fdhw,cd->fchw", first.weight, self._colours))
        for parameter in (last.weight, last.bias):
            parameter.mul_(self._sharpness / _SHARPNESS)
        self._colours, self._sharpness = torch.eye(len(self._colours), device=self.device), _SHARPNESS

    def sketched(self, images: Tensor) -> Tensor:
        """Images `[n, height, width, channels]` without what all have in common, `[n, channels, *cells]`."""
        apart = images.movedim(-1, 1).float() / 255 - self.painter.mean
        coarse = nn.functional.adaptive_avg_pool2d(apart, self.cells)
        return torch.einsum("nchw,cd->ndhw", coarse, self._colours)

    def normalised(self, points: Tensor) -> Tensor:
        """Entries of places `[..., K, 2]`, each normalised over the batch, `[..., 2 K]`: what is trained."""
        entries = points.flatten(-2)
        return self.norm(entries.reshape(-1, entries.shape[-1])).reshape(entries.shape)

    def forward(self, images: Tensor) -> Tensor:
        """Latents `[..., D]` of images `[..., height, width, channels]`, uint8."""
        return self.readout(self.normalised(self.points(images)))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """What latents `[..., D]` look like, `[..., height, width, channels]`, uint8: for display, nothing else."""
        painted = self.painter(self.readout.spotted(latents.reshape(-1, self.latent))) + self.painter.mean
        images = (255 * painted.clamp(0, 1)).round().to(torch.uint8).movedim(1, -1)
        return images.reshape(*latents.shape[:-1], *self.shape)
