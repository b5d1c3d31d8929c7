"""An environment and an agent whose videos are known, and a decoder of videos."""

import subprocess
from typing import Any, NamedTuple

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
from gymnasium import spaces

SIDE = 97

WIDTH = 240  # with its caption

EDGE = (WIDTH - SIDE) // 2


class Slider(gym.Env[Any, Any]):
    """An image that gets darker with each of four steps; goals are positions in it, from 0 to 1."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012
    observation_space = spaces.Dict({key: spaces.Box(0, 1, (2,)) for key in ("achieved_goal", "desired_goal")})
    action_space = spaces.Box(-1, 1, (1,))

    def __init__(self, render_mode: str | None = "rgb_array") -> None:
        self.render_mode = render_mode
        self.closed = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def observe(self) -> Any:
        return {"achieved_goal": np.array([0.1, 0.5]), "desired_goal": np.array([0.9, 0.5])}

    def step(self, action: np.ndarray):
        self.steps += 1
        return self.observe(), 0.0, self.steps == 4, False, {"is_success": self.steps == 4}

    def render(self):  # type: ignore[override]
        return np.full((SIDE, SIDE, 3), 240 - 50 * self.steps, np.uint8)

    def goal_to_pixels(self, points: np.ndarray) -> np.ndarray:
        return points * SIDE

    def close(self):
        self.closed = True


class Shown(NamedTuple):
    path: np.ndarray
    virtual: np.ndarray
    step: int
    fresh: bool
    accepted: bool


class Planner:
    """Plans a straight path at the first step, with one candidate above and one below."""

    name = "straight"

    def __init__(self, accepted: bool = True, fail_at: int | None = None, error: type[BaseException] = OSError) -> None:
        self.accepted, self.fail_at, self.error = accepted, fail_at, error
        self.last_plan: Shown | None = None
        self.calls = 0

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        if self.calls == self.fail_at:
            raise self.error
        along = np.linspace(0.1, 0.9, 9)
        path, rows = np.stack([along, np.full(9, 0.5)], axis=1), np.stack([along, np.full(9, 0.2)], axis=1)
        self.last_plan = Shown(path, np.stack([rows, 1 - rows]), self.calls % 4, self.calls % 4 == 0, self.accepted)
        self.calls += 1
        return np.zeros(1, np.float32), None


def decode(path) -> np.ndarray:
    """All frames [F, height, width, 3], through ffmpeg itself."""
    exe = imageio_ffmpeg.get_ffmpeg_exe()
    width, height = next(iter_sizes(path))
    raw = subprocess.run(
        [
            exe,
            "-v",
            "error",
            "-i",
            str(path),
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-fps_mode",
            "passthrough",
            "-",
        ],
        check=True,
        capture_output=True,
    ).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def iter_sizes(path):
    """Width and height that the file's video stream declares."""
    said = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path)], capture_output=True, check=False).stderr
    for word in said.decode().replace(",", " ").split():
        width, _, height = word.partition("x")
        if width.isdigit() and height.isdigit() and int(width) > 0:
            yield int(width), int(height)


def near(frame: np.ndarray, colour: tuple[int, int, int], tolerance: int) -> int:
    """Number of pixels close to a colour."""
    return int((np.abs(frame.astype(int) - colour).max(axis=-1) <= tolerance).sum())
