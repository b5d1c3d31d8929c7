"""`grasp evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from grasp_agent.cli.base import (
    Command,
    MaybeEnv,
    MaybeFile,
    Model,
    UsageError,
    check_numbers,
    check_writable,
    kept,
    load,
    made_for,
)
from grasp_agent.cli.console import print_outcome, progress

if TYPE_CHECKING:
    from grasp_agent import GraspAgent
    from grasp_agent.evaluation.evaluate import Evaluation


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Play seeded episodes with an agent; report success with its interval, and speed."""

    model: Model
    """Bundled name (e.g. ball-nav) or saved file."""
    episodes: int = 100
    """Episodes to play."""
    seed: int = 10_000
    """Seed of the first episode; each later one adds 1."""
    json: MaybeFile = None
    """Write the figures and one row per episode there."""
    csv: MaybeFile = None
    """Write one row per episode there."""
    env: MaybeEnv = None
    """Another environment than the one that the agent was trained in."""

    def run(self) -> None:
        """Plays, prints and writes."""
        check_numbers(episodes=self.episodes, seed=self.seed)
        outputs = [path for path in (self.json, self.csv) if path is not None]
        if len({path.resolve() for path in (*outputs, Path(self.model))}) <= len(outputs):
            raise UsageError("--json, --csv: expected two files that are not the model's")
        for path in outputs:
            check_writable(path)
        with kept(lambda: "no figures were written"):
            outcome = self.play(load(self.model))
            if self.json is not None:
                outcome.to_json(self.json)
            if self.csv is not None:
                outcome.to_csv(self.csv)
        print_outcome(outcome)

    def play(self, agent: GraspAgent) -> Evaluation:
        """Plays the episodes, with a progress bar."""
        from grasp_agent.evaluation.evaluate import evaluate

        with (
            made_for(agent, self.env) as env,
            progress(f"{self.model}: {self.episodes} episodes", self.episodes) as advance,
        ):
            return evaluate(agent, env, self.episodes, self.seed, on_episode=advance)
