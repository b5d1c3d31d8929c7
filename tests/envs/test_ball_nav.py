"""Balls among walls: physics whose answers are known, layouts, and several balls at once."""

from __future__ import annotations

import time
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy import ndimage

import grasp_envs  # noqa: F401
from grasp_envs.ball_nav import (
    LAYOUTS,
    LIMIT,
    RADIUS,
    STEP,
    BallNavEnv,
    Layout,
    ball_step,
    is_free,
    sample_free,
)
from grasp_envs.ball_physics import Rectangle
from grasp_envs.drawing import BALLS, FLOOR, GOAL, WALL

SPACING = 0.01
AXIS = np.linspace(-LIMIT, LIMIT, round(2 * LIMIT / SPACING) + 1)
CENTRES = np.stack(np.meshgrid(AXIS, AXIS, indexing="ij"), axis=-1)

every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def make(env_id: str, **settings: Any) -> BallNavEnv:
    return cast(BallNavEnv, gym.make(env_id, **settings).unwrapped)


def inside(region: Rectangle, positions: np.ndarray) -> np.ndarray:
    """Which positions [*, 2] lie in a rectangle."""
    return np.all((positions >= region[:2]) & (positions <= region[2:]), axis=-1)


def steps_to(target: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Steps of the shortest path from every centre of the grid to a set of them; infinite where there is none."""
    king = np.ones((3, 3), bool)
    moves, front, done = np.full(free.shape, np.inf), target & free, 0
    while front.any():
        moves[front] = done
        done += 1
        front = ndimage.binary_dilation(front, king) & free & np.isinf(moves)
    return moves * SPACING / STEP


@every_layout
def test_a_million_random_transitions_never_enter_a_wall(layout: str) -> None:
    walls, rng = LAYOUTS[layout].wall_array(), np.random.default_rng(0)
    position = sample_free(rng, 10_000, walls)
    for _ in range(100):
        # Extreme actions, kept up for a while, press into walls and corners.
        position = ball_step(position, rng.choice([-1.0, -0.3, 1.0], size=position.shape), walls)
        assert np.abs(position).max() <= LIMIT
        for x_low, y_low, x_high, y_high in walls:
            gap_x = np.maximum(0, np.maximum(x_low - position[:, 0], position[:, 0] - x_high))
            gap_y = np.maximum(0, np.maximum(y_low - position[:, 1], position[:, 1] - y_high))
            assert np.hypot(gap_x, gap_y).min() >= RADIUS - 1e-9


@every_layout
def test_a_step_of_a_batch_is_the_steps_of_its_rows(layout: str) -> None:
    walls, rng = LAYOUTS[layout].wall_array(), np.random.default_rng(1)
    position, action = sample_free(rng, 60, walls), rng.uniform(-1, 1, (60, 2))
    before = position.copy()
    rows = np.array([ball_step(p, a, walls) for p, a in zip(position, action, strict=True)])
    np.testing.assert_array_equal(ball_step(position, action, walls), rows)
    np.testing.assert_array_equal(
        ball_step(position.reshape(3, 20, 2), action.reshape(3, 20, 2), walls), rows.reshape(3, 20, 2)
    )
    np.testing.assert_array_equal(position, before)


def test_a_free_ball_moves_by_the_action_times_the_step() -> None:
    walls = LAYOUTS["open"].wall_array()
    np.testing.assert_allclose(ball_step([0.1, 0.2], [0.5, -1.0], walls), [0.1 + 0.5 * STEP, 0.2 - STEP], atol=1e-15)


def push(position: list[float], action: list[float], layout: str, steps: int) -> np.ndarray:
    walls, now = LAYOUTS[layout].wall_array(), np.array(position)
    for _ in range(steps):
        now = ball_step(now, action, walls)
    return now


def test_a_ball_stops_at_a_wall_at_exactly_its_radius() -> None:
    np.testing.assert_allclose(push([-0.5, 0.1], [1.0, 0.0], "barrier", 20), [-0.06 - RADIUS, 0.1], rtol=0, atol=1e-12)


def test_a_ball_slides_along_a_wall_without_friction() -> None:
    start = push([-0.5, -0.3], [1.0, 0.0], "barrier", 20)
    np.testing.assert_allclose(
        push(list(start), [1.0, 0.5], "barrier", 10),
        start + np.array([0.0, 10 * 0.5 * STEP]),
        rtol=0,
        atol=1e-12,
    )


def test_a_ball_slips_around_the_end_of_a_wall() -> None:
    end = push([-0.3, 0.58], [1.0, 0.15], "barrier", 20)
    assert end[0] > 0.06 + RADIUS


def test_a_ball_rests_in_a_concave_corner_against_both_walls() -> None:
    np.testing.assert_allclose(
        push([0.0, 0.0], [1.0, 1.0], "trap", 30), [0.25 - RADIUS, 0.33 - RADIUS], rtol=0, atol=1e-12
    )


def test_a_ball_inside_a_wall_leaves_it_by_the_nearest_face() -> None:
    np.testing.assert_allclose(push([0.02, 0.1], [0.0, 0.0], "barrier", 1), [0.06 + RADIUS, 0.1], atol=1e-12)


@pytest.mark.parametrize(("layout", "gap"), [("trap", 0.3), ("maze", 0.2)])
def test_going_straight_never_reaches_a_goal_behind_a_dead_end(layout: str, gap: float) -> None:
    chosen, rng = LAYOUTS[layout], np.random.default_rng(2)
    walls = chosen.wall_array()
    position, goal = sample_free(rng, 500, walls, chosen.start), sample_free(rng, 500, walls, chosen.goal)
    for _ in range(200):
        position = ball_step(position, (goal - position) / STEP, walls)
        assert np.linalg.norm(position - goal, axis=-1).min() > gap


def test_a_trap_goal_is_reached_by_going_around() -> None:
    env = make("grasp/BallNavTrap-v0")
    env.reset(seed=0, options={"state": [0.1, 0.1], "goal": [0.7, 0.2]})
    for corner in ([-0.55, 0.1], [-0.55, 0.6], [0.6, 0.6]):
        for _ in range(25):
            assert not env.step((np.array(corner) - env.state) / STEP)[4]["is_success"]
    last = [env.step((env.goal - env.state) / STEP)[4]["is_success"] for _ in range(25)]
    np.testing.assert_allclose(env.state, env.goal, atol=1e-12)
    assert last[-1]


@every_layout
def test_free_positions_are_drawn_from_the_region_and_overlap_no_wall(layout: str) -> None:
    chosen = LAYOUTS[layout]
    drawn = sample_free(np.random.default_rng(0), 1_000, chosen.wall_array(), chosen.start)
    assert drawn.shape == (1_000, 2)
    assert is_free(drawn, chosen.wall_array()).all()
    assert (drawn >= chosen.start[:2]).all()
    assert (drawn <= chosen.start[2:]).all()


def test_a_region_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="room for the ball"):
        sample_free(np.random.default_rng(0), 1, LAYOUTS["barrier"].wall_array(), (-0.05, -0.1, 0.05, 0.1))


def test_a_custom_layout_is_accepted_and_an_unknown_name_refused() -> None:
    env = BallNavEnv(layout=Layout(walls=((0.2, -0.1, 0.4, 0.1),), start=(-0.5, -0.5, -0.4, -0.4)))
    env.reset(seed=0)
    assert (env.state <= -0.4).all()
    with pytest.raises(ValueError, match=r"layout must be one of 'open', .*'maze' or a Layout, got 'ring'"):
        BallNavEnv(layout="ring")


def test_a_state_inside_a_wall_is_refused() -> None:
    with pytest.raises(ValueError, match=r"free position.*got \[0\. 0\.\]"):
        make("grasp/BallNav-v0").reset(options={"state": [0.0, 0.0]})


@every_layout
def test_a_million_transitions_take_less_than_a_second(layout: str) -> None:
    walls, rng = LAYOUTS[layout].wall_array(), np.random.default_rng(0)
    position, action = sample_free(rng, 10_000, walls), rng.uniform(-1, 1, (10_000, 2))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        ball_step(position, action, walls)
        seconds.append(time.perf_counter() - start)
    assert 10_000 / min(seconds) >= 1e6


def test_the_path_through_the_maze_is_long() -> None:
    maze = LAYOUTS["maze"]
    free, starts = is_free(CENTRES, maze.wall_array()), inside(maze.start, CENTRES)
    assert steps_to(inside(maze.goal, CENTRES), free)[starts].min() >= 80
    west, south, _, north = maze.goal
    for corner in ((west, south), (west, north)):
        assert steps_to(np.abs(CENTRES - corner).max(axis=-1) < SPACING / 2, free)[starts].max() <= 110


def test_the_corridors_of_the_maze_are_wide() -> None:
    maze = LAYOUTS["maze"]
    free = is_free(CENTRES, maze.wall_array())
    # What is left are the middles of free squares 0.25 m wide.
    wide = ndimage.binary_erosion(free, np.ones((26, 26), bool))
    lengths = steps_to(inside(maze.goal, CENTRES), wide)
    assert np.isfinite(lengths[inside(maze.start, CENTRES) & wide]).all()
    assert np.isfinite(steps_to(inside(maze.goal, CENTRES), free)[free]).all()


def test_the_maze_is_solved_in_as_many_steps_as_its_shortest_path() -> None:
    env = make("grasp/BallNavMaze-v0")
    env.reset(seed=0, options={"state": [-0.8, 0.8], "goal": [-0.8, -0.8]})
    corners = [(0.69, 0.6), (0.69, 0.4), (-0.21, 0.1), (-0.21, -0.1), (0.69, -0.4), (0.69, -0.6), (-0.8, -0.8)]
    steps, success = 0, False
    for corner in corners:
        while not success and np.abs(corner - env.state).max() > 1e-9:
            success = env.step((corner - env.state) / STEP)[4]["is_success"]
            steps += 1
    assert success
    free = is_free(CENTRES, env.walls)
    target = np.abs(CENTRES - env.goal).max(axis=-1) < SPACING / 2
    shortest = steps_to(target, free)[np.abs(CENTRES - (-0.8, 0.8)).max(axis=-1) < SPACING / 2].item()
    assert shortest - 1 <= steps <= shortest + 10


def test_a_single_ball_starts_where_it_always_did() -> None:
    observation, _ = make("grasp/BallNav-v0").reset(seed=0)
    np.testing.assert_array_equal(observation["observation"], [0.25748797216433417, -0.4328009781239238])
    np.testing.assert_array_equal(observation["desired_goal"], [-0.862969774999954, -0.9089280452063653])


def test_an_episode_of_several_balls_is_the_episodes_of_each() -> None:
    rng = np.random.default_rng(0)
    several, single = BallNavEnv(balls=5, layout="trap"), BallNavEnv(layout="trap")
    several.reset(seed=0)
    start, goal = several.state.reshape(5, 2), several.goal.reshape(5, 2)
    # Two that start at one position and move alike would collide if collisions were simulated.
    start[4] = start[3]
    several.reset(options={"state": start.ravel()})
    actions = rng.uniform(-1, 1, (40, 5, 2))
    actions[:, 4] = actions[:, 3]
    shown = np.array([several.step(action.ravel())[0]["observation"] for action in actions]).reshape(40, 5, 2)
    for ball in range(5):
        single.reset(options={"state": start[ball], "goal": goal[ball]})
        alone = [single.step(action)[0]["observation"] for action in actions[:, ball]]
        np.testing.assert_array_equal(shown[:, ball], alone)


def test_every_ball_draws_a_start_and_a_goal_of_its_own_from_the_regions() -> None:
    env = BallNavEnv(balls=3, layout="maze")
    drawn = [(env.reset(seed=seed)[0], env.state) for seed in range(100)]
    starts = np.array([state for _, state in drawn]).reshape(-1, 3, 2)
    goals = np.array([observation["desired_goal"] for observation, _ in drawn]).reshape(-1, 3, 2)
    assert inside(env.layout.start, starts).all()
    assert inside(env.layout.goal, goals).all()
    for positions in (starts, goals):
        between = np.corrcoef(positions[..., 0], rowvar=False) - np.eye(3)
        assert np.abs(between).max() < 0.4


def test_the_ball_that_is_farthest_from_its_goal_counts() -> None:
    env, dense = BallNavEnv(balls=3), BallNavEnv(balls=3, reward_type="dense")
    desired = np.array([-0.5, 0.0, 0.5, 0.0, 0.5, 0.5])
    gaps = np.array(
        [
            [[0.03, 0.02, 0.03, 0.0, 0.0, 0.04], [0.0, 0.0, 0.03, 0.05, 0.0, 0.0]],
            [[0.6, 0.8, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.3, 0.4]],
        ]
    )
    np.testing.assert_allclose(env.goal_distance(desired + gaps, desired), [[0.04, np.hypot(0.03, 0.05)], [1.0, 0.5]])
    np.testing.assert_array_equal(env.compute_reward(desired + gaps, desired), [[0.0, -1.0], [-1.0, -1.0]])
    np.testing.assert_allclose(dense.compute_reward(desired + gaps, desired), -env.goal_distance(gaps, 0.0 * gaps))
    for gap, success in ((gaps[0, 0], True), (gaps[0, 1], False)):
        _, info = env.reset(options={"state": desired + gap, "goal": desired})
        assert info["is_success"] is success
        assert env.step(np.zeros(6))[1] == (0.0 if success else -1.0)


def test_success_and_rewards_mean_the_distance_that_a_subclass_defines() -> None:
    class Easy(BallNavEnv):
        def goal_distance(self, achieved_goal: ArrayLike, desired_goal: ArrayLike) -> Any:
            return 0.1 * super().goal_distance(achieved_goal, desired_goal)

    env = Easy(reward_type="dense")
    assert env.reset(options={"state": [0.5, 0.0], "goal": [0.5, 0.4]})[1]["is_success"]
    assert env.step([0.0, 0.0])[1] == pytest.approx(-0.04)


def test_blocks_name_each_balls_entries() -> None:
    assert BallNavEnv().blocks == (((0, 1), (0, 1)),)
    assert make("grasp/BallNav4-v0").blocks == tuple(((i, i + 1), (i, i + 1)) for i in (0, 2, 4, 6))
    with pytest.raises(AttributeError):
        BallNavEnv().blocks = ()  # type: ignore[misc]


@pytest.mark.parametrize("layout", ["trap", "maze"])
def test_anywhere_draws_starts_and_goals_all_over_the_arena(layout: str) -> None:
    env = BallNavEnv(layout=layout, anywhere=True)
    drawn = [(env.reset(seed=seed)[0]["desired_goal"], env.state) for seed in range(300)]
    for positions in np.array(drawn).swapaxes(0, 1):
        assert is_free(positions, env.walls).all()
        counts = np.histogram2d(*positions.T, bins=3, range=[(-LIMIT, LIMIT)] * 2)[0]
        assert counts.min() >= 5


@pytest.mark.parametrize("balls", [0, 2.0, "two", None])
def test_an_invalid_number_of_balls_is_refused(balls: Any) -> None:
    with pytest.raises(ValueError, match="balls must be an integer of at least 1, got"):
        BallNavEnv(balls=balls)


def test_a_refused_state_of_several_balls_names_the_invalid_ones() -> None:
    state = [-0.5, 0.0, 0.0, 0.0, 0.5, 0.0, 0.99, 0.0]
    with pytest.raises(ValueError, match=r"free position for every ball \(not so for 1, 3\)"):
        make("grasp/BallNav4-v0").reset(options={"state": state})


@pytest.mark.parametrize("balls", [1, 4, 8])
def test_each_goal_is_drawn_in_the_colour_of_its_ball_and_a_single_one_in_green(balls: int) -> None:
    env = BallNavEnv(balls=balls, layout="open", render_mode="rgb_array")
    across = np.linspace(-0.9, 0.9, balls)
    state, goal = (np.stack((across, np.full(balls, height)), axis=-1) for height in (-0.5, 0.5))
    env.reset(options={"state": state.ravel(), "goal": goal.ravel()})
    rims = goal + np.array([env.distance_threshold, 0.0])
    columns, rows = env.goal_to_pixels([state.ravel(), rims.ravel()]).reshape(2, balls, 2).astype(int).T
    shown = cast(np.ndarray, env.render())[rows.T, columns.T].astype(float)
    palette = np.array([*(ball.body for ball in BALLS), GOAL, FLOOR], float)
    nearest = np.linalg.norm(shown[..., None, :] - palette, axis=-1).argmin(axis=-1)
    expected = np.arange(balls) % len(BALLS)
    np.testing.assert_array_equal(nearest[0], expected)
    np.testing.assert_array_equal(nearest[1], [len(BALLS)] if balls == 1 else expected)


def test_the_colours_of_balls_are_distinct() -> None:
    colours = np.array([FLOOR, WALL, *(ball.body for ball in BALLS)], float)
    gaps = np.linalg.norm(colours[:, None] - colours, axis=-1) + 1e3 * np.eye(len(colours))
    assert gaps.min() > 50
