"""Held actions that lead to unknown states."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grasp_agent.agent.novelty import Visited, novel_actions
from grasp_agent.planners import Refusals

NOTHING = np.zeros((1, 2, 2), np.float32)


def world(step: Any = None) -> Any:
    """A point that moves by a tenth of the action."""

    def refusals(refused: np.ndarray) -> Refusals:
        return Refusals(torch.from_numpy(refused[:, :, 0]), torch.from_numpy(refused[:, :, 1]), 0.2)

    return SimpleNamespace(
        model=SimpleNamespace(action_size=2), step=step or (lambda s, a: s + a / 10), refusals=refusals
    )


def chosen(seed: int, refused: np.ndarray = NOTHING, step: Any = None) -> tuple[Tensor, np.ndarray]:
    """Returns where the held action leads from the middle of a strip of visited states, and the action."""
    strip = torch.stack([torch.linspace(-3, 3, 200), torch.zeros(200)], 1)
    random = np.random.default_rng(seed)
    action, steps = novel_actions(world(step), torch.zeros(2), Visited(strip, (0, 1)), refused, 16, random)
    assert action.shape == (2,) and action.dtype == np.float32 and np.abs(action).max() <= 1 and 1 <= steps <= 16
    return steps * torch.from_numpy(action) / 10, action


def test_actions_lead_away_from_visited_states():
    ends = torch.stack([chosen(seed)[0] for seed in range(10)])
    assert (ends[:, 1].abs() > 0.8).all()
    assert len({bool(end[1] > 0) for end in ends}) == 2


def test_they_do_not_lead_where_steps_were_refused():
    refused = np.array([[[[0.1 * x, 0.1], [0.1 * x, 0.2]] for x in range(-20, 21)]], np.float32)[0]
    ends = torch.stack([chosen(seed, refused)[0] for seed in range(10)])
    assert (ends[:, 1] < -0.8).all()


def test_recent_states_count_as_visited():
    visited = Visited(torch.zeros(1, 2), (0, 1))
    visited.add(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    assert visited.distance(torch.tensor([[2.0, 0.5], [0.0, 3.0]])).tolist() == [0.5, 3.0]


def test_predictions_that_are_not_finite_are_left_out():
    def diverging(state: Tensor, action: Tensor) -> Tensor:
        return torch.where(action[:, 1:] > 0, torch.nan, state + action / 10)

    assert all(chosen(seed, step=diverging)[1][1] <= 0 for seed in range(10))


def test_entries_that_no_goal_names_make_no_state_unknown():
    visited = Visited(torch.zeros(1, 3), (0, 2))
    assert visited.distance(torch.tensor([[0.0, 9.0, 0.0], [3.0, 9.0, 4.0]])).tolist() == [0.0, 5.0]
