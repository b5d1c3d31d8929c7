"""Anti-aliased drawing of flat scenes: a shape's cover of a pixel follows from its signed distance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Colour = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]
Pixels = NDArray[np.float32]


class BallColours(NamedTuple):
    """A lit ball's three tones."""

    body: Colour
    """Colour of the ball, and of its goal among several."""
    light: Colour
    """Its highlight."""
    dark: Colour
    """Its rim."""


PAPER: Colour = (226, 228, 226)
FLOOR: Colour = (250, 250, 247)
WALL: Colour = (84, 98, 115)
SHADOW: Colour = (52, 60, 72)
GOAL: Colour = (52, 160, 116)
BALLS: tuple[BallColours, ...] = (
    BallColours((233, 125, 78), (252, 190, 146), (196, 88, 48)),
    BallColours((66, 168, 146), (150, 218, 202), (36, 124, 106)),
    BallColours((84, 132, 206), (164, 196, 240), (50, 92, 164)),
    BallColours((226, 178, 64), (250, 222, 142), (182, 136, 32)),
    BallColours((176, 104, 168), (222, 172, 216), (134, 68, 126)),
    BallColours((146, 112, 88), (202, 174, 152), (106, 78, 58)),
)

_HALF_WIDTH = 1.08  # half the width of the image [world units]: the arena and a margin
_CORNER = 0.03  # radius of a wall's corners [world units]
_SHADOW_OFFSET = (0.008, 0.018)  # of a wall's shadow, right and down [world units]


class Canvas:
    """An image that shapes are painted onto, in world units (x right, y up, origin in the middle).

    Attributes:
        image: The image, uint8 [size, size, 3].
    """

    def __init__(self, image: NDArray[np.uint8], half_width: float = _HALF_WIDTH) -> None:
        """Paints onto an image [size, size, 3] that shows [-half_width, half_width]^2."""
        self.image = image
        self._half_width = half_width
        self._scale = image.shape[0] / (2.0 * half_width)

    def to_pixels(self, points: ArrayLike) -> NDArray[np.float64]:
        """Returns pixel coordinates [*, 2] (x right, y down) of points [*, 2] in world units."""
        points = np.asarray(points, dtype=np.float64)
        return (points * (1.0, -1.0) + self._half_width) * self._scale

    def boxes(
        self,
        rectangles: Sequence[Rectangle],
        colour: Colour,
        *,
        origin: ArrayLike = (0.0, 0.0),
        turn: float = 0.0,
        corner: float = 0.0,
        alpha: float = 1.0,
        blur: float = 0.0,
    ) -> None:
        """Fills the union of rectangles (x_low, y_low, x_high, y_high), corners rounded and edges blurred.

        They are turned by `turn` [rad] around (0, 0), which lies at `origin`.
        """
        if not rectangles:
            return
        corners = np.array(rectangles, dtype=np.float64).reshape(-1, 2, 2)
        low, high = corners[:, 0].min(axis=0), corners[:, 1].max(axis=0)
        middle = (low + high) / 2.0
        centres = corners.mean(axis=1) - middle
        halves = (corners[:, 1] - corners[:, 0]) / 2.0 - corner

        cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))

        def distance(x: Pixels, y: Pixels) -> Pixels:
            if turn:
                x, y = cosine * x + sine * y, cosine * y - sine * x
            parts = [
                _box_distance(x - np.float32(cx), y - np.float32(cy), np.float32(hx), np.float32(hy))
                for (cx, cy), (hx, hy) in zip(centres, halves, strict=True)
            ]
            return np.minimum.reduce(parts) - np.float32(corner)

        x, y = np.asarray(origin, dtype=np.float64)
        centre = (x + cosine * middle[0] - sine * middle[1], y + sine * middle[0] + cosine * middle[1])
        reach = np.linalg.norm(high - low) if turn else (high - low).max()
        self._paint(centre, float(reach) / 2.0, distance, colour, alpha, blur)

    def disc(self, centre: ArrayLike, radius: float, colour: Colour, *, alpha: float = 1.0, blur: float = 0.0) -> None:
        """Fills a disc whose edge is blurred by `blur`."""
        self._paint(centre, radius, lambda x, y: np.hypot(x, y) - np.float32(radius), colour, alpha, blur)

    def ring(self, centre: ArrayLike, radius: float, width: float, colour: Colour, *, alpha: float = 1.0) -> None:
        """Draws a circle of a line `width`, which lies half inside and half outside of the radius."""
        half = np.float32(width / 2.0)

        def distance(x: Pixels, y: Pixels) -> Pixels:
            return np.abs(np.hypot(x, y) - np.float32(radius)) - half

        self._paint(centre, radius + width, distance, colour, alpha, 0.0)

    def goal(self, centre: ArrayLike, radius: float, halo: float, colour: Colour = GOAL) -> None:
        """Draws the goal: a ring of the success radius in a faint disc of radius `halo`."""
        self.disc(centre, halo, colour, alpha=0.16)
        self.disc(centre, radius, colour, alpha=0.12)
        self.ring(centre, radius, 0.014, colour)

    def ball(self, centre: ArrayLike, radius: float, colours: BallColours = BALLS[0]) -> None:
        """Draws a softly lit ball with its shadow."""
        x, y = np.asarray(centre, dtype=np.float64)
        self.disc((x + 0.10 * radius, y - 0.22 * radius), radius, SHADOW, alpha=0.30, blur=0.45 * radius)
        self.disc((x, y), radius, colours.dark)
        self.disc((x - 0.03 * radius, y + 0.05 * radius), 0.90 * radius, colours.body, blur=0.22 * radius)
        glint = (x - 0.30 * radius, y + 0.34 * radius)
        self.disc(glint, 0.30 * radius, colours.light, alpha=0.85, blur=0.55 * radius)

    def _paint(
        self,
        centre: ArrayLike,
        reach: float,
        distance: Callable[[Pixels, Pixels], Pixels],
        colour: Colour,
        alpha: float,
        blur: float,
    ) -> None:
        """Blends a colour in where the signed distance (negative inside) around the centre is negative."""
        column, row = self.to_pixels(centre)
        pixels = (reach + blur) * self._scale + 1.5
        size = self.image.shape[0]
        left, right = max(0, int(column - pixels)), min(size, int(column + pixels) + 1)
        top, bottom = max(0, int(row - pixels)), min(size, int(row + pixels) + 1)
        x = ((np.arange(left, right, dtype=np.float32) + 0.5 - column) / self._scale).astype(np.float32)
        y = ((row - np.arange(top, bottom, dtype=np.float32) - 0.5) / self._scale).astype(np.float32)
        softness = np.float32(max(1.0 / self._scale, 2.0 * blur))
        cover = np.clip(0.5 - distance(x[None, :], y[:, None]) / softness, 0.0, 1.0)
        if blur:
            cover = cover * cover * (3.0 - 2.0 * cover)
        patch = self.image[top:bottom, left:right]
        weight = (np.float32(alpha) * cover)[..., None]
        patch[...] = (patch + weight * (np.array(colour, np.float32) - patch) + 0.5).astype(np.uint8)


def _box_distance(x: Pixels, y: Pixels, half_width: np.float32, half_height: np.float32) -> Pixels:
    beyond_x, beyond_y = np.abs(x) - half_width, np.abs(y) - half_height
    outside = np.hypot(np.maximum(beyond_x, 0), np.maximum(beyond_y, 0))
    return outside + np.minimum(np.maximum(beyond_x, beyond_y), 0)


class Scene:
    """An arena [-1, 1]^2 with walls, painted once; what moves is painted onto copies of it."""

    def __init__(self, size: int, walls: tuple[Rectangle, ...]) -> None:
        """Paints floor and walls (x_low, y_low, x_high, y_high) into an image of `size` pixels."""
        self._background = np.empty((size, size, 3), np.uint8)
        self._background[...] = PAPER
        canvas = Canvas(self._background)
        canvas.boxes([(-1.0, -1.0, 1.0, 1.0)], FLOOR, corner=0.04)
        bare = self._background.copy()
        walls = tuple(map(_into_the_frame, walls))
        right, down = _SHADOW_OFFSET
        shadows = [(x0 + right, y0 - down, x1 + right, y1 - down) for x0, y0, x1, y1 in walls]
        canvas.boxes(shadows, SHADOW, corner=_CORNER, alpha=0.28, blur=0.035)
        canvas.boxes(walls, WALL, corner=_CORNER)
        beyond = np.abs(np.arange(size) + 0.5 - size / 2.0) * 2.0 * _HALF_WIDTH > size
        frame = beyond | beyond[:, None]
        self._background[frame] = bare[frame]

    def canvas(self) -> Canvas:
        """Returns a fresh copy of the scene to paint on."""
        return Canvas(self._background.copy())

    def to_pixels(self, points: ArrayLike) -> NDArray[np.float64]:
        """Returns pixel coordinates [*, 2] (x right, y down) of points [*, 2] of the arena."""
        return Canvas(self._background).to_pixels(points)


def _into_the_frame(wall: Rectangle) -> Rectangle:
    """Returns a wall, extended where it ends at the arena's edge until its rounded end is outside of the image."""
    x_low, y_low, x_high, y_high = (
        edge if abs(edge) < 1.0 else edge + np.copysign(2.0 * _CORNER, edge) for edge in wall
    )
    return x_low, y_low, x_high, y_high
