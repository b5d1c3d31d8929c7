"""Lines and dots, drawn smoothly onto images."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

_SUPERSAMPLING = 3  # pixels of the layer per pixel of the image, along an axis


class Pen:
    """Draws lines and dots onto an image, on a supersampled layer; lengths and positions in pixels of the image."""

    def __init__(self, image: Image.Image, unit: float) -> None:
        self._image = image
        self._layer = Image.new("RGBA", (image.width * _SUPERSAMPLING, image.height * _SUPERSAMPLING))
        self._draw = ImageDraw.Draw(self._layer)
        self._unit = max(unit, 0.4) * _SUPERSAMPLING

    def drawn(self) -> Image.Image:
        """Returns the image with the drawing."""
        box = self._layer.getbbox()
        if box is None:
            return self._image
        left, top = (low // _SUPERSAMPLING for low in box[:2])
        right, bottom = (-(-high // _SUPERSAMPLING) for high in box[2:])
        layer = self._layer.crop(
            (left * _SUPERSAMPLING, top * _SUPERSAMPLING, right * _SUPERSAMPLING, bottom * _SUPERSAMPLING)
        )
        layer, whole = layer.reduce(_SUPERSAMPLING), self._image.convert("RGB")
        whole.paste(layer, (left, top), layer)
        return whole

    def line(self, points: np.ndarray, width: float, colour: Colour, alphas: np.ndarray) -> None:
        """Joins points `[P, 2]`; `alphas` `[P]` in [0, 255] belong to the points."""
        thick = max(1, round(width * self._unit))
        centres = _finite(points * _SUPERSAMPLING)
        for start, end, alpha in zip(centres, centres[1:], alphas[1:], strict=False):
            self._draw.line([*start, *end], fill=(*colour, int(alpha)), width=thick)
            self._disc(end, thick / 2, colour, alpha)

    def dots(self, points: np.ndarray, radius: float, colour: Colour, alphas: np.ndarray) -> None:
        """Draws discs at points `[P, 2]`."""
        for centre, alpha in zip(_finite(points * _SUPERSAMPLING), alphas, strict=False):
            self._disc(centre, radius * self._unit, colour, alpha)

    def _disc(self, centre: np.ndarray, radius: float, colour: Colour, alpha: float) -> None:
        x, y = centre
        self._draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(*colour, int(alpha)))


def _finite(points: np.ndarray) -> np.ndarray:
    return points[np.isfinite(points).all(axis=-1)]
