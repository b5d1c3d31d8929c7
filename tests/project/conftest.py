"""Fits and plans that take a moment, for code that has to run as it stands."""

import pytest

from grasp_agent import GRASP, MLPConfig, TrainConfig

BRIEF = (
    (TrainConfig, "gradient_steps", 20),
    (MLPConfig, "width", 16),
    (MLPConfig, "members", 2),
    (GRASP, "iterations", 1),
)


@pytest.fixture
def brief_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Default networks are tiny and trained for few gradient steps; the default planner makes one iteration."""
    for config, name, value in BRIEF:
        defaults = config.__init__.__kwdefaults__
        assert defaults is not None and name in defaults
        monkeypatch.setitem(defaults, name, value)
