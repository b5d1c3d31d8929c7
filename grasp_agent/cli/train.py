"""`grasp train`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from grasp_agent.cli.base import Command, Id, UsageError, check_numbers, check_writable, made, one_thread, user_errors
from grasp_agent.cli.console import complain, say


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train an agent from scratch in an environment and save it."""

    env: Id
    """Gymnasium id, e.g. grasp/BallNav-v0."""
    steps: int
    """Environment steps to learn from."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File of the trained agent."""
    seed: int = 0
    """Seed of everything random."""
    force: bool = False
    """Replace FILE if it exists."""
    resume: bool = False
    """Keep FILE up to date during training, with all experience, and continue from it if it exists."""

    def run(self) -> None:
        """Trains with a progress bar and saves."""
        check_numbers(steps=self.steps, seed=self.seed)
        check_writable(self.out)
        out = self.out if self.out.suffix else self.out.with_suffix(".zip")
        if out.exists() and not (self.force or self.resume):
            raise UsageError(f"{out} exists (choose another --out, --resume or --force)")
        if self.force and self.resume:
            raise UsageError("--force, --resume: expected at most one of them")
        one_thread()
        from grasp_agent import GraspAgent

        with made(self.env), user_errors(ValueError):
            agent = GraspAgent("MultiInputPolicy", self.env, seed=self.seed, device="cpu")
            if self.resume and out.exists():
                GraspAgent.load(out, env=agent.env, device="cpu")  # refuses a file of another agent
        try:
            checkpoint = out if self.resume else None
            agent.learn(self.steps, progress_bar=sys.stderr.isatty(), checkpoint=checkpoint)
        except KeyboardInterrupt:
            if self.resume or agent.policy.world is not None:
                if not self.resume:
                    agent.save(out)
                complain(f"saved what was learned in {agent.num_timesteps} steps: {out}")
            raise
        if not self.resume:
            with user_errors(OSError):
                agent.save(out)
        named = f" --env {self.env}" if ":" in self.env else ""
        say(f"saved {out} (next: grasp evaluate {out}{named})")
