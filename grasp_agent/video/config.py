"""Settings of videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from grasp_agent.validation import more_than

_SMALLEST, _LARGEST = 32, 4096  # limits of an image's width [pixels]


class VideoOptions(TypedDict, total=False):
    """`VideoConfig`'s settings, as keywords of the functions that record."""

    fps: float | None
    speed: float
    size: int | None
    draw_plan: bool
    caption: bool
    force: bool


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Rate, size and contents of a video, and whether it may replace a file.

    Attributes:
        fps: frames per second; None for the environment's own.
        speed: factor by which the video is faster than that.
        size: width of each of the environment's images [pixels]; None for its own.
        draw_plan: whether to draw the plan.
        caption: whether to add a band with the agent, the step, the distance to the goal (or the return, where there is
            none), the time of `predict` and a mark that is green while the goal is reached.
        force: whether an existing file may be replaced.

    Raises:
        ValueError: if a number is out of range.
    """

    fps: float | None = None
    speed: float = 1.0
    size: int | None = None
    draw_plan: bool = True
    caption: bool = True
    force: bool = False

    def __post_init__(self) -> None:
        more_than(0, speed=self.speed)
        if self.fps is not None:
            more_than(0, fps=self.fps)
        if self.size is not None and not _SMALLEST <= self.size <= _LARGEST:
            raise ValueError(f"size: expected {_SMALLEST} to {_LARGEST} pixels, got {self.size}")
