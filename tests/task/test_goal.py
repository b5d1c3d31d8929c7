"""Goals for environments whose observations are a Box."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from grasp_agent import ExploreConfig, Goal, GraspAgent, MLPConfig, TrainConfig, evaluate
from grasp_agent.planners import ICEM, Criteria
from grasp_agent.task.goal import GoalVecEnv
from grasp_agent.task.observation import KEYS
from grasp_agent.task.success import success_radius

UPRIGHT = Goal.at({0: 1.0, 1: 0.0, 2: 0.0}, tolerance=0.3, weights={2: 0.1})


LINE = spaces.Box(-10, 10, (3,), np.float64)


class Slide(gym.Env[np.ndarray, np.ndarray]):
    """A point on a line, and its target position, both in one vector: `[x, y, target]`."""

    observation_space = LINE
    action_space = spaces.Box(-1, 3, (2,), np.float64)  # asymmetric, float64

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.state = np.array([*self.np_random.uniform(-0.5, 0.5, 2), self.np_random.uniform(-0.5, 0.5)])
        self.count = 0
        return self.state.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        self.state[:2] = np.clip(self.state[:2] + 0.1 * (action - 1.0), -1, 1)
        self.count += 1
        return self.state.copy(), -abs(self.state[0] - self.state[2]), False, self.count >= 20, {}


def small(env: Any, goal: Goal, **settings: Any) -> GraspAgent:
    return GraspAgent(
        "MultiInputPolicy",
        env,
        goal=goal,
        model=MLPConfig(members=2, width=32, depth=1, octaves=0),
        train=TrainConfig(gradient_steps=1000, batch_size=128),
        explore=ExploreConfig(learning_starts=300),
        horizon=10,
        seed=0,
        device="cpu",
        **settings,
    )


def met(observations: np.ndarray) -> np.ndarray:
    return observations[:, :1] - observations[:, 2:]


def test_entries_are_named_by_index_or_by_name():
    by_name = Goal.at({"speed": 2.0, "x": 0.0}, names=("x", "y", "speed"), tolerance=0.1, weights={"speed": 3})
    assert by_name == Goal(values=(2.0, 0.0), entries=(2, 0), weights=(3.0, 1.0), tolerance=0.1)
    observations = np.array([[0.5, 9.0, 2.0], [0.0, 9.0, 2.03]], np.float32)
    np.testing.assert_allclose(by_name.achieved(observations), [[6.0, 0.5], [6.09, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(by_name.desired, [6.0, 0.0])
    assert by_name.reached(observations).tolist() == [False, True]


@pytest.mark.parametrize(
    ("make_it", "words"),
    [
        (lambda: Goal.at({}, tolerance=0.1), "at least one"),
        (lambda: Goal.at({0: np.nan}, tolerance=0.1), "finite values"),
        (lambda: Goal.at({0: 1.0}, tolerance=0.0), "goal: tolerance: expected more than 0"),
        (lambda: Goal.at({-1: 1.0}, tolerance=0.1), "entries from 0"),
        (lambda: Goal.at({"z": 1.0}, names=("x", "y"), tolerance=0.1), "an index or one of x, y, got 'z'"),
        (lambda: Goal.at({"z": 1.0}, tolerance=0.1), "names=..."),
        (lambda: Goal.at({0: 1.0}, tolerance=0.1, weights={1: 2.0}), "weights of 0, got one of 1"),
        (lambda: Goal.at({0: 1.0}, tolerance=0.1, weights={0: 0.0}), "weights of more than 0"),
        (lambda: Goal.at({3: 1.0}, tolerance=0.1).dict_space(LINE), "entries below .* 3"),
        (
            lambda: Goal.of(lambda o: o[:, 0], [0.0], tolerance=0.1).dict_space(Slide.observation_space),
            r"shape \(1, 1\)",
        ),
        (lambda: Goal.at({0: 1.0}, tolerance=0.1).dict_space(spaces.Box(0, 1, (3, 3))), "a Box with one axis"),
        (lambda: Goal.at({0: 1.0}, tolerance=0.1).goal_observation(3.0), "a vector or a batch"),
        (
            lambda: GraspAgent("MultiInputPolicy", "Pendulum-v1"),
            r"or a Box and a goal \(goal=Goal\.at\(\.\.\.\); grasp train: --goal\)",
        ),
        (lambda: GraspAgent("MultiInputPolicy", "CartPole-v1", goal=UPRIGHT), r"expected a Box \(continuous actions\)"),
        (lambda: GraspAgent("MultiInputPolicy", "grasp/BallNav-v0", goal=UPRIGHT), "a Box with one axis, got"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(make_it: Any, words: str):
    with pytest.raises(ValueError, match=words) as caught:
        make_it()
    assert "\n" not in str(caught.value)


def test_a_vector_environment_becomes_a_goal_environment():
    venv = GoalVecEnv(DummyVecEnv([Slide, Slide]), Goal.of(met, [0.0], tolerance=0.2))
    venv.seed(3)
    for key, value in venv.reset().items():
        assert value.shape == (2, *venv.observation_space[key].shape)  # type: ignore[index]
    for step in range(1, 21):
        observations, _, dones, infos = venv.step(np.ones((2, 2)))
        assert isinstance(observations, dict)
        np.testing.assert_allclose(observations["achieved_goal"], met(observations["observation"]))
        assert dones.tolist() == [step == 20] * 2
        for row, info in enumerate(infos):
            # At an episode's end, success is that of its last step, not of the next start.
            last = (
                info["terminal_observation"] if dones[row] else {key: value[row] for key, value in observations.items()}
            )
            assert set(last) == {"observation", "achieved_goal", "desired_goal"}
            assert info["is_success"] == bool(abs(last["achieved_goal"][0]) <= 0.2)


@pytest.fixture(scope="module")
def slider() -> GraspAgent:
    """Comes to where the observation's own third entry says."""
    return small(Slide(), Goal.of(met, [0.0], tolerance=0.1)).learn(600)


@pytest.mark.slow
def test_an_agent_learns_and_reaches_a_goal_that_the_observation_holds(slider: GraspAgent):
    result = evaluate(slider, Slide(), 10, seed=500)
    assert result.summary()["success_end"] >= 0.9
    assert all(row.final_distance is not None and row.final_distance < 0.3 for row in result.episodes)


def test_sb3_evaluates_it_on_the_plain_environment(slider: GraspAgent):
    returns, lengths = evaluate_policy(slider, DummyVecEnv([Slide]), 5, return_episode_rewards=True, warn=False)  # type: ignore[arg-type]
    assert lengths == [20] * 5
    assert np.mean(returns) > -4  # doing nothing has about -7


def test_it_predicts_for_vectors_batches_tensors_and_dicts_alike(slider: GraspAgent):
    observation, start = np.array([0.1, 0.2, -0.3]), np.array([True])
    alone, _ = slider.predict(observation, episode_start=start, deterministic=True)
    assert Slide.action_space.contains(alone)
    for same in (observation[None], torch.from_numpy(observation)[None], [observation.tolist()]):
        batch, _ = slider.predict(same, episode_start=start, deterministic=True)
        np.testing.assert_array_equal(batch[0], alone)
    assert slider.goal is not None
    dressed, _ = slider.predict(slider.goal.goal_observation(observation), episode_start=start, deterministic=True)
    np.testing.assert_array_equal(dressed, alone)


def test_a_function_must_be_given_again_and_entries_are_saved(slider: GraspAgent, tmp_path: Path):
    slider.save(tmp_path / "slider.zip")
    with pytest.raises(ValueError, match=r"function of the observation.*load\(\.\.\., goal="):
        GraspAgent.load(tmp_path / "slider.zip")
    again = GraspAgent.load(tmp_path / "slider.zip", env=Slide(), goal=slider.goal, device="cpu")
    observation, start = np.array([0.1, 0.2, -0.3]), np.array([True])
    answers = [a.predict(observation, episode_start=start, deterministic=True)[0] for a in (slider, again)]
    np.testing.assert_array_equal(answers[0], answers[1])
    untaught = small("Pendulum-v1", UPRIGHT)
    untaught.save(tmp_path / "upright.zip")
    loaded = GraspAgent.load(tmp_path / "upright.zip", env=gym.make("Pendulum-v1"), device="cpu")
    assert loaded.goal == UPRIGHT
    assert loaded.predict(np.zeros(3))[0].shape == (1,)
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        loaded.set_env(gym.make("MountainCarContinuous-v0"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"goal": Goal.at({0: 0.5, 2: 0.0}, tolerance=0.1)}, r"same entries as when it was saved, \[0, 1, 2\]"),
        ({"goal": replace(UPRIGHT, weights=())}, "same weights as when it was saved"),
        ({"goal": Goal.of(met, [0.0], tolerance=0.1)}, "same function as when it was saved"),
        ({"goal": {0: 1.0}}, "goal: expected a Goal, got {0: 1.0}"),
        ({"planner": ICEM}, "planner: expected a Planner, got <class"),
        ({"structure": {"rests": True}}, "structure: expected a Structure, got {'rests': True}"),
    ],
)
def test_what_cannot_replace_a_saved_setting_is_named(tmp_path: Path, changes: dict[str, Any], words: str):
    small("Pendulum-v1", UPRIGHT).save(tmp_path / "upright.zip")
    with pytest.raises(ValueError, match=words) as caught:
        GraspAgent.load(tmp_path / "upright.zip", device="cpu", **changes)
    of_the_file = not isinstance(next(iter(changes.values())), (dict, type))  # else nothing in the file is to blame
    assert ("cannot be loaded" in str(caught.value)) == of_the_file and "version" not in str(caught.value)


def test_a_goal_in_place_of_a_saved_one_brings_its_tolerance(slider: GraspAgent, tmp_path: Path):
    slider.save(tmp_path / "slider.zip")
    assert slider.goal is not None
    wide = replace(slider.goal, tolerance=3 * slider.goal.tolerance)
    cases: list[tuple[dict[str, Any], float]] = [({}, wide.tolerance), ({"goal_tolerance": 0.7}, 0.7)]
    for changes, tolerance in cases:
        loaded = GraspAgent.load(tmp_path / "slider.zip", device="cpu", goal=wide, **changes)
        assert loaded.policy.world is not None
        assert loaded.goal_tolerance == loaded.policy.world.tolerance == tolerance
    with pytest.raises(ValueError, match="goal: expected 1 values, got 2"):
        GraspAgent.load(tmp_path / "slider.zip", goal=Goal.of(lambda o: o[:, :2], [0.0, 0.0], tolerance=0.1))
    GraspAgent("MultiInputPolicy", "grasp/BallNav-v0").save(tmp_path / "ball.zip")
    with pytest.raises(ValueError, match="goal: expected none"):
        GraspAgent.load(tmp_path / "ball.zip", goal=wide)


def test_a_file_is_loaded_with_the_id_of_an_environment(tmp_path: Path):
    small("Pendulum-v1", UPRIGHT).save(tmp_path / "upright.zip")
    loaded = GraspAgent.load(tmp_path / "upright.zip", env="Pendulum-v1", device="cpu")
    assert loaded.get_env() is not None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"planner": ICEM}, "planner: expected a Planner"),
        ({"goal": {0: 1.0}}, "goal: expected a Goal"),
        ({"structure": {}}, "structure: expected a Structure"),
        ({"model": "sharp"}, "model: expected a MLPConfig"),
        ({"train": 1000}, "train: expected a TrainConfig"),
        ({"explore": 0.1}, "explore: expected an ExploreConfig"),
        ({"criteria": 1}, "criteria: expected a Criteria"),
    ],
)
def test_settings_of_another_kind_are_refused(settings: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        GraspAgent("MultiInputPolicy", "Pendulum-v1", **{"goal": UPRIGHT, **settings})


def test_a_function_of_stacked_frames_gets_all_of_them():
    stacked = VecFrameStack(DummyVecEnv([Slide]), 2)
    agent = small(stacked, Goal.of(lambda o: o[:, 3:4] - o[:, 5:6], [0.0], tolerance=0.1)).learn(330)
    assert agent.policy.world is not None
    action, _ = agent.predict(stacked.reset())
    assert action.shape == (1, 2)


def test_a_running_goal_counts_each_step_and_is_saved(tmp_path: Path):
    running = replace(UPRIGHT, running=True)
    agent = small("Pendulum-v1", running)
    assert agent.criteria.running > Criteria().running
    assert agent.criteria.accept < 0  # no plan is good enough to stop improving it
    agent.save(tmp_path / "running.zip")
    loaded = GraspAgent.load(tmp_path / "running.zip", device="cpu")
    assert loaded.goal == running
    assert loaded.criteria == agent.criteria
    assert small("Pendulum-v1", UPRIGHT).criteria == Criteria()


class Paying(gym.Env[Any, np.ndarray]):
    """A goal environment with a reward of its own."""

    observation_space = spaces.Dict({key: spaces.Box(-1, 1, (2,)) for key in KEYS})
    action_space = spaces.Box(-1, 1, (2,))

    def __init__(self, reward: Any) -> None:
        self.reward = reward

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> Any:
        assert achieved.shape == desired.shape == (len(info), 2)
        return self.reward(achieved - desired)


@pytest.mark.parametrize(
    ("reward", "radius"),
    [
        (lambda offset: -(np.linalg.norm(offset, axis=-1) > 0.45).astype(float), 0.45),
        (lambda offset: (np.linalg.norm(offset, axis=-1) <= 3e-4).astype(np.float32), 3e-4),
        (lambda offset: (np.abs(offset) <= (20, 0.35)).all(-1), 0.35),  # the narrower of two axes
        (lambda offset: -np.linalg.norm(offset, axis=-1), None),  # dense
        (lambda offset: np.zeros(len(offset)), None),  # never changes
        (lambda offset: 1 / 0, None),  # raises
    ],
)
def test_the_success_radius_is_found_from_rewards(reward: Any, radius: float | None):
    found = success_radius(DummyVecEnv([lambda: Paying(reward)]))
    assert found == (None if radius is None else pytest.approx(radius, rel=2e-3))
    agent = GraspAgent("MultiInputPolicy", Paying(reward))
    assert agent.goal_tolerance == found
    assert GraspAgent("MultiInputPolicy", Paying(reward), goal_tolerance=0.2).goal_tolerance == 0.2
