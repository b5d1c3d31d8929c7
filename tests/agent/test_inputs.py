"""Malformed observations, states and episode starts; environments that stop giving numbers; other spaces."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch
from agents import ENV, PIXELS, images_of, tiny, tiny_seer
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.fuzz_inputs import FAULTS, fuzz
from grasp_agent import Goal, GraspAgent

START = np.ones(1, bool)


def test_no_malformed_call_gives_anything_but_an_action_or_an_error_of_one_line():
    found = fuzz(240, seed=1)
    assert not any(found[kind] for kind in FAULTS) and sum(found.values()) == 240
    assert found["refused in one line"] > 100 and found["answered"] > 20


@pytest.mark.slow
def test_no_malformed_call_of_many_gives_anything_else():
    found = fuzz(3000, seed=2)
    assert not any(found[kind] for kind in FAULTS)


@pytest.fixture
def agent(agent_file: Path) -> GraspAgent:
    return GraspAgent.load(agent_file, device="cpu")


@pytest.fixture
def obs() -> dict[str, Any]:
    return gym.make(ENV).reset(seed=3)[0]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "got NoneType"),
        ("left", "got an array of <U4"),
        ([[1.0, 2.0], [3.0]], "rows of one length"),
        (np.array([1 + 2j, 0]), "got an array of complex128"),
        (np.array([True, False]), "got an array of bool"),
        (np.array([None, 1]), "got ndarray"),
        (np.array([0.0, np.nan]), "not finite in single precision: entry 1 is nan"),
        (np.array([1e39, 0.0]), "entry 0 is 1e[+]39"),
    ],
)
@pytest.mark.parametrize("key", ["observation", "achieved_goal", "desired_goal"])
def test_an_observation_of_another_kind_is_refused_with_its_key(
    agent: GraspAgent, obs: dict[str, Any], key: str, value: Any, words: str
):
    with pytest.raises(ValueError, match=f"observation: .*'{key}'.*{words}") as failure:
        agent.predict({**obs, key: value})
    assert "\n" not in str(failure.value)


def _changed(state: Any, field: str, change: Callable[[Any], Any]) -> Any:
    return state._replace(**{field: change(getattr(state, field))})


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: _changed(state, "actions", lambda actions: actions * np.nan),
        lambda state: _changed(state, "states", lambda states: states + np.inf),
        lambda state: _changed(state, "states", lambda states: states[..., 0]),
        lambda state: _changed(state, "actions", lambda actions: actions[:, :5]),
        lambda state: _changed(state, "step", lambda step: step + 0.5),
        lambda state: _changed(state, "step", lambda step: step - 3),
        lambda state: _changed(state, "goals", lambda goals: goals.astype(str)),
        lambda state: _changed(state, "valid", lambda valid: valid.tolist()),
        lambda state: type(state)(*(np.concatenate([part, part]) for part in state)),
        lambda state: tuple(state)[:5],
        lambda state: np.zeros((6, 1)),
        lambda state: "state",
    ],
)
def test_a_damaged_state_is_refused(agent: GraspAgent, obs: dict[str, Any], damage: Callable[[Any], Any]):
    _, state = agent.predict(obs, episode_start=START)
    agent.predict(obs, state)
    with pytest.raises(ValueError, match="state: expected what predict returned for 1 environments"):
        agent.predict(obs, damage(state))


@pytest.mark.parametrize("start", [[np.nan], [2], ["yes"], [[True]], [True, False], [], [None], "yes", 1j])
def test_an_episode_start_that_says_neither_yes_nor_no_is_refused(agent: GraspAgent, obs: dict[str, Any], start: Any):
    with pytest.raises(ValueError, match="episode_start: expected 1 truth values"):
        agent.predict(obs, episode_start=start)


def test_an_agent_goes_on_with_a_new_episode_after_such_an_observation():
    agent = tiny(Failing(np.nan, 137), goal=Goal.at({0: 0.0}, tolerance=0.1))
    with pytest.raises(ValueError, match="environment step 137"):
        agent.learn(300)
    agent.learn(60, reset_num_timesteps=False)
    moved = [np.abs(np.diff(episode.states[:, 0])).max() for episode in agent.trainer.dataset.episodes]
    assert max(moved) <= 0.1 + 1e-6  # no step leads from one episode into another


def test_actions_of_a_state_stay_inside_the_bounds(agent: GraspAgent, obs: dict[str, Any]):
    _, state = agent.predict(obs, episode_start=START)
    action, _ = agent.predict(obs, _changed(state, "actions", lambda actions: actions + 9))
    assert agent.action_space.contains(action)


class Failing(gym.Env[Any, Any]):
    """A point whose observations are no numbers any more after some steps, at reset or at an episode's end."""

    def __init__(self, bad: float, after: int, entry: int = 1, images: bool = False) -> None:
        vector = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = spaces.Box(0, 1, (16, 16, 3), np.float32) if images else vector
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)
        self.bad, self.after, self.entry, self.images, self.total = bad, after, entry, images, 0

    def _seen(self) -> Any:
        seen = np.full((16, 16, 3), 0.5, np.float32) if self.images else np.array([self.place, 0], np.float32)
        if self.total == self.after:
            seen[..., self.entry] = self.bad
            self.total += 1
        return seen

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.steps = float(self.np_random.uniform(-1, 1)), 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place, self.steps, self.total = self.place + 0.1 * float(action[0]), self.steps + 1, self.total + 1
        return self._seen(), 0.0, False, self.steps >= 10, {}


@pytest.mark.parametrize(("bad", "after", "entry"), [(np.nan, 137, 1), (np.inf, 140, 0), (-np.inf, 43, 1)])
def test_numbers_that_are_none_name_entry_and_step_and_what_was_learned_is_kept(
    bad: float, after: int, entry: int, tmp_path: Path
):
    goal = Goal.at({0: 0.0}, tolerance=0.1)
    agent = tiny(Failing(bad, after, entry), goal=goal)
    with pytest.raises(ValueError, match=f"environment step {after}: .*entry {entry}.* is {bad}.*is kept"):
        agent.learn(300, checkpoint=tmp_path / "agent")
    assert len(agent.trainer.dataset) == after - 1
    assert (agent.policy.world is None) == (after < 100)
    kept = GraspAgent.load(tmp_path / "agent.zip")
    assert kept.num_timesteps == agent.num_timesteps == after - 1
    assert len(kept.trainer.dataset) == after - 1
    agent.learn(120)  # and goes on with new episodes
    assert len(agent.trainer.dataset) == after - 1 + 120


def test_images_of_no_numbers_name_the_step():
    agent = tiny_seer(Failing(np.nan, 17, images=True))
    with pytest.raises(ValueError, match=r"environment step 17: .*images of finite values"):
        agent.learn(300)
    images = images_of(agent).buffer
    images.end()
    assert len(images) == 16


def test_a_first_observation_of_no_numbers_names_the_step():
    for goal, step in ((Goal.at({0: 0.0}, tolerance=0.1), 0),):
        with pytest.raises(ValueError, match=f"environment step {step}: .*entry 1.* is nan"):
            tiny(Failing(np.nan, 0), goal=goal).learn(20)


@pytest.mark.parametrize(
    "extra", [spaces.Text(3), spaces.Sequence(spaces.Box(-1, 1)), spaces.Tuple((spaces.Discrete(2),))]
)
def test_observations_that_no_vector_environment_holds_are_refused_when_an_agent_is_made(extra: Any):
    env = gym.make(ENV).unwrapped
    env.observation_space = spaces.Dict({**env.observation_space.spaces, "extra": extra})  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"observation space: expected a Box, .* under 'extra', got"):
        tiny(env)


@pytest.mark.parametrize("broken", [KeyError("place"), TypeError("no"), ValueError("none")])
def test_after_any_error_of_an_environment_learning_goes_on_with_a_new_episode(broken: Exception):
    class Breaking(Failing):
        def step(self, action: Any) -> Any:
            found = super().step(action)
            if self.total == 45:
                raise broken
            return found

    agent = tiny(Breaking(0.0, -1), goal=Goal.at({0: 0.0}, tolerance=0.1))
    with pytest.raises(type(broken)):
        agent.learn(90)
    agent.learn(30, reset_num_timesteps=False)
    moved = [np.abs(np.diff(episode.states[:, 0])).max() for episode in agent.trainer.dataset.episodes]
    assert max(moved) <= 0.1 + 1e-6


def test_a_goal_whose_function_changes_its_argument_changes_nothing_else():
    def spoiling(seen: Any) -> Any:
        seen += 5
        return seen[:, :1]

    goal = Goal.of(spoiling, [0.0], tolerance=0.1)
    assert goal.goal_observation([0.0, 0.0])["observation"].tolist() == [0, 0]
    assert goal.goal_observation(np.zeros((0, 2)))["achieved_goal"].shape == (0, 1)


OTHERS: dict[str, Callable[[], gym.Env[Any, Any]]] = {
    "Observation": lambda: gym.make("Pendulum-v1"),
    "observation": lambda: gym.make("grasp/BallNav4-v0"),
    "images": lambda: gym.make(PIXELS),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_observation_space_does_not_match_in_stable_baselines_words(agent_file: Path, other: str):
    env = OTHERS[other]()
    for make in (lambda: GraspAgent.load(agent_file, env=env), lambda: GraspAgent.load(agent_file).set_env(env)):
        with pytest.raises(ValueError, match="Observation spaces do not match"):
            make()


@pytest.mark.parametrize("actions", [spaces.Box(-1, 1, (3,)), spaces.Box(-2, 2, (2,)), spaces.Discrete(3)])
def test_another_action_space_does_not_match_in_stable_baselines_words(agent_file: Path, actions: spaces.Space[Any]):
    env = gym.make(ENV)
    env.action_space = actions
    for given in (env, DummyVecEnv([lambda: env])):
        with pytest.raises(ValueError, match="Action spaces do not match"):
            GraspAgent.load(agent_file).set_env(given)


@pytest.mark.parametrize("make", [tiny, tiny_seer])
def test_parameters_of_agents_that_have_learned_nothing(make: Callable[[], GraspAgent], sharp: Path, agent_file: Path):
    one, two = make(), make()
    two.set_parameters(one.get_parameters())
    assert two.policy.world is None
    learned = GraspAgent.load(agent_file if make is tiny else sharp, device="cpu")
    if make is tiny:
        two = tiny(ENV, structure=learned.structure)
    two.set_parameters(learned.get_parameters())
    assert two.policy.world is not None and learned.policy.world is not None
    assert two.policy.world.state_map == learned.policy.world.state_map
    observation, _ = gym.make(ENV if make is tiny else PIXELS).reset(seed=1)
    two.policy.controller = learned.policy.controller
    expected = learned.predict(observation, episode_start=START, deterministic=True)[0]
    np.testing.assert_array_equal(two.predict(observation, episode_start=START, deterministic=True)[0], expected)
    again = two.get_parameters()["policy"]
    assert all(torch.equal(tensor, again[name]) for name, tensor in learned.get_parameters()["policy"].items())


TWINS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "deepcopy": copy.deepcopy,
    "cloudpickle": lambda value: pickle.loads(cloudpickle.dumps(value)),
}


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("make", [tiny, tiny_seer])
@pytest.mark.parametrize("steps", [0, 120])
def test_agents_and_policies_are_copied_before_and_after_learning(
    twin: str, make: Callable[[], GraspAgent], steps: int
):
    agent = make().learn(steps) if steps else make()
    observation, _ = gym.make(ENV if make is tiny else PIXELS).reset(seed=1)
    expected = agent.predict(observation, episode_start=START, deterministic=True)[0]
    again = TWINS[twin](agent)
    np.testing.assert_array_equal(again.predict(observation, episode_start=START, deterministic=True)[0], expected)
    seen = agent.perception.to_goal_dict(observation)
    policies = [agent.policy, TWINS[twin](agent.policy)]
    actions = [policy.predict(seen, episode_start=START, deterministic=True)[0] for policy in policies]
    np.testing.assert_array_equal(*actions)
