"""`GraspAgent("MlpPolicy", env)`: learning for rewards, and Stable-Baselines3's contract."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from rewarding import Choosing, Constant, Field, drawn, limited, reloaded, returned, small
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from grasp_agent import GRASP, GraspAgent, evaluate
from grasp_agent.agent.reward import training
from grasp_agent.agent.reward.agent import RewardAgent
from grasp_agent.agent.reward.experience import drawn as drawn_steps
from grasp_agent.agent.reward.experience import recorded
from grasp_agent.agent.reward.plans import noisy
from grasp_agent.models.dynamics.state_value import ValueConfig
from grasp_agent.planners import ICEM


@pytest.fixture
def agent(trained: RewardAgent, tmp_path: Path) -> RewardAgent:
    return reloaded(trained, tmp_path)


class TestLearning:
    @pytest.mark.parametrize("seed", [3, 4])
    def test_it_learns_to_go_where_rewards_are(self, trained: RewardAgent, seed: int):
        learned = trained if seed == 3 else small(seed=seed).learn(400)
        still = returned(Constant([-1.0, 2.0]))  # about -28; the best is about -4
        assert returned(learned) > still / 2.5

    @pytest.mark.parametrize("seed", [3, 4])
    def test_it_learns_with_choices(self, seed: int):
        agent = small(Choosing(), seed=seed).learn(400)
        found = np.mean([episode.return_ for episode in evaluate(cast(Any, agent), Choosing(), 10, 500).episodes])
        assert found > returned(Constant([-1.0, 2.0])) / 1.8  # one direction at a time is slower
        assert agent.replay_buffer is not None and agent.replay_buffer.actions.dtype == np.int64
        codec, action = agent.policy.codec, np.array([[3, 1]] * 20_000)
        blank, random = np.zeros((20_000, 7), np.float32), np.random.default_rng(0)
        changed = codec.decode(noisy(codec, 0.1, codec.encode(action), blank, random)[0]) != action
        np.testing.assert_allclose(changed.mean(0), [0.1 * 4 / 5, 0.1 / 2], atol=0.01)
        assert abs(np.corrcoef(changed.T)[0, 1]) < 0.03

    def test_plans_are_worth_more_where_their_ends_are(self, trained: RewardAgent):
        policy, value = trained.policy, trained.policy.averaged_value
        assert value is not None and policy.value is not None
        places = torch.tensor([[0.6, -0.4, 5.0], [-0.7, 0.7, 5.0]]).expand(2, -1, -1)
        spot, far = value.returns(places).mean(0).tolist()
        assert spot > far and not torch.equal(value.weights[-1], policy.value.weights[-1])
        rollouts = torch.nn.functional.pad(places[:, None, :, None], (0, 2))  # one step, without reward
        found = policy.objective.returns(torch.zeros(1, 5), rollouts, torch.zeros(1, 2, 1, 2))
        torch.testing.assert_close(found[:, 0], 0.99 * value.returns(places), atol=1e-4, rtol=1e-4)

    def test_values_are_those_of_the_latest_planned_steps(self, monkeypatch: pytest.MonkeyPatch):
        asked: list[int | None] = []

        def spy(*given: Any) -> Any:
            asked.append(given[4] if len(given) > 4 else None)
            return drawn_steps(*given)

        monkeypatch.setattr(training, "drawn", spy)
        agent = small(value=ValueConfig(recent=30)).learn(200)
        latest = [count for count in asked if count is not None]
        assert latest[:3] == [1, 2, 3] and max(latest) == latest[-1] == 30
        asked.clear()
        agent.learn(160)  # random steps again, up to 150
        assert [count for count in asked if count is not None][:2] == [1, 2]
        asked.clear()
        small(make_vec_env(limited, 8), value=ValueConfig(recent=3)).learn(240)
        assert max(count for count in asked if count is not None) == 1

    def test_an_own_reward_has_no_values(self):
        agent = small(objective=lambda states, actions: states[..., 0]).learn(200)
        assert agent.policy.averaged_value is not None and not agent.policy.averaged_value.weights[-1].any()
        assert agent.policy.objective.value is None

    def test_without_values_rewards_alone_count(self):
        plain = small(value=None)
        assert plain.policy.value is None and plain.learn(200).num_timesteps == 200
        assert plain.policy.objective.value is None

    def test_plans_end_at_any_state_as_the_configuration_says(self):
        assert small(value=ValueConfig(decay=0.4)).policy.objective.decay == 0.4
        usual: Any = GraspAgent("MlpPolicy", limited(), device="cpu")
        assert (usual.horizon, usual.policy.objective.decay) == (10, 0.8)

    def test_a_reward_of_ones_own_takes_the_place_of_the_learned_one(self):
        def other(states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
            assert actions[..., 1].min() >= 0 and actions[..., 1].max() <= 4  # the environment's units
            return -(states[..., :2] - torch.tensor([-0.5, 0.5])).abs().sum(-1)

        agent = small(objective=other).learn(400)
        env = Field()
        observation, _ = env.reset(seed=1)
        for _ in range(25):
            observation = env.step(agent.predict(observation, deterministic=True)[0])[0]
        assert np.abs(observation[:2] - [-0.5, 0.5]).sum() < 0.25

    def test_equal_seeds_give_equal_agents(self, trained: RewardAgent):
        again = small().learn(400)
        for one, other in zip(trained.policy.parameters(), again.policy.parameters(), strict=True):
            assert torch.equal(one, other)

    def test_a_time_limit_is_no_end(self, trained: RewardAgent):
        assert trained.replay_buffer is not None
        data = recorded(trained.replay_buffer, trained.policy.codec)
        left = data.following[:, 0] < -1.2
        assert 0 < left.sum() < len(left)
        assert torch.equal(data.ended.bool(), left)
        assert trained.replay_buffer.timeouts.sum() > 0

    def test_actions_are_recorded_as_they_were_taken(self, trained: RewardAgent):
        assert trained.replay_buffer is not None
        data = recorded(trained.replay_buffer, trained.policy.codec)
        taken = (data.actions.numpy() + 1) / 2 * [4.0, 4.0] + [-3.0, 0.0]
        moved = (data.following - data.states).numpy()[:, :2]
        np.testing.assert_allclose(moved, 0.1 * (taken - [-1.0, 2.0]), atol=1e-4)

    def test_several_environments_learn_together(self):
        agent = small(make_vec_env(limited, 3)).learn(400)
        assert agent.num_timesteps == 402 and agent._training.updates > 300
        assert returned(agent) > returned(Constant([-1.0, 2.0])) / 2

    def test_episodes_have_their_own_noise(self, trained: RewardAgent):
        assert trained.replay_buffer is not None
        actions = trained.replay_buffer.actions[200:400, 0]
        first = [np.abs(actions[row] - actions[row + 25]).max() for row in range(150)]
        assert np.mean(np.array(first) < 1e-6) < 0.1

    def test_a_callback_that_plays_does_not_change_what_is_learned(self, trained: RewardAgent):
        class Play(BaseCallback):
            def _on_step(self) -> bool:
                if self.num_timesteps % 20 == 0:
                    self.model.predict(drawn(2), deterministic=True)
                return True

        again = small().learn(400, callback=Play())
        assert all(map(torch.equal, trained.policy.parameters(), again.policy.parameters()))

    def test_a_full_buffer_goes_on_being_learned_from(self):
        agent = small(make_vec_env(limited, 3), buffer_size=100, learning_starts=150).learn(300)
        assert agent._training.updates > 300
        assert agent._training._normalised_at > 150

    def test_a_callback_ends_learning_and_a_second_call_goes_on(self):
        class Stop(BaseCallback):
            def _on_step(self) -> bool:
                return self.num_timesteps < 170

        agent = small().learn(400, callback=Stop())
        assert agent.num_timesteps == 170
        agent.learn(30, reset_num_timesteps=False)
        assert agent.num_timesteps == 200

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_signals_stop_it_and_keep_what_was_learned(self, number: signal.Signals):
        class Signal(BaseCallback):
            def _on_step(self) -> bool:
                if self.num_timesteps == 180:
                    os.kill(os.getpid(), number)
                return True

        agent = small()
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                agent.learn(400, callback=Signal())
        finally:
            signal.signal(signal.SIGINT, before)
        assert agent._training.updates >= 300
        assert Field().action_space.contains(agent.predict(drawn(1)[0])[0])

    @pytest.mark.parametrize("what", ["reward", "observation"])
    def test_numbers_that_are_not_finite_are_refused_with_the_step(self, what: str):
        with pytest.raises(ValueError, match=rf"{what}: expected finite numbers"):
            small(limited(broken=what)).learn(200)

    def test_a_loaded_agent_keeps_its_model_until_it_has_seen_enough(self, agent: RewardAgent):
        agent.set_env(limited())
        before = [parameter.clone() for parameter in agent.policy.parameters()]
        agent.learn(100, reset_num_timesteps=False)
        assert all(map(torch.equal, before, agent.policy.parameters()))
        agent.learn(100, reset_num_timesteps=False)
        assert not all(map(torch.equal, before, agent.policy.parameters()))
        assert agent.num_timesteps == 600


class TestPredict:
    def test_one_observation_gives_one_action(self, agent: RewardAgent):
        action, state = agent.predict(drawn(1)[0])
        assert (action.shape, action.dtype) == ((2,), np.float64)
        assert agent.action_space.contains(action) and state is not None

    @pytest.mark.parametrize("count", [0, 1, 4])
    def test_a_batch_keeps_its_axis(self, agent: RewardAgent, count: int):
        actions, _ = agent.predict(drawn(count).reshape(count, 3), deterministic=True)
        assert actions.shape == (count, 2)
        assert all(agent.action_space.contains(action) for action in actions)

    def test_a_row_of_a_batch_is_the_single_call(self, agent: RewardAgent):
        together, _ = agent.predict(drawn(3), deterministic=True)
        for index, observation in enumerate(drawn(3)):
            agent.policy.forget()
            np.testing.assert_allclose(agent.predict(observation, deterministic=True)[0], together[index], atol=1e-3)

    def test_deterministic_actions_are_the_same_each_time_others_are_not(self, agent: RewardAgent):
        first, _ = agent.predict(drawn(1)[0], deterministic=True)
        again, _ = agent.predict(drawn(1)[0], deterministic=True)
        np.testing.assert_array_equal(again, first)
        noisy = [agent.predict(drawn(1)[0])[0] for _ in range(2)]
        assert not np.array_equal(noisy[0], noisy[1])

    def test_plans_in_the_state_are_those_kept_inside(self, agent: RewardAgent):
        inside, outside, state = [], [], None
        seen = [drawn(2) + shift for shift in (0.0, 0.1, 0.2)]
        for index, batch in enumerate(seen):
            inside.append(agent.predict(batch, episode_start=np.full(2, not index), deterministic=True)[0])
        for index, batch in enumerate(seen):
            action, state = agent.predict(batch, state, np.full(2, not index), deterministic=True)
            outside.append(action)
        np.testing.assert_array_equal(inside, outside)
        assert state is not None and state[2].tolist() == [3, 3]

    def test_an_episode_that_begins_has_no_plan(self, agent: RewardAgent):
        agent.predict(drawn(2), deterministic=True)
        _, state = agent.predict(drawn(2)[::-1].copy(), episode_start=np.array([True, False]), deterministic=True)
        assert state is not None and state[2].tolist() == [1, 2]

    @pytest.mark.parametrize(
        ("observation", "state", "match"),
        [
            (np.full(3, np.nan), None, "observation: expected finite numbers"),
            (np.zeros(4), None, "(?i)observation"),
            (np.zeros(3), (np.zeros((2, 6, 2)),), "state: expected what predict returned"),
        ],
        ids=["nan", "shape", "state"],
    )
    def test_what_does_not_fit_is_refused(self, agent: RewardAgent, observation: Any, state: Any, match: str):
        with pytest.raises(ValueError, match=match):
            agent.predict(observation, state)

    def test_no_global_random_generator_is_touched(self, agent: RewardAgent):
        before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]
        agent.predict(drawn(2))
        assert before == (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]

    def test_stable_baselines_evaluates_it(self, agent: RewardAgent):
        mean, _ = evaluate_policy(agent, DummyVecEnv([limited, limited]), 4, warn=False)
        assert np.mean(mean) > returned(Constant([-1.0, 2.0]))

    def test_another_planner_may_be_set_at_any_time(self, agent: RewardAgent):
        agent.planner = ICEM(iterations=1, samples=20)
        assert agent.planner.iterations == 1
        agent.planner = None
        with pytest.raises(ValueError, match="expected one that plans for rewards"):
            agent.planner = GRASP()
