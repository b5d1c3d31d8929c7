"""OGBench's environments as goal environments, and their names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_by_gymnasium
from stable_baselines3 import SAC
from stable_baselines3.common.env_checker import check_env as check_by_sb3

import grasp_envs
from grasp_agent import GraspAgent, compare, evaluate
from grasp_agent.evaluation import training
from grasp_agent.evaluation.config import TrainingConfig
from grasp_agent.evaluation.participants import OwnFile
from grasp_agent.evaluation.rollout import made
from grasp_envs import OGBENCH_IDS, registered_id
from grasp_envs.ogbench_env import OGBenchEnv, success_criteria
from grasp_envs.ogbench_names import OGBENCH_LIMITS
from grasp_envs.rendering import choose_backend

MAZE = "ogbench/pointmaze-medium-v0"
NAME = "ogbench:pointmaze-medium-navigate-v0"
SOME = ("pointmaze-medium", "pointmaze-teleport", "antmaze-medium", "antsoccer-arena", "cube-double", "scene")


@pytest.fixture(scope="module")
def made_before() -> Iterator[dict[str, OGBenchEnv]]:
    """Environments that are made once, as those of the arm take seconds."""
    pytest.importorskip("ogbench")
    environments: dict[str, OGBenchEnv] = {}
    yield environments
    for env in environments.values():
        env.close()


@pytest.fixture
def env(request: pytest.FixtureRequest, made_before: dict[str, OGBenchEnv]) -> OGBenchEnv:
    name = request.param
    if name not in made_before:
        known = gym.make(f"ogbench/{name}-v0", render_mode="rgb_array", render_size=64)
        made_before[name] = cast(OGBenchEnv, known.unwrapped)
    return made_before[name]


def environments(*names: str) -> Any:
    return pytest.mark.parametrize("env", names, indirect=True)


def roll(env: OGBenchEnv, seed: int, steps: int = 8) -> list[bytes]:
    """All observations and rewards of an episode with actions of the seed."""
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    rows = [*observation.values()]
    for _ in range(steps):
        observation, reward, *_ = env.step(rng.uniform(-1, 1, env.action_space.shape))
        rows += [*observation.values(), np.array(reward)]
    return [row.tobytes() for row in rows]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ogbench:pointmaze-medium-v0", MAZE),
        (NAME, MAZE),
        ("ogbench:pointmaze-medium-stitch-v0", MAZE),
        ("ogbench:cube-single-play-v0", "ogbench/cube-single-v0"),
        ("ogbench:puzzle-4x5-noisy-v0", "ogbench/puzzle-4x5-v0"),
        (MAZE, MAZE),
        ("Pendulum-v1", "Pendulum-v1"),
        ("some_package:pointmaze-medium-v0", "some_package:pointmaze-medium-v0"),
    ],
)
def test_a_name_stands_for_one_registered_id(name: str, found: str):
    assert registered_id(name) == found


@pytest.mark.parametrize(
    "name",
    [
        "ogbench:visual-cube-single-v0",
        "ogbench:pointmaze-medium-navigate-singletask-v0",
        "ogbench:pointmaze-medium-navigate-singletask-task2-v0",
        "ogbench:pointmaze-medium-navigate-oraclerep-v0",
        "ogbench:powderworld-easy-v0",
        "ogbench:pointmaze-medium-navigate-stitch-v0",
        "ogbench:pointmaze-medium",
        "ogbench:",
    ],
)
def test_other_variants_are_refused_in_one_line(name: str):
    with pytest.raises(ValueError, match=r"singletask") as caught:
        registered_id(name)
    assert str(caught.value).startswith(f"{name}: expected ogbench: and one of pointmaze-medium-v0,")
    assert "\n" not in str(caught.value)


def test_every_id_is_registered_with_the_time_limit_of_ogbench():
    pytest.importorskip("ogbench")
    assert set(OGBENCH_IDS) == {name for name in gym.registry if name.startswith("ogbench/")}
    for name, limit in OGBENCH_LIMITS.items():
        assert gym.spec(f"ogbench/{name}").max_episode_steps == gym.spec(name).max_episode_steps == limit
    assert not set(OGBENCH_IDS) & set(grasp_envs.ENV_IDS)


def test_importing_registers_without_loading_ogbench_or_a_simulator():
    script = "import sys, grasp_envs; assert not {'ogbench', 'mujoco', 'dm_control'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": ":".join(sys.path)}, timeout=60)


def test_without_ogbench_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ogbench", None)
    with pytest.raises(gym.error.DependencyNotInstalled, match=r'pip install "grasp-agent\[ogbench\]"'):
        GraspAgent("MultiInputPolicy", NAME)


@environments("pointmaze-medium", "cube-double")
@pytest.mark.filterwarnings("ignore:.*(minimum|maximum) value is -?infinity")
@pytest.mark.filterwarnings("ignore:.*`check_env` detected that your environment uses")
def test_both_checkers_accept_it(env: OGBenchEnv):
    try:
        choose_backend()
    except RuntimeError as error:
        pytest.skip(str(error))
    check_by_gymnasium(env, skip_close_check=True)
    check_by_sb3(env)


@environments(*SOME)
def test_the_same_seed_gives_the_same_episode_whatever_was_before(env: OGBenchEnv):
    first = roll(env, 7)
    np.random.seed(3)
    roll(env, 8)
    state = np.random.get_state()[1].tobytes()  # type: ignore[union-attr]
    assert roll(env, 7) == first != roll(env, 12)  # of the same task
    assert np.random.get_state()[1].tobytes() == state  # type: ignore[union-attr]


def test_a_new_environment_plays_the_same_episode_where_a_teleport_leads_anywhere():
    pytest.importorskip("ogbench")

    def teleported(seed: int) -> list[list[float]]:
        env = gym.make("ogbench/pointmaze-teleport-v0").unwrapped
        env.reset(seed=seed, options={"task_id": 3})
        inner = cast(Any, env)._inner
        places = []
        for _ in range(12):
            inner.set_xy(np.array(inner._teleport_info["teleport_in_xys"][0]))
            env.step(np.zeros(2))
            places.append(inner.get_xy().tolist())
        return places

    assert teleported(1) == teleported(1) != teleported(2)
    assert len({tuple(place) for place in teleported(1)}) == 3


@environments("pointmaze-medium", "cube-double")
def test_five_seeds_in_a_row_play_each_task_once(env: OGBenchEnv):
    assert [env.reset(seed=seed)[1]["task_id"] for seed in range(10_003, 10_008)] == [4, 5, 1, 2, 3]
    assert {env.reset()[1]["task_id"] for _ in range(40)} == {1, 2, 3, 4, 5}
    assert env.reset(seed=0, options={"task_id": 4})[1]["task_id"] == 4
    assert env.step(np.zeros(env.action_space.shape or 0))[4]["task_id"] == 4


@environments("pointmaze-medium")
@pytest.mark.parametrize("options", [{"task_id": 0}, {"task_id": 6}, {"task_id": "1"}, {"render_goal": True}])
def test_options_that_name_no_task_are_refused(env: OGBenchEnv, options: dict[str, Any]):
    with pytest.raises(ValueError, match="task_id"):
        env.reset(options=options)


@environments("pointmaze-medium")
def test_actions_that_are_not_finite_are_refused(env: OGBenchEnv):
    env.reset(seed=0)
    with pytest.raises(ValueError, match="finite"):
        env.step([np.nan, 0.0])


@environments("antmaze-medium")
def test_a_simulation_that_has_diverged_is_an_error(env: OGBenchEnv, monkeypatch: pytest.MonkeyPatch):
    env.reset(seed=0)
    size = env.observation_space["observation"].shape
    monkeypatch.setattr(env._inner, "get_ob", lambda *_: np.full(size or 0, np.nan))
    with pytest.raises(FloatingPointError, match="not finite"):
        env.step(np.zeros(8))


@environments("pointmaze-medium")
def test_a_maze_ends_at_the_first_success(env: OGBenchEnv):
    observation, info = env.reset(seed=5)
    assert not info["is_success"]
    env._inner.set_xy(observation["desired_goal"] + [0.0, -1.1])
    observation, reward, terminated, truncated, info = env.step([0.0, 0.0])
    assert (reward, terminated, info["is_success"]) == (-1.0, False, False)
    observation, reward, terminated, truncated, info = env.step([0.0, 1.0])
    assert (reward, terminated, truncated, info["is_success"], info["success"]) == (0.0, True, False, True, 1.0)
    assert env.goal_distance(observation["achieved_goal"], observation["desired_goal"]) == pytest.approx(0.9)


def test_an_episode_may_go_on_after_success():
    pytest.importorskip("ogbench")
    env = made(NAME, {"terminate_at_goal": False})
    observation, _ = env.reset(seed=5)
    cast(Any, env.unwrapped)._inner.set_xy(observation["desired_goal"])
    outcomes = [env.step(np.zeros(2, np.float32)) for _ in range(2)]
    assert [(outcome[2], outcome[4]["is_success"]) for outcome in outcomes] == [(False, True)] * 2


@environments("cube-double", "scene")
def test_rewards_follow_ogbenchs_own_rule_wherever_objects_are(env: OGBenchEnv):
    inner, rng, found = env._inner, np.random.default_rng(0), []
    goal = np.empty(0)
    for trial in range(200):
        if trial % 40 == 0:
            goal = env.reset(seed=trial // 40)[0]["desired_goal"]
        for cube in range(inner._num_cubes):
            target = inner._data.mocap_pos[inner._cube_target_mocap_ids[cube]]
            direction = rng.normal(size=3)
            far = rng.choice([0.02, 0.0395, 0.0405], p=[0.5, 0.4, 0.1])  # the goal has settled by up to 0.15 mm
            inner._data.joint(f"object_joint_{cube}").qpos[:3] = target + far * direction / np.linalg.norm(direction)
        if inner._env_type == "scene":
            inner._cur_button_states[:] = np.where(rng.random(2) < 0.9, inner._target_button_states, 1)
            for joint, target in (("drawer", inner._target_drawer_pos), ("window", inner._target_window_pos)):
                off = rng.choice([0.0, 0.0399, -0.0401], p=[0.6, 0.3, 0.1])
                inner._data.joint(f"{joint}_slide").qpos[0] = target + off
        inner.post_step()
        observation = inner.compute_observation()
        assert (env.compute_reward(observation, goal) == 0.0) == bool(inner._success)
        found.append(bool(inner._success))
    assert 20 < sum(found) < 180


def test_the_criteria_are_those_of_the_observations_that_ogbench_describes():
    assert success_criteria("cube-single-v0") == (((19, 20, 21), 0.4),)
    assert [entries for entries, _ in success_criteria("scene-v0")] == [(19, 20, 21), (28, 29), (32, 33), (36,), (38,)]
    assert [tolerance for _, tolerance in success_criteria("scene-v0")] == pytest.approx([0.4, 0.5, 0.5, 0.72, 0.6])
    assert len(success_criteria("puzzle-4x6-v0")) == 24 and success_criteria("puzzle-4x6-v0")[-1][0] == (111, 112)
    assert success_criteria("antmaze-giant-v0") == (((0, 1), 0.5),)


@environments("cube-double")
def test_rewards_are_vectorised(env: OGBenchEnv):
    goals = np.stack([env.reset(seed=seed)[0]["desired_goal"] for seed in range(6)]).reshape(2, 3, -1)
    arm_moved, cube_moved = goals.copy(), goals.copy()
    arm_moved[..., :19] += 1.0
    cube_moved[1, 2, 28] += 0.5
    np.testing.assert_array_equal(env.compute_reward(arm_moved, goals), np.zeros((2, 3)))
    np.testing.assert_array_equal(env.compute_reward(cube_moved, goals), [[0, 0, 0], [0, 0, -1]])


@environments("pointmaze-medium", "cube-double")
def test_frames_show_the_scene(env: OGBenchEnv):
    try:
        choose_backend()
    except RuntimeError as error:
        pytest.skip(str(error))
    env.reset(seed=0)
    before = env.render()
    for _ in range(10):
        env.step(np.ones(env.action_space.shape or 0))
    after = env.render()
    assert before is not None and after is not None
    assert before.shape == (64, 64, 3) and before.dtype == np.uint8 and (before != after).any()


def test_the_agent_weighs_what_decides_on_success():
    pytest.importorskip("ogbench")
    agent = GraspAgent("MultiInputPolicy", "ogbench:cube-single-v0", device="cpu")
    weights = np.array(agent.structure.goal_weights)
    assert agent.goal_tolerance == 1.0 and agent.env_id == "ogbench/cube-single-v0"
    np.testing.assert_allclose(weights[19:22], 2.5)
    assert (np.delete(weights, [19, 20, 21]) == 1e-3).all()


def test_names_of_data_sets_are_understood_wherever_an_environment_is_named():
    pytest.importorskip("ogbench")
    comparison = compare(NAME, ["random"], episodes=2, seed=1)
    assert comparison.env_id == MAZE
    ends = [(row.success_end, row.success_any) for row in comparison.entries[0].evaluation.episodes]
    assert all(end == once is not None for end, once in ends)
    assert TrainingConfig(env=NAME, steps=10).to_json()["env"] == MAZE
    agent = SAC("MultiInputPolicy", MAZE, device="cpu")
    assert evaluate(agent, NAME, episodes=1).env_id == MAZE


def test_a_baseline_that_is_trained_under_the_name_of_a_data_set_can_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("ogbench")
    monkeypatch.setattr(gym.spec(MAZE), "max_episode_steps", 5)
    monkeypatch.setattr(training, "_EPISODES", 1)
    found = training.train_agent(training.TrainingTask("sac", NAME, 10, longer=1), tmp_path)
    (entry,) = compare(NAME, [OwnFile(found.files[0])], episodes=1).entries
    assert entry.evaluation.env_id == MAZE and entry.evaluation.episodes[0].steps == 5
