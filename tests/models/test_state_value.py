"""Values of states: what they converge to, and what keeps them the same."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from torch import Tensor

from grasp_agent.agent.reward.experience import Where, backups, drawn
from grasp_agent.models.dynamics import state_value
from grasp_agent.models.dynamics.state_value import Backups, StateValue, ValueConfig


def line(length: int = 8, size: int = 100, *, envs: int = 1, limit: int | None = None) -> ReplayBuffer:
    """Walks 0, 1, .. to an end for good; or cut by a time limit. The reward is the place that is left, ten times the
    environment's number more."""
    box = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    buffer = ReplayBuffer(size, box, box, "cpu", n_envs=envs)
    for step in range(300):
        place = step % (limit or length)
        last = place == (limit or length) - 1
        now, then = (np.full((envs, 1), value, np.float32) for value in (place, place + 1))
        infos = [{"TimeLimit.truncated": limit is not None and last}] * envs
        buffer.add(now, then, now, place + 10.0 * np.arange(envs), np.full(envs, last), infos)
    return buffer


def everywhere(buffer: ReplayBuffer) -> Where:
    return np.arange(buffer.size()), np.zeros(buffer.size(), int)


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_backups_are_discounted_sums_up_to_the_end(steps: int):
    buffer = line(8)
    found = backups(buffer, everywhere(buffer), steps, 0.9)
    order = [(buffer.pos + index) % 100 for index in range(100)]  # the oldest first
    for index, row in enumerate(order):
        total, weight, last = 0.0, 1.0, None
        for now in order[index : index + steps]:
            total, weight, last = (
                total + weight * buffer.rewards[now, 0],
                0.9 * weight,
                buffer.next_observations[now, 0, 0],
            )
            if buffer.dones[now, 0]:
                weight = 0.0
                break
        assert found.rewards[row].item() == pytest.approx(total)
        assert (found.last[row].item(), found.weights[row].item()) == (last, pytest.approx(weight))


def test_backups_are_those_of_their_environment():
    buffer = line(8, envs=2)
    times = np.arange(20, 40)
    one, other = (backups(buffer, (times, np.full(20, env)), 3, 0.5) for env in range(2))
    steps = 3 - np.maximum(0, buffer.observations[times, 0, 0] + 3 - 8)
    np.testing.assert_allclose((other.rewards - one.rewards).numpy(), 10 * (2 - 0.5 ** (steps - 1)), rtol=1e-5)


def test_a_reset_that_was_not_recorded_ends_the_sum():
    buffer = line(8, size=1000)
    buffer.observations[10, 0] = 77  # `learn` began again: 9 led elsewhere
    found = backups(buffer, (np.array([8, 9, 10]), np.zeros(3, int)), 3, 1.0)
    assert found.rewards.tolist() == [0 + 1, 1, 2 + 3 + 4]
    assert found.last[:2, 0].tolist() == [2, 2] and (found.weights[:2] == 1).all()


def test_a_time_limit_ends_the_sum_but_not_the_return():
    buffer = line(limit=4)
    found = backups(buffer, everywhere(buffer), 10, 0.5)
    assert (found.weights > 0).all()
    torch.testing.assert_close(found.weights, 0.5 ** (found.last - found.states)[:, 0])


def test_the_latest_steps_are_drawn():
    buffer, random = line(envs=2), np.random.default_rng(0)
    times, envs = drawn(buffer, random, 3, 500, latest=20)
    assert times.shape == (3, 500) and set(np.unique(envs)) == {0, 1}
    assert set(np.unique((buffer.pos - 1 - times) % 50)) == set(range(20))
    assert len(np.unique(drawn(buffer, random, 3, 500)[0])) == 50


def trained(data: Backups, discount: float, updates: int = 1500, **settings: float) -> StateValue:
    value = StateValue(1, 2, discount, ValueConfig(width=32, **settings), seed=0)  # type: ignore[arg-type]
    target = deepcopy(value)
    optimiser = torch.optim.Adam(value.parameters(), 3e-3)
    for part in (value, target):
        part.normalise(data.states.mean((0, 1)), data.states.std((0, 1)), data.rewards.flatten())
    for _ in range(updates):
        optimiser.zero_grad()
        value.loss(data, target).backward()
        optimiser.step()
        with torch.no_grad():
            for mean, now in zip(target.parameters(), value.parameters(), strict=True):
                mean.lerp_(now, 0.05)
    return value


def chain() -> Backups:
    """States 0, 1, 2, 3 in a row; reward 1 each, then the end."""
    states = torch.arange(4.0)[:, None].expand(2, 4, 1)
    return Backups(states, torch.ones(2, 4), states + 1, torch.tensor([0.9, 0.9, 0.9, 0.0]).expand(2, 4))


def test_values_are_returns_until_the_end():
    data = chain()
    found = trained(data, 0.9).returns(data.states)
    torch.testing.assert_close(found, torch.tensor([3.439, 2.71, 1.9, 1.0]).expand(2, 4), atol=0.1, rtol=0)


@pytest.mark.parametrize(("expectile", "wanted"), [(0.5, 0.0), (0.9, 0.8)])
def test_with_an_expectile_good_actions_count_more(expectile: float, wanted: float):
    """Rewards 1 and -1: the expectile e solves `tau (1 - e) = (1 - tau) (e + 1)`."""
    states, rewards = torch.zeros(2, 100, 1), torch.tensor([1.0, -1.0]).repeat(2, 50)
    value = StateValue(1, 2, 0.9, ValueConfig(width=32, expectile=expectile), seed=0)
    optimiser = torch.optim.Adam(value.parameters(), 3e-3)
    value.normalise(torch.zeros(1), torch.ones(1), rewards.flatten())
    data = Backups(states, rewards, states, torch.zeros_like(rewards))
    for _ in range(600):
        optimiser.zero_grad()
        value.loss(data, value).backward()
        optimiser.step()
    torch.testing.assert_close(value.returns(states), torch.full_like(rewards, wanted), atol=0.02, rtol=0)


def test_values_stay_the_same_under_another_normalisation():
    data = chain()
    value = trained(data, 0.9, updates=100)
    before = value.returns(data.states)
    value.normalise(torch.tensor([2.0]), torch.tensor([2.5]), torch.tensor([0.5, 3.0]))
    torch.testing.assert_close(value.returns(data.states), before, atol=1e-3, rtol=1e-3)


def test_many_states_are_valued_in_parts(monkeypatch: pytest.MonkeyPatch):
    data = chain()
    value, asked = trained(data, 0.9, updates=20), []
    whole = value.returns(data.states)
    monkeypatch.setattr(state_value, "_ROWS", 3)
    value.register_forward_hook(lambda _, __, found: asked.append(found.shape[1]))
    torch.testing.assert_close(value.returns(data.states), whole)
    assert asked == [3, 1]


def test_at_first_nothing_is_worth_more_than_anything_else():
    value = StateValue(3, 2, 0.99, ValueConfig(), seed=1)
    assert not value.returns(torch.randn(2, 5, 4, 3)).any()


@pytest.mark.parametrize(("rewards", "bounds"), [((1.0, 2.0), (0.0, 20.0)), ((-3.0, -1.0), (-30.0, 0.0))])
def test_values_are_inside_what_is_possible(rewards: tuple[float, float], bounds: tuple[float, float]):
    torch.manual_seed(0)
    value = StateValue(4, 1, 0.9, ValueConfig(), seed=1)
    value.normalise(torch.zeros(4), torch.ones(4), torch.tensor(rewards))
    with torch.no_grad():
        value.weights[-1].copy_(100 * torch.randn(1, 64, 1))
    found: Tensor = value.returns(1000 * torch.randn(1, 200, 4)).detach()
    assert found.min() >= bounds[0] - 1e-4 and found.max() <= bounds[1] + 1e-4 and found.unique().numel() > 1


@pytest.mark.parametrize("settings", [{"expectile": 1.5}, {"width": 0}, {"steps": 0}, {"recent": 0}, {"average": -1}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(settings))):
        ValueConfig(**settings)  # type: ignore[arg-type]
