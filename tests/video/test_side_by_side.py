"""Videos of several episodes at once, charts and captions."""

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from sliders import EDGE, SIDE, WIDTH, Planner, Slider, decode, near

from grasp_agent import Goal
from grasp_agent.video.overlay import PLAN
from grasp_agent.video.record import record, record_beside, record_grid


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
    # The caption of the finished episode changes once, to mark its end; the other's keeps changing.
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
    assert corners[5] > 240  # an empty cell


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
