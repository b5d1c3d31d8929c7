"""The decoder from keypoints to images, which makes an encoder represent all of an image, and displays latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_BLOB_STD = 0.08  # standard deviation of a keypoint's Gaussian map [half the image's width]; chosen by hand


class Decoder(nn.Module):
    """Convolutions of Gaussian maps around keypoints; the result is added to the mean image.

    Args:
        points: K, number of keypoints.
        shape: `(height, width, channels)` of an image.
        cells: height and width of the maps.
        spread: initial scale of the keypoints.
        width: hidden channels.
    """

    mean: Tensor
    _columns: Tensor
    _rows: Tensor

    def __init__(
        self, points: int, shape: tuple[int, int, int], cells: tuple[int, int], spread: float = 1.0, width: int = 24
    ) -> None:
        super().__init__()
        height, across, channels = shape
        upscaling = round(height / cells[0])
        self.layers = nn.Sequential(
            nn.Conv2d(points, width, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(width, channels * upscaling**2, 3, 1, 1),
            nn.PixelShuffle(upscaling),
            nn.UpsamplingNearest2d((height, across)),
        )
        self.spread = nn.Parameter(torch.full((points, 2), spread))
        self.offset = nn.Parameter(torch.zeros(points, 2))
        self.register_buffer("mean", torch.zeros(channels, height, across))
        self.register_buffer("_rows", torch.linspace(-1, 1, cells[0]), persistent=False)
        self.register_buffer("_columns", torch.linspace(-1, 1, cells[1]), persistent=False)

    def forward(self, points: Tensor) -> Tensor:
        """Returns the difference of images `[B, C, H, W]` to the mean image, in [-1, 1], of keypoints `[B, K, 2]`."""
        points = points * self.spread + self.offset
        across = (-((self._columns - points[..., :1]) / _BLOB_STD).square() / 2).exp()
        down = (-((self._rows - points[..., 1:]) / _BLOB_STD).square() / 2).exp()
        return self.layers(down[..., :, None] * across[..., None, :])
