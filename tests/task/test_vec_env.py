"""Gymnasium's vector environments: whatever their autoreset, an agent learns in them as in Stable-Baselines3's."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from agents import ENV, tiny
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from grasp_agent import GraspAgent
from grasp_agent.task.vec_env import FromGymnasium, vectorised

MODES = list(AutoresetMode)


def made(
    mode: AutoresetMode, kind: str = "sync", count: int = 3, env_id: str = ENV
) -> gym.vector.VectorEnv[Any, Any, Any]:
    options = {"autoreset_mode": mode}
    return gym.make_vec(env_id, num_envs=count, vectorization_mode=kind, vector_kwargs=options, max_episode_steps=7)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_steps_are_those_of_stable_baselines(mode: AutoresetMode, kind: str):
    """The same seeds and actions: the same observations, rewards, ends and last observations."""
    ours = FromGymnasium(made(mode, kind))
    theirs = make_vec_env(ENV, n_envs=3, env_kwargs={"max_episode_steps": 7})
    for env in (ours, theirs):
        env.seed(5)
        env.set_options({"state": np.array([-0.5, 0.25])})
    draws = np.random.default_rng(0)
    same(ours.reset(), theirs.reset())
    assert [sorted(info) for info in ours.reset_infos] == [sorted(info) for info in theirs.reset_infos]
    for _ in range(20):
        actions = draws.uniform(-1, 1, (3, 2)).astype(np.float32)
        one, two = ours.step(actions), theirs.step(actions)
        same(one[0], two[0])
        np.testing.assert_allclose(one[1], two[1])
        np.testing.assert_array_equal(one[2], two[2])
        assert [info.keys() for info in ours.reset_infos] == [info.keys() for info in theirs.reset_infos]
        for info, known in zip(one[3], two[3], strict=True):
            assert info["is_success"] == known["is_success"]
            assert info["TimeLimit.truncated"] == known["TimeLimit.truncated"]
            assert ("terminal_observation" in info) == ("terminal_observation" in known)
            assert not {"final_obs", "final_info"} & set(info)
            if "terminal_observation" in known:
                same(info["terminal_observation"], known["terminal_observation"])
    ours.close()
    theirs.close()


def same(one: Any, two: Any) -> None:
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_allclose(one[key], two[key], rtol=1e-6)


def test_it_can_be_asked_as_any_other():
    env = FromGymnasium(made(AutoresetMode.NEXT_STEP))
    assert (env.num_envs, env.get_attr("distance_threshold", [0, 2])) == (3, [0.05, 0.05])
    assert env.get_attr("spec")[0].id == ENV and not env.has_attr("nothing")
    rewards = env.env_method("compute_reward", np.zeros((1, 2)), np.zeros((1, 2)), {}, indices=1)
    assert len(rewards) == 1 and rewards[0].tolist() == [0.0]
    env.set_attr("mark", 7)
    env.set_attr("mark", 8, indices=[1])
    assert env.get_attr("mark") == [7, 8, 7]
    assert (
        env.env_is_wrapped(TimeLimit) == [True] * 3
        and env.env_is_wrapped(gym.wrappers.TimeAwareObservation) == [False] * 3
    )
    env.close()


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_an_agent_learns_in_them(mode: AutoresetMode):
    agent = tiny(made(mode))
    assert agent.learn(150).num_timesteps == 150
    assert (agent.n_envs, agent.env_id, len(agent.trainer.dataset)) == (3, ENV, 150)
    for episode in agent.trainer.dataset.episodes:
        assert len(episode.actions) <= 7
        assert np.abs(np.diff(episode.states, axis=0)).max() < 0.2  # no step leads from an end to a beginning
    assert len(agent.ep_info_buffer or ()) == 150 // 7 // 3 * 3
    env = agent.get_env()
    assert env is not None
    rewards, deviation = evaluate_policy(agent, env, n_eval_episodes=3)
    assert -7 <= rewards <= 0 and deviation >= 0  # type: ignore[operator]
    agent.set_env(made(mode, count=2))
    assert agent.learn(20, reset_num_timesteps=False).n_envs == 2


def test_vectors_get_a_goal_in_them_too():
    from grasp_agent import Goal

    goal = Goal.at({0: 1.0, 1: 0.0, 2: 0.0}, tolerance=0.3)
    agent = tiny(made(AutoresetMode.NEXT_STEP, env_id="Pendulum-v1"), goal=goal)
    assert agent.learn(60).num_timesteps == 60


def test_what_cannot_be_asked_is_refused():
    class Fixed(gym.vector.VectorEnv[Any, Any, Any]):
        num_envs = 2

    with pytest.raises(ValueError, match="expected a SyncVectorEnv or an AsyncVectorEnv, got Fixed"):
        vectorised(Fixed())
    with pytest.raises(ValueError, match="env: expected an environment or its id, got 3"):
        GraspAgent("MultiInputPolicy", 3)  # type: ignore[arg-type]


def test_algorithms_of_stable_baselines_learn_in_them():
    model = SAC("MultiInputPolicy", vectorised(made(AutoresetMode.SAME_STEP)), learning_starts=10, device="cpu")
    assert model.learn(60).num_timesteps == 60
