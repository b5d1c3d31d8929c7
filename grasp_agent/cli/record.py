"""`grasp record`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from grasp_agent.cli.base import (
    Command,
    MaybeEnv,
    MaybeFps,
    MaybeInt,
    Model,
    check_numbers,
    check_video,
    kept,
    load,
    made_for,
    user_errors,
)
from grasp_agent.cli.console import progress, say

if TYPE_CHECKING:
    from grasp_agent import GraspAgent
    from grasp_agent.video.record import Recording


@dataclass(frozen=True, kw_only=True)
class Record(Command):
    """Record seeded episodes of an agent as a video, with its plan drawn in."""

    model: Model
    """Bundled name (e.g. ball-nav) or saved file."""
    out: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    """Video to write: a name that ends in .mp4 or .gif."""
    episodes: int = 1
    """Episodes to record, one after the other, or all at once."""
    grid: bool = False
    """Show all episodes at once, in a grid."""
    seed: int = 0
    """Seed of the first episode; each later one adds 1."""
    fps: MaybeFps = None
    """Frames per second, if not the environment's own; GIFs show 50 at most."""
    speed: float = 1.0
    """Factor by which the video is faster than that."""
    size: MaybeInt = None
    """Width of the environment's image, in pixels, if not its own."""
    env: MaybeEnv = None
    """Another environment than the one that the agent was trained in."""
    force: bool = False
    """Replace OUT if it exists."""

    def run(self) -> None:
        """Records a video, and prints its file, length and successes."""
        check_numbers(episodes=self.episodes, seed=self.seed)
        check_video(self.out, force=self.force)
        with kept(lambda: "no video was written"):
            made = self.record_video(load(self.model))
        ends = "" if None in made.successes else f", success in {sum(map(bool, made.successes))} of {self.episodes}"
        say(f"{made.path}: {made.frames} frames{ends}")

    def record_video(self, agent: GraspAgent) -> Recording:
        """Records the episodes, with a progress bar."""
        from grasp_agent.video.record import record, record_grid

        with made_for(agent, self.env, "rgb_array") as env:
            limit = env.spec.max_episode_steps if env.spec is not None else None
            total = None if limit is None else self.episodes * (limit + 1)
            size = 240 if self.grid and self.size is None else self.size
            with progress(f"{self.model}: recording", total) as advance, user_errors(ValueError):
                return (record_grid if self.grid else record)(
                    agent,
                    env,
                    self.out,
                    self.episodes,
                    self.seed,
                    fps=self.fps,
                    force=self.force,
                    on_frame=advance,
                    speed=self.speed,
                    size=size,
                )
