"""Trainings of `grasp compare --train`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grasp_agent.cli.base import one_thread, user_errors
from grasp_agent.cli.console import progress

if TYPE_CHECKING:
    from grasp_agent.evaluation.participants import Given
    from grasp_agent.evaluation.seeds_report import Curves

    Agents = list[Given] | dict[str, Any]


def trained_names(agents: Sequence[str]) -> list[str]:
    """Returns what `--train` trains of these agents, and grasp for other planners, which get its model."""
    from grasp_agent.evaluation.participants import PLANNERS
    from grasp_agent.zoo.algorithms import ALGORITHMS

    names = [name for name in agents if name in ("grasp", *ALGORITHMS)]
    if "grasp" not in names and any(name in PLANNERS for name in agents):
        names.append("grasp")
    return names


@dataclass(frozen=True, kw_only=True)
class Learners:
    """Agents of a comparison that are trained from scratch.

    Attributes:
        env_id: the environment.
        agents: names of all agents of the comparison.
        steps: environment steps.
        longer: algorithms of Stable-Baselines3 are also trained for so many times the steps.
        seeds: trainings of each, with seeds from 0.
        folder: of their files.
    """

    env_id: str
    agents: Sequence[str]
    steps: int
    longer: int
    seeds: int
    folder: Path

    def train(self, executor: Executor | None, jobs: int) -> tuple[Agents, Curves]:
        """Trains them, with a progress bar.

        Args:
            executor: runs the trainings; None for `jobs` processes.
            jobs: processes.

        Returns:
            All agents as `compare` takes them, by name where they have several trainings; and learning curves.
        """
        from grasp_agent.evaluation.participants import PLANNERS, OwnFile
        from grasp_agent.evaluation.training import TrainingTask, train_agents

        one_thread()
        names = trained_names(self.agents)
        tasks = [
            TrainingTask(name, self.env_id, self.steps, seed, self.longer)
            for seed in range(self.seeds)
            for name in names
        ]
        with (
            progress(f"{self.env_id}: training", sum(task.total for task in tasks)) as advance,
            user_errors(ValueError),
        ):
            trained = train_agents(
                tasks, self.folder, jobs=jobs if executor is None else None, executor=executor, on_steps=advance
            )
        of = {name: [trained[task] for task in tasks if task.name == name] for name in names}
        found: dict[str, Any] = {}
        for name in self.agents:
            if name in PLANNERS:
                found[f"{name}@{self.steps}"] = [OwnFile(one.files[0], planner=name) for one in of["grasp"]]
            elif name in of:
                for files in zip(*(one.files for one in of[name]), strict=True):
                    found[files[0].stem.replace("-", "@")] = list(map(OwnFile, files))
            else:
                found[name] = name
        curves = {name: [one.curve for one in of[name]] for name in names}
        if self.seeds > 1:
            return found, curves
        return [given[0] if isinstance(given, list) else given for given in found.values()], curves
