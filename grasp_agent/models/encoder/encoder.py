"""The encoder from images to latents: keypoints are the centres of mass of feature maps; a readout makes them latents.

Spatial softmax: Levine et al. 2016, arXiv 1504.00702; Finn et al. 2016, arXiv 1509.06113. For its training see
`models/encoder/fitting.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from grasp_agent.models.encoder.axes import Axes
from grasp_agent.models.encoder.decoder import Decoder
from grasp_agent.models.encoder.rigid_body import RigidBody
from grasp_agent.validation import at_least, fraction, more_than, whole

_SMALLEST = 16  # least height and width of an image [pixels]
_MOST_NARROW = 16  # longer side of an image in a file, relative to the shorter one; chosen by hand
_MAP_SIZE = 32  # height and width of a feature map, about [cells]; chosen by hand
_SHARPNESS = 3.0  # inverse temperature of the softmax after training; the weights absorb the difference
_NOISE_VARIANCE = 0.02  # variance of a colour that whitening amplifies half, relative to the strongest; chosen by hand


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of a `PixelEncoder`, and how it is trained.

    Attributes:
        points: K, feature maps, each of which becomes one keypoint.
        body: True for images from above of an agent and one rigid body: then latents are the positions of both and the
            heading of the body (see `RigidBody`). Actions have two entries, which move the agent right and down.
        channels: channels of the two convolutions before the feature maps.
        sharpness: inverse temperature of the softmax at the start of training: how soon a map concentrates.
        whiten: True trains on whitened channels, so that small bright things count as much as large dark ones.
        share: axes with less than this fraction of the greatest variance of latents are left out after training.
        ahead: steps ahead at which predictions are compared; the last is the length of the windows.
        gradient_steps: optimiser steps of the training.
        max_passes: fewer gradient steps are taken where they would pass more than this often through the buffer.
        batch_size: windows in a batch, in pairs of the same episode with a contrastive loss.
        lr: peak learning rate.
        variance: weight of the variance hinge, which keeps each entry from collapsing.
        covariance: weight of the covariance term, which decorrelates entries.
        inverse: weight of the loss of the inverse model, which predicts the action between two latents.
        reconstruction: weight of the loss of the decoder, which predicts the image from the keypoints.
        focus: weight of the spread of each map relative to the motion of its keypoint.
        focus_start: fraction of the training before this weight rises from zero: maps first find what to follow.
        focus_rise: fraction of the training over which it rises to `focus`.
        contrast: weight of the contrastive loss between episodes, where there are several: without it, static factors
            such as a door may be encoded badly. For its effect over seeds see docs/results/encoders.md.
        frames: number of images that an observation stacks on its channel axis; None takes as many as goals imply,
            otherwise images of three channels if the channels are a multiple of three, of one channel if not.

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
    max_passes: int = 30
    batch_size: int = 48
    lr: float = 4e-3
    variance: float = 1.0
    covariance: float = 0.01
    inverse: float = 1.0
    reconstruction: float = 1.0
    focus: float = 0.2
    focus_start: float = 0.2
    focus_rise: float = 0.4
    contrast: float = 0.3
    frames: int | None = None

    def __post_init__(self) -> None:
        whole(1, points=self.points, gradient_steps=self.gradient_steps, max_passes=self.max_passes)
        whole(2, batch_size=self.batch_size)  # the variance term compares images
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
        more_than(0, lr=self.lr, sharpness=self.sharpness, focus_rise=self.focus_rise)
        fraction(focus_start=self.focus_start)
        names = ("variance", "covariance", "inverse", "reconstruction", "focus", "contrast")
        at_least(0, **{name: getattr(self, name) for name in names})
        if not 0 <= self.share < 1:
            raise ValueError(f"share: expected a fraction in [0, 1), got {self.share}")

    def check(self, shape: tuple[int, int, int]) -> None:
        """Refuses images that cannot be encoded.

        Args:
            shape: `(height, width, channels)` of an image.

        Raises:
            ValueError: if images are too small, or not square with `body`.
        """
        if min(shape[:2]) < _SMALLEST:
            raise ValueError(f"images: expected at least {_SMALLEST} x {_SMALLEST} pixels, got {shape[0]} x {shape[1]}")
        if self.body and shape[0] != shape[1]:
            raise ValueError(f"body: expected square images, in which it turns, got {shape[0]} x {shape[1]} pixels")


def _check_weights(shape: tuple[int, int, int], config: EncoderConfig, weights: Mapping[str, Tensor]) -> None:
    """Refuses weights that are fewer than an encoder has, before memory for it is allocated; and narrow images."""
    (first, second), side = config.channels, min(shape[:2])
    kernel = (2 * max(2, round(side / _MAP_SIZE))) ** 2
    least = shape[2] * first * kernel + 9 * first * second + 9 * second * config.points + math.prod(shape)
    if sum(tensor.numel() for tensor in weights.values()) < least:
        raise ValueError(f"encoder: expected at least {least} weights of {config}")
    if max(shape[:2]) > _MOST_NARROW * side:
        raise ValueError(f"images: expected at most {_MOST_NARROW} times as long as wide, got {shape[0]} x {shape[1]}")
    for name, tensor in weights.items():
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise ValueError(f"encoder.{name}: expected variances, got less than 0")


class PixelEncoder(nn.Module):
    """Convolutions, keypoints as the maps' centres of mass, batch normalisation, and a readout of latents.

    Args:
        shape: `(height, width, channels)` of an image, at least 16 pixels high and wide.
        config: shape of the network.
        latent: D, entries of a latent; None for 2 K, before anything is learned.
        seed: seed of the weights.

    Raises:
        ValueError: if images are smaller, or not square with `config.body`.
    """

    _positions: Tensor
    _whitening: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        config: EncoderConfig | None = None,
        latent: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.config = shape, config or EncoderConfig()
        self.config.check(shape)
        first, second = self.config.channels
        stride = max(2, round(min(shape[:2]) / _MAP_SIZE))
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
            self.decoder = Decoder(self.readout.keypoints, shape, self.cells, spread=1.0 if self.config.body else 0.5)
        rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
        positions = torch.stack([columns.repeat(height), rows.repeat_interleave(width)], -1)
        self.register_buffer("_positions", positions, persistent=False)
        self.register_buffer("_whitening", torch.eye(shape[2]), persistent=False)
        self._sharpness = _SHARPNESS
        self.norm = nn.BatchNorm1d(size, affine=False)

    @classmethod
    def restore(cls, shape: tuple[int, int, int], config: EncoderConfig, weights: Mapping[str, Tensor]) -> PixelEncoder:
        """Restores an encoder from its `state_dict`; raises if this does not fit."""
        _check_weights(shape, config, weights)
        encoder = cls(shape, config, latent=None if config.body else weights["readout.axes"].shape[1])
        encoder.load_state_dict(weights)
        return encoder

    @property
    def latent(self) -> int:
        """D, entries of a latent."""
        return self.readout.size

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self._positions.device

    def points(self, images: Tensor) -> Tensor:
        """Returns keypoints `[..., K, 2]` (x right, y down, in [-1, 1]) of images `[..., H, W, C]`."""
        return self.centres_of_mass(self.maps(images))

    def centres_of_mass(self, maps: Tensor) -> Tensor:
        """Returns the centres of mass `[..., K, 2]` of maps `[..., K, cells]`."""
        return maps @ self._positions

    def scatter(self, maps: Tensor, points: Tensor) -> Tensor:
        """Returns variances `[..., K]` of maps `[..., K, cells]` around their centres `[..., K, 2]`."""
        return maps @ self._positions.square().sum(-1) - points.square().sum(-1)

    def maps(self, images: Tensor) -> Tensor:
        """Returns feature maps `[..., K, cells]`, each summing to 1, of images `[..., H, W, C]`."""
        flat = images.reshape(-1, *images.shape[-3:]).to(self._positions.dtype) / 255 - 0.5
        flat = (flat @ self._whitening).movedim(-1, 1)
        with torch.autocast(flat.device.type, torch.bfloat16, enabled=self.training and flat.is_cuda):
            logits = self.layers(flat)
        maps = (self._sharpness * logits.float().flatten(2)).softmax(-1)
        return maps.reshape(*images.shape[:-3], *maps.shape[1:])

    @torch.no_grad()
    def precondition(self, images: Tensor) -> None:
        """Sets sharpness and colour whitening for training, until `fold`, from images `[n, H, W, C]`."""
        self._sharpness = self.config.sharpness
        if self.config.whiten:
            centred = images.float() / 255
            centred = (centred - centred.mean(0)).flatten(0, -2)
            variances, axes = torch.linalg.eigh(centred.mT @ centred / len(centred))
            fractions = (variances / variances[-1].clamp_min(1e-12)).clamp_min(1e-9)
            significance = fractions.square() / (fractions.square() + _NOISE_VARIANCE**2)  # little for rendering noise
            self._whitening = axes * (1 + significance * (fractions.rsqrt() - 1)) @ axes.mT

    @torch.no_grad()
    def fold(self) -> None:
        """Folds sharpness and whitening into the weights; the output stays the same."""
        first, last = self.layers[0], self.layers[-1]
        assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d) and last.bias is not None
        first.weight.copy_(torch.einsum("fdhw,cd->fchw", first.weight, self._whitening))
        for parameter in (last.weight, last.bias):
            parameter.mul_(self._sharpness / _SHARPNESS)
        self._whitening, self._sharpness = torch.eye(len(self._whitening), device=self.device), _SHARPNESS

    def downsampled(self, images: Tensor) -> Tensor:
        """Returns images `[n, H, W, C]` minus the mean image, downsampled and whitened, `[n, channels, *cells]`."""
        centred = images.movedim(-1, 1).float() / 255 - self.decoder.mean
        coarse = nn.functional.adaptive_avg_pool2d(centred, self.cells)
        return torch.einsum("nchw,cd->ndhw", coarse, self._whitening)

    def normalised(self, points: Tensor) -> Tensor:
        """Returns the entries of keypoints `[..., K, 2]`, each normalised over the batch, `[..., 2 K]`."""
        entries = points.flatten(-2)
        return self.norm(entries.reshape(-1, entries.shape[-1])).reshape(entries.shape)

    def forward(self, images: Tensor) -> Tensor:
        """Returns latents `[..., D]` of images `[..., height, width, channels]`, uint8."""
        return self.readout(self.normalised(self.points(images)))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Returns images `[..., height, width, channels]`, uint8, of latents `[..., D]`; for display only."""
        images_shown = self.decoder(self.readout.keypoints_of(latents.reshape(-1, self.latent))) + self.decoder.mean
        images = (255 * images_shown.clamp(0, 1)).round().to(torch.uint8).movedim(1, -1)
        return images.reshape(*latents.shape[:-1], *self.shape)
