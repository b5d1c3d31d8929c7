"""`grasp compare`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from grasp_agent.cli.base import (
    Command,
    Id,
    MaybeInt,
    UsageError,
    check_engine,
    check_numbers,
    check_writable,
    kept,
    made,
    user_errors,
)
from grasp_agent.cli.console import progress, say, show, table
from grasp_agent.cli.learners import Learners, trained_names
from grasp_agent.evaluation.folder import check_no_links
from grasp_agent.files import locked

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from grasp_agent.cli.learners import Agents
    from grasp_agent.evaluation.compare import Comparison
    from grasp_agent.evaluation.seeds_report import Curves

LONGER = 10
_SEEDS_FILES = ("seeds.md", "seeds.csv", "seeds.json", "seeds.png")
_FILES = ("report.md", "report.csv", "report.json", "report.png", "curves.png", "video.mp4")


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Play the same seeded episodes with several agents, and report their results in one table.

    AGENTS are separated by commas; the others are compared to the first. Each is one of: grasp (the bundled model of
    ENV), one of our planners on its model (icem, cem, mppi, ilqr, shooting, latco, grasp-paper), sac, td3, ... (a
    bundled baseline), each with @STEPS for one of several; random; a bundled model; a saved file, ours or
    Stable-Baselines3's (PATH, or ALGORITHM:PATH; theirs run code when they are loaded); MODULE:OBJECT with `predict`.
    """

    env: Id
    """Gymnasium id, e.g. grasp/BallNavTrap-v0."""
    agents: Annotated[str, tyro.conf.arg(metavar="AGENTS")] = "grasp,sac,random"
    """Participants, separated by commas."""
    episodes: int = 100
    """Episodes that each plays."""
    seed: int = 10_000
    """Seed of the first episode; each later one adds 1."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("comparison")
    """Folder of the report and of the episodes: episodes that are already there are not played again."""
    train: MaybeInt = None
    """Train grasp and the algorithms of AGENTS from scratch for so many environment steps, the algorithms also for
    --longer times as many, with the settings of RL Zoo where it is installed and has some. Other planners get the
    model of grasp. Finished trainings are not repeated."""
    train_seeds: int = 1
    """Trainings of each, with seeds from 0; with several, aggregates over them are reported, too."""
    longer: int = LONGER
    """Factor by which the algorithms are trained longer, in addition; 1 for no longer trainings."""
    jobs: int = 1
    """Number of processes."""
    engine: str = "processes"
    """What plays and trains: processes of this machine, or ray (`pip install "grasp-agent[ray]"`)."""
    address: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS", help_behavior_hint="")] = None
    """Address of a Ray cluster, auto for the one that runs here; without it Ray runs on this machine alone."""
    video: bool = False
    """Also record a video of the first episodes of all agents side by side."""
    video_episodes: int = 2
    """Number of episodes in the video."""

    def run(self) -> None:
        """Plays with a progress bar, prints the table and writes the report."""
        with kept(self._kept):
            self._run()

    def _kept(self) -> str:
        if next(self.out.glob("episodes/*.json"), None) is None and not (self.out / "models").exists():
            return "nothing was written: no episodes had finished"
        return f"finished episodes and trainings are kept in {self.out}: the same command continues from them"

    def _run(self) -> None:
        counts = {"video-episodes": self.video_episodes, "train-seeds": self.train_seeds}
        check_numbers(episodes=self.episodes, jobs=self.jobs, longer=self.longer, seed=self.seed, **counts)
        check_engine(self.engine, self.address)
        if self.train is None and self.train_seeds > 1:
            raise UsageError("--train-seeds: expected with --train STEPS, which trains the agents")
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"--out: expected a folder, got the file {self.out}")
        if self.train is None and self.longer != LONGER:
            raise UsageError("--longer: expected with --train STEPS, which trains the agents")
        for name in (*_FILES[: None if self.video else -1], *(_SEEDS_FILES if self.train_seeds > 1 else ())):
            check_writable(self.out / name)
        with user_errors(ValueError):
            check_no_links(*(self.out / name for name in (*_FILES, *_SEEDS_FILES, "episodes", "models")))
        agents = [name.strip() for name in self.agents.split(",") if name.strip()]
        from grasp_agent.evaluation.participants import is_object

        if "" not in sys.path and any(map(is_object, agents)):
            sys.path.append("")  # for MODULE:OBJECT in the folder where the command is given
        with made(self.env, render_mode="rgb_array" if self.video else None):
            pass  # a check before the work starts
        from grasp_agent.execution import engine

        known: Agents = [*agents]
        curves: Curves = {}
        if self.train is not None:
            check_numbers(train=self.train, seed=self.seed)
            self._check(agents)
        with user_errors(ValueError, ConnectionError), engine(self.engine, self.address) as executor:
            if self.train is not None:
                learners = Learners(
                    env_id=self.env,
                    agents=agents,
                    steps=self.train,
                    longer=self.longer,
                    seeds=self.train_seeds,
                    folder=self.out / "models",
                )
                known, curves = learners.train(executor, self.jobs)
            comparison = self._compared(known, executor)
        self._show(comparison)
        # another command with this folder waits, so that the report, the curves and the video are of one comparison
        with locked(self.out / "report.md", "another comparison writes its report", wait=True):
            paths = self._write(comparison, curves)
            if self.video:
                paths.append(self._record(known, self.out / "video.mp4"))
            for path in paths:
                say(f"  {path}")

    def _write(self, comparison: Comparison, curves: Curves) -> list[Path]:
        """Writes the reports, and removes those of an earlier comparison that this one does not have."""
        from grasp_agent.evaluation import report, seeds_report

        paths = report.write(comparison, self.out)
        if comparison.trainings:
            paths += seeds_report.write(comparison.scores(), self.out, curves=curves, title=self.env)
        if curves:
            paths.append(report.curves(curves, self.env, self.out / "curves.png"))
        for path in (self.out / name for name in ("curves.png", *_SEEDS_FILES)):
            if path not in paths and path.is_file():
                path.unlink()
        return paths

    def _show(self, comparison: Comparison) -> None:
        """Prints the tables."""
        from grasp_agent.evaluation import report, seeds_report

        parts = dict(zip(report.TABLES, report.tables(comparison, *report.TABLES.values()), strict=True))
        if comparison.trainings:
            parts |= seeds_report.tables(comparison.scores())
        for title, part in parts.items():
            rows = table(*part[0], title=title)
            for cells in part[1:]:
                rows.add_row(*cells)
            show(rows)
        say(report.caption(comparison))
        if comparison.trainings:
            for sentence in seeds_report.advice(comparison.scores()):
                say(f"{sentence}.")

    def _compared(self, known: Agents, executor: Executor | None) -> Comparison:
        """Plays the episodes, with a progress bar."""
        from grasp_agent.evaluation.compare import compare

        given = known.values() if isinstance(known, dict) else known
        count = sum(len(one) if isinstance(one, list) else 1 for one in given)
        with progress(f"{self.env}: {count} agents", count * self.episodes) as advance, user_errors(ValueError):
            return compare(
                self.env,
                known,
                episodes=self.episodes,
                seed=self.seed,
                out=self.out,
                jobs=self.jobs if executor is None else None,
                executor=executor,
                on_episodes=advance,
            )

    def _check(self, agents: list[str]) -> None:
        """Refuses unknown agents before the training starts."""
        from grasp_agent.evaluation.config import check_planners
        from grasp_agent.evaluation.participants import PLANNERS, participant
        from grasp_agent.zoo.algorithms import ALGORITHMS, algorithm

        if len(set(agents)) < len(agents):
            raise UsageError(f"--agents: expected different ones, got {self.agents}")
        with user_errors(ValueError):
            for name in agents:
                if name in ALGORITHMS:
                    algorithm(name)
                elif name not in ("grasp", *PLANNERS):
                    participant(name, self.env)
            if planners := [name for name in agents if name in PLANNERS]:
                check_planners(planners, self.env)
        if agents and not trained_names(agents):
            what = "grasp, another planner or an algorithm"
            raise UsageError(f"--train: expected an agent that is trained ({what}) in --agents, got {self.agents}")

    def _record(self, agents: Agents, path: Path) -> Path:
        """Records the first episodes, side by side; of several trainings the first."""
        from grasp_agent.evaluation.participants import participants
        from grasp_agent.video.record import record_beside

        if isinstance(agents, dict):
            agents = {name: given[0] if isinstance(given, list) else given for name, given in agents.items()}
        with made(self.env, render_mode="rgb_array") as env, user_errors(ValueError):
            players = {who.name: who.make(env, self.seed) for who in participants(agents, self.env)}
            limit = env.spec.max_episode_steps if env.spec is not None else None
            total = None if limit is None else len(players) * self.video_episodes * (limit + 1)
            with progress(f"{self.env}: recording", total) as advance:
                return record_beside(
                    players,
                    env,
                    path,
                    self.video_episodes,
                    self.seed,
                    size=320,
                    force=True,
                    on_frame=advance,
                ).path
