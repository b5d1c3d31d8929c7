"""What users' environments and libraries bring along: whole numbers, other spaces, torch's global settings."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agents import ENV, PIXELS, images_of, tiny, tiny_seer
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import NormalizeObservation, TimeLimit, TransformAction, TransformObservation
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from grasp_agent import Goal, GraspAgent, serialization

GOAL = Goal.at({0: 0.0}, tolerance=0.2)


class Line(gym.Env[Any, Any]):
    """A point on a line that remembers the actions it was given."""

    def __init__(self, low: float, high: float, dtype: Any, extra: spaces.Space[Any] | None = None) -> None:
        vector = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        names = ("observation", "achieved_goal", "desired_goal")
        self.extra = extra
        self.observation_space = (
            vector if extra is None else spaces.Dict({**dict.fromkeys(names, vector), "extra": extra})
        )
        self.action_space = spaces.Box(low, high, (1,), dtype)
        self.given: list[float] = []

    def _seen(self) -> Any:
        place = np.array([self.place], np.float32)
        if self.extra is None:
            return place
        return {"observation": place, "achieved_goal": place, "desired_goal": 0 * place, "extra": self.extra.sample()}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.steps = 0.0, 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.given.append(float(action[0]))
        self.place, self.steps = self.place + 0.1 * float(action[0]), self.steps + 1
        return self._seen(), 0.0, False, self.steps >= 10, {}


class Heard(BaseCallback):
    """Keeps the actions that callbacks see."""

    def _on_training_start(self) -> None:
        self.actions: list[float] = []

    def _on_step(self) -> bool:
        self.actions.append(float(self.locals["actions"][0, 0]))
        return True


@pytest.mark.parametrize(("low", "high", "dtype"), [(1, 6, np.float64), (-30, 10, np.float32), (0, 3, np.uint8)])
def test_callbacks_see_what_the_environment_was_given_and_it_is_learned_from(low: float, high: float, dtype: Any):
    env, heard = Line(low, high, dtype), Heard()
    agent = tiny(env, goal=GOAL).learn(20, callback=heard)
    assert heard.actions == env.given and len(heard.actions) == 20
    learned = np.concatenate([episode.actions for episode in agent.trainer.dataset.episodes])[:, 0]
    margin = 0.5 if dtype is np.uint8 else 0.0
    np.testing.assert_allclose(
        learned, 2 * (np.array(env.given) - low + margin) / (high - low + 2 * margin) - 1, atol=1e-5
    )


@pytest.mark.parametrize(
    "extra",
    [
        spaces.Discrete(3, start=2),
        spaces.MultiBinary(4),
        spaces.MultiBinary((2, 3)),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
    ],
)
def test_an_agent_is_saved_with_whatever_spaces_its_observations_have(extra: spaces.Space[Any], tmp_path: Path):
    with pytest.warns(UserWarning, match="the agent does not use extra"):
        agent = tiny(Line(-1, 1, np.float32, extra), goal_tolerance=0.1)
    agent.save(tmp_path / "agent.zip")
    assert GraspAgent.load(tmp_path / "agent.zip").observation_space == agent.observation_space
    assert serialization.space_from_config(serialization.space_to_config(extra)) == extra


@contextmanager
def default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype  # left as it was found
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize(
    "setting",
    [lambda: default(torch.float64), lambda: default(torch.bfloat16), torch.no_grad, torch.inference_mode],
    ids=["float64", "bfloat16", "no_grad", "inference_mode"],
)
def test_torchs_global_settings_change_nothing(setting: Callable[[], AbstractContextManager[Any]], agent_file: Path):
    observation, _ = gym.make(ENV).reset(seed=3)
    start = np.ones(1, bool)
    expected, _ = GraspAgent.load(agent_file).predict(observation, episode_start=start, deterministic=True)
    learned = tiny(Line(-1, 1, np.float32), goal=GOAL).learn(20)
    with setting():
        found, _ = GraspAgent.load(agent_file).predict(observation, episode_start=start, deterministic=True)
        again = tiny(Line(-1, 1, np.float32), goal=GOAL).learn(20)
    np.testing.assert_array_equal(found, expected)
    first, second = (each.get_parameters()["policy"] for each in (learned, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy))])
def test_a_policy_can_be_copied_and_pickled(twin: Callable[[Any], Any], agent_file: Path):
    policy = GraspAgent.load(agent_file).policy
    observation, _ = gym.make(ENV).reset(seed=3)
    expected, found = (
        each.predict(observation, episode_start=np.ones(1, bool), deterministic=True)[0]
        for each in (policy, twin(policy))
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "camera",
    [spaces.Box(0, 255, (48, 64, 3), np.uint8), spaces.Box(0, 1, (16, 16, 1)), spaces.Box(0, 1, (16, 16), np.uint8)],
)
def test_a_camera_next_to_vector_goals_is_not_used(camera: spaces.Space[Any]):
    with pytest.warns(UserWarning, match="the agent does not use extra"):
        agent = tiny(Line(-1, 1, np.float32, camera), goal_tolerance=0.1).learn(20)
    observation, _ = Line(-1, 1, np.float32, camera).reset(seed=0)
    action, _ = agent.predict(observation)
    assert agent.action_space.contains(action)
    assert images_kept(agent) == 0


def images_kept(agent: GraspAgent) -> int:
    return len(getattr(getattr(agent.perception, "buffer", ()), "images", ()))


@pytest.mark.parametrize(
    "make",
    [
        lambda: NormalizeObservation(Line(-1, 1, np.float32)),
        lambda: TimeLimit(NormalizeObservation(Line(-1, 1, np.float32)), 5),
        lambda: DummyVecEnv([lambda: NormalizeObservation(Line(-1, 1, np.float32))]),
    ],
)
def test_observations_whose_scale_drifts_are_refused(make: Callable[[], Any]):
    with pytest.raises(ValueError, match="NormalizeObservation: expected an environment without it"):
        tiny(make(), goal=GOAL)


@pytest.mark.parametrize(("threshold", "tolerance"), [(0.3, 0.3), (np.float32(0.25), 0.25), (0.0, None), ("w", None)])
@pytest.mark.filterwarnings("ignore:observation space")
def test_a_distance_threshold_is_taken_where_it_is_one(threshold: Any, tolerance: float | None):
    env = Line(-1, 1, np.float32, spaces.Discrete(2))
    env.distance_threshold = threshold  # type: ignore[attr-defined]
    assert tiny(env).goal_tolerance == tolerance


@pytest.mark.parametrize("shape", [(16, 9, 1), (15, 15, 1), (7, 7, 3)])
def test_images_that_are_too_small_are_refused_when_the_agent_is_made(shape: tuple[int, int, int]):
    env = Line(-1, 1, np.float32)
    env.observation_space = spaces.Box(0, 255, shape, np.uint8)
    with pytest.raises(ValueError, match="images: expected at least 16 x 16 pixels"):
        GraspAgent("CnnPolicy", env)


def test_names_of_earlier_versions_are_deprecated_aliases(agent_file: Path):
    agent = GraspAgent.load(agent_file)
    with pytest.warns(DeprecationWarning, match=r"use agent\.trainer"):
        assert agent.learner is agent.trainer
    with pytest.warns(DeprecationWarning, match=r"use agent\.perception"):
        assert agent.vision is None


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda env: TransformObservation(env, lambda seen: seen, env.observation_space),
        lambda env: TransformAction(env, lambda action: action, env.action_space),
        lambda env: env,
    ],
    ids=["observation", "action", "option"],
)
def test_a_spec_that_cannot_be_pickled_ends_no_process(wrapped: Callable[[Any], Any]):
    def make() -> gym.Env[Any, Any]:
        made = Line(-1, 1, np.float32)
        made.spec = EnvSpec("Line-v0", kwargs={"scale": lambda value: value}, max_episode_steps=10)
        return wrapped(TimeLimit(made, 10))

    env = SubprocVecEnv([make, make], start_method="fork")
    try:
        agent = tiny(env, goal=GOAL).learn(40)
        assert agent.num_timesteps == 40 and len(agent.trainer.dataset) == 40
        assert GraspAgent("MultiInputPolicy", env, goal=GOAL).horizon == 10  # half the limit, at least 10
    finally:
        env.close()


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda agent: pickle.loads(pickle.dumps(agent))])
@pytest.mark.parametrize("images", [False, True])
def test_an_agent_that_has_learned_can_be_copied_and_pickled(twin: Callable[[Any], Any], images: bool):
    env = gym.make(PIXELS) if images else Line(-1, 1, np.float32)
    agent = tiny_seer(env).learn(60) if images else tiny(env, goal=GOAL).learn(30)
    other, (observation, _) = twin(agent), env.reset(seed=3)
    start = np.ones(1, bool)
    expected, found = (each.predict(observation, None, start, deterministic=True)[0] for each in (agent, other))
    np.testing.assert_array_equal(found, expected)
    assert other.get_env() is None and agent.get_env() is not None
    before = agent.num_timesteps
    other.set_env(env)
    assert other.learn(20, reset_num_timesteps=False).num_timesteps == before + 20
    assert agent.num_timesteps == before
    if images:
        first, second = (images_of(each).buffer.images for each in (agent, other))
        np.testing.assert_array_equal(first, second[: len(first)])
        assert len(second) > len(first)
