import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from sliders import EDGE, SIDE, WIDTH, Planner, Slider, decode, near

from benchmarks.fault_injection import largest_file
from grasp_agent.files import atomic_write
from grasp_agent.video.overlay import PLAN, UNSURE
from grasp_agent.video.record import record, record_beside
from grasp_agent.video.writer import open_video


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


@pytest.mark.parametrize("fps", [30, 7, 60 / 7, 0.5])
def test_equal_frames_of_a_gif_are_counted_at_every_rate(fps, tmp_path):
    with open_video(tmp_path / "a.gif", fps, force=True) as video:
        for number in range(60):
            video.add(Image.fromarray(np.full((32, 32, 3), number // 3 * 7 % 256, np.uint8)))
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 20
        assert image.info["duration"] == 30 * round(100 / fps)


def test_frames_of_a_gif_in_writing_take_little_memory(tmp_path):
    shown = Image.new("RGB", (640, 480), "white")
    with open_video(tmp_path / "a.gif", 20, force=True) as video:
        tracemalloc.start()
        for x in range(30):
            shown.putpixel((x, 5), (200, 0, 0))
            video.add(shown)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert held < 0.1 * 30 * 640 * 480 * 3
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 30
        image.seek(29)
        assert image.convert("RGB").getpixel((29, 5)) != image.convert("RGB").getpixel((31, 5))


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


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_a_full_disk_leaves_the_old_video(name, tmp_path):
    (tmp_path / name).write_text("old")
    with largest_file(100), pytest.raises(OSError, match=rf"{name}: cannot be written: the file is larger"):
        record(Planner(), Slider(), tmp_path / name, force=True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "old")]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("cat > /dev/null", "the video holds 0 of 5 frames"),
        ("echo 'a codec is missing' >&2; exit 3", "ffmpeg ended with status 3: a codec is missing"),
        ("cat > /dev/null; echo 'No space left on device' >&2; exit 1", "no space left on device"),
    ],
)
def test_a_video_that_does_not_play_does_not_replace_the_old_one(script, said, tmp_path, monkeypatch):
    ffmpeg = tmp_path / "ffmpeg"
    ffmpeg.write_text(f"#!/bin/sh\n{script}\n")
    ffmpeg.chmod(0o755)
    monkeypatch.setattr("grasp_agent.video.encoding.get_exe", lambda: str(ffmpeg))
    (tmp_path / "a.mp4").write_text("old")
    with pytest.raises(OSError, match=rf"a\.mp4: cannot be written: {said}"):
        record(Planner(), Slider(), tmp_path / "a.mp4", force=True)
    assert (tmp_path / "a.mp4").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "ffmpeg"]
