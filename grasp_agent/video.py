"""Videos of seeded episodes, complete to the last frame, with the agent's plan drawn into the picture."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import imageio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from grasp_agent.evaluation import Moment, Predictor, label, opened, rollout
from grasp_agent.files import written_aside

Colour = tuple[int, int, int]

PLAN: Colour = (37, 92, 224)
UNSURE: Colour = (132, 138, 152)
CANDIDATE: Colour = (128, 92, 205)
TRAIL: Colour = (196, 96, 52)
PAPER: Colour = (252, 252, 250)
INK: Colour = (38, 44, 54)
FAINT_INK: Colour = (122, 128, 138)
RULE: Colour = (226, 228, 226)
RING: Colour = (196, 200, 204)
SUCCESS: Colour = (34, 148, 96)

_SUFFIXES = (".mp4", ".gif")
_SUPERSAMPLING = 3
_FADE_FRAMES = 8


class Recording(NamedTuple):
    """What a video shows."""

    path: Path
    """The file."""
    frames: int
    """Pictures in it: for each episode its steps and one."""
    fps: float
    """Pictures per second."""
    successes: tuple[bool | None, ...]
    """Success at the end of each episode; None where the environment does not report it."""


def record(
    agent: Predictor,
    env: str | gym.Env[Any, Any],
    path: str | Path,
    episodes: int = 1,
    seed: int = 0,
    fps: float | None = None,
    draw_plan: bool = True,
    caption: bool = True,
    force: bool = False,
    on_frame: Callable[[Moment], None] | None = None,
) -> Recording:
    """Films seeded episodes.

    The plan is drawn where the environment offers `goal_to_pixels` and the agent `last_plan`: what is left of
    it as a blue line that fades with time (grey if the planner could not vouch for it), the virtual states of
    its candidates as violet dots that fade after the moment of planning, the way so far as a rusty line.

    Args:
        agent: anything with Stable-Baselines3's `predict`.
        env: a Gymnasium id, or a single environment with `render_mode="rgb_array"` (left open).
        path: where to write; `.mp4` (H.264) or `.gif`, which keeps equal neighbours as one picture that lasts
            longer.
        episodes: how many, one after the other, at least 1.
        seed: episode i is reset with `seed + i`.
        fps: pictures per second; None for the environment's own.
        draw_plan: whether to draw the plan.
        caption: whether to add a band with the agent, the step, the distance to the goal, the time of
            `predict` and a mark that is green while the goal is reached.
        force: whether a file that exists may be replaced.
        on_frame: called after each picture, e.g. to move a progress bar.

    Raises:
        ValueError: if the suffix is unknown, the file exists, `episodes` or `fps` is out of range, or `env`
            does not render pictures.
    """
    path = Path(path)
    _check(path, episodes, fps, force)
    ends: dict[int, bool | None] = {}
    frames = 0
    with opened(env, agent, render_mode="rgb_array") as plain:
        if plain.render_mode != "rgb_array":
            raise ValueError(f'env: expected render_mode="rgb_array", got {plain.render_mode!r}')
        fps = float(fps or plain.metadata.get("render_fps", 30))
        band = _Band(agent, plain) if caption else None
        with written_aside(path) as aside, _writer(aside, fps) as writer:
            for index in range(episodes):
                overlay = _Overlay(plain) if draw_plan else None
                for moment in rollout(agent, plain, seed + index):
                    writer.append_data(_picture(plain, moment, overlay, band))
                    ends[index] = moment.success
                    frames += 1
                    if on_frame is not None:
                        on_frame(moment)
    return Recording(path, frames, fps, tuple(ends.values()))


def _check(path: Path, episodes: int, fps: float | None, force: bool) -> None:
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"path: expected a name that ends in {' or '.join(_SUFFIXES)}, got {path.name!r}")
    if path.exists() and not force:
        raise ValueError(f"path: {path} exists; choose another name or force=True")
    if episodes < 1:
        raise ValueError(f"episodes: expected at least 1, got {episodes}")
    if fps is not None and not fps > 0:
        raise ValueError(f"fps: expected pictures per second > 0 or None, got {fps}")


def _writer(path: Path, fps: float) -> Any:
    if path.suffix.lower() == ".gif":
        return imageio.get_writer(path, mode="I", duration=1000 / fps, loop=0)
    return imageio.get_writer(path, mode="I", fps=fps, codec="libx264", quality=8, macro_block_size=2)


def _picture(env: gym.Env[Any, Any], moment: Moment, overlay: _Overlay | None, band: _Band | None) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(env.render(), dtype=np.uint8))
    if overlay is not None:
        image = overlay.drawn(image, moment)
    if band is not None:
        image = band.below(image, moment)
    even = Image.new("RGB", (image.width + image.width % 2, image.height + image.height % 2), PAPER)
    even.paste(image)
    return np.asarray(even)


class _Overlay:
    """What the agent did and means to do, in one episode."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._to_pixels = getattr(env.unwrapped, "goal_to_pixels", None)
        self._trail: list[np.ndarray] = []
        self._candidates: list[np.ndarray] = []
        self._age = 0

    def drawn(self, image: Image.Image, moment: Moment) -> Image.Image:
        """Draws onto a picture whose pixels are those of `goal_to_pixels`."""
        if self._to_pixels is None or moment.achieved is None:
            return image
        size = (image.width * _SUPERSAMPLING, image.height * _SUPERSAMPLING)
        layer = Image.new("RGBA", size)
        pen = _Pen(layer, image.width / 480)
        here = self._pixels(moment.achieved)
        self._trail.append(here)
        for way in np.stack(self._trail, axis=1):
            pen.line(way, 1.6, TRAIL, np.linspace(40, 130, len(way)))
        self._draw_candidates(pen, moment.plan)
        if moment.plan is not None:
            ahead = self._pixels(moment.plan.path[moment.plan.step + 1 :])
            for way in np.concatenate([here[:, None], ahead], axis=1):
                _draw_plan(pen, way, PLAN if moment.plan.accepted else UNSURE)
        return Image.alpha_composite(image.convert("RGBA"), layer.reduce(_SUPERSAMPLING)).convert("RGB")

    def _draw_candidates(self, pen: _Pen, plan: Any | None) -> None:
        self._age += 1
        if plan is not None and plan.fresh:
            self._candidates, self._age = [way for place in self._pixels(plan.virtual) for way in place], 0
        if self._age < _FADE_FRAMES:
            strength = 1 - self._age / _FADE_FRAMES
            for states in self._candidates:
                pen.line(states, 0.8, CANDIDATE, np.full(len(states), 45 * strength))
            for states in self._candidates:
                pen.dots(states, 1.5, CANDIDATE, np.full(len(states), 120 * strength))

    def _pixels(self, goals: Any) -> np.ndarray:
        """Where goals `[*, G]` lie in the picture: `[P, *, 2]` for the P places that a goal names."""
        assert self._to_pixels is not None
        goals = np.asarray(goals, dtype=np.float64)
        if not goals.size:
            return np.empty((0, 0, 0, 2))
        pixels = np.asarray(self._to_pixels(goals))
        return np.moveaxis(pixels.reshape(*goals.shape[:-1], -1, 2), -2, 0)


def _draw_plan(pen: _Pen, points: np.ndarray, colour: Colour) -> None:
    if len(points) < 2:
        return
    fade = np.linspace(1.0, 0.3, len(points))
    pen.line(points, 5.0, (255, 255, 255), 150 * fade)
    pen.line(points, 2.2, colour, 235 * fade)
    pen.dots(points[1:], 2.6, colour, 255 * fade[1:])
    pen.dots(points[-1:], 4.2, colour, np.full(1, 255.0))
    pen.dots(points[-1:], 2.2, (255, 255, 255), np.full(1, 255.0))


class _Pen:
    """Lines and dots on a supersampled layer; lengths and places in pixels of the picture."""

    def __init__(self, layer: Image.Image, unit: float) -> None:
        self._draw = ImageDraw.Draw(layer)
        self._unit = max(unit, 0.4) * _SUPERSAMPLING

    def line(self, points: np.ndarray, width: float, colour: Colour, alphas: np.ndarray) -> None:
        """Joins points `[P, 2]`; `alphas` `[P]` in [0, 255] belong to the points."""
        thick = max(1, round(width * self._unit))
        places = _finite(points * _SUPERSAMPLING)
        for start, end, alpha in zip(places, places[1:], alphas[1:], strict=False):
            self._draw.line([*start, *end], fill=(*colour, int(alpha)), width=thick)
            self._disc(end, thick / 2, colour, alpha)

    def dots(self, points: np.ndarray, radius: float, colour: Colour, alphas: np.ndarray) -> None:
        """Discs at points `[P, 2]`."""
        for place, alpha in zip(_finite(points * _SUPERSAMPLING), alphas, strict=False):
            self._disc(place, radius * self._unit, colour, alpha)

    def _disc(self, place: np.ndarray, radius: float, colour: Colour, alpha: float) -> None:
        x, y = place
        self._draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(*colour, int(alpha)))


def _finite(points: np.ndarray) -> np.ndarray:
    return points[np.isfinite(points).all(axis=-1)]


class _Band:
    """The caption below the picture."""

    def __init__(self, agent: Predictor, env: gym.Env[Any, Any]) -> None:
        self._name = label(agent)
        self._env_id = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        self._limit = env.spec.max_episode_steps if env.spec is not None else None
        self._last_seconds: float | None = None

    def below(self, image: Image.Image, moment: Moment) -> Image.Image:
        """Adds the band to a picture."""
        unit = max(image.width, 200) / 480
        height = round(48 * unit)
        whole = Image.new("RGB", (image.width, image.height + height), PAPER)
        whole.paste(image)
        draw = ImageDraw.Draw(whole)
        top, margin = image.height, 14 * unit
        draw.rectangle([0, top, image.width, top + max(1, round(1.5 * unit))], fill=RULE)
        if self._limit:
            reached = image.width * min(1.0, moment.step / self._limit)
            draw.rectangle([0, top, reached, top + max(1, round(1.5 * unit))], fill=FAINT_INK)
        rows = (top + 18 * unit, top + 35 * unit)
        mark = round(18 * unit)
        whole.paste(_mark(mark, bool(moment.success)), (round(image.width - margin - mark), round(top + 17 * unit)))
        right = image.width - margin - mark - 12 * unit
        large, small = _font(round(15 * unit)), _font(round(12 * unit))
        draw.text((margin, rows[0]), self._name, INK, large, anchor="lm")
        draw.text((margin, rows[1]), self._env_id, FAINT_INK, small, anchor="lm")
        draw.text((right, rows[0]), self._count(moment), INK, small, anchor="rm")
        draw.text((right, rows[1]), self._figures(moment), FAINT_INK, small, anchor="rm")
        return whole

    def _count(self, moment: Moment) -> str:
        return f"step {moment.step} / {self._limit}" if self._limit else f"step {moment.step}"

    def _figures(self, moment: Moment) -> str:
        self._last_seconds = moment.seconds if moment.seconds is not None else self._last_seconds
        parts = [] if moment.distance is None else [f"distance {moment.distance:.3f}"]
        if self._last_seconds is not None:
            parts.append(f"{1000 * self._last_seconds:.1f} ms")
        return "   ".join(parts)


@lru_cache(maxsize=4)
def _mark(size: int, success: bool) -> Image.Image:
    """A green disc with a tick, or an empty ring."""
    large = size * 4
    mark = Image.new("RGB", (large, large), PAPER)
    draw = ImageDraw.Draw(mark)
    fill, edge = (SUCCESS, SUCCESS) if success else (PAPER, RING)
    draw.ellipse([2, 2, large - 3, large - 3], fill=fill, outline=edge, width=large // 12)
    if success:
        tick = [(0.27 * large, 0.53 * large), (0.44 * large, 0.69 * large), (0.74 * large, 0.34 * large)]
        draw.line(tick, fill=PAPER, width=round(0.1 * large), joint="curve")
    return mark.reduce(4)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)
