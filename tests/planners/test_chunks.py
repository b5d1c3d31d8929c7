"""Computation in chunks: the same result, of few rows at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from problems import make, slide, steering, tensor
from torch import Tensor

from grasp_agent.planners import RoadmapGraph
from grasp_agent.planners.chunks import chunked


@pytest.mark.parametrize(("entries", "most"), [(10**6, 100), (70, 10), (7, 1), (1, 1)])
def test_no_chunk_has_more_entries_than_allowed_but_one_row(entries: int, most: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("grasp_agent.planners.chunks._ENTRIES", entries)
    seen, values = list[int](), torch.arange(200.0).view(100, 2)

    def added(one: Tensor, other: Tensor) -> Tensor:
        seen.append(len(one))
        return one.sum(-1) + other

    assert torch.equal(chunked(added, values, values[:, 0], width=7), values.sum(-1) + values[:, 0])
    assert max(seen) == most and sum(seen) == 100


def test_a_roadmap_of_many_states_is_driven_some_edges_at_a_time(monkeypatch: pytest.MonkeyPatch):
    rows, drive = list[int](), steering(make(slide(), torch.zeros(1, 2).double(), tensor([1.0, 1.0])))
    step = drive.dynamics

    def counted(state: Tensor, action: Tensor) -> Tensor:
        rows.append(state.shape[1])
        return step(state, action)

    drive = replace(drive, dynamics=counted)
    states = torch.rand(60, 2, generator=torch.Generator().manual_seed(0)).double() / 3
    whole = RoadmapGraph.build(states, drive, degree=5)
    assert whole is not None and max(rows) == 300
    rows.clear()
    monkeypatch.setattr("grasp_agent.planners.chunks._ENTRIES", 7 * 5 * 4000)
    parts = RoadmapGraph.build(states, drive, degree=5)
    assert parts is not None and max(rows) == 60  # all nodes, whose clearance is compared
    assert rows.count(35) > 1
    assert torch.equal(parts.steps, whole.steps) and torch.equal(parts.neighbours, whole.neighbours)
