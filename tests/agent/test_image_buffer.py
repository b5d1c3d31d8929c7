"""The replay buffer of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_images import images

from grasp_agent.replay.image_buffer import ImageReplayBuffer
from grasp_agent.task.pixels import PixelObservation


class TestAlbum:
    def test_it_returns_stored_images_and_maps_them_from_its_file(self):
        buffer, shape = ImageReplayBuffer((4, 5, 1)), (4, 5, 1)
        stored = images(7, shape)
        moments = [PixelObservation(stored[i : i + 1], np.full((1, 2), i, np.float32), None) for i in range(7)]
        action = np.zeros(2, np.float32)
        buffer.record(0, moments[0], action, moments[1], False)
        buffer.record(1, moments[4], action + 1, moments[5], True)
        buffer.record(0, moments[1], action, moments[2], False)
        buffer.record(0, moments[2], action, moments[3], True)
        buffer.record(1, moments[5], action + 2, moments[6], False)
        assert len(buffer) == 4
        buffer.end()
        assert len(buffer) == 5 and isinstance(buffer.images, np.memmap)
        found = [buffer.images[episode.rows] for episode in buffer.episodes]
        for one, wanted in zip(found, (stored[4:6], stored[:4], stored[5:7]), strict=True):
            np.testing.assert_array_equal(one, wanted)
        np.testing.assert_array_equal(buffer.episodes[1].vectors[:, 0], [0, 1, 2, 3])
        np.testing.assert_array_equal(buffer.windows(1)[2], [0, 1, 1, 1, 2])
        rows, actions, _ = buffer.windows(2)
        assert rows.shape == (2, 3) and actions.shape == (2, 2, 2)
        np.testing.assert_array_equal(buffer.images[rows[1]], stored[1:4])
        with pytest.raises(ValueError, match="an episode of at least 4 steps"):
            buffer.windows(4)

    def test_it_continues_from_its_file(self, tmp_path: Path):
        path, shape = tmp_path / "some.pictures", (4, 5, 1)
        buffer = ImageReplayBuffer(shape, path)
        buffer.add(images(4, shape), np.zeros((4, 0), np.float32), np.zeros((3, 2), np.float32))
        kept = buffer.tensors()
        buffer.add(images(3, shape, 1), np.zeros((3, 0), np.float32), np.zeros((2, 2), np.float32))  # not in `kept`
        again = ImageReplayBuffer.restore(kept, shape, path)
        again.add(images(3, shape, 2), np.zeros((3, 0), np.float32), np.zeros((2, 2), np.float32))
        np.testing.assert_array_equal(again.images, np.concatenate([images(4, shape), images(3, shape, 2)]))
        path.write_bytes(b"short")
        with pytest.raises(ValueError, match="expected 4 images, the file is shorter"):
            ImageReplayBuffer.restore(kept, shape, path)
