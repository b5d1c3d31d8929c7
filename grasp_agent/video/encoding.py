"""Encoders of video files, which raise where a file is not complete."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import tempfile
import zlib
from abc import ABC, abstractmethod
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
from imageio.plugins.ffmpeg import get_exe
from numpy.typing import NDArray
from PIL import Image, ImageSequence

_QUALITY = 10  # x264's constant rate factor, 0 (lossless) to 51; chosen by hand
_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)  # failures that ffmpeg names in words


class Encoder(ABC):
    """Writes frames to a file.

    Args:
        path: the file.
        fps: frames per second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps, self.frames = path, fps, 0

    def add(self, image: NDArray[np.uint8]) -> None:
        """Adds a frame `[height, width, 3]`.

        Raises:
            OSError: if it cannot be written.
        """
        self._add(image)
        self.frames += 1

    def finish(self) -> None:
        """Completes the file, and reads it back.

        Raises:
            OSError: if it cannot be written, or does not hold all frames.
        """
        self._finish()
        found = self._count()
        if self.frames != found:
            raise OSError(errno.EIO, f"the video holds {found} of {self.frames} frames")

    @abstractmethod
    def stop(self) -> None:
        """Stops writing; the file is of no use."""

    @abstractmethod
    def _add(self, image: NDArray[np.uint8]) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _count(self) -> int:
        """Returns the number of frames in the file; 0 for one that cannot be read."""


class GifEncoder(Encoder):
    """Writes a GIF, which merges equal neighbouring frames into a longer one."""

    def __init__(self, path: Path, fps: float) -> None:
        super().__init__(path, fps)
        self._duration = 10 * max(1, round(100 / fps))  # [ms]: the file holds hundredths of a second
        self._size, self._packed = (0, 0), list[bytes]()  # compressed, as all are needed at the end

    def stop(self) -> None:
        """See `Encoder.stop`."""
        self._packed.clear()

    def _add(self, image: NDArray[np.uint8]) -> None:
        self._size = (image.shape[1], image.shape[0])
        self._packed.append(zlib.compress(image.tobytes(), 1))

    def _finish(self) -> None:
        if not self._packed:
            raise OSError(errno.EIO, "the video has no frames")
        images = (Image.frombytes("RGB", self._size, zlib.decompress(packed)) for packed in self._packed)
        next(images).save(self.path, save_all=True, append_images=images, duration=self._duration, loop=0)

    def _count(self) -> int:
        try:
            with Image.open(self.path) as image:
                return round(sum(frame.info["duration"] for frame in ImageSequence.Iterator(image)) / self._duration)
        except (OSError, SyntaxError, KeyError, EOFError):
            return 0


class H264Encoder(Encoder):
    """Writes H.264 by ffmpeg, whose exit status says whether it could."""

    def __init__(self, path: Path, fps: float) -> None:
        super().__init__(path, fps)
        self._process: subprocess.Popen[bytes] | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  closed by `stop`

    def stop(self) -> None:
        """See `Encoder.stop`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            with suppress(OSError):  # of what was not yet passed on
                self._process.stdin.close()
        self._said.close()

    def _add(self, image: NDArray[np.uint8]) -> None:
        if self._process is None:
            self._process = self._begun(*image.shape[:2])
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(image.tobytes())
        except OSError as error:
            raise self._failure() from error

    def _begun(self, height: int, width: int) -> subprocess.Popen[bytes]:
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
        rate = str(Fraction(self.fps).limit_denominator())
        coded = ["-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", str(_QUALITY)]
        command = [get_exe(), "-v", "error", "-y", *raw, "-r", rate, "-i", "-", *coded, str(self.path)]
        # a session of its own: Ctrl-C in a terminal is for this process, which then stops ffmpeg
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._said, start_new_session=True
        )

    def _finish(self) -> None:
        if self._process is None:
            raise OSError(errno.EIO, "the video has no frames")
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError as error:
            raise self._failure() from error
        if self._process.wait():
            raise self._failure()

    def _failure(self) -> OSError:
        """Returns the reason of ffmpeg's end, by what it said last."""
        assert self._process is not None
        status = self._process.wait()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip()
        if status == -signal.SIGXFSZ:
            return OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        for number in _NUMBERS:
            if os.strerror(number) in said:
                return OSError(number, os.strerror(number))
        return OSError(errno.EIO, f"ffmpeg ended with status {status}: {said[-200:]}")

    def _count(self) -> int:
        return count_frames(self.path)


def count_frames(path: Path) -> int:
    """Returns the number of frames that ffmpeg finds in a video; 0 for one that cannot be read to its end."""
    command = [get_exe(), "-v", "error", "-i", str(path), "-map", "0:v:0", "-c", "copy"]
    command += ["-progress", "-", "-f", "null", os.devnull]
    read = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    counts = re.findall(r"^frame=\s*(\d+)", read.stdout, re.MULTILINE)
    return int(counts[-1]) if counts and not read.returncode and not read.stderr.strip() else 0


ENCODERS: dict[str, type[Encoder]] = {".mp4": H264Encoder, ".gif": GifEncoder}
"""By the suffix of the file."""
