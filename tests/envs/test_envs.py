"""The environments: one contract for every registered id; and the arm, whose answers are known."""

from __future__ import annotations

import warnings
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_by_gymnasium
from stable_baselines3.common.env_checker import check_env as check_by_sb3

import grasp_envs
from grasp_envs.goal_env import GoalEnv
from grasp_envs.rendering import choose_backend

BALL = {"state": [-0.5, 0.1], "goal": [0.5, 0.2], "wrong_state": [np.nan, 0.0], "wrong_goal": [2.0, 0.0]}

TRAP = {**BALL, "state": [0.0, 0.1], "goal": [0.7, 0.2]}

MAZE = {**BALL, "state": [-0.8, 0.8], "goal": [-0.8, -0.8]}

FOUR = {
    "state": [-0.5, 0.1, 0.3, -0.4, 0.6, 0.5, -0.7, -0.7],
    "goal": [0.5, 0.2, -0.3, 0.4, 0.6, -0.5, -0.7, 0.7],
    "wrong_state": [-0.5, 0.1, 0.3, -0.4, 0.0, 0.5, -0.7, -0.7],
    "wrong_goal": [0.5, 0.2, -0.3, 0.4, 0.6, -0.5, -0.7, 0.95],
}

POINT = {
    "state": [-1.0, 1.1, 0.3, -0.2],
    "goal": [-1.0, -1.0],
    "wrong_state": [-1.0, 0.0, 0.0, 0.0],
    "wrong_goal": [1.45, 1.0],
}

BLOCK = {
    "state": [100.0, 120.0, 10.0, -5.0, 256.0, 300.0, 0.5],
    "goal": [300.0, 250.0, 0.0, 1.0],
    "wrong_state": [-1.0, 120.0, 0.0, 0.0, 256.0, 300.0, 0.5],
    "wrong_goal": [300.0, 250.0, 1.0, 1.0],
}

ARM = {
    "state": [0.3, -0.4, 0.1, 0.2],
    "goal": [0.1, 0.1],
    "wrong_state": [0, 4.0, 0, 0],
    "wrong_goal": [0.3, 0.0],
}

EXAMPLES: dict[str, dict[str, Any]] = {
    "grasp/BallNav-v0": BALL,
    "grasp/BallNavTrap-v0": TRAP,
    "grasp/BallNavMaze-v0": MAZE,
    "grasp/BallNav4-v0": FOUR,
    "grasp/Wall-v0": BALL,
    "grasp/WallDoor-v0": {**BALL, "state": [*BALL["state"], 0.3]},
    "grasp/PointMaze-v0": POINT,
    "grasp/PointMazeMedium-v0": {**POINT, "state": [-2.5, 2.0, 0.3, -0.2], "goal": [2.5, -2.5]},
    "grasp/PointMazeLarge-v0": {**POINT, "state": [-4.5, 3.0, 0.3, -0.2], "goal": [4.5, -3.0]},
    "grasp/PushT-v0": BLOCK,
    "grasp/Reacher-v0": ARM,
}

TIME_LIMITS = {
    "grasp/Reacher-v0": 50,
    "grasp/BallNavMaze-v0": 200,
    "grasp/PointMazeMedium-v0": 200,
    "grasp/PointMazeLarge-v0": 300,
    "grasp/PushT-v0": 150,
}

DRAWN_BY_MUJOCO = ("grasp/Reacher-v0", "grasp/PointMaze-v0", "grasp/PointMazeMedium-v0", "grasp/PointMazeLarge-v0")

every_env = pytest.mark.parametrize("env_id", grasp_envs.ENV_IDS)


@pytest.fixture
def _can_draw(env_id: str) -> None:
    try:
        if env_id in DRAWN_BY_MUJOCO:
            choose_backend()
    except RuntimeError as error:
        pytest.skip(str(error))


def make(env_id: str, **settings: Any) -> GoalEnv:
    return cast(GoalEnv, gym.make(env_id, **settings).unwrapped)


def roll(env: gym.Env, seed: int, steps: int) -> list[Any]:
    """All outputs of an episode with actions of the seed."""
    rng = np.random.default_rng(seed)
    moments: list[Any] = [env.reset(seed=seed)]
    shape = env.action_space.shape
    moments += [env.step(rng.uniform(-1, 1, shape).astype(np.float32)) for _ in range(steps)]
    return moments


def test_every_registered_id_of_ours_is_in_the_list() -> None:
    assert {name for name in gym.registry if name.startswith("grasp/")} == set(grasp_envs.ENV_IDS)
    assert set(EXAMPLES) == set(grasp_envs.ENV_IDS)


@every_env
@pytest.mark.parametrize("observation", ["state", "pixels"])
@pytest.mark.usefixtures("_can_draw")
def test_both_checkers_accept_it(env_id: str, observation: str) -> None:
    env = gym.make(env_id, observation=observation, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(minimum|maximum) value is -?infinity.*")
        check_by_gymnasium(env.unwrapped)
        check_by_sb3(env.unwrapped)
    env.close()


@every_env
def test_the_same_seed_gives_the_same_episode_bit_for_bit(env_id: str) -> None:
    assert repr(roll(make(env_id), 7, 10)) == repr(roll(make(env_id), 7, 10))


@every_env
def test_different_seeds_give_different_starts_and_goals(env_id: str) -> None:
    env = make(env_id)
    first, second = env.reset(seed=1)[0], env.reset(seed=2)[0]
    assert not np.array_equal(first["observation"], second["observation"])
    assert not np.array_equal(first["desired_goal"], second["desired_goal"])


@every_env
def test_reset_without_a_seed_continues_and_draws_a_new_episode(env_id: str) -> None:
    env = make(env_id)
    first, second = env.reset(seed=1)[0], env.reset()[0]
    assert not np.array_equal(first["desired_goal"], second["desired_goal"])


@every_env
def test_no_drawn_episode_starts_in_success_and_all_lie_in_the_spaces(env_id: str) -> None:
    env = make(env_id)
    for seed in range(300):
        observation, info = env.reset(seed=seed)
        assert not info["is_success"]
        assert env.observation_space.contains(observation)
        env.reset(options={"state": env.state, "goal": env.goal})


@every_env
@pytest.mark.parametrize("reward_type", ["sparse", "dense"])
def test_vectorised_rewards_are_the_rewards_of_the_steps(env_id: str, reward_type: str) -> None:
    env = make(env_id, reward_type=reward_type)
    steps = roll(env, 3, 20)[1:]
    achieved = np.array([step[0]["achieved_goal"] for step in steps])
    desired = np.array([step[0]["desired_goal"] for step in steps])
    rewards = env.compute_reward(achieved, desired, [step[4] for step in steps])
    np.testing.assert_array_equal(rewards, [step[1] for step in steps])
    assert isinstance(rewards, np.ndarray)
    assert rewards.dtype == np.float64
    nested = env.compute_reward(achieved.reshape(4, 5, -1), desired.reshape(4, 5, -1), None)
    np.testing.assert_array_equal(np.ravel(nested), rewards)
    assert isinstance(steps[0][1], float)


@every_env
def test_rewards_at_known_distances(env_id: str) -> None:
    env = make(env_id)
    goals = np.zeros((3, len(EXAMPLES[env_id]["goal"])))
    goals[:2, 0] = np.array([0.9, 1.1]) * env.distance_threshold
    goals[2, :2] = [0.03, 0.04]
    np.testing.assert_array_equal(env.compute_reward(goals[:2], np.zeros_like(goals[:2]), {}), [0.0, -1.0])
    dense = make(env_id, reward_type="dense")
    assert dense.compute_reward(goals[2], np.zeros_like(goals[2]), {}) == pytest.approx(-0.05)


@every_env
def test_the_given_state_and_goal_are_where_the_episode_starts(env_id: str) -> None:
    env, example = make(env_id), EXAMPLES[env_id]
    observation, _ = env.reset(seed=0, options={"state": example["state"], "goal": example["goal"]})
    np.testing.assert_array_equal(env.state, example["state"])
    np.testing.assert_array_equal(observation["desired_goal"], example["goal"])
    only_goal, info = env.reset(options={"goal": example["goal"]})
    np.testing.assert_array_equal(only_goal["desired_goal"], example["goal"])
    assert not info["is_success"]


@every_env
def test_an_episode_can_be_continued_from_any_state_it_was_in(env_id: str) -> None:
    env, again = make(env_id), make(env_id)
    roll(env, 5, 30)
    again.reset(seed=0, options={"state": env.state, "goal": env.goal})
    action = np.resize(np.array([0.3, -0.8], np.float32), env.action_space.shape)
    np.testing.assert_allclose(
        env.step(action)[0]["observation"], again.step(action)[0]["observation"], rtol=0, atol=1e-9
    )


@every_env
def test_starting_at_the_goal_is_reported_as_success(env_id: str) -> None:
    env = make(env_id)
    env.reset(seed=0, options={"state": EXAMPLES[env_id]["state"]})
    here = env.reset(options={"state": EXAMPLES[env_id]["state"]})[0]["achieved_goal"]
    assert not env._is_success()
    assert env.reset(options={"state": EXAMPLES[env_id]["state"], "goal": here})[1]["is_success"]


@every_env
def test_bad_options_are_refused_by_name(env_id: str) -> None:
    env, example = make(env_id), EXAMPLES[env_id]
    env.reset(seed=0)
    bad = [
        ({"position": example["state"]}, "unknown reset option position; valid options: state, goal"),
        ({"state": [0.0]}, r"state must have shape \(\d,\), got \(1,\)"),
        ({"goal": [example["goal"]]}, r"goal must have shape \(\d,\), got \(1, \d\)"),
        ({"goal": [np.inf, *example["goal"][1:]]}, "goal must be finite"),
        ({"state": example["wrong_state"]}, "option state must"),
        ({"goal": example["wrong_goal"]}, "option goal must"),
    ]
    for options, message in bad:
        with pytest.raises(ValueError, match=message):
            env.reset(options=options)


@every_env
def test_bad_keywords_are_refused_with_the_choices(env_id: str) -> None:
    bad = [
        ({"observation": "image"}, "observation must be one of 'state', 'pixels', got 'image'"),
        ({"reward_type": "shaped"}, "reward_type must be one of 'sparse', 'dense'"),
        ({"render_size": 3}, "render_size must be an integer of at least 16, got 3"),
    ]
    for settings, message in bad:
        with pytest.raises(ValueError, match=message):
            gym.make(env_id, **settings)


@every_env
def test_bad_actions_are_refused_and_large_ones_clipped(env_id: str) -> None:
    env, options = make(env_id), {key: EXAMPLES[env_id][key] for key in ("state", "goal")}
    env.reset(seed=0, options=options)
    signs = np.resize([1.0, -1.0], env.action_space.shape)
    for action, message in [(signs[1:], "shape"), (signs * np.nan, "finite"), (signs[None], "shape")]:
        with pytest.raises(ValueError, match=message):
            env.step(action)
    large = env.step(50.0 * signs)[0]["observation"]
    env.reset(options=options)
    np.testing.assert_array_equal(large, env.step(signs)[0]["observation"])


@every_env
def test_a_step_before_the_first_reset_is_an_error(env_id: str) -> None:
    with pytest.raises(gym.error.ResetNeeded):
        make(env_id).step(make(env_id).action_space.high)


@every_env
@pytest.mark.parametrize("terminate", [False, True])
def test_success_ends_the_episode_only_if_asked(env_id: str, terminate: bool) -> None:
    env = make(env_id, terminate_on_success=terminate)
    state = EXAMPLES[env_id]["state"]
    here = env.reset(seed=0, options={"state": state})[0]["achieved_goal"]
    still = np.zeros(env.action_space.shape)
    assert env.step(still)[2] is False
    env.reset(options={"state": state, "goal": here})
    _, reward, terminated, truncated, info = env.step(still)
    assert info["is_success"]
    assert reward == 0.0
    assert terminated is terminate
    assert not truncated


@every_env
def test_the_time_limit_truncates(env_id: str) -> None:
    env = gym.make(env_id)
    limit = TIME_LIMITS.get(env_id, 100)
    ends = [step[2:4] for step in roll(env, 0, limit)[1:]]
    assert ends == [(False, False)] * (limit - 1) + [(False, True)]


@every_env
def test_observations_are_copies_that_later_steps_leave_alone(env_id: str) -> None:
    env = make(env_id)
    first, _ = env.reset(seed=0)
    before = {key: value.copy() for key, value in first.items()}
    env.step(env.action_space.high)
    for key, value in before.items():
        np.testing.assert_array_equal(first[key], value)


@every_env
@pytest.mark.usefixtures("_can_draw")
def test_pixel_observations_show_the_state_but_not_the_goal(env_id: str) -> None:
    env = make(env_id, observation="pixels", render_mode="rgb_array")
    state = EXAMPLES[env_id]["state"]
    goals = [env.reset(seed=seed, options={"state": state})[0] for seed in (0, 1)]
    env.render()
    assert not np.array_equal(goals[0]["desired_goal"], goals[1]["desired_goal"])
    np.testing.assert_array_equal(goals[0]["observation"], goals[1]["observation"])
    assert goals[0]["observation"].shape == (64, 64, 3)
    assert goals[0]["observation"].dtype == np.uint8
    assert (env.step(env.action_space.high)[0]["observation"] != goals[1]["observation"]).any()
    env.close()


@pytest.mark.parametrize("env_id", ["grasp/BallNav-v0", "grasp/Reacher-v0"])
def test_an_unknown_keyword_is_refused_with_the_valid_ones(env_id: str):
    with pytest.raises(TypeError, match=r"takes the keywords .*render_size, got 'colour'"):
        gym.make(env_id, colour="red")
