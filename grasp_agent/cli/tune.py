"""`grasp tune`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from grasp_agent.cli.base import (
    Command,
    Id,
    UsageError,
    check_engine,
    check_numbers,
    check_writable,
    kept,
    made,
    one_thread,
    user_errors,
)
from grasp_agent.cli.console import progress, say, show, table
from grasp_agent.cli.given import EnvOptions, MaybeGoal, MaybeTolerance, env_options, goal_given

if TYPE_CHECKING:
    from grasp_agent.evaluation.config import TrainingConfig
    from grasp_agent.evaluation.tuning import Study, Tuned

MaybeAddress = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Tune(Command):
    """Search for settings of planner and model in an environment with Optuna (pip install "grasp-agent[tune]").

    Trial 0 has the defaults. Each trial is trained with several seeds and evaluated. The defaults and the best three
    other trials are then trained with further seeds; the defaults win unless another one is better there by more than
    the standard error. The winner is FOLDER/best.json, for `grasp train --config`. The same command continues after an
    interruption, and with more trials or further trainings.
    """

    env: Id
    """Gymnasium id, e.g. grasp/BallNav-v0."""
    steps: int
    """Environment steps of a training."""
    trials: int = 20
    """Number of trials."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the study and its results."""
    seeds: int = 2
    """Trainings of a trial, with seeds from 70,000."""
    episodes: int = 5
    """Episodes of the evaluation of a training, with seeds from 20,000."""
    confirm: int = 3
    """Further trainings of the best trials and of the defaults, with seeds from 75,000, each evaluated on twice as many
    episodes, with seeds from 25,000."""
    env_kwargs: EnvOptions = ()
    """Options of the environment: KEY=VALUE for each, or a JSON object."""
    goal: MaybeGoal = None
    """Goal, for observations without one: target values by entry of the observation, as in '{"0": 1.0, "2": 0.5}'."""
    goal_tolerance: MaybeTolerance = None
    """Distance to the goal that counts as success."""
    jobs: int = 1
    """Trainings at a time, also on a cluster. With more than one, proposals depend on which of them finish first."""
    engine: Annotated[str, tyro.conf.arg(metavar="NAME")] = "processes"
    """What runs trainings: processes of this machine, or ray."""
    address: MaybeAddress = None
    """Address of a Ray cluster; auto for the one that runs on this machine."""

    def run(self) -> None:
        """Runs the trials with progress, prints the best ones and writes the results."""
        counts = {name: getattr(self, name) for name in ("steps", "trials", "seeds", "episodes", "confirm", "jobs")}
        check_numbers(seed=0, **counts)
        check_engine(self.engine, self.address)
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"--out: expected a folder, got the file {self.out}")
        for name in ("study.log", "best.json", "trials.csv", "history.png"):
            check_writable(self.out / name)
        config = self._configuration()
        one_thread()
        with kept(lambda: "nothing was written: no trial had begun"):
            with made(config.env, options=config.env_kwargs):
                pass  # a check before the work starts
            from grasp_agent.evaluation.tuning import open_study

        with (
            user_errors(ValueError, ConnectionError),
            open_study(self.out, config, seeds=self.seeds, episodes=self.episodes) as study,
            kept(lambda: self._kept(study)),
        ):
            self._report(self._tuned(study))

    def _configuration(self) -> TrainingConfig:
        options = env_options(self.env_kwargs)
        goal = None if self.goal is None else goal_given(self.goal, self.goal_tolerance)
        from grasp_agent.agent.settings import AgentSettings
        from grasp_agent.evaluation.config import TrainingConfig

        with user_errors(ValueError):
            settings = AgentSettings(goal=goal, goal_tolerance=self.goal_tolerance)
            return TrainingConfig(env=self.env, steps=self.steps, env_kwargs=options, settings=settings)

    def _tuned(self, study: Study) -> Tuned:
        from grasp_agent import execution

        total = study.left(self.trials, self.confirm)
        with (
            execution.engine(self.engine, self.address) as executor,
            progress(f"{self.env}: trainings", total) as advance,
        ):
            return study.run(self.trials, self.confirm, executor=executor, jobs=self.jobs, on_training=advance)

    def _report(self, tuned: Tuned) -> None:
        from grasp_agent.evaluation import tuning

        rows = table(*tuning.HEADERS, title=f"{self.env}, {self.steps:,} steps: {len(tuned.trials)} trials")
        for cells in tuning.cells(tuned):
            rows.add_row(*cells)
        show(rows)
        say(tuning.conclusion(tuned))
        for path in tuning.write(tuned, self.out):
            say(f"  {path}")
        best = shlex.quote(str(self.out / "best.json"))
        named = f"{self.env} " if ":" in self.env else ""
        say(f"next: grasp train {named}--config {best} --out FILE")

    def _kept(self, study: Study) -> str:
        count = len(study.trials(self.confirm))
        if not count:
            return f"no trial had finished; the trainings that had are kept in {self.out}"
        return f"{count} finished trials are kept in {self.out}: the same command continues from them"
