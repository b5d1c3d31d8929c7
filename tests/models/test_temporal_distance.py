"""The steps between two states, learned from recorded trajectories."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from grasp_agent.models.temporal_distance import TemporalDistance, _predictions, fit_temporal_distance
from grasp_agent.planners import Recording


def recording(trajectories: list[Tensor], stride: int = 1) -> Recording:
    """Trajectories `[T + 1, S]` whose actions are the moves of `stride` rows."""
    actions, left = [], []
    for states in trajectories:
        moves = torch.zeros_like(states)
        moves[:-stride] = states[stride:] - states[:-stride]
        actions.append(moves)
        left.append(torch.arange(len(states) - 1, -1, -1) // stride)
    return Recording(torch.cat(trajectories), torch.cat(actions), torch.cat(left), stride)


def hairpin(position: Tensor) -> Tensor:
    """Points `[n, 2]` of a corridor of length 20 that turns round in the middle: its ends are .4 apart."""
    there = position <= 10
    return torch.stack([torch.where(there, position, 20 - position), torch.where(there, 0.0, 0.4)], -1)


def walks(count: int = 60, length: int = 40) -> list[Tensor]:
    """Random walks in the hairpin, most of them with a drift, from anywhere; a step is at most 1 long."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        drift = 2 * torch.rand(1, generator=generator) - 1
        moves = (drift + 0.6 * torch.randn(length, generator=generator)).clamp(-1, 1)
        position = [20 * torch.rand((), generator=generator)]
        for move in moves:
            position.append((position[-1] + move).clamp(0, 20))
        found.append(hairpin(torch.stack(position)))
    return found


@pytest.fixture(scope="module")
def corridor() -> TemporalDistance:
    return fit_temporal_distance(recording(walks()), steps=800)


def test_ways_count_and_not_the_straight_line(corridor: TemporalDistance):
    begin, end = hairpin(torch.tensor([1.0])), hairpin(torch.tensor([19.0]))  # .4 apart, 18 steps at least
    middle = hairpin(torch.tensor([10.0]))
    assert 9 < corridor(begin, end) < 40
    assert 5 < corridor(begin, middle) < corridor(begin, end)


def test_near_states_are_as_many_steps_apart_as_a_walk_takes(corridor: TemporalDistance):
    position = torch.linspace(2, 15, 30)
    distance = corridor(hairpin(position), hairpin(position + 2))
    assert 1.2 < distance.median() < 4


def test_one_way_streets():
    """Around a ring that is only walked in one sense, a step back is a long way."""
    angle = torch.arange(0, 60) * torch.pi / 10
    ring = [torch.stack([(angle + offset).cos(), (angle + offset).sin()], -1) for offset in (0.0, 1.0, 2.0)]
    distance = fit_temporal_distance(recording(ring), steps=400)
    here, ahead = (torch.tensor([[a, b]]) for a, b in ((1.0, 0.0), (0.587785, 0.809017)))  # 3 steps of 18 degrees
    forward, back = float(distance(here, ahead)), float(distance(ahead, here))
    assert 2 < forward < 4.5
    assert back > 2 * forward


def test_quasimetric_with_any_weights():
    torch.manual_seed(0)
    distance = TemporalDistance(4).double()
    a, b, c = torch.randn(3, 200, 4, dtype=torch.float64)
    assert (distance(a, c) <= distance(a, b) + distance(b, c) + 0.002).all()  # the norm is smoothed by .001
    assert (distance(a, b) > 0).all()
    assert torch.equal(distance(a, a), torch.zeros(200, dtype=torch.float64))
    assert not torch.allclose(distance(a, b), distance(b, a))


def test_gradients_are_finite_at_the_target():
    distance, state = TemporalDistance(3), torch.ones(1, 3, requires_grad=True)
    distance(state, torch.ones(1, 3)).sum().backward()
    assert state.grad is not None and state.grad.isfinite().all()


def test_distances_of_all_pairs_are_those_of_each():
    torch.manual_seed(0)
    distance, states, targets = TemporalDistance(5), torch.randn(7, 5), torch.randn(3, 5)
    pairs = distance.pairwise(distance.embedded(states), distance.embedded(targets))
    each = distance(states[:, None].expand(-1, 3, -1), targets.expand(7, -1, -1))
    torch.testing.assert_close(pairs, each, atol=1e-4, rtol=1e-4)


def test_distances_of_many_far_embeddings_are_not_rounded():
    """Batches of another size take other kernels; embeddings far from 0 must not lose what is near."""
    torch.manual_seed(0)
    distance, embedded = TemporalDistance(5), 50 + torch.randn(100, 80)
    pairs = distance.pairwise(embedded, embedded)
    assert pairs.diagonal().abs().max() < 1e-3
    torch.testing.assert_close(pairs[:, :1], distance.pairwise(embedded, embedded[:1]), atol=1e-3, rtol=1e-4)


def test_nothing_to_learn_from():
    with pytest.raises(ValueError, match="expected at least one step"):
        fit_temporal_distance(recording([torch.zeros(1, 2)]), steps=1)


@pytest.mark.parametrize(("history", "stride"), [(1, 1), (1, 3), (3, 2)])
def test_predictions_belong_to_their_moments(history: int, stride: int):
    """What an exact model predicts along recorded actions is what was recorded at the moments said."""
    record = recording([walk[: 25 + number % 5] for number, walk in enumerate(walks(12))], stride)

    def dynamics(context: Tensor, action: Tensor) -> Tensor:
        assert context.shape[-1] == 2 * history + 2 * (history - 1)
        states = context[..., : 2 * history]
        if history > 1:  # the context is that of one moment: its actions lead from each state to the next one
            moved = states[..., :-2] + context[..., 2 * history :]
            torch.testing.assert_close(moved, states[..., 2:], atol=1e-5, rtol=1e-5)
        return states[..., -2:] + action

    states, moments = _predictions(record, dynamics, history, torch.Generator().manual_seed(0))
    assert len(moments.unique()) > 50
    torch.testing.assert_close(states, record.states[moments], atol=1e-4, rtol=1e-4)


def test_predicted_states_are_learned_as_the_recorded_ones():
    """A model whose predictions lie beside the recorded states: only if trained on them are distances known there."""
    record, aside = recording(walks()), torch.tensor([0.0, 3.0])

    def dynamics(context: Tensor, action: Tensor) -> Tensor:
        flat = context * torch.tensor([1.0, 0.0])
        return flat + action * torch.tensor([1.0, 0.0]) + aside

    with_model = fit_temporal_distance(record, dynamics, steps=300)
    without = fit_temporal_distance(record, steps=300)
    there, goal = torch.tensor([[8.0, 3.0]]), torch.tensor([[4.0, 0.0]])
    wanted = 4.0
    assert abs(float(with_model(there, goal)) - wanted) < 3
    assert abs(float(without(there, goal)) - wanted) > abs(float(with_model(there, goal)) - wanted)


def test_same_seed_same_distance_and_others_random_numbers_untouched():
    record = recording(walks(5))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, same, other = (fit_temporal_distance(record, steps=5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    points = record.states[:4], record.states[-4:]
    assert torch.equal(one(*points), same(*points))
    assert not torch.equal(one(*points), other(*points))


def test_constant_entries_and_short_trajectories():
    record = recording([torch.zeros(2, 3), torch.zeros(3, 3)])
    distance = fit_temporal_distance(record, lambda context, action: context, steps=20)
    assert distance(torch.zeros(1, 3), torch.ones(1, 3)).isfinite().all()
