"""Images of whatever kind an environment renders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from grasp_agent.video.config import VideoConfig
from grasp_agent.video.frames import image_of
from grasp_agent.video.writer import open_video, rate

SHADES = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)
RGB = np.repeat(SHADES[..., None], 3, axis=-1)


@pytest.mark.parametrize(
    "frame",
    [
        RGB,
        RGB.astype(np.int64),
        RGB / 255,
        (RGB / 255).astype(np.float32),
        RGB.astype(np.float64),
        SHADES,
        SHADES[..., None],
        np.concatenate([RGB, np.full_like(RGB[..., :1], 255)], -1),
        np.moveaxis(np.pad(RGB, ((0, 3), (0, 3), (0, 0)), mode="edge"), -1, 0)[:, :5, :6],
    ],
    ids=["bytes", "whole numbers", "fractions", "float32 fractions", "floats", "grey", "one channel", "rgba", "first"],
)
def test_every_kind_of_image_is_shown_as_it_is(frame: np.ndarray):
    found = np.asarray(image_of(frame))
    assert found.dtype == np.uint8 and found.shape[-1] == 3
    np.testing.assert_array_equal(found[:2, :3], RGB)


def test_a_mask_is_black_and_white():
    assert np.asarray(image_of(SHADES > 100))[..., 0].tolist() == [[0, 0, 255], [255, 255, 255]]


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (None, "got NoneType"),
        ([RGB], "got list"),
        ("text", "got str"),
        (np.zeros((5, 6, 2)), r"got shape \[5, 6, 2\]"),
        (np.zeros((0, 5, 3)), "got shape"),
        (np.full((4, 5, 3), np.nan), "of finite numbers"),
        (np.zeros((4, 5, 3), complex), "of finite numbers"),
    ],
)
def test_what_is_no_image_is_refused(frame: Any, words: str):
    with pytest.raises(ValueError, match=r"render\(\): expected an image .*" + words):
        image_of(frame)


def test_images_of_changing_sizes_are_refused_and_leave_no_file(tmp_path: Path):
    path = tmp_path / "video.mp4"

    def write() -> None:
        with open_video(path, 10, force=False) as writer:
            writer.add(Image.new("RGB", (8, 8)))
            writer.add(Image.new("RGB", (8, 12)))

    with pytest.raises(ValueError, match=r"render\(\): expected images of one size, \(8, 8\), got \(8, 12\)"):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [None, 0, -1, "fast", float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_without_a_frame_rate_of_the_environment_videos_have_30(fps: Any, name: str):
    class Env:
        metadata = {"render_fps": fps}  # noqa: RUF012

    assert rate(Env(), name, VideoConfig()) == pytest.approx(30, abs=4)  # type: ignore[arg-type]  # GIFs: 1/100 s
