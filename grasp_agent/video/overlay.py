"""Images of moments: the plan drawn in, charts to the right, a caption below."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from grasp_agent.evaluation.rollout import Moment, Predictor, label
from grasp_agent.task.goal import Goal
from grasp_agent.video.frames import rendered
from grasp_agent.video.pen import Colour, Pen

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

_FADE_FRAMES = 8  # frames in which candidates fade
_CHARTS, _PAST = 6, 30  # largest number of charts, and of past steps in each
_NARROWEST = 240  # smallest width of a caption [pixels]


class Overlay:
    """Draws the agent's trajectory and plan in one episode."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._to_pixels = getattr(env.unwrapped, "goal_to_pixels", None)
        self._trail: list[np.ndarray] = []
        self._candidates: list[np.ndarray] = []
        self._age = 0

    @property
    def knows_where(self) -> bool:
        """Whether the environment maps goals to pixels of its image."""
        return self._to_pixels is not None

    def drawn(self, image: Image.Image, moment: Moment) -> Image.Image:
        """Draws onto an image whose pixels are those of `goal_to_pixels`."""
        if self._to_pixels is None or moment.achieved is None:
            return image
        pen = Pen(image, image.width / 480)
        here = self._pixels(moment.achieved)
        self._trail.append(here)
        for path in np.stack(self._trail, axis=1):
            pen.line(path, 1.6, TRAIL, np.linspace(40, 130, len(path)))
        self._draw_candidates(pen, moment.plan)
        if moment.plan is not None:
            ahead = self._pixels(moment.plan.path[moment.plan.step + 1 :])
            for path in np.concatenate([here[:, None], ahead], axis=1):
                _draw_plan(pen, path, PLAN if moment.plan.accepted else UNSURE)
        return pen.drawn()

    def _draw_candidates(self, pen: Pen, plan: Any | None) -> None:
        self._age += 1
        if plan is not None and plan.fresh:
            self._candidates, self._age = [path for point in self._pixels(plan.virtual) for path in point], 0
        if self._age < _FADE_FRAMES:
            strength = 1 - self._age / _FADE_FRAMES
            for states in self._candidates:
                pen.line(states, 0.8, CANDIDATE, np.full(len(states), 45 * strength))
            for states in self._candidates:
                pen.dots(states, 1.5, CANDIDATE, np.full(len(states), 120 * strength))

    def _pixels(self, goals: Any) -> np.ndarray:
        """Returns the pixels `[P, *, 2]` of goals `[*, G]`, for the P points that a goal consists of."""
        assert self._to_pixels is not None
        goals = np.asarray(goals, dtype=np.float64)
        if not goals.size:
            return np.empty((0, 0, 0, 2))
        pixels = np.asarray(self._to_pixels(goals))
        return np.moveaxis(pixels.reshape(*goals.shape[:-1], -1, 2), -2, 0)

    def draw_search(self, image: Image.Image, candidates: Any, plan: Any | None, accepted: bool) -> Image.Image:
        """Draws candidates `[N, H, G]` of a search and, at its end, the resulting plan `[H + 1, G]`."""
        pen = Pen(image, image.width / 480)
        for path in (path for point in self._pixels(candidates) for path in point):
            pen.line(path, 1.0, CANDIDATE, np.full(len(path), 70.0))
            pen.dots(path, 2.0, CANDIDATE, np.full(len(path), 150.0))
        if plan is not None:
            for path in self._pixels(plan):
                _draw_plan(pen, path, PLAN if accepted else UNSURE)
        return pen.drawn()


def _draw_plan(pen: Pen, points: np.ndarray, colour: Colour) -> None:
    if len(points) < 2:
        return
    fade = np.linspace(1.0, 0.3, len(points))
    pen.line(points, 5.0, (255, 255, 255), 150 * fade)
    pen.line(points, 2.2, colour, 235 * fade)
    pen.dots(points[1:], 2.6, colour, 255 * fade[1:])
    pen.dots(points[-1:], 4.2, colour, np.full(1, 255.0))
    pen.dots(points[-1:], 2.2, (255, 255, 255), np.full(1, 255.0))


class Strip:
    """Charts of the plan next to the image, for environments without `goal_to_pixels`.

    A small chart for each entry of the goal: the trajectory so far in rust, the rest of the plan in blue, the target in
    green.

    Args:
        goal: the agent's own, where the environment has none.
    """

    def __init__(self, goal: Goal | None) -> None:
        self._goal = goal
        self._trail: list[np.ndarray] = []

    def attached(self, image: Image.Image, moment: Moment) -> Image.Image:
        """Adds the charts to the right of an image; none where the observation has no goal."""
        if moment.achieved is None:
            return image
        self._trail.append(moment.achieved)
        width, height = max(120, image.width // 2), image.height
        whole = Image.new("RGB", (image.width + width, height), PAPER)
        whole.paste(image)
        pen, margin = Pen(Image.new("RGB", (width, height), PAPER), image.width / 480), image.width / 48
        target = moment.observation["desired_goal"] if self._goal is None else self._goal.desired
        plan = moment.plan
        ahead = np.empty((0, len(target))) if plan is None else np.asarray(plan.path[plan.step + 1 :])
        colour = UNSURE if plan is None or not plan.accepted else PLAN
        past = np.stack(self._trail[-_PAST:])
        count = min(len(target), _CHARTS)
        for entry in range(count):
            box = (margin, (entry + 0.1) * height / count, width - margin, (entry + 0.9) * height / count)
            _chart(pen, box, past[:, entry], ahead[:, entry], float(target[entry]), colour)
        whole.paste(pen.drawn(), (image.width, 0))
        return whole


def _chart(
    pen: Pen,
    box: tuple[float, float, float, float],
    past: np.ndarray,
    ahead: np.ndarray,
    target: float,
    colour: Colour,
) -> None:
    """Draws past values `[T]`, planned ones and the target into a box (left, top, right, bottom)."""
    left, top, right, bottom = box
    numbers = np.concatenate([past, ahead])
    low, high = min(numbers.min(), target), max(numbers.max(), target)
    stride = (right - left) / (_PAST + max(len(ahead), _PAST))

    def coordinates(values: np.ndarray, first: int) -> np.ndarray:
        across = left + (_PAST + first + np.arange(len(values))) * stride
        return np.stack([across, bottom - (values - low) / max(high - low, 1e-9) * (bottom - top)], axis=-1)

    ends = coordinates(np.full(2, target), 0)[:, 1]
    pen.line(np.stack([[left, right], ends], axis=-1), 1.4, SUCCESS, np.full(2, 130.0))
    pen.line(coordinates(past, 1 - len(past)), 1.8, TRAIL, np.full(len(past), 220.0))
    plan = coordinates(np.concatenate([past[-1:], ahead]), 0)
    pen.line(plan, 2.2, colour, np.full(len(plan), 235.0))
    pen.dots(plan[:1], 3.2, INK, np.full(1, 255.0))


class Band:
    """The caption below the image."""

    def __init__(self, agent: Predictor, env: gym.Env[Any, Any], name: str | None = None) -> None:
        self._name = label(agent) if name is None else name
        self._env_id = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        self._limit = env.spec.max_episode_steps if env.spec is not None else None
        self._last_seconds: float | None = None

    def below(self, image: Image.Image, moment: Moment, *, ended: bool = False) -> Image.Image:
        """Adds the band to an image; `ended` marks an episode that is over while its last image stays."""
        width = max(image.width, _NARROWEST)
        unit = max(width / 480, 0.7)  # smaller letters are illegible
        whole = Image.new("RGB", (width, image.height + round(48 * unit)), PAPER)
        whole.paste(image, ((width - image.width) // 2, 0))
        draw = ImageDraw.Draw(whole)
        top, margin = image.height, 14 * unit
        draw.rectangle([0, top, width, top + max(1, round(1.5 * unit))], fill=RULE)
        if self._limit:
            reached = width * min(1.0, moment.step / self._limit)
            draw.rectangle([0, top, reached, top + max(1, round(1.5 * unit))], fill=FAINT_INK)
        mark = round(18 * unit)
        whole.paste(_mark(mark, bool(moment.success)), (round(width - margin - mark), round(top + 17 * unit)))
        right = width - margin - mark - 12 * unit
        large, small = _font(round(15 * unit)), _font(round(12 * unit))
        lines = (
            (top + 18 * unit, self._name, INK, large, self._count(moment, ended), INK),
            (top + 35 * unit, self._env_id, FAINT_INK, small, self._figures(moment), FAINT_INK),
        )
        for height, name, colour, font, figures, other in lines:
            draw.text((right, height), figures, other, small, anchor="rm")
            room = right - draw.textlength(figures, small) - margin - 8 * unit
            draw.text((margin, height), _shortened(draw, name, font, room), colour, font, anchor="lm")
        return whole

    def _count(self, moment: Moment, ended: bool) -> str:
        if ended:
            return f"ended after step {moment.step}"
        return f"step {moment.step} / {self._limit}" if self._limit else f"step {moment.step}"

    def _figures(self, moment: Moment) -> str:
        self._last_seconds = moment.seconds if moment.seconds is not None else self._last_seconds
        parts = [f"return {moment.return_:.1f}" if moment.distance is None else f"distance {moment.distance:.3f}"]
        if self._last_seconds is not None:
            parts.append(f"{1000 * self._last_seconds:.1f} ms")
        return "   ".join(parts)


def _shortened(draw: ImageDraw.ImageDraw, text: str, font: Any, room: float) -> str:
    """Returns the start of a text that fits into `room` [pixels]."""
    kept = text
    while kept and draw.textlength(kept if kept == text else f"{kept}…", font) > room:
        kept = kept[:-1]
    return kept if kept == text else f"{kept}…"


@lru_cache(maxsize=4)
def _mark(size: int, success: bool) -> Image.Image:
    """Returns a green disc with a tick, or an empty ring."""
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


def titled(image: Image.Image, left: str, right: str) -> Image.Image:
    """Returns an image with a line of text below."""
    unit = max(image.width, 340) / 480
    whole = Image.new("RGB", (image.width, image.height + round(32 * unit)), PAPER)
    whole.paste(image)
    draw, line, font = ImageDraw.Draw(whole), image.height + 16 * unit, _font(round(13 * unit))
    draw.text((14 * unit, line), left, INK, font, anchor="lm")
    draw.text((image.width - 14 * unit, line), right, FAINT_INK, font, anchor="rm")
    return whole


def framed(
    env: gym.Env[Any, Any], moment: Moment, size: int | None, overlay: Overlay | None, strip: Strip | None
) -> Image.Image:
    """Returns the environment's current image, `size` pixels wide, with the plan drawn into it or in charts."""
    image = rendered(env)
    if overlay is not None:
        image = overlay.drawn(image, moment)
    if size is not None and size != image.width:
        image = image.resize((size, round(image.height * size / image.width)), Image.Resampling.LANCZOS)
    return image if strip is None else strip.attached(image, moment)


def tiled(images: list[Image.Image], columns: int) -> Image.Image:
    """Returns images in a grid with so many columns."""
    gap, rows = 6, -(-len(images) // columns)
    width, height = max(p.width for p in images) + gap, max(p.height for p in images) + gap
    whole = Image.new("RGB", (columns * width - gap, rows * height - gap), PAPER)
    for index, image in enumerate(images):
        whole.paste(image, (index % columns * width, index // columns * height))
    return whole


def even(image: Image.Image) -> np.ndarray:
    """Returns an image padded to even size, as H.264 needs it, uint8 `[height, width, 3]`."""
    padded = Image.new("RGB", (image.width + image.width % 2, image.height + image.height % 2), PAPER)
    padded.paste(image)
    return np.asarray(padded)
