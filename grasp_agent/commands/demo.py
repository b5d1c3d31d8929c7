"""`grasp demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from grasp_agent.commands.base import Command, UsageError, check_numbers, check_writable, load
from grasp_agent.commands.evaluate import Evaluate
from grasp_agent.commands.record import Record
from grasp_agent.console import complain, figures, say, show, table

if TYPE_CHECKING:
    from grasp_agent import GraspAgent

_DEMO_FPS = 20
_DEMO_VIDEO_EPISODES = 3


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Evaluate each bundled agent on fresh seeds and film it, with its plan drawn in."""

    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("demo")
    """Where the videos go; those of an earlier demo are replaced."""
    episodes: int = 10
    """Episodes per agent."""
    seed: int = 20_000
    """Seed of the first episode; each later one adds 1."""

    def run(self) -> None:
        """Evaluates and films all bundled agents, then prints the table."""
        check_numbers(episodes=self.episodes, seed=self.seed)
        check_writable(self.out / "demo.mp4")
        import grasp_agent

        results = table("environment", "success", "median steps", "ms per action")
        videos: list[str] = []
        for name in grasp_agent.bundled():
            agent = load(name)
            outcome = Evaluate(model=name, episodes=self.episodes, seed=self.seed).play(agent)
            results.add_row(*figures(outcome))
            videos += self._film(agent, name)
        show(results)
        for video in videos:
            say(f"  {video}")

    def _film(self, agent: GraspAgent, name: str) -> list[str]:
        out = self.out / f"{name}.mp4"
        video = Record(model=name, out=out, episodes=_DEMO_VIDEO_EPISODES, seed=self.seed, fps=_DEMO_FPS, force=True)
        try:
            return [str(video.film(agent).path)]
        except UsageError as reason:
            # A machine that cannot render still gets its table.
            complain(f"no video of {name}: {reason}")
            return []
