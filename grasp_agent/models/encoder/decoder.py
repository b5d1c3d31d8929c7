"""From places back to images: what makes an encoder look for all that is seen, and shows what latents mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SPOT = 0.08  # standard deviation of a spot from which images are painted, where an image is 2 wide


class Decoder(nn.Module):
    """Paints images from places: spots, convolved, onto what all images have in common."""

    mean: Tensor
    _columns: Tensor
    _rows: Tensor

    def __init__(
        self, points: int, shape: tuple[int, int, int], cells: tuple[int, int], spread: float = 1.0, width: int = 24
    ) -> None:
        super().__init__()
        height, across, colours = shape
        fine = round(height / cells[0])
        self.layers = nn.Sequential(
            nn.Conv2d(points, width, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(width, colours * fine**2, 3, 1, 1),
            nn.PixelShuffle(fine),
            nn.UpsamplingNearest2d((height, across)),
        )
        self.spread = nn.Parameter(torch.full((points, 2), spread))
        self.offset = nn.Parameter(torch.zeros(points, 2))
        self.register_buffer("mean", torch.zeros(colours, height, across))
        self.register_buffer("_rows", torch.linspace(-1, 1, cells[0]), persistent=False)
        self.register_buffer("_columns", torch.linspace(-1, 1, cells[1]), persistent=False)

    def forward(self, points: Tensor) -> Tensor:
        """How images `[B, C, H, W]` differ from their mean [shares of the brightest], by places `[B, K, 2]`."""
        points = points * self.spread + self.offset
        across = (-((self._columns - points[..., :1]) / _SPOT).square() / 2).exp()
        down = (-((self._rows - points[..., 1:]) / _SPOT).square() / 2).exp()
        return self.layers(down[..., :, None] * across[..., None, :])
