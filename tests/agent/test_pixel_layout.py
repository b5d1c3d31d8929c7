"""Layouts of image observations in spaces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from random_images import images

from grasp_agent.task.pixels import PixelLayout

IMAGE = spaces.Box(0, 255, (24, 32, 3), np.uint8)

VECTOR = spaces.Box(-1, 1, (4,), np.float64)


class TestLayout:
    def test_layouts_are_found_in_spaces(self):
        alone = PixelLayout.of(IMAGE)
        assert alone == PixelLayout((24, 32, 3), 1, None, (), (), None)
        first = PixelLayout.of(spaces.Box(0, 255, (3, 24, 32), np.uint8))
        assert first == alone
        stacked = PixelLayout.of(spaces.Box(0, 255, (24, 32, 4), np.uint8))
        assert stacked is not None and (stacked.shape, stacked.frames) == ((24, 32, 1), 4)
        grey = PixelLayout.of(spaces.Box(0, 255, (24, 32, 3), np.uint8), frames=3)
        assert grey is not None and (grey.shape, grey.frames) == ((24, 32, 1), 3)
        both = PixelLayout.of(spaces.Dict({"eye": IMAGE, "arm": VECTOR, "desired_goal": IMAGE}))
        assert both == PixelLayout((24, 32, 3), 1, "eye", ("arm",), (4,), "desired_goal")
        goals = spaces.Dict({"observation": IMAGE, "achieved_goal": VECTOR, "desired_goal": VECTOR})
        assert PixelLayout.of(goals) == PixelLayout((24, 32, 3), 1, "observation", (), (), None)
        assert PixelLayout.of(VECTOR) is None
        assert PixelLayout.of(spaces.Dict({"observation": VECTOR})) is None

    @pytest.mark.parametrize(
        ("space", "words"),
        [
            (spaces.Dict({"left": IMAGE, "right": IMAGE}), "expected one image, got left, right"),
            (spaces.Dict({"eye": IMAGE, "mode": spaces.Discrete(3)}), "expected images and vectors"),
            (spaces.Dict({"eye": IMAGE, "desired_goal": spaces.Box(0, 255, (9, 9, 3), np.uint8)}), "look like"),
        ],
    )
    def test_unreadable_observations_are_refused(self, space: spaces.Space[Any], words: str):
        with pytest.raises(ValueError, match=words):
            PixelLayout.of(space)

    @pytest.mark.parametrize(
        ("space", "words"),
        [
            (IMAGE, "expected a divisor of the 3 channels"),
            (
                spaces.Dict({"eye": spaces.Box(0, 255, (24, 32, 6), np.uint8), "desired_goal": IMAGE}),
                "expected 2, as",
            ),
        ],
    )
    def test_impossible_numbers_of_frames_are_refused(self, space: spaces.Space[Any], words: str):
        with pytest.raises(ValueError, match=words):
            PixelLayout.of(space, frames=6)

    @pytest.mark.parametrize("high", [1.0, 255.0, np.inf])
    def test_floats_are_fractions_where_none_is_greater_than_1(self, high: float):
        layout = PixelLayout.of(spaces.Box(0, high, (24, 32, 3), np.float32))
        assert layout is not None
        some = np.zeros((24, 32, 3), np.float32)
        some[0, 0] = 1
        assert layout.as_bytes(some, layout.shape)[0, 0].tolist() == [255] * 3
        some[1, 1] = 200
        if high > 1:
            assert layout.as_bytes(some, layout.shape)[:2, :2].max(-1).tolist() == [[1, 0], [0, 200]]
        else:
            with pytest.raises(ValueError, match=r"in \[0, 1\], got 0.0 to 200.0"):
                layout.as_bytes(some, layout.shape)

    @pytest.mark.parametrize(("channels", "frames"), [(9, None), (9, 3), (3, 3), (4, 2)])
    def test_goals_may_be_stacked_too(self, channels: int, frames: int | None):
        stack = spaces.Box(0, 255, (24, 32, channels), np.uint8)
        layout = PixelLayout.of(spaces.Dict({"eye": stack, "desired_goal": stack}), frames)
        assert layout is not None
        per_frame = channels // (frames or 3)
        assert layout.frames == layout.goal_frames == (frames or 3) and layout.shape == (24, 32, per_frame)
        some = images(2, (24, 32, channels))
        read, _ = layout.read({"eye": some, "desired_goal": some})
        np.testing.assert_array_equal(read.goals, some[..., -per_frame:])

    @pytest.mark.parametrize("shape", [(24, 32), (3, 24, 32, 3)])
    def test_images_of_other_dimensions_are_refused(self, shape: tuple[int, ...]):
        with pytest.raises(ValueError, match=r"expected images \[height, width, channels\] or"):
            PixelLayout.of(spaces.Box(0, 255, shape, np.uint8))

    def test_channels_come_first_or_last_as_bytes_or_floats(self):
        layout = PixelLayout.of(IMAGE)
        assert layout is not None
        some = images(5)
        for form in (some, np.moveaxis(some, -1, 1), some / 255, some.astype(np.float64), some.tolist()):
            read, batch = layout.read(form)
            assert batch
            np.testing.assert_array_equal(read.images, some)
        read, batch = layout.read(some[0])
        assert not batch and read.images.shape == (1, 24, 32, 3)
        for wrong in (some[..., :2], some[0, 0], np.full((24, 32, 3), np.nan), np.full((24, 32, 3), -1.0)):
            with pytest.raises(ValueError, match=r"Unexpected observation shape|finite values in"):
                layout.read(wrong)
