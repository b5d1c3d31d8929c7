import subprocess
import sys
from typing import Any, NamedTuple

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from grasp_agent import Goal
from grasp_agent.serialization import atomic_write
from grasp_agent.video.overlay import PLAN, UNSURE
from grasp_agent.video.record import record, record_beside, record_grid

SIDE = 97
WIDTH = 240  # with its caption
EDGE = (WIDTH - SIDE) // 2


class Slider(gym.Env[Any, Any]):
    """A picture that turns darker with each of four steps; goals are places in it, from 0 to 1."""

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
    """Plans a straight way at the first step, one candidate above and one below of it."""

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


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_every_step_and_the_end_are_in_the_file(tmp_path, suffix):
    made = record(Planner(), Slider(), tmp_path / f"a{suffix}", episodes=2)
    frames = decode(made.path)
    assert (made.frames, made.fps, made.successes) == (10, 25.0, (True, True))
    assert frames.shape[0] == 10
    assert frames.shape[2] == WIDTH
    assert frames.shape[1] > SIDE + 1
    for index, frame in enumerate(frames):
        assert frame[5, EDGE + 5].mean() == pytest.approx(240 - 50 * (index % 5), abs=6)


def test_an_image_without_caption_is_only_padded_to_even_size(tmp_path):
    made = record(Planner(), Slider(), tmp_path / "a.mp4", caption=False)
    assert decode(made.path).shape == (5, SIDE + 1, SIDE + 1, 3)


@pytest.mark.parametrize(("accepted", "colour"), [(True, PLAN), (False, UNSURE)])
def test_the_plan_is_drawn_and_its_colour_shows_whether_it_was_accepted(tmp_path, accepted, colour):
    made = record(Planner(accepted), Slider(), tmp_path / "a.gif")
    plain = record(Planner(accepted), Slider(), tmp_path / "b.gif", draw_plan=False)
    row = slice(SIDE // 2 - 3, SIDE // 2 + 4)
    assert near(decode(made.path)[0][row], colour, 40) > 5
    assert near(decode(plain.path)[0][row], colour, 40) == 0


def test_the_plan_of_every_position_in_a_goal_is_drawn(tmp_path):
    class Two(Slider):
        def observe(self):
            return {"achieved_goal": np.array([0.1, 0.3, 0.9, 0.7]), "desired_goal": np.array([0.9, 0.3, 0.1, 0.7])}

    class Both(Planner):
        def predict(self, *arguments, **options):
            result = super().predict(*arguments, **options)
            assert self.last_plan is not None
            along = np.linspace(0.1, 0.9, 9)
            path = np.stack([along, np.full(9, 0.3), along[::-1], np.full(9, 0.7)], axis=1)
            self.last_plan = self.last_plan._replace(path=path, virtual=path[None] + [0, -0.2, 0, 0.2])
            return result

    frame = decode(record(Both(), Two(), tmp_path / "a.gif", caption=False).path)[0][:SIDE, :SIDE]
    changed = np.abs(frame.astype(int) - 240).max(axis=-1) > 8
    for height in (0.1, 0.3, 0.7, 0.9):
        band = changed[int(height * SIDE) - 2 : int(height * SIDE) + 3]
        assert band.any(axis=0).sum() >= 9
    assert not changed[int(0.4 * SIDE) : int(0.6 * SIDE)].any()
    assert min(near(frame[:48], PLAN, 40), near(frame[48:], PLAN, 40)) > 5


def test_candidates_fade_after_the_moment_of_planning(tmp_path):
    class Still(Slider):
        def render(self):
            return np.full((SIDE, SIDE, 3), 240, np.uint8)

    frames = decode(record(Planner(), Still(), tmp_path / "a.gif", caption=False).path).astype(int)
    row = slice(int(0.2 * SIDE) - 2, int(0.2 * SIDE) + 3)
    violet = [np.abs(frame[row, :SIDE] - 240).max() for frame in frames[:4]]
    assert violet[0] > violet[1] > violet[2] > violet[3] > 0


def test_the_line_shows_the_rest_of_the_plan(tmp_path):
    class Halfway(Planner):
        def predict(self, *arguments, **options):
            result = super().predict(*arguments, **options)
            assert self.last_plan is not None
            self.last_plan = self.last_plan._replace(step=7, virtual=np.empty((0, 8, 2)))
            return result

    class Arrived(Slider):
        def observe(self):
            return {"achieved_goal": np.array([0.8, 0.5]), "desired_goal": np.array([0.9, 0.5])}

    frame = decode(record(Halfway(), Arrived(), tmp_path / "a.gif", caption=False).path)[0].astype(int)
    changed = np.abs(frame[:SIDE] - 240).max(axis=(0, 2)) > 8
    assert not changed[: int(0.72 * SIDE)].any()
    assert changed[int(0.8 * SIDE) : int(0.9 * SIDE)].all()


def test_the_mark_turns_green_on_success(tmp_path):
    frames = decode(record(Planner(), Slider(), tmp_path / "a.gif").path)
    greens = [int((frame[..., 1].astype(int) - frame[..., 0] > 60).sum()) for frame in frames]
    assert greens[:-1] == [0] * 4
    assert greens[-1] > 10


def test_environments_and_agents_without_plans_are_recorded_too(tmp_path):
    class Constant:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return 1, None

    class Bare(Slider):
        def observe(self):
            return np.zeros(2)

    class Blank(Slider):
        goal_to_pixels = None  # type: ignore[assignment]

    assert record(Planner(), Bare(), tmp_path / "a.mp4").frames == 5
    assert record(Planner(), Blank(), tmp_path / "c.mp4").frames == 5
    assert record(Constant(), Slider(), tmp_path / "b.mp4").frames == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_an_interrupted_recording_leaves_no_file(tmp_path, error, suffix):
    with pytest.raises(error):
        record(Planner(fail_at=2, error=error), Slider(), tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_only_by_force(tmp_path):
    (tmp_path / "a.mp4").write_text("old")
    with pytest.raises(ValueError, match=r"a\.mp4 exists"):
        record(Planner(), Slider(), tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_text() == "old"
    with pytest.raises(KeyboardInterrupt):
        record(Planner(fail_at=1, error=KeyboardInterrupt), Slider(), tmp_path / "a.mp4", force=True)
    assert (tmp_path / "a.mp4").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    record(Planner(), Slider(), tmp_path / "a.mp4", force=True)
    assert len(decode(tmp_path / "a.mp4")) == 5


def test_a_given_environment_stays_open(tmp_path):
    env = Slider()
    record(Planner(), env, tmp_path / "a.mp4")
    assert not env.closed


class Long(Slider):
    """As long as its agents want: each tells by its name."""

    def __init__(self, render_mode: str | None = "rgb_array") -> None:
        super().__init__(render_mode)
        self.length = 0

    def step(self, action: np.ndarray):
        self.steps += 1
        length = int(np.ravel(action)[0])
        return self.observe(), 0.0, self.steps == length, False, {"is_success": self.steps == length == 2}


class For:
    """Lets the episode last so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.array([self.steps]), None


def test_side_by_side_a_finished_episode_stays_and_is_marked(tmp_path):
    agents = {"short": For(2), "long": For(4)}
    made = record_beside(agents, Long(), tmp_path / "a.mp4", episodes=2)
    frames = decode(made.path).astype(int)
    assert made.frames == len(frames) == 10
    assert made.successes == (True, False) * 2
    left, right = frames[:, 5, EDGE + 5].mean(-1), frames[:, 5, WIDTH + 6 + EDGE + 5].mean(-1)
    for episode in (0, 5):
        assert left[episode : episode + 5] == pytest.approx([240, 190, 140, 140, 140], abs=6)
        assert right[episode : episode + 5] == pytest.approx([240, 190, 140, 90, 40], abs=6)
    # The caption of the one that has ended changes once, to say so; the other's goes on.
    bands = frames[:5, SIDE + 2 :, : WIDTH - 2]
    assert np.abs(bands[2] - bands[3]).max() > 60
    assert np.abs(bands[3] - bands[4]).max() < 30


def test_a_grid_holds_an_episode_in_each_field(tmp_path):
    class Seeded(Slider):
        def render(self):
            return np.full((SIDE, SIDE, 3), 250 - 40 * self.shade, np.uint8)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
            self.shade = (seed or 0) - 7
            return super().reset(seed=seed)

    made = record_grid(Planner(), Seeded(), tmp_path / "a.mp4", episodes=5, seed=7, draw_plan=False, size=None)
    frames = decode(made.path).astype(int)
    assert made.frames == len(frames) == 5 and made.successes == (True,) * 5
    height = (frames.shape[1] - 6) // 2
    corners = [
        frames[0, 9 + row * (height + 6), EDGE + 9 + column * (WIDTH + 6)].mean()
        for row in (0, 1)
        for column in range(3)
    ]
    assert corners[:5] == pytest.approx([250, 210, 170, 130, 90], abs=6)
    assert corners[5] > 240  # nothing is there


def test_the_plan_is_drawn_in_charts_next_to_images_without_goal_to_pixels(tmp_path):
    class Blank(Slider):
        goal_to_pixels = None  # type: ignore[assignment]

    made = record(Planner(), Blank(), tmp_path / "a.gif", caption=False, size=200)
    frame = decode(made.path)[0]
    assert frame.shape[1] == 200 + 120
    assert near(frame[:, :200], PLAN, 40) == 0 and near(frame[:, 200:], PLAN, 40) > 20
    assert (
        decode(record(Planner(), Blank(), tmp_path / "b.gif", caption=False, draw_plan=False).path).shape[2] == SIDE + 1
    )


def test_the_charts_show_the_goal_of_the_agent_where_the_environment_has_none(tmp_path):
    class Own(Planner):
        goal = Goal.at({0: 0.9, 1: 0.5}, tolerance=0.1)

    class Vector(Slider):
        observation_space = spaces.Box(0, 1, (2,))
        goal_to_pixels = None  # type: ignore[assignment]

        def observe(self):
            return np.array([0.1, 0.5], np.float32)

    frame = decode(record(Own(), Vector(), tmp_path / "a.gif", caption=False, size=200).path)[0]
    assert near(frame[:, 200:], PLAN, 40) > 20


def test_a_caption_is_shortened_to_the_available_width(tmp_path):
    class Talker(Planner):
        name = "an agent whose name has many more letters than fit beside the number of steps"

    bands = [
        decode(record(agent, Slider(), tmp_path / f"{place}.gif", draw_plan=False).path)[0][SIDE + 2 :]
        for place, agent in enumerate((Planner(), Talker()))
    ]
    dark = [(band[: band.shape[0] // 2].min(-1) < 150).any(0) for band in bands]
    figures = np.flatnonzero(dark[0])[-1] - np.flatnonzero(dark[1])[-1]
    assert figures == 0 and dark[1].sum() > dark[0].sum()  # the number stands where it stood
    gaps = np.diff(np.flatnonzero(dark[1]))
    assert gaps.max() >= 6  # and is not written over


def test_agents_in_a_list_are_named_by_themselves(tmp_path):
    made = record_beside([For(2), For(4)], Long(), tmp_path / "a.mp4")
    assert made.frames == 5 and made.successes == (True, False)
    many = record_beside([For(2) for _ in range(5)], Long(), tmp_path / "b.mp4")
    assert decode(many.path).shape[2] == 3 * WIDTH + 2 * 6  # in two rows


def test_one_goal_defines_success_for_all_recorded_agents(tmp_path):
    class Vector(Slider):
        observation_space = spaces.Box(0, 1, (2,))
        goal_to_pixels = None  # type: ignore[assignment]

        def observe(self):
            return np.array([0.1, 0.5], np.float32)

        def step(self, action: Any):
            return *super().step(action)[:4], {}

    class Own(For):
        goal = Goal.at({0: 0.1}, tolerance=0.1)

    class Other(Own):
        goal = Goal.at({0: 0.9, 1: 0.9}, tolerance=0.1)
        last_plan = None

    for agents in ([For(2), Own(2)], [Own(2), For(2)], [Own(2), Other(2)]):
        made = record_beside(agents, Vector(), tmp_path / "a.mp4", force=True)
        assert made.successes == (True, True)


def test_gifs_are_not_faster_than_viewers_support(tmp_path):
    class Quick(Slider):
        metadata = {"render_modes": ["rgb_array"], "render_fps": 100}  # noqa: RUF012

    assert record(Planner(), Quick(), tmp_path / "a.gif").fps == 50
    assert record(Planner(), Quick(), tmp_path / "a.mp4").fps == 100
    made = record(Planner(), Quick(), tmp_path / "c.gif", fps=30, draw_plan=False)
    assert made.fps == pytest.approx(100 / 3)  # they count in hundredths of a second
    with Image.open(made.path) as image:
        assert image.info["duration"] == 30
    with pytest.raises(ValueError, match="at most 50 frames per second, got 100"):
        record(Planner(), Quick(), tmp_path / "b.gif", speed=2)
    with pytest.raises(ValueError, match="at most 240 frames per second, got 300"):
        record(Planner(), Quick(), tmp_path / "b.mp4", fps=300)


def test_size_and_speed(tmp_path):
    made = record(Planner(), Slider(), tmp_path / "a.mp4", caption=False, size=40, speed=2.0)
    assert (made.fps, made.frames) == (50.0, 5)
    assert decode(made.path).shape == (5, 40, 40, 3)


def test_wrong_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="speed: expected more than 0, got 0"):
        record(Planner(), Slider(), tmp_path / "a.mp4", speed=0)
    with pytest.raises(ValueError, match="size: expected 32 to 4096 pixels, got 3"):
        record(Planner(), Slider(), tmp_path / "a.mp4", size=3)
    with pytest.raises(ValueError, match="agents: expected at least one"):
        record_beside({}, Slider(), tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=r"ends in \.mp4 or \.gif, got 'a\.avi'"):
        record(Planner(), Slider(), tmp_path / "a.avi")
    with pytest.raises(ValueError, match="episodes: expected a whole number of at least 1, got 0"):
        record(Planner(), Slider(), tmp_path / "a.mp4", episodes=0)
    with pytest.raises(ValueError, match="fps: expected"):
        record(Planner(), Slider(), tmp_path / "a.mp4", fps=-1)
    with pytest.raises(ValueError, match='expected render_mode="rgb_array", got None'):
        record(Planner(), Slider(render_mode=None), tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_writer_leaves_no_files(tmp_path):
    program = 'import sys, time\nfor i in range(200): open(f"{sys.argv[1]}/{i}", "w").close(); time.sleep(0.001)'
    writing = []

    def break_off():
        with atomic_write(tmp_path / "a.mp4") as aside:
            command = [sys.executable, "-c", program, str(aside.parent)]
            writing.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            while not any(aside.parent.iterdir()):
                pass
            raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        break_off()
    writing[0].wait()
    assert list(tmp_path.iterdir()) == []
