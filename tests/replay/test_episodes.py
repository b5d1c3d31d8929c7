"""Episodes in order of arrival."""

from __future__ import annotations

import numpy as np

from grasp_agent.replay.episodes import Dataset, Episode


def episode(first: float, steps: int) -> Episode:
    return Episode(first + np.arange(steps + 1, dtype=np.float32)[:, None], np.zeros((steps, 1), np.float32))


def test_an_episode_without_a_step_is_not_kept():
    dataset = Dataset()
    for steps in (2, 0, 1):
        dataset.add(episode(10.0 * steps, steps))
    assert [len(kept.actions) for kept in dataset.episodes] == [2, 1]
    assert len(dataset) == 3


def test_states_and_their_episodes_are_in_order_of_arrival():
    dataset = Dataset()
    dataset.add_all([episode(0.0, 2), episode(10.0, 1)])
    assert dataset.states[:, 0].tolist() == [0, 1, 2, 10, 11]
    assert dataset.origins.tolist() == [0, 0, 0, 1, 1]
