"""Writes a card for each bundled model, from its file and the catalog: `docs/models.md`.

python scripts/write_model_cards.py
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import grasp_agent
from benchmarks import pages
from grasp_agent import BundledModel, GraspAgent
from grasp_agent.zoo import pretrained

PAGE = Path(__file__).parent.parent / "docs" / "models.md"
HEAD = """\
`grasp_agent.load(NAME)` loads a model offline; `grasp models` lists them. All are trained by this repository's
scripts, on CPU, in environments of this package. They know one environment each, from the states that their training
visited, and are meant as examples and as reference points of benchmarks. Licence: MIT, as the package.
"""


def card(name: str, known: BundledModel, agent: GraspAgent, measured: dict[str, Any]) -> str:
    """Returns the card of one model."""
    settings = agent.settings
    shown = [key for key, space in spaces(agent).items() if len(space.shape) > 1]
    state = agent.policy.world.model.state_size if agent.policy.world else 0  # type: ignore[union-attr]
    time = f"{agent.training_seconds / 60:.1f} minutes" if agent.training_seconds else "time not recorded"
    kind = "images" if shown else "vectors"
    lines = {
        "environment": f"`{agent.env_id}`" + (f", `{agent.env_kwargs}`" if agent.env_kwargs else ""),
        "observations": kind,
        "model": f"`{settings.model or 'chosen by held-out error'}`, a state of {state} entries",
        "planner": f"`{type(settings.planner).__name__}`, horizon {agent.horizon}",
        "training": f"{known.steps:,} environment steps, {time}, `{known.command}`",
        "success": f"{100 * measured['success_end']:.0f} % ({100 * measured['success_end_low']:.0f}-"
        f"{100 * measured['success_end_high']:.0f}) at the end of 100 fresh episodes, `{known.evaluation}`",
        "file": f"{size(name):.2f} MB, SHA-256 `{known.sha256}`",
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in lines.items())
    return f"## {name}\n\n{known.description}\n\n| | |\n|---|---|\n{table}\n"


def spaces(agent: GraspAgent) -> dict[str, Any]:
    """Returns the parts of an agent's observations."""
    return dict(getattr(agent.observation_space, "spaces", {"": agent.observation_space}))


def size(name: str) -> float:
    """Returns the size of a model's file [MB]."""
    return len((files(pretrained) / f"{name}.zip").read_bytes()) / 1e6


def page() -> str:
    """Returns all cards."""
    results = pages.read("bundled", {})
    models = grasp_agent.bundled()
    cards = [card(name, known, grasp_agent.load(name, device="cpu"), results[name]) for name, known in models.items()]
    return pages.page("Bundled models", "python scripts/write_model_cards.py", HEAD, *cards)


def main() -> None:
    """Writes the page."""
    pages.write(PAGE, page())


if __name__ == "__main__":
    main()
