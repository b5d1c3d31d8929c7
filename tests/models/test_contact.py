"""What moves the object of a goal, found in data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from grasp_agent.models.contact import Contact, find_contact
from grasp_agent.replay.episodes import Dataset, Episode

TAKEN = 0.1  # distance at which the hand takes the block along


def play(episodes: int, *, taken: float = TAKEN, noise: float = 0.0, seed: int = 0) -> Dataset:
    """Returns random walks of a hand in the plane, observed as [noise, noise, hand, block].

    Args:
        episodes: their number.
        taken: distance at which the block goes where the hand goes.
        noise: standard deviation of noise on all entries.
        seed: of all of it.
    """
    random, data = np.random.default_rng(seed), Dataset()
    for _ in range(episodes):
        hand, block = random.uniform(-0.3, 0.3, (2, 2))
        states, actions = [], random.uniform(-1, 1, (60, 2))
        for action in [*actions, np.zeros(2)]:
            states.append(np.concatenate([random.normal(size=2), hand, block]))
            moved = 0.1 * action
            block = block + moved * (np.linalg.norm(hand - block) < taken)
            hand = hand + moved
        observed = np.array(states) + noise * random.normal(size=(61, 6))
        data.add(Episode(observed.astype(np.float32), actions.astype(np.float32)))
    return data


@pytest.mark.parametrize("noise", [0.0, 0.003])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_hand_is_found(noise: float, seed: int) -> None:
    """It is what is near when the block moves; the two other entries are near as often, but at any time."""
    found = find_contact(play(40, noise=noise, seed=seed), (4, 5))
    assert found is not None
    assert (found.mover, found.object) == ((2, 3), (4, 5))
    assert 0 < found.reach < 2 * TAKEN


@pytest.mark.parametrize("taken", [0.0, math.inf])
def test_a_goal_that_never_moves_or_always_does_has_no_mover(taken: float) -> None:
    """The first tells nothing; the second needs no contact."""
    assert find_contact(play(20, taken=taken), (4, 5)) is None


def test_a_goal_that_moves_at_any_time_has_no_mover() -> None:
    """A block that somebody else pushes now and then."""
    random, data = np.random.default_rng(0), Dataset()
    for episode in play(40, taken=0.0).episodes:
        states = episode.states.copy()
        states[:, 4:] += np.cumsum(0.1 * (random.uniform(size=(61, 1)) < 0.1), 0)
        data.add(Episode(states.astype(np.float32), episode.actions))
    assert find_contact(data, (4, 5)) is None


def seen_twice(kind: str) -> Dataset:
    """Returns the same play with two more entries, which tell where the block was."""
    random, data = np.random.default_rng(0), Dataset()
    for episode in play(40).episodes:
        block = episode.states[:, 4:]
        copies = {
            "the step before": np.concatenate([block[:1], block[:-1]]),
            "with noise": block + 1e-4 * random.normal(size=block.shape),
            "at the start": np.repeat(block[:1], len(block), 0),
        }
        states = np.concatenate([episode.states, copies[kind]], 1)
        data.add(Episode(states.astype(np.float32), episode.actions))
    return data


@pytest.mark.parametrize("kind", ["the step before", "with noise", "at the start"])
def test_what_tells_where_the_object_was_is_not_its_mover(kind: str) -> None:
    """It is always near."""
    found = find_contact(seen_twice(kind), (4, 5))
    assert found is not None
    assert found.mover == (2, 3)


def test_it_is_saved_and_restored() -> None:
    """As tensors, like all that was learned."""
    contact = Contact((2, 3), (4, 5), 0.25)
    assert Contact.restore(contact.tensors(), 6) == contact
    assert Contact.restore({}, 6) is None


@pytest.mark.parametrize(
    ("entries", "reach"),
    [
        ([[2, 3], [3, 5]], 0.1),
        ([[2, 3], [4, 6]], 0.1),
        ([[2, 3], [-1, 5]], 0.1),
        ([[2, 3], [4, 5]], math.nan),
        ([[2, 3]], 0.1),
        ([[], []], 0.1),
    ],
)
def test_tensors_that_do_not_fit_are_refused(entries: list[list[int]], reach: float) -> None:
    """Files are strangers'."""
    given = {"entries": torch.tensor(entries, dtype=torch.int64), "reach": torch.tensor(reach)}
    with pytest.raises(ValueError, match="contact: expected"):
        Contact.restore(given, 6)
