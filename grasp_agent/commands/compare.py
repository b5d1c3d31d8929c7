"""`grasp compare`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from grasp_agent.commands.base import (
    Command,
    Id,
    MaybeInt,
    check_numbers,
    check_writable,
    made,
    one_thread,
    user_errors,
)
from grasp_agent.console import progress, say, show, table

if TYPE_CHECKING:
    from grasp_agent.schooling import Point


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Play the same seeded episodes with several agents; report them beside each other.

    AGENTS are separated by commas; the others are compared to the first. Each is one of: grasp (the bundled model of
    ENV), one of our planners on its model (icem, cem, mppi, ilqr, shooting, latco, grasp-paper), sac, td3, ... (a
    bundled baseline), each with @STEPS for one of several; random; a bundled model; a saved file, ours or
    Stable-Baselines3's (PATH, or ALGORITHM:PATH; theirs run code when they are loaded); MODULE:OBJECT with `predict`.
    """

    env: Id
    """Gymnasium id, e.g. grasp/BallNavTrap-v0."""
    agents: Annotated[str, tyro.conf.arg(metavar="AGENTS")] = "grasp,sac,random"
    """Who takes part, separated by commas."""
    episodes: int = 100
    """Episodes that each plays."""
    seed: int = 10_000
    """Seed of the first episode; each later one adds 1."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("comparison")
    """Where the report goes, and the episodes on the way: what is there already is not played again."""
    train: MaybeInt = None
    """Train grasp and the algorithms of AGENTS from nothing for so many environment steps, these for ten times as many,
    too; with the settings of RL Zoo where it is installed and has some. What is done is not done again."""
    jobs: int = 1
    """Processes that play."""
    video: bool = False
    """Film the first episodes of all agents side by side, too."""
    video_episodes: int = 2
    """How many."""

    def run(self) -> None:
        """Plays with a progress bar, prints the table and writes the report."""
        check_numbers(episodes=self.episodes, jobs=self.jobs, seed=self.seed, **{"video-episodes": self.video_episodes})
        check_writable(self.out / "report.md")
        agents = [name.strip() for name in self.agents.split(",") if name.strip()]
        if "" not in sys.path:
            sys.path.insert(0, "")  # for MODULE:OBJECT in the folder where the command is given
        with made(self.env):
            pass
        from grasp_agent import report
        from grasp_agent.comparison import compare

        curves: dict[str, tuple[Point, ...]] = {}
        if self.train is not None:
            check_numbers(train=self.train, seed=self.seed)
            self._check(agents)
            agents, curves = self._schooled(agents, self.train)
        total = len(agents) * self.episodes
        with progress(f"{self.env}: {len(agents)} agents", total) as advance, user_errors(ValueError):
            comparison = compare(
                self.env,
                agents,
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
        for path in report.write(comparison, self.out):
            say(f"  {path}")
        if curves:
            report.curves(curves, self.env, self.out / "curves.png")
            say(f"  {self.out / 'curves.png'}")
        if self.video:
            say(f"  {self._film(agents, [entry.contestant.name for entry in comparison.entries])}")

    def _check(self, agents: list[str]) -> None:
        """Finds out who is not meant before the training, not after it."""
        from grasp_agent.contestants import contestant
        from grasp_agent.reinforcement import ALGORITHMS, algorithm

        with user_errors(ValueError):
            for name in agents:
                if name in ALGORITHMS:
                    algorithm(name)
                elif name != "grasp":
                    contestant(name, self.env)

    def _schooled(self, agents: list[str], steps: int) -> tuple[list[str], dict[str, tuple[Point, ...]]]:
        """Files in place of the names of those that are trained, and how good they were on the way."""
        from grasp_agent.reinforcement import ALGORITHMS
        from grasp_agent.schooling import school, wanted

        one_thread()
        found: list[str] = []
        curves: dict[str, tuple[Point, ...]] = {}
        with progress(f"{self.env}: training", wanted(agents, steps)) as advance, user_errors(ValueError):
            for name in agents:
                if name not in ("grasp", *ALGORITHMS):
                    found.append(name)
                    continue
                schooled = school(name, self.env, steps, self.out / "models", on_steps=advance)
                found += map(str, schooled.files)
                curves[name] = schooled.curve
        return found, curves

    def _film(self, agents: list[str], names: list[str]) -> Path:
        """Films the first episodes, side by side."""
        from grasp_agent.contestants import contestant
        from grasp_agent.video import record_beside

        with made(self.env, render_mode="rgb_array") as env, user_errors(ValueError):
            known = [contestant(name, self.env) for name in agents]
            players = {name: who.make(env, self.seed) for name, who in zip(names, known, strict=True)}
            limit = env.spec.max_episode_steps if env.spec is not None else None
            total = None if limit is None else len(players) * self.video_episodes * (limit + 1)
            with progress(f"{self.env}: filming", total) as advance:
                return record_beside(
                    players,
                    env,
                    self.out / "video.mp4",
                    self.video_episodes,
                    self.seed,
                    size=320,
                    force=True,
                    on_frame=advance,
                ).path
