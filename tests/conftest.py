"""What several files of tests share: one tiny agent, trained once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from grasp_agent import GraspAgent


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--shift-seeds N`: data, weights and batches of all tests are drawn from other seeds."""
    parser.addoption("--shift-seeds", type=int, default=0, metavar="N", help="add N to every seed of a generator")


def pytest_configure(config: pytest.Config) -> None:
    """Shifts seeds before anything is imported that may draw."""
    shift = config.getoption("--shift-seeds")
    if not shift:
        return
    import numpy as np
    import torch

    class Shifted(torch.Generator):
        def manual_seed(self, seed: int) -> torch.Generator:
            return super().manual_seed(seed + shift)

    class Default:
        """Torch's own generator, which networks draw their weights from."""

        def __getattr__(self, name: str) -> Any:
            return getattr(whole, name)

        def manual_seed(self, seed: int) -> torch.Generator:
            return whole.manual_seed(seed + shift)

    whole, known = torch.default_generator, np.random.default_rng

    def default_rng(seed: Any = None) -> np.random.Generator:
        return known(seed + shift if isinstance(seed, int | np.integer) else seed)

    torch.Generator, np.random.default_rng = Shifted, default_rng  # type: ignore[misc]
    torch.default_generator = Default()  # type: ignore[assignment]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small networks are slower with more."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _small_roadmaps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents that learn in a test make a roadmap of few nodes, in a tenth of the time."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr("grasp_agent.models.roadmaps._NODES", 100)


@pytest.fixture(scope="session")
def taught() -> GraspAgent:
    """An agent that has learned a little of grasp/BallNav-v0."""
    from grasp_agent import ExploreConfig, GraspAgent, MLPConfig, ReplanRule, TrainConfig

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "grasp_agent.models.roadmaps._NODES", 150
        )  # of its roadmap, which is restored wherever it is loaded
        agent = GraspAgent(
            "MultiInputPolicy",
            "grasp/BallNav-v0",
            model=MLPConfig(members=2, width=64, depth=2),
            train=TrainConfig(gradient_steps=600, full_at=400),
            explore=ExploreConfig(learning_starts=800),
            rule=ReplanRule(work=None),  # each call completes its search
            seed=0,
            device="cpu",
        ).learn(800)
    assert agent.env is not None
    agent.env.close()
    return agent


@pytest.fixture(scope="session")
def agent_file(taught: GraspAgent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That agent, saved."""
    path = tmp_path_factory.mktemp("agent") / "tiny.zip"
    taught.save(path)
    return path


@pytest.fixture
def agent(agent_file: Path) -> GraspAgent:
    """That agent, freshly loaded."""
    from grasp_agent import GraspAgent

    return GraspAgent.load(agent_file, device="cpu")
