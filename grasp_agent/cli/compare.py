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
    check_numbers,
    check_writable,
    kept,
    made,
    one_thread,
    user_errors,
)
from grasp_agent.cli.console import progress, say, show, table
from grasp_agent.evaluation.folder import check_no_links
from grasp_agent.files import locked

if TYPE_CHECKING:
    from grasp_agent.evaluation.participants import Given
    from grasp_agent.evaluation.training import Point

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
    """Train grasp and the algorithms of AGENTS from scratch for so many environment steps, the algorithms also for ten
    times as many, with the settings of RL Zoo where it is installed and has some. Other planners get the model of
    grasp. Finished trainings are not repeated."""
    jobs: int = 1
    """Number of processes."""
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
        check_numbers(episodes=self.episodes, jobs=self.jobs, seed=self.seed, **{"video-episodes": self.video_episodes})
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"--out: expected a folder, got the file {self.out}")
        for name in _FILES if self.video else _FILES[:-1]:
            check_writable(self.out / name)
        with user_errors(ValueError):
            check_no_links(*(self.out / name for name in (*_FILES, "episodes", "models")))
        agents = [name.strip() for name in self.agents.split(",") if name.strip()]
        from grasp_agent.evaluation.participants import is_object

        if "" not in sys.path and any(map(is_object, agents)):
            sys.path.append("")  # for MODULE:OBJECT in the folder where the command is given
        with made(self.env, render_mode="rgb_array" if self.video else None):
            pass  # a check before the work starts
        from grasp_agent.evaluation import report
        from grasp_agent.evaluation.compare import compare

        known: list[Given] = [*agents]
        curves: dict[str, tuple[Point, ...]] = {}
        if self.train is not None:
            check_numbers(train=self.train, seed=self.seed)
            self._check(agents)
            known, curves = self._trained(agents, self.train)
        total = len(known) * self.episodes
        with progress(f"{self.env}: {len(known)} agents", total) as advance, user_errors(ValueError):
            comparison = compare(
                self.env,
                known,
                episodes=self.episodes,
                seed=self.seed,
                out=self.out,
                jobs=self.jobs,
                on_episodes=advance,
            )
        for title, part in zip(report.TABLES, report.tables(comparison, *report.TABLES.values()), strict=True):
            rows = table(*part[0], title=title)
            for cells in part[1:]:
                rows.add_row(*cells)
            show(rows)
        say(report.caption(comparison))
        # another command with this folder waits, so that the report, the curves and the video are of one comparison
        with locked(self.out / "report.md", "another comparison writes its report", wait=True):
            for path in report.write(comparison, self.out):
                say(f"  {path}")
            if curves:
                report.curves(curves, self.env, self.out / "curves.png")
                say(f"  {self.out / 'curves.png'}")
            if self.video:
                say(f"  {self._record(known, self.out / 'video.mp4')}")

    def _check(self, agents: list[str]) -> None:
        """Refuses unknown agents before the training starts."""
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

    def _trained(self, agents: list[str], steps: int) -> tuple[list[Given], dict[str, tuple[Point, ...]]]:
        """Trains agents; returns all agents, with files in place of the trained ones' names, and learning curves."""
        from grasp_agent.evaluation.participants import PLANNERS, OwnFile
        from grasp_agent.evaluation.training import TrainedAgent, total_steps, train_agent
        from grasp_agent.zoo.algorithms import ALGORITHMS

        one_thread()
        learners = [name for name in agents if name in ("grasp", *ALGORITHMS)]
        if "grasp" not in learners and any(name in PLANNERS for name in agents):
            learners.append("grasp")
        trained: dict[str, TrainedAgent] = {}
        with progress(f"{self.env}: training", total_steps(learners, steps)) as advance, user_errors(ValueError):
            for name in learners:
                trained[name] = train_agent(name, self.env, steps, self.out / "models", on_steps=advance)
        found: list[Given] = []
        for name in agents:
            if name in PLANNERS:
                found.append(OwnFile(trained["grasp"].files[0], planner=name))
            else:
                found += map(OwnFile, trained[name].files) if name in trained else [name]
        return found, {name: trained[name].curve for name in learners}

    def _record(self, agents: list[Given], path: Path) -> Path:
        """Records the first episodes, side by side."""
        from grasp_agent.evaluation.participants import participants
        from grasp_agent.video.record import record_beside

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
