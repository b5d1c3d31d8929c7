"""A goal that moves in contact only: what an agent learns from recorded play, and how it acts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray

from grasp_agent import GRASP, GraspAgent, TrainConfig, evaluate
from grasp_agent.replay.episodes import Episode

STEP, REACH, TOLERANCE = 0.08, 0.1, 0.1
EPISODES, SEED = 8, 20_000
Observation = dict[str, NDArray[np.float32]]


class HandAndBlock(gym.Env[Observation, NDArray[np.float32]]):
    """A hand in the plane takes a block along while it is near it and a third action closes it."""

    def __init__(self) -> None:
        entries = {"observation": 5, "achieved_goal": 2, "desired_goal": 2}
        boxes: dict[str, spaces.Space[Any]] = {
            name: spaces.Box(-np.inf, np.inf, (size,), np.float32) for name, size in entries.items()
        }
        self.observation_space: spaces.Space[Any] = spaces.Dict(boxes)
        self.action_space = spaces.Box(-1, 1, (3,), np.float32)
        self.distance_threshold = TOLERANCE

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Any]:
        """Hand, block and goal lie apart."""
        super().reset(seed=seed)
        while True:
            self.hand, self.block, self.goal = self.np_random.uniform(-1, 1, (3, 2))
            if min(np.linalg.norm(self.block - other) for other in (self.hand, self.goal)) > 0.5:
                break
        self.closed = 0.0
        return self._observation(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Moves the hand, and the block if the hand holds it."""
        move = STEP * np.clip(action[:2], -1, 1)
        self.closed = float(np.clip(self.closed + 0.5 * action[2], 0, 1))
        if self.closed > 0.5 and np.linalg.norm(self.hand - self.block) < REACH:
            self.block = self.block + move
        self.hand = self.hand + move
        success = bool(np.linalg.norm(self.block - self.goal) <= TOLERANCE)
        return self._observation(), float(success) - 1, False, False, {"is_success": success}

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        """0 within the tolerance, else -1."""
        return -(np.linalg.norm(np.subtract(achieved, desired), axis=-1) > TOLERANCE).astype(np.float32)

    def _observation(self) -> Observation:
        parts = np.concatenate([self.hand, [self.closed], self.block]), self.block, self.goal
        return {
            name: np.asarray(part, np.float32)
            for name, part in zip(("observation", "achieved_goal", "desired_goal"), parts, strict=True)
        }


ENV = "grasp-tests/HandAndBlock-v0"
gym.register(ENV, lambda **_: HandAndBlock(), max_episode_steps=80)


def play(count: int) -> list[Episode]:
    """Returns episodes in which the hand carries the block somewhere, waits, and moves on."""
    env, random, episodes = gym.make(ENV), np.random.default_rng(0), []
    for index in range(count):
        observation, _ = env.reset(seed=index)
        states, actions = [], []
        target, carries = observation["observation"][3:5], False
        for _ in range(80):
            hand = observation["observation"][:2]
            states.append(np.concatenate([observation["observation"], observation["achieved_goal"]]))
            if np.linalg.norm(hand - target) < STEP / 2:
                carries = not carries
                target = random.uniform(-1, 1, 2) if carries else observation["observation"][3:5]
            way = (target - hand) / STEP
            move = way / max(1.0, float(np.abs(way).max())) + 0.1 * random.normal(size=2)
            action = np.clip([*move, 1.0 if carries else -1.0], -1, 1).astype(np.float32)
            actions.append(action)
            observation, *_ = env.step(action)
        states.append(np.concatenate([observation["observation"], observation["achieved_goal"]]))
        episodes.append(Episode(np.array(states, np.float32), np.array(actions, np.float32)))
    return episodes


@pytest.fixture(scope="module")
def agent() -> GraspAgent:
    """An agent that has learned from play."""
    train = TrainConfig(gradient_steps=1500)
    return GraspAgent("MultiInputPolicy", gym.make(ENV), horizon=60, train=train, seed=0, device="cpu").fit(play(60))


@pytest.fixture(scope="module")
def unaware(agent: GraspAgent) -> GraspAgent:
    """The same agent, which does not know what moves the block."""
    world = agent.policy.world
    assert world is not None
    planner = GRASP(candidates=2, iterations=2)  # a cheap search: more candidates have no contact either
    other = GraspAgent("MultiInputPolicy", gym.make(ENV), horizon=60, planner=planner, seed=0, device="cpu")
    other.policy.learned(replace(world, contact=None))
    return other


def success(agent: Any) -> float:
    """Returns the success at the end of some episodes."""
    return float(evaluate(agent, gym.make(ENV), EPISODES, SEED).summary()["success_end"])


@pytest.mark.slow
def test_the_block_is_fetched_and_brought_to_its_goal(agent: GraspAgent, unaware: GraspAgent) -> None:
    """Doing nothing never succeeds, as block and goal lie apart; nor does a planner that sees only these."""
    world = agent.policy.world
    assert world is not None and world.contact is not None
    assert world.contact.mover == (0, 1)
    assert success(agent) >= success(unaware) + 0.2


def test_what_was_found_is_saved_with_the_agent(agent: GraspAgent, tmp_path: Path) -> None:
    """The loaded agent acts alike."""
    agent.save(tmp_path / "agent.zip")
    loaded = GraspAgent.load(tmp_path / "agent.zip", device="cpu")
    assert loaded.policy.world is not None and agent.policy.world is not None
    assert loaded.policy.world.contact == agent.policy.world.contact
    observation, _ = gym.make(ENV).reset(seed=SEED)
    start = np.ones(1, bool)
    actions = [one.predict(observation, None, start, deterministic=True)[0] for one in (agent, loaded)]
    np.testing.assert_allclose(actions[0], actions[1], atol=1e-3)


def test_a_hand_or_a_block_away_from_the_plan_is_off_course(agent: GraspAgent) -> None:
    """The rest of the state may differ."""
    world = agent.policy.world
    assert world is not None and world.contact is not None
    states = np.zeros((4, world.model.state_size), np.float32)
    planned = states.copy()
    far = 2 * TOLERANCE / world.model.normalizer.std.min().item()
    for row, entry in enumerate((None, 2, world.contact.mover[0], world.contact.object[1])):
        if entry is not None:
            planned[row, entry] += far
    assert world.touches(states, planned).tolist() == [True, True, False, False]
