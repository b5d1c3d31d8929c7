"""The model of dynamics, rewards and endings: normalisation that changes no prediction, planning form, learning."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from grasp_agent.models.dynamics.rewarded import RewardModel, RewardModelConfig, Transitions

SMALL = RewardModelConfig(members=2, width=24)


def drawn(count: int, seed: int = 0) -> Transitions:
    """A point pushed by its action, rewarded for its place, whose episode ends beyond 1."""
    generator = torch.Generator().manual_seed(seed)
    states = 3 + 5 * torch.randn(count, 2, generator=generator)
    actions = 2 * torch.rand(count, 1, generator=generator) - 1
    following = torch.stack([states[:, 0] + 0.4 * actions[:, 0], states[:, 1]], -1)
    return Transitions(states, actions, following, 100 + following[:, 0], (following[:, 0] > 3).float())


def folded(model: RewardModel, data: Transitions) -> Tensor:
    """Predictions of the planning form, `[K, M, S + 2]`."""
    members = model.config.members
    states = model.planning_state(data.states).expand(members, -1, -1)
    return model.layers().step(states, data.actions.expand(members, -1, -1))


def trained(steps: int = 600, model: RewardModel | None = None) -> tuple[RewardModel, Transitions]:
    data = drawn(1000)
    model = model or RewardModel(2, 1, SMALL, seed=1)
    model.normalise(data)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(1000, (2, 64), generator=generator)
        loss = model.loss(Transitions(*(part[rows] for part in data)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model, drawn(300, seed=5)


def test_the_planning_form_predicts_as_the_network():
    model, data = RewardModel(2, 1, SMALL, seed=1), drawn(200)
    model.normalise(data)
    raw = model(data.states.expand(2, -1, -1), data.actions.expand(2, -1, -1)) * model.scale + model.shift
    found = folded(model, data)
    room = data.rewards.min(), data.rewards.max()
    torch.testing.assert_close(found[..., :2], data.states + raw[..., :2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[..., 2], raw[..., 2].clamp(*room), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found[..., 3], raw[..., 3].sigmoid(), atol=1e-5, rtol=1e-4)


def test_another_normalisation_changes_no_prediction():
    model, data = RewardModel(2, 1, SMALL, seed=1), drawn(200)
    torch.nn.init.normal_(model.skip, generator=torch.Generator().manual_seed(0))  # the linear path, too
    model.normalise(data)
    others = Transitions(data.states * 2 - 20, data.actions, data.following * 2 - 21, data.rewards * 3 + 9, data.ended)
    before = model(data.states.expand(2, -1, -1), data.actions.expand(2, -1, -1)) * model.scale + model.shift
    model.normalise(others)
    after = model(data.states.expand(2, -1, -1), data.actions.expand(2, -1, -1)) * model.scale + model.shift
    assert not torch.allclose(model.mean, torch.zeros(3))
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)


def test_it_learns_dynamics_rewards_and_endings():
    model, held_out = trained()
    found = folded(model, held_out).mean(0)
    moved = held_out.following - held_out.states
    missed = (found[:, :2] - held_out.following).square().mean(0)
    assert missed[0] < 0.05 * moved[:, 0].var()
    assert (found[:, 2] - held_out.rewards).square().mean() < 0.05 * held_out.rewards.var()
    certain = (held_out.following[:, 0] - 3).abs() > 1
    right = (found[:, 3] > 0.5) == held_out.ended.bool()
    assert right[certain].float().mean() > 0.97


def test_an_entry_that_hardly_moved_before_is_learned_as_by_a_fresh_network():
    narrow = drawn(1000)
    still = narrow.states[:, 1:] * 1e-4
    narrow = narrow._replace(
        states=torch.cat([narrow.states[:, :1], still], 1), following=torch.cat([narrow.following[:, :1], still], 1)
    )
    model = RewardModel(2, 1, SMALL, seed=1)
    model.normalise(narrow)
    errors = []
    for known in (model, None):
        found, held_out = trained(300, known)
        errors.append((folded(found, held_out).mean(0)[:, 2] - held_out.rewards).square().mean().item())
    assert errors[0] < 10 * errors[1] + 0.05


def test_inputs_far_from_zero_lose_no_digits_in_the_planning_form():
    data = drawn(200)
    far = Transitions(data.states / 500 + 1000, data.actions, data.following / 500 + 1000, data.rewards, data.ended)
    model = RewardModel(2, 1, SMALL, seed=1)
    model.normalise(far)
    raw = model(far.states.expand(2, -1, -1), far.actions.expand(2, -1, -1)) * model.scale + model.shift
    room = far.rewards.min(), far.rewards.max()
    torch.testing.assert_close(folded(model, far)[..., 2], raw[..., 2].clamp(*room), atol=2e-3, rtol=1e-5)


def test_a_fresh_network_begins_near_the_mean_of_its_targets():
    model, data = RewardModel(2, 1, SMALL, seed=1), drawn(200)
    model.normalise(data)
    raw = model(data.states.expand(2, -1, -1), data.actions.expand(2, -1, -1))
    assert raw[..., :3].square().mean() < 1  # in units of the targets' deviations


def test_predictions_stay_near_what_was_seen():
    model, data = RewardModel(2, 1, SMALL, seed=1), drawn(200)
    model.normalise(data)
    far = Transitions(data.states + 1e6, *data[1:])
    found = folded(model, far)
    seen = torch.cat([data.states, data.following])
    room = 0.5 * (seen.amax(0) - seen.amin(0))
    assert (found[..., :2] <= seen.amax(0) + room + 1e-3).all()
    assert (found[..., 2] <= data.rewards.max()).all() and (found[..., 2] >= data.rewards.min()).all()


def test_one_transition_and_constant_entries_give_finite_predictions():
    model = RewardModel(2, 1, SMALL)
    one = drawn(1)
    model.normalise(one)
    assert folded(model, one).isfinite().all()
    same = Transitions(*(part[:1].expand(50, *part.shape[1:]).clone() for part in drawn(1)))
    model.normalise(same)
    assert (
        folded(model, same).isfinite().all()
        and model.loss(Transitions(*(part.expand(2, *part.shape) for part in same))).isfinite()
    )


@pytest.mark.parametrize("name", ["members", "width", "depth"])
def test_settings_out_of_range_are_refused(name: str):
    with pytest.raises(ValueError, match=f"{name}: expected a whole number"):
        RewardModelConfig(**{name: 0})  # type: ignore[arg-type]
