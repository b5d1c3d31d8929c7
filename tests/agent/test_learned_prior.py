"""A prior that learns beside the model: from which steps, when plans start from it, and that files hold it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit
from rewarding import Choosing, Field, drawn, limited, made, reloaded, small
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env

from grasp_agent import GraspAgent
from grasp_agent.agent.reward.agent import RewardAgent
from grasp_agent.agent.reward.learned_prior import LearnedPrior

LAYER = "networks_of_prior.policy.actor.mu.weight"
QUICK: dict[str, Any] = {"prior": "sac", "learning_starts": 50, "first_steps": 60}


def prior_of(agent: RewardAgent) -> LearnedPrior:
    found = agent.policy.prior
    assert isinstance(found, LearnedPrior)
    return found


def weights_of(agent: RewardAgent) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors_of(agent).items() if not name.endswith("proposing")}


def tensors_of(agent: RewardAgent) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in agent.policy.state_dict().items() if name.startswith("networks_of_prior")}


def short() -> TimeLimit[Any, Any]:
    return TimeLimit(Field(), 3)  # so that it acts in the twentieth episode


@pytest.fixture(scope="module")
def agent() -> RewardAgent:
    return small(short(), **QUICK).learn(80)


def test_it_is_trained_as_often_as_the_model(agent: RewardAgent):
    before = tensors_of(small(short(), **QUICK))
    assert cast(Any, prior_of(agent).algorithm)._n_updates == agent._training.updates > 60
    assert all(not torch.equal(tensor, before[name]) for name, tensor in weights_of(agent).items())


def test_it_reads_actions_as_the_buffer_holds_them():
    taken: list[Any] = []
    env = limited()
    step = env.step
    env.step = lambda action: (taken.append(action), step(action))[1]  # type: ignore[method-assign]
    other = small(env, **QUICK).learn(5)
    assert other.replay_buffer is not None
    scaled = prior_of(other).algorithm.policy.scale_action(np.array(taken))
    np.testing.assert_allclose(other.replay_buffer.actions[:5, 0], scaled, atol=1e-6)


def test_learning_repeats_and_leaves_global_generators_alone(agent: RewardAgent, monkeypatch: pytest.MonkeyPatch):
    drawn_next, acted = [], []
    act = LearnedPrior.act
    monkeypatch.setattr(LearnedPrior, "act", lambda *args: (acted.append(len(args)), act(*args))[1])
    for learns in (False, True):
        torch.manual_seed(1)
        np.random.seed(1)
        again = small(short(), **QUICK)
        if learns:
            again.learn(80)
            assert acted.count(3) >= 3  # with a seed, in `learn`
            again.by_prior = True
            again.predict(drawn(3))
        drawn_next.append((float(torch.rand(())), float(np.random.rand())))
    assert drawn_next[0] == drawn_next[1]
    first = tensors_of(agent)
    assert agent.replay_buffer is not None and again.replay_buffer is not None
    np.testing.assert_array_equal(again.replay_buffer.actions[:80], agent.replay_buffer.actions[:80])
    assert all(torch.equal(tensor, first[name]) for name, tensor in tensors_of(again).items())


def test_random_actions_come_before_there_is_a_model():
    plain, beside = small(learning_starts=50), small(**QUICK)
    for each in (plain, beside):
        each.learn(40)
    assert plain.replay_buffer is not None and beside.replay_buffer is not None
    np.testing.assert_array_equal(plain.replay_buffer.actions[:40], beside.replay_buffer.actions[:40])


def test_plans_start_from_it_where_it_is_better(agent: RewardAgent, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(LearnedPrior, "__call__", lambda *_: asked.append(True) or pytest.fail("asked"))
    agent.policy.forget()
    prior_of(agent).judge(better=False)
    agent.predict(drawn(3))
    assert not asked
    prior_of(agent).judge(better=True)
    with pytest.raises(pytest.fail.Exception, match="asked"):
        agent.predict(drawn(3))
    prior_of(agent).judge(better=False)


def test_learning_judges_it():
    agent = small(make_vec_env(limited, 2), prior="sac", first_steps=1, train_freq=10, horizon=1, value=None, noise=0.0)
    prior = prior_of(agent)
    cast(Any, prior.algorithm.policy)._predict = lambda states, deterministic=False: (
        5 * (torch.tensor([0.6, -0.4]).to(states) - states[:, :2])
    ).clamp(-1, 1)
    agent.learn(900)
    assert prior.proposing and agent.by_prior


class TestFiles:
    def test_they_hold_it(self, agent: RewardAgent, tmp_path: Path):
        for by_prior, better in ((True, False), (False, True), (False, False), (True, True)):
            agent.by_prior = by_prior
            prior_of(agent).judge(better=better)
            again = reloaded(agent, tmp_path)
            assert (again.by_prior, prior_of(again).proposing) == (by_prior, better)
            np.testing.assert_array_equal(again.predict(drawn(3))[0], agent.predict(drawn(3))[0])
        agent.by_prior = False
        mine = tensors_of(agent)
        assert "networks_of_prior.log_ent_coef" in mine
        assert all(torch.equal(tensor, mine[name]) for name, tensor in tensors_of(again).items())

    def test_a_loaded_one_goes_on_learning(self, agent: RewardAgent, tmp_path: Path):
        again = reloaded(agent, tmp_path)
        before = {name: tensor.clone() for name, tensor in tensors_of(again).items()}
        again.set_env(limited())
        again.learn(60, reset_num_timesteps=False)
        assert all(not torch.equal(tensor, before[name]) for name, tensor in weights_of(again).items())

    def test_it_can_be_dropped_and_added(self, agent: RewardAgent, tmp_path: Path):
        def loaded(prior: Any) -> RewardAgent:
            return cast(RewardAgent, GraspAgent.load(tmp_path / "a.zip", device="cpu", **cast(Any, {"prior": prior})))

        agent.save(tmp_path / "a.zip")
        without = loaded(None)
        assert without.policy.prior is None and not without.by_prior
        assert torch.equal(without.policy.model.skip, agent.policy.model.skip)
        without.save(tmp_path / "a.zip")
        fresh = loaded("sac")
        assert torch.equal(fresh.policy.model.skip, agent.policy.model.skip)
        assert not torch.equal(weights_of(fresh)[LAYER], weights_of(agent)[LAYER])
        fresh.save(tmp_path / "a.zip")
        given = loaded(made(SAC))
        assert given.policy.prior is not None and not isinstance(given.policy.prior, LearnedPrior)

    def test_parameters_of_an_agent_without_it_are_refused(self, agent: RewardAgent):
        plain = small()
        with pytest.raises(ValueError, match=r"networks_of_prior.* is missing"):
            agent.set_parameters(plain.get_parameters())
        with pytest.raises(ValueError, match=r"networks_of_prior.* is unknown"):
            plain.set_parameters(agent.get_parameters())


def test_choices_are_refused():
    with pytest.raises(ValueError, match='prior: expected actions in a Box for "sac"'):
        small(Choosing(), prior="sac")
