"""Push-T: physics with known answers, its measures, its expert."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import shapely

from grasp_envs.push_t import ANGLE_TOLERANCE, POSITION_TOLERANCE, PushTEnv
from grasp_envs.push_t_expert import PushTExpert
from grasp_envs.push_t_physics import AGENT_RADIUS, RIM, SIZE, Board, block_corners, touches

UPRIGHT = (256.0, 200.0, 0.0)


def make() -> PushTEnv:
    return cast(PushTEnv, gym.make("grasp/PushT-v0").unwrapped)


def pose(x: float, y: float, angle: float) -> np.ndarray:
    return np.array([x, y, np.cos(angle), np.sin(angle)])


def test_the_board_has_no_hidden_state() -> None:
    board, again = Board(), Board()
    board.state = [160.0, 215.0, 0.0, 0.0, *UPRIGHT]
    for _ in range(6):
        board.push(board.state[:2] + np.array([60.0, 3.0]))
    assert not np.allclose(board.state[4:], UPRIGHT)
    again.state = board.state
    for _ in range(6):
        board.push(board.state[:2] + np.array([60.0, 3.0]))
        again.push(again.state[:2] + np.array([60.0, 3.0]))
        np.testing.assert_array_equal(board.state, again.state)


def test_a_block_that_is_not_touched_stays_exactly_where_it_is() -> None:
    board = Board()
    board.state = [60.0, 60.0, 0.0, 0.0, *UPRIGHT]
    for _ in range(20):
        board.push((60.0, 460.0))
    np.testing.assert_array_equal(board.state[4:], UPRIGHT)
    np.testing.assert_allclose(board.state[:4], [60.0, 460.0, 0.0, 0.0], atol=1e-2)


def test_a_central_push_moves_a_block_straight_and_an_off_centre_push_turns_it() -> None:
    board = Board()
    board.state = [256.0, 180.0, 0.0, 0.0, *UPRIGHT]
    for _ in range(5):
        board.push(board.state[:2] + np.array([0.0, 50.0]))
    x, y, angle = board.state[4:]
    assert abs(x - 256.0) < 0.5
    assert abs(angle) < 0.01
    assert y == pytest.approx(board.state[1] + AGENT_RADIUS, abs=3.0)
    assert y > 230.0
    board.state = [300.0, 180.0, 0.0, 0.0, *UPRIGHT]
    for _ in range(5):
        board.push(board.state[:2] + np.array([0.0, 50.0]))
    assert board.state[6] > 0.3


def test_the_block_stays_on_the_board() -> None:
    board, rng = Board(), np.random.default_rng(0)
    board.state = [256.0, 170.0, 0.0, 0.0, *UPRIGHT]
    for _ in range(300):
        towards = board.state[4:6] - board.state[:2]
        board.push(board.state[:2] + 100.0 * towards / np.linalg.norm(towards) + rng.uniform(-60, 60, 2))
        assert ((board.state[:2] >= 0) & (board.state[:2] <= SIZE)).all()
        assert ((board.state[4:6] >= -RIM) & (board.state[4:6] <= SIZE + RIM)).all()


def test_touching_is_exact_to_the_millimetre() -> None:
    above, right_of = (256.0, 200.0 - AGENT_RADIUS), (256.0 + 15.0 + AGENT_RADIUS, 300.0)
    for position, out in ((above, (0.0, -1.0)), (right_of, (1.0, 0.0))):
        assert touches(np.array(position) - 0.01 * np.array(out), UPRIGHT)
        assert not touches(np.array(position) + 0.01 * np.array(out), UPRIGHT)
    turned = (256.0, 200.0, np.pi / 2)  # what pointed down points left now
    assert touches((256.0 - 100.0, 200.0), turned)
    assert not touches((256.0, 300.0), turned)


def test_success_depends_on_position_and_angle() -> None:
    env, goal = make(), pose(300.0, 250.0, 3.1)
    inside = [pose(300.0 + 19.9, 250.0, 3.1), pose(300.0, 250.0, 3.1 + ANGLE_TOLERANCE - 0.01)]
    outside = [pose(300.0, 250.0 - 20.1, 3.1), pose(300.0, 250.0, 3.1 - ANGLE_TOLERANCE - 0.01)]
    np.testing.assert_array_equal(env.compute_reward(np.array(inside), goal), [0.0, 0.0])
    np.testing.assert_array_equal(env.compute_reward(np.array(outside), goal), [-1.0, -1.0])
    across = env.goal_distance(pose(300.0, 250.0, 3.1), pose(300.0, 250.0, -3.1))
    assert across == pytest.approx((2 * np.pi - 6.2) * POSITION_TOLERANCE / ANGLE_TOLERANCE)


@pytest.mark.parametrize(
    ("goal", "fraction"),
    [
        (pose(*UPRIGHT), 1.0),
        (pose(256.0, 201.0, 0.0), 1 - (120 * 1) / 6300),  # both bars end one unit lower, side by side
        (pose(400.0, 400.0, 0.0), 0.0),
    ],
)
def test_coverage_has_its_known_values(goal: np.ndarray, fraction: float) -> None:
    env = make()
    _, info = env.reset(seed=0, options={"state": [60.0, 60.0, 0.0, 0.0, *UPRIGHT], "goal": goal})
    assert info["coverage"] == pytest.approx(fraction, abs=1e-9)


def test_a_full_action_is_a_target_a_hundred_units_away() -> None:
    env = make()
    env.reset(seed=0, options={"state": [100.0, 100.0, 0.0, 0.0, 400.0, 400.0, 0.0]})
    vector = env.step(np.array([1.0, -0.5], np.float32))[0]["observation"]
    board = Board()
    board.state = [100.0, 100.0, 0.0, 0.0, 400.0, 400.0, 0.0]
    board.push((200.0, 50.0))
    np.testing.assert_allclose(vector[:4], board.state[:4], rtol=0, atol=1e-9)
    assert vector[0] > 115.0
    assert vector[1] < 95.0


@pytest.mark.slow
def test_the_expert_solves_it_and_plays_the_same_for_a_seed() -> None:
    env = gym.make("grasp/PushT-v0")

    def play(seed: int) -> tuple[bool, Any]:
        expert, ended = PushTExpert(0), False
        observation, info = env.reset(seed=seed)
        while not ended:
            action = expert(observation)
            assert env.action_space.contains(action)
            observation, _, terminated, truncated, info = env.step(action)
            ended = terminated or truncated
        return info["is_success"], observation["observation"]

    played = [play(seed) for seed in range(4)]
    assert sum(success for success, _ in played) >= 3
    np.testing.assert_array_equal(play(0)[1], played[0][1])


def test_the_goal_is_drawn_in_its_pose() -> None:
    env = make()
    env.reset(seed=0, options={"state": [60.0, 60.0, 0.0, 0.0, 400.0, 100.0, 0.0], "goal": pose(200.0, 300.0, 0.7)})
    painted = (env._render_image(480, env.goal) != env._render_image(480, None)).any(axis=-1)
    corners = block_corners((200.0, 300.0, 0.7)).reshape(-1, 2)
    corners_drawn = env.goal_to_pixels(np.concatenate([corners, np.zeros((8, 2))], axis=1)).reshape(2, 4, 2)
    outline = shapely.unary_union([shapely.Polygon(bar) for bar in corners_drawn])
    rows, columns = np.nonzero(painted)
    dots = shapely.points(columns + 0.5, rows + 0.5)
    assert shapely.contains(outline.buffer(1.5), dots).all()
    assert painted.sum() == pytest.approx(outline.area, rel=0.05)
