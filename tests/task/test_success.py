"""How near to a goal is near enough is learned from what environments say of success."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.env_util import make_vec_env

from grasp_agent import ExploreConfig, GraspAgent, MLPConfig, TrainConfig
from grasp_agent.models import EncoderConfig
from grasp_agent.task.success import SuccessRadius, reported_success

RADIUS = 0.4
STEP = 0.2


def distance(achieved: NDArray[Any], goals: NDArray[Any]) -> NDArray[np.float32]:
    return np.linalg.norm(achieved - goals, axis=-1)


def walked(changes: SuccessRadius, steps: int, seed: int = 0) -> SuccessRadius:
    """A walk that comes to its goal and leaves it again."""
    random, place = np.random.default_rng(seed), np.zeros(2)
    for _ in range(steps):
        place = np.clip(place + random.uniform(-0.1, 0.1, 2), -1, 1)
        changes.record(0, place, np.zeros(2), bool(np.linalg.norm(place) < RADIUS), done=False)
    return changes


def test_the_radius_is_a_conservative_estimate_of_where_success_changes():
    radius = walked(SuccessRadius(), 3000).radius(distance)
    assert radius is not None
    assert 0.9 * RADIUS < radius < RADIUS


def test_few_changes_give_no_radius():
    changes = SuccessRadius()
    for _ in range(10):
        assert changes.radius(distance) is None
        for success in (False, True):
            changes.record(0, np.array([0.3 - 0.2 * success]), np.zeros(1), success, done=success)
    assert changes.radius(distance) == pytest.approx(0.2)


def test_another_goal_or_episode_is_no_change_of_success():
    changes = SuccessRadius()
    for step in range(40):
        place = np.full(1, step % 2, float)
        changes.record(0, place, np.full(1, step, float), step % 2 == 0, done=False)
        changes.record(1, place, np.zeros(1), step % 2 == 0, done=True)
    assert changes.radius(distance) is None


def test_success_changes_are_saved():
    changes, other = walked(SuccessRadius(), 1000), SuccessRadius()
    other.restore(changes.tensors())
    assert other.radius(distance) == changes.radius(distance) is not None
    assert SuccessRadius().tensors() == {}


class Disc(gym.Env[Any, Any]):
    """A blob that actions move; success is to be near its goal. Observations are vectors or images."""

    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, *, images: bool = False) -> None:
        self.images = images
        one = spaces.Box(0, 255, (16, 16, 1), np.uint8) if images else spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = spaces.Dict(dict.fromkeys(("observation", "achieved_goal", "desired_goal"), one))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.goal = self.np_random.uniform(-0.8, 0.8, (2, 2))
        self.count = 0
        return self.look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place = np.clip(self.place + STEP * action, -0.8, 0.8)
        self.count += 1
        missed = float(np.linalg.norm(self.place - self.goal))
        return self.look(), -missed, False, self.count >= 30, {"is_success": missed < RADIUS}

    def look(self) -> dict[str, Any]:
        places = {"observation": self.place, "achieved_goal": self.place, "desired_goal": self.goal}
        return {key: self.draw(place) if self.images else np.float32(place) for key, place in places.items()}

    def draw(self, place: NDArray[np.float64]) -> NDArray[np.uint8]:
        grid = np.stack(np.meshgrid(np.linspace(-1, 1, 16), np.linspace(-1, 1, 16), indexing="ij"), -1)
        return (255 * np.exp(-np.square(grid - place).sum(-1, keepdims=True) / 0.04)).astype(np.uint8)


def learned(env: gym.Env[Any, Any] | Any, **settings: Any) -> GraspAgent:
    return GraspAgent(
        "MultiInputPolicy",
        env,
        model=MLPConfig(members=2, width=16),
        explore=ExploreConfig(learning_starts=900),
        train=TrainConfig(gradient_steps=60),
        encoder=EncoderConfig(points=2, channels=(4, 4), gradient_steps=120, batch_size=24, lr=1e-2),
        seed=0,
        device="cpu",
        **settings,
    )


@pytest.mark.parametrize("images", [False, True])
def test_an_agent_learns_how_near_is_near_enough(images: bool, monkeypatch: pytest.MonkeyPatch):
    """From images, in latents: how good that is, is measured over seeds by `benchmarks/encoders.py`."""
    monkeypatch.setattr("grasp_agent.task.success._ENOUGH", 3)  # how many there are in so few steps is chance
    agent = learned(Disc(images=images)).learn(900)
    world = agent.policy.world
    assert world is not None
    changes = changed(agent)
    assert len(changes) >= 3
    seen = np.stack([agent.perception.encoded(values) for values in changes])
    before, after = np.linalg.norm(seen[:, :2] - seen[:, 2:], axis=-1).T
    assert world.tolerance == pytest.approx(np.quantile((before + after) / 2, 0.25), rel=1e-5)
    if not images:
        assert RADIUS - STEP < world.tolerance < RADIUS + STEP  # each change is within a step of it


def test_each_of_several_environments_has_its_own_success_changes():
    changes = changed(learned(make_vec_env(Disc, n_envs=3, seed=0)).learn(900))
    assert len(changes) >= 3
    assert (np.abs(changes[:, 0] - changes[:, 1]) <= STEP + 1e-6).all()  # what follows is of the same environment
    one, other = (np.linalg.norm(changes[:, place] - changes[:, 2], axis=-1) < RADIUS for place in (0, 1))
    assert (one != other).all()


def changed(agent: GraspAgent) -> NDArray[Any]:
    """What was achieved before and after each change, and the goal, `[n, 3, ...]`."""
    return agent.trainer.success_radius.tensors()["success_changes"].numpy()


def test_a_given_tolerance_takes_precedence():
    agent = learned(Disc(), goal_tolerance=0.01).learn(900)
    assert agent.policy.world is not None
    assert agent.policy.world.tolerance == 0.01
    assert not agent.trainer.success_radius.tensors()


@pytest.mark.parametrize("images", [False, True])
def test_success_changes_survive_a_training_that_was_stopped(images: bool, tmp_path: Path):
    learned(Disc(images=images)).learn(600, checkpoint=tmp_path / "part.zip")
    other = learned(Disc(images=images))
    other.learn(600, checkpoint=tmp_path / "part.zip")
    (kept,) = other.trainer.success_radius.tensors().values()
    assert len(kept) >= 5
    assert kept.shape[1:] == ((3, 16, 16, 1) if images else (3, 2))


@pytest.mark.parametrize(
    ("info", "success"),
    [
        ({}, None),
        ({"is_success": None}, None),
        ({"is_success": float("nan")}, None),
        ({"is_success": np.True_}, True),
        ({"is_success": np.array([0.0])}, False),
        ({"is_success": [0]}, False),
        ({"success": 1}, True),
        ({"is_success": False, "success": True}, False),
    ],
)
def test_reported_success(info: dict[str, Any], success: bool | None):
    assert reported_success(info) is success


@pytest.mark.parametrize("value", ["no", object(), [0, 1], {}])
def test_success_that_is_no_truth_value_is_refused(value: Any):
    with pytest.raises(ValueError, match="expected is_success as true or false"):
        reported_success({"is_success": value})
