"""`grasp models`."""

from __future__ import annotations

from dataclasses import dataclass

from grasp_agent.cli.base import Command
from grasp_agent.cli.console import say, show, table


@dataclass(frozen=True, kw_only=True)
class Models(Command):
    """List the bundled models, and the bundled agents of Stable-Baselines3 to compare with."""

    def run(self) -> None:
        """Prints a table of each."""
        import grasp_agent
        from grasp_agent.zoo.baselines import baselines

        ours = table("model", "environment", "steps", "success", title="Models (grasp_agent.load)")
        for name, model in grasp_agent.bundled().items():
            ours.add_row(name, model.env_id, f"{model.steps:,}", f"{100 * model.score:.0f} %")
        theirs = table("baseline", "environment", "steps", "success", title="Baselines (grasp_agent.baseline)")
        for entry in baselines():
            theirs.add_row(
                f"{entry.algorithm}@{entry.steps}", entry.env_id, f"{entry.steps:,}", f"{100 * entry.score:.0f} %"
            )
        show(ours)
        show(theirs)
        say("next: grasp compare ENVIRONMENT")
