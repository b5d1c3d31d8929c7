"""World models: derivatives, ensembles, normalisation, and fits on systems whose answer is known."""

from __future__ import annotations

import pickle
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from grasp_agent.models import EnsembleMLP, MLPConfig, Normalizer
from grasp_agent.models.dynamics import pullback
from grasp_agent.models.dynamics.fitting import FitReport, TrainConfig, _held_out, fit
from grasp_agent.replay.episodes import Dataset, Episode

KINDS = {"sharp": MLPConfig.sharp(), "smooth": MLPConfig.smooth()}
QUICK = TrainConfig(gradient_steps=800, batch_size=64, lr=0.01)

every_kind = pytest.mark.parametrize("kind", KINDS)


def network(kind: str = "sharp", members: int = 3) -> EnsembleMLP:
    """Four state entries, of which the odd ones are positions; two actions; nothing in it is zero or one."""
    config = replace(KINDS[kind], members=members, width=16, depth=2)
    model = EnsembleMLP(4, 2, positions=(1, 3), config=config, seed=1).double()
    with torch.no_grad():
        model.skip.copy_(torch.randn(model.skip.shape, generator=torch.Generator().manual_seed(2)))
        model.scale.copy_(torch.tensor([0.5, 1.5, 0.2, 0.7]))
    return model


def inputs(members: int = 3, count: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    state, action = (torch.randn(members, count, size, generator=generator).double() for size in (4, 2))
    return state, action


def linear_system(episodes: int = 20, steps: int = 25) -> Dataset:
    """x' = x + 0.1 v, v' = 0.9 v + 0.2 a, in units in which the states are far from normalised."""
    random, data = np.random.default_rng(0), Dataset()
    for _ in range(episodes):
        actions = random.uniform(-1, 1, (steps, 1)).astype(np.float32)
        states = [random.normal(size=2)]
        for (action,) in actions:
            x, v = states[-1]
            states.append(np.array([x + 0.1 * v, 0.9 * v + 0.2 * action]))
        data.add(Episode((np.stack(states) * 5 + 100).astype(np.float32), actions))
    return data


@every_kind
def test_the_models_derivatives_are_those_of_autograd(kind: str):
    model = network(kind)
    state, action = inputs()
    expected = torch.zeros(3, 5, 4, 6, dtype=torch.float64)
    rows = torch.cat([state, action], -1).requires_grad_()
    following = model.step(rows[..., :4], rows[..., 4:])
    for entry in range(4):
        expected[:, :, entry] = torch.autograd.grad(following[..., entry].sum(), rows, retain_graph=True)[0]
    for found, slopes in (
        (model.jacobian(state, action), expected),
        (model.action_jacobian(state, action), expected[..., 4:]),
    ):
        torch.testing.assert_close(found[0], following.detach())
        torch.testing.assert_close(found[1], slopes)
        assert not found[1].requires_grad


@every_kind
@pytest.mark.parametrize("members", [1, 2, 3])
def test_the_pullback_is_autograds_product_for_as_many_members_as_are_asked(kind: str, members: int):
    model = network(kind)
    state, action = (values[:members] for values in inputs())
    leaf = action.clone().requires_grad_()
    expected = model.step(state, leaf)
    cotangent = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0)).double()
    (product,) = torch.autograd.grad(expected, leaf, cotangent)
    model.action_pullback(state, 2 * action)[1](cotangent)  # whose memory the next one takes
    following, pull = model.action_pullback(state, action)
    torch.testing.assert_close(following, expected.detach())
    torch.testing.assert_close(pull(cotangent), product)
    slopes = model.action_jacobian(state, action)[1]
    torch.testing.assert_close(product, (cotangent[..., None, :] @ slopes)[..., 0, :])
    assert not following.requires_grad
    with pytest.raises(RuntimeError, match="pullback: called a second time"):
        pull(cotangent)


@every_kind
def test_pullbacks_of_several_steps_do_not_share_memory(kind: str):
    model = network(kind)
    state, action = inputs()
    alone = [model.action_pullback(state, a)[1](state) for a in (action, -action)]
    pulls = [model.action_pullback(state, a)[1] for a in (action, -action)]
    larger = model.action_pullback(torch.cat([state, state], 1), torch.cat([action, -action], 1))[1]
    for pull, expected in zip(pulls, alone, strict=True):
        assert torch.equal(pull(state), expected)
    torch.testing.assert_close(larger(torch.cat([state, state], 1)), torch.cat(alone, 1))


def test_the_pullback_works_in_and_after_inference_mode_and_keeps_little_memory(monkeypatch: pytest.MonkeyPatch):
    model = network()
    state, action = inputs()
    expected = network().action_pullback(state, action)[1](state)
    with torch.inference_mode():
        assert torch.equal(model.action_pullback(state, action)[1](state), expected)
    for kept in (2**24, 0):
        monkeypatch.setattr(pullback, "_KEPT", kept)
        assert torch.equal(model.action_pullback(state, action)[1](state), expected)
        assert len(model._pullback_weights(3).spare) == (kept > 0)


@every_kind
def test_the_pullback_follows_every_change_of_the_weights(kind: str):
    model = network(kind)
    state, action = inputs()

    def agrees() -> None:
        dtype = model.scale.dtype
        following = model.action_pullback(state.to(dtype), action.to(dtype))[0]
        torch.testing.assert_close(following, model.step(state.to(dtype), action.to(dtype)).detach())

    agrees()
    for tensor in (*model.weights, *model.biases, model.skip, model.scale):
        with torch.no_grad():
            tensor.add_(0.1)
        agrees()
    model.load_state_dict(network(kind).state_dict())
    agrees()
    model.float()
    agrees()
    copied = deepcopy(model)
    with torch.no_grad():
        for tensor in (*copied.weights, *copied.biases, copied.skip):  # as an optimiser changes them
            tensor.add_(1)
    moved = copied.action_pullback(state.float(), action.float())[0]
    torch.testing.assert_close(moved, copied.step(state.float(), action.float()).detach())
    agrees()


def test_pickles_hold_no_workspaces():
    model = network()
    before = len(pickle.dumps(model))
    state, action = (values.repeat(1, 500, 1) for values in inputs())
    model.action_pullback(state, action)[1](state)
    assert len(pickle.dumps(model)) == before


def test_an_entry_that_does_not_move_stays_bit_for_bit():
    model = network()
    with torch.no_grad():
        model.scale[2] = 0
    state, action = inputs()
    following, pull = model.action_pullback(state, action)
    assert torch.equal(following[..., 2], state[..., 2])
    assert torch.equal(pull(torch.zeros_like(state)), torch.zeros_like(action))


@every_kind
def test_the_first_members_alone_answer_as_they_do_among_all(kind: str):
    model = network(kind)
    state, action = inputs()
    torch.testing.assert_close(model.step(state[:2], action[:2]), model.step(state, action)[:2])
    for derivative in (model.jacobian, model.action_jacobian):
        for few, every in zip(derivative(state[:2], action[:2]), derivative(state, action), strict=True):
            torch.testing.assert_close(few, every[:2])


@every_kind
def test_members_of_one_batch_are_the_members_alone(kind: str):
    model = network(kind)
    state, action = inputs()
    together = model.step(state, action)
    for member in range(3):
        alone = network(kind, members=1)
        alone.load_state_dict(
            {
                name: value if value.ndim == 1 else value[member : member + 1]
                for name, value in model.state_dict().items()
            }
        )
        torch.testing.assert_close(alone.step(state[member, None], action[member, None])[0], together[member])
    assert (together - model.step(state[[1, 2, 0]], action[[1, 2, 0]])[[2, 0, 1]]).abs().min() > 0


def test_a_sharp_network_distinguishes_positions_that_a_smooth_one_does_not():
    near = torch.zeros(3, 2, 4, dtype=torch.float64)
    near[:, 1, 1] = 1 / 16  # a quarter of the shortest wave
    jumps = {}
    for kind in KINDS:
        model = network(kind)
        with torch.no_grad():
            model.skip.zero_()
        following = model.step(near, torch.zeros(3, 2, 2).double()) - near
        jumps[kind] = (following[:, 1] - following[:, 0]).norm()
    assert jumps["sharp"] > 5 * jumps["smooth"]


def test_normalisation_gives_mean_0_and_deviation_1_and_has_an_inverse():
    values = torch.randn(400, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 0.1, 0.0]) + 7
    normalizer = Normalizer(3)
    normalizer.fit(values)
    normal = normalizer(values)
    torch.testing.assert_close(normal.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(normal.std(0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalizer.inverse(normal), values)


def fitted(config: TrainConfig, seed: int = 0) -> tuple[EnsembleMLP, FitReport]:
    model = EnsembleMLP(2, 1, positions=(0,), config=MLPConfig(members=2, width=32, depth=2))
    return model, fit(model, linear_system(), config, seed=seed)


@pytest.mark.parametrize("unroll", [1, 4])
def test_a_fit_learns_a_linear_system(unroll: int):
    model, report = fitted(replace(QUICK, unroll=unroll))
    untrained = fitted(replace(QUICK, gradient_steps=10))[1]
    assert report.error_mean < 0.02 * untrained.error_mean
    assert report.error_mean <= report.error_high < 0.02
    # A system of its own, in the environment's units: a step of about 0.5 is predicted to 0.05.
    state, action = torch.tensor([[[103.0, 98.0]]]).expand(2, -1, -1), torch.full((2, 1, 1), 0.5)
    predicted = model.decode(model.step(model.encode(state), action))
    expected = torch.tensor([103.0 - 0.2, 100 + 0.9 * -2 + 0.2 * 0.5 * 5]).expand(2, 1, 2)
    torch.testing.assert_close(predicted, expected, atol=0.05, rtol=0)


def test_a_fit_is_the_same_for_the_same_seed_and_leaves_no_gradient():
    steps: list[int] = []
    config = replace(QUICK, gradient_steps=20)
    first, second, third = (fitted(config, seed)[0] for seed in (1, 1, 2))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert not torch.equal(first.weights[0], third.weights[0])
    assert all(parameter.grad is None for parameter in first.parameters())
    fit(first, linear_system(), config, on_step=lambda: steps.append(1))
    assert len(steps) == 20


def test_few_transitions_and_few_new_ones_get_few_gradient_steps():
    config = TrainConfig(gradient_steps=1000, full_at=400, batch_size=10)

    def steps(total: int, new: int | None = None) -> int:
        return config.for_data(total, new).gradient_steps

    assert [steps(count) for count in (1, 4, 100, 400, 10**6)] == [50, 80, 500, 1000, 1000]
    assert [steps(400, new) for new in (1, 100, 200, 400)] == [50, 250, 500, 1000]
    assert steps(100, 50) == 250
    assert replace(config, gradient_steps=1).for_data(1).gradient_steps == 1
    assert replace(config, gradient_steps=10**6).for_data(10).gradient_steps == 200  # 20 for each transition
    assert replace(config, gradient_steps=10**6, steps_per_transition=7).for_data(10).gradient_steps == 70
    assert replace(config, least_steps=90).for_data(1).gradient_steps == 90
    with pytest.raises(ValueError, match="full_at: expected"):
        TrainConfig(full_at=0)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_what_is_held_out_stays_held_out_as_data_grow(share: float):
    counts = (100, 163, 200, 399, 400, 1000, 5000, 40_000)
    masks = [_held_out(count, share) for count in counts]
    for few, more in pairwise(masks):
        assert len(few) < len(more) and torch.equal(more[: len(few)], few)
    assert all(abs(float(mask.double().mean()) - share) < 0.11 for mask in masks)
    assert float(masks[-1].double().mean()) == pytest.approx(share, rel=0.05)


@pytest.mark.parametrize("count", [2, 3, 10, 20, 50, 99])
def test_of_few_windows_some_are_held_out_and_most_are_not(count: int):
    assert 1 <= int(_held_out(count, 0.05).sum()) <= max(1, count / 10)


def test_windows_that_are_not_used_do_not_change_which_others_are_held_out(monkeypatch: pytest.MonkeyPatch):
    data, seen = linear_system(), list[Tensor]()
    usable = torch.ones(500, dtype=torch.bool)
    usable[:7] = False
    monkeypatch.setattr(EnsembleMLP, "usable", lambda self, windows: usable)

    def heard(model: EnsembleMLP, states: Tensor, actions: Tensor) -> Tensor:
        seen.append(states)
        return torch.zeros(len(states))

    monkeypatch.setattr("grasp_agent.models.dynamics.fitting._errors", heard)
    model = EnsembleMLP(2, 1, positions=(0,), config=MLPConfig(members=2, width=8, depth=1))
    fit(model, data, replace(QUICK, gradient_steps=1))
    states = model.encode(torch.from_numpy(data.windows(1)[0]))
    assert torch.equal(seen[0], states[_held_out(500, QUICK.holdout) & usable])


def test_a_warm_start_copies_weights_and_normalisation_of_a_model_that_knows_such_data():
    known, new = fitted(QUICK)[0], EnsembleMLP(2, 1, positions=(0,), config=MLPConfig(members=2, width=32, depth=2))
    windows = torch.from_numpy(linear_system().windows(1)[0])
    new.adapt(windows[:, 0], torch.zeros(len(windows), 1), windows[:, 1])
    assert new.warm_start_from(known)
    for name, value in known.state_dict().items():
        assert torch.equal(new.state_dict()[name], value)
    assert all(parameter.requires_grad for parameter in new.parameters())


@pytest.mark.parametrize("change", ["moved", "stretched", "another shape"])
def test_there_is_no_warm_start_from_a_model_that_knows_other_data(change: str):
    known, width = fitted(replace(QUICK, gradient_steps=1))[0], 16 if change == "another shape" else 32
    new = EnsembleMLP(2, 1, positions=(0,), config=MLPConfig(members=2, width=width, depth=2))
    before = torch.from_numpy(linear_system().windows(1)[0])[:, 0]
    if change == "moved":
        before = before + 0.5 * before.std(0)
    elif change == "stretched":
        before = before + 0.5 * (before - before.mean(0))
    new.adapt(before, torch.zeros(len(before), 1), before)
    first = new.weights[0].clone()
    assert not new.warm_start_from(known)
    assert torch.equal(new.weights[0], first)
    assert new.warm_start_from(known, allow_drift=True) is (change != "another shape")


@pytest.mark.parametrize("steps", [1, 9])
def test_a_fit_may_be_as_short_as_one_step(steps: int):
    assert np.isfinite(fitted(replace(QUICK, gradient_steps=steps))[1].loss)


def test_a_patient_fit_ends_when_it_no_longer_improves_and_keeps_its_best_weights(monkeypatch: pytest.MonkeyPatch):
    """What is kept back is said to be predicted best after 60 steps."""
    ticks, known = list[int](), dict[int, Tensor]()

    def told(model: EnsembleMLP, *_: Tensor) -> Tensor:
        known.setdefault(len(ticks), model.weights[0].detach().clone())
        return torch.tensor([abs(len(ticks) - 60.0)])

    monkeypatch.setattr("grasp_agent.models.dynamics.fitting._errors", told)
    model = EnsembleMLP(2, 1, config=MLPConfig(members=2, width=8, depth=1))
    config = replace(QUICK, gradient_steps=500, patience=20)
    fit(model, linear_system(), config, on_step=lambda: ticks.append(0))
    assert len(ticks) == 60 + config.patience  # type: ignore[operator]
    assert torch.equal(model.weights[0], known[60])
    assert not torch.equal(known[60], known[80])


def chaos() -> Dataset:
    """Nothing that could be learned."""
    random, data = np.random.default_rng(0), Dataset()
    for _ in range(2):
        data.add(Episode(random.normal(size=(21, 12)).astype(np.float32), np.zeros((20, 1), np.float32)))
    return data


def test_the_error_is_measured_on_transitions_that_were_not_trained_on():
    model = EnsembleMLP(12, 1, config=MLPConfig(members=1, width=128, depth=2, octaves=0))
    report = fit(model, chaos(), TrainConfig(gradient_steps=1000, batch_size=64, lr=0.003, weight_decay=0, holdout=0.2))
    assert report.loss < 0.1  # learned by heart
    assert report.error_mean > 0.8  # and worth nothing


def test_the_loss_is_the_error_along_the_models_rollout():
    model = network()
    state, action = inputs()
    first = model.step(state, action)
    second = model.step(first, action)
    states, actions = torch.stack([state, first, second], 2), torch.stack([action, action], 2)
    assert model.loss(states, actions).item() == pytest.approx(0, abs=1e-20)
    states[:, :, 2, 0] += 0.5  # one unit of that entry's scale, in one of four entries, in one of two steps
    assert model.loss(states, actions).item() == pytest.approx(1 / 8)


def test_windows_stay_within_their_episode():
    data = Dataset()
    for begin, length in ((0.0, 3), (10.0, 1), (20.0, 2)):
        states = begin + np.arange(length + 1, dtype=np.float32)[:, None]
        data.add(Episode(states, states[:-1] + 0.5))
    states, actions = data.windows(2)
    assert states[..., 0].tolist() == [[0, 1, 2], [1, 2, 3], [20, 21, 22]]
    assert actions[..., 0].tolist() == [[0.5, 1.5], [1.5, 2.5], [20.5, 21.5]]
    assert len(data) == 6
    assert data.origins.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2]
    with pytest.raises(ValueError, match=r"at least 4 steps, got 3 shorter"):
        data.windows(4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MLPConfig(members=0), "members: expected at least 1, got 0"),
        (lambda: MLPConfig(octaves=-1), "octaves: expected at least 0, got -1"),
        (lambda: MLPConfig(activation="tanh"), "'relu' or 'silu', got 'tanh'"),  # type: ignore[arg-type]
        (lambda: TrainConfig(unroll=0), "unroll: expected a whole number of at least 1, got 0"),
        (lambda: TrainConfig(trial_fraction=5), r"trial_fraction: expected a fraction in \[0, 1\], got 5"),
        (lambda: TrainConfig(trial_steps=0), "trial_steps: expected a whole number of at least 1, got 0"),
        (lambda: TrainConfig(least_steps=0), "least_steps: expected a whole number of at least 1, got 0"),
        (
            lambda: TrainConfig(steps_per_transition=0),
            "steps_per_transition: expected a whole number of at least 1, got 0",
        ),
        (lambda: TrainConfig(lr=0), "lr: expected more than 0, got 0"),
        (lambda: TrainConfig(patience=0), "patience: expected a whole number of at least 1, got 0"),
        (lambda: TrainConfig(weight_decay=-1), "weight_decay: expected at least 0, got -1"),
        (lambda: TrainConfig(weight_decay=float("nan")), "weight_decay: expected at least 0, got nan"),
        (lambda: TrainConfig(holdout=1), r"holdout: expected less than 1, got 1"),
        (lambda: Episode(np.zeros((3, 2), np.float32), np.zeros((3, 1), np.float32)), r"got \[3, 2\] and \[3, 1\]"),
        (lambda: Episode(np.full((3, 2), np.nan, np.float32), np.zeros((2, 1), np.float32)), "finite"),
    ],
)
def test_wrong_settings_are_named(make, words: str):
    with pytest.raises(ValueError, match=words):
        make()
