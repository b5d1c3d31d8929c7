"""A comparison of three agents."""

from __future__ import annotations

import pytest
from contestants import ENV, EPISODES, Straight

from grasp_agent.evaluation.compare import Comparison, compare


@pytest.fixture
def comparison() -> Comparison:
    return compare(ENV, [Straight(), "random", Straight("still", 0.0)], episodes=EPISODES)
