"""A trained policy as prior: proposals, who acts, measured returns, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from gymnasium import spaces
from rewarding import SPOT, Choosing, Constant, Field, drawn, limited, made, returned, small
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from grasp_agent import GraspAgent
from grasp_agent.agent.reward.agent import RewardAgent
from grasp_agent.agent.reward.prior import Contest, Prior
from grasp_agent.planners import NoiseSource, Problem, Return
from grasp_agent.task.action_codec import ActionCodec

BOX = cast(spaces.Box, Field().observation_space)


@pytest.fixture(scope="module")
def sac() -> BaseAlgorithm:
    return made(SAC)


@pytest.mark.parametrize("kind", [SAC, TD3, PPO])
def test_its_actions_are_those_of_the_model(kind: Any):
    model = made(kind)
    codec = ActionCodec(model.action_space)
    found = Prior(model, BOX, codec).act(torch.from_numpy(drawn(5)))
    np.testing.assert_allclose(codec.decode(found.numpy()), model.predict(drawn(5), deterministic=True)[0], atol=1e-5)


def test_choices_are_those_of_the_model():
    model, codec = made(PPO, Choosing()), ActionCodec(Choosing().action_space)
    found = Prior(model, BOX, codec).act(torch.from_numpy(drawn(5)))
    np.testing.assert_array_equal(codec.decode(found.numpy()), model.predict(drawn(5), deterministic=True)[0])
    assert set(found.unique().tolist()) == {-1, 1}


def test_proposals_are_rollouts_of_the_policy_under_each_member(sac: BaseAlgorithm):
    codec, bound = ActionCodec(sac.action_space), torch.ones(2)
    prior = Prior(sac, BOX, codec)

    def dynamics(state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        drift = 0.1 * torch.arange(len(state))[:, None, None]  # each member its own
        return state + drift + torch.nn.functional.pad(action, (0, 3))

    start = torch.nn.functional.pad(torch.from_numpy(drawn(4)).float(), (0, 2))
    problem = Problem(
        dynamics=dynamics, objective=Return(reward=lambda *_: torch.zeros(())), start=start, low=-bound, high=bound,
        horizon=3, members=2,
    )  # fmt: skip
    found = prior(problem, 4, NoiseSource(0, start.device, start.dtype))
    assert found.states.shape == (4, 2, 3, 5) and found.actions.shape == (4, 2, 3, 2)
    for member in range(2):
        state = start
        for step in range(3):
            action = prior.act(state[:, :3])
            state = dynamics(state.expand(2, -1, -1), action.expand(2, -1, -1))[member]
            torch.testing.assert_close(found.actions[:, member, step], action)
            torch.testing.assert_close(found.states[:, member, step], state)


class TestContest:
    def play(self, contest: Contest, policy: float, plans: float, episodes: int) -> list[bool]:
        actors = []
        for _ in range(episodes):
            actors.append(bool(contest.by_policy[0]))
            for done in (False, True):
                contest.step(np.array([policy if actors[-1] else plans]) / 2, np.array([done]), can_plan=True)
        return actors

    @pytest.mark.parametrize(("policy", "plans"), [(5.0, 1.0), (1.0, 5.0)])
    def test_the_better_one_acts_but_in_a_tenth_of_the_episodes(self, policy: float, plans: float):
        contest = Contest(1, policy_first=True)
        actors = self.play(contest, policy, plans, 61)
        assert actors[0] and contest.policy_is_better == (policy > plans)
        share = np.mean(actors[11:])
        assert share == pytest.approx(0.9 if policy > plans else 0.1, abs=0.021)

    def test_an_episode_of_both_says_nothing(self):
        contest = Contest(2, policy_first=True)
        contest.step(np.array([100.0, 0.0]), np.array([False, True]), can_plan=False)
        assert contest.by_policy.all()
        contest.begin_plans()
        contest.step(np.array([100.0, 1.0]), np.array([True, False]), can_plan=True)
        assert not contest.policy_is_better and not contest._known[False]

    def test_episodes_of_random_actions_say_nothing(self):
        contest = Contest(1, policy_first=False)
        for done in (False, True):
            contest.step(np.array([100.0]), np.array([done]), can_plan=False)
        assert not contest.by_policy.any()
        contest.begin_plans()
        self.play(contest, 5.0, 1.0, 12)
        assert contest.policy_is_better


def test_where_it_does_better_it_acts():
    best = made(SAC)
    best.policy._predict = lambda states, deterministic=False: (5 * (torch.tensor([0.6, -0.4]) - states[:, :2])).clamp(
        -1, 1
    )
    agent = small(prior=best, horizon=1, value=None, noise=0.0).learn(900)
    assert agent.by_prior and returned(agent) > returned(Constant([-1.0, 2.0])) / 4
    agent.by_prior = False
    actions = agent.predict(drawn(3), deterministic=True)[0]
    agent.by_prior = True
    assert not np.allclose(agent.predict(drawn(3), deterministic=True)[0], actions)
    np.testing.assert_allclose(agent.predict(drawn(3), deterministic=True)[0], best.predict(drawn(3))[0], atol=1e-6)


def test_where_plans_do_better_they_act(sac: BaseAlgorithm):
    before = [parameter.clone() for parameter in sac.policy.parameters()]
    away = made(SAC)
    away.policy._predict = lambda states, deterministic=False: torch.ones(len(states), 2)
    target = torch.from_numpy(SPOT).float()
    agent = small(prior=away, objective=lambda states, _: -(states[..., :2] - target).abs().sum(-1)).learn(400)
    assert returned(agent) > returned(Constant([-1.0, 2.0])) / 2.5
    assert not agent.by_prior and agent._contest is not None and all(agent._contest._known.values())
    small(prior=sac).learn(160)
    assert all(map(torch.equal, before, sac.policy.parameters()))  # it is not trained further


def test_it_acts_before_there_is_a_model():
    model = made(SAC)
    model.policy._predict = lambda states, deterministic=False: torch.full((len(states), 2), 0.5)
    agent = small(make_vec_env(limited, 2), prior=model, noise=0.0).learn(20)
    assert agent.replay_buffer is not None
    np.testing.assert_allclose(agent.replay_buffer.actions[:10], 0.5, atol=1e-6)


def test_before_there_is_a_model_it_answers(sac: BaseAlgorithm):
    agent = small(prior=sac)
    expected = sac.predict(drawn(3), deterministic=True)[0]
    np.testing.assert_allclose(agent.predict(drawn(3), deterministic=True)[0], expected, atol=1e-6)
    assert not agent.by_prior


def test_who_acts_in_predict_does_not_change_what_is_learned(sac: BaseAlgorithm):
    actions = []
    for by_prior in (False, True):
        agent = small(prior=sac).learn(200)
        agent.by_prior = by_prior
        agent.learn(20, reset_num_timesteps=False)
        assert agent.replay_buffer is not None
        actions.append(agent.replay_buffer.actions[:220])
    np.testing.assert_array_equal(actions[0], actions[1])


class TestVerdicts:
    def decided(self, sac: BaseAlgorithm) -> RewardAgent:
        agent = small(prior=sac)
        agent._contest = Contest(1, policy_first=True)
        agent._contest._known[True].append(0.0)
        agent._contest._known[False].append(-1e6)
        return agent

    def test_they_are_known_while_it_learns(self, sac: BaseAlgorithm):
        seen, agent = [], self.decided(sac)

        class Watch(BaseCallback):
            def _on_step(self) -> bool:
                seen.append(agent.by_prior)
                return True

        agent.learn(60, Watch())
        assert seen == [False] * 25 + [True] * 35

    def test_later_learning_and_files_keep_them(self, sac: BaseAlgorithm, tmp_path: Path):
        agent = self.decided(sac).learn(30)
        agent.learn(30)
        assert agent.by_prior
        agent.save(tmp_path / "a.zip")
        again = cast(RewardAgent, GraspAgent.load(tmp_path / "a.zip", limited(), device="cpu", prior=sac))
        assert again.by_prior and again.learn(60, reset_num_timesteps=False).by_prior

    def test_another_environment_gets_its_own(self, sac: BaseAlgorithm):
        agent = self.decided(sac).learn(30)
        agent.set_env(limited())
        agent.learn(30, reset_num_timesteps=False)
        assert agent._contest is not None and max(map(max, filter(None, agent._contest._known.values()))) < 0


def test_no_file_holds_it(sac: BaseAlgorithm, tmp_path: Path):
    small(prior=sac).save(tmp_path / "a.zip")
    with pytest.raises(ValueError, match=r"load\(\.\.\., prior=\)"):
        GraspAgent.load(tmp_path / "a.zip")
    assert cast(RewardAgent, GraspAgent.load(tmp_path / "a.zip", prior=sac)).policy.prior is not None
    assert cast(RewardAgent, GraspAgent.load(tmp_path / "a.zip", prior=None)).policy.prior is None


@pytest.mark.parametrize(
    ("prior", "match"),
    [
        ("sac.zip", r'such as SAC.load\("sac.zip"\), got'),
        (made(SAC, "Pendulum-v1"), "prior: expected the observation space"),
        (made(DQN, "CartPole-v1"), "prior: expected the observation space"),
        (made(PPO, Choosing()), "prior: expected the action space"),
    ],
    ids=["path", "other environment", "discrete", "other actions"],
)
def test_what_does_not_fit_is_refused(prior: Any, match: str):
    with pytest.raises(ValueError, match=match):
        small(prior=prior)


def test_one_that_learned_from_normalised_observations_is_refused():
    model = made(SAC, VecNormalize(make_vec_env(limited, 1)))
    with pytest.raises(ValueError, match="prior: expected one that learned without VecNormalize"):
        small(prior=model)


def test_who_acts_is_true_or_false(sac: BaseAlgorithm):
    agent = small(prior=sac)
    with pytest.raises(ValueError, match="by_prior: expected True or False, got 'plans'"):
        agent.by_prior = "plans"  # type: ignore[assignment]
    agent.by_prior = np.bool_(True)  # type: ignore[assignment]
    assert agent.by_prior is True


def test_without_a_prior_none_can_act():
    with pytest.raises(ValueError, match="by_prior: expected an agent with a prior"):
        small().by_prior = True
