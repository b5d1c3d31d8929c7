"""Image observations of environments: images of goals, stacked frames, doors."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_by_gymnasium

import grasp_envs

DRAWN = [i for i in grasp_envs.ENV_IDS if "Maze-v0" not in i and "Medium" not in i and "Large" not in i]


def make_pixels(env_id: str, **settings: Any) -> gym.Env[Any, Any]:
    return gym.make(env_id, observation="pixels", goal="pixels", **settings)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("env_id", DRAWN)
def test_goals_are_images_of_the_goal_being_reached(env_id: str):
    env = make_pixels(env_id)
    plain: Any = env.unwrapped
    check_by_gymnasium(plain, skip_render_check=True)
    observation, _ = env.reset(seed=3)
    assert set(observation) == {"observation", "desired_goal"}
    there = gym.make(env_id, observation="pixels")
    shown, info = there.reset(seed=3, options={"state": plain._goal_state(plain.goal), "goal": plain.goal})
    assert info["is_success"]
    np.testing.assert_array_equal(shown["observation"], observation["desired_goal"])
    assert (observation["observation"] != observation["desired_goal"]).any()
    env.close()


@pytest.mark.parametrize("env_id", ["grasp/PushT-v0", "grasp/WallDoor-v0"])
def test_a_goal_may_be_a_whole_state(env_id: str):
    env: Any = make_pixels(env_id)
    env.reset(seed=1)
    for _ in range(5):
        env.step(env.action_space.sample())
    target = env.unwrapped.state
    shown = env.unwrapped._observe()["observation"]
    observation, _ = env.reset(seed=2, options={"goal_state": target})
    np.testing.assert_array_equal(observation["desired_goal"], shown)
    with pytest.raises(ValueError, match="goal and goal_state: expected one of them"):
        env.reset(options={"goal_state": target, "goal": env.unwrapped.goal})
    with pytest.raises(ValueError, match="goal_state must have shape"):
        env.reset(options={"goal_state": [1.0]})


def test_frames_are_the_last_images_the_newest_last():
    env = make_pixels("grasp/Wall-v0", frames=3)
    first, _ = env.reset(seed=0)
    assert first["observation"].shape == (64, 64, 9)
    np.testing.assert_array_equal(first["observation"][..., :3], first["observation"][..., 6:])
    one, *_ = env.step(np.ones(2, np.float32))
    two, *_ = env.step(np.ones(2, np.float32))
    np.testing.assert_array_equal(two["observation"][..., :3], first["observation"][..., 6:])
    np.testing.assert_array_equal(two["observation"][..., 3:6], one["observation"][..., 6:])
    again, _ = env.reset(seed=0)
    np.testing.assert_array_equal(again["observation"], first["observation"])


def test_the_door_is_elsewhere_in_each_episode_and_can_be_passed():
    env: Any = gym.make("grasp/WallDoor-v0").unwrapped
    doors = {round(float(env.reset(seed=seed)[0]["observation"][2]), 6) for seed in range(5)}
    assert len(doors) == 5
    for door, through in ((-0.5, True), (0.5, False)):
        env.reset(options={"state": [-0.3, -0.5, door], "goal": [0.5, -0.5]})
        for _ in range(12):
            env.step([1.0, 0.0])
        assert (env.state[0] > 0.2) == through
        assert env.state[2] == door
    with pytest.raises(ValueError, match="door's middle"):
        env.reset(options={"state": [-0.3, -0.5, 0.9]})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"goal": "pixels"}, 'goal="pixels" needs observation="pixels"'),
        ({"goal": "picture"}, "goal must be one of"),
        ({"frames": 2}, 'frames=2 needs observation="pixels"'),
        ({"observation": "pixels", "frames": 0}, "frames must be an integer of at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        gym.make("grasp/Wall-v0", **settings)


def test_only_rooms_have_a_door():
    with pytest.raises(ValueError, match="door must be"):
        gym.make("grasp/BallNav-v0", door="random")
