"""`grasp train`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from grasp_agent.cli.base import (
    Command,
    Id,
    UsageError,
    check_numbers,
    check_writable,
    kept,
    made,
    one_thread,
    user_errors,
)
from grasp_agent.cli.console import lines, say
from grasp_agent.files import named

if TYPE_CHECKING:
    from grasp_agent import GraspAgent


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
        """Trains, with progress, and saves."""
        check_numbers(steps=self.steps, seed=self.seed)
        check_writable(self.out)
        with user_errors(ValueError):
            out = named(self.out, ".zip")
        check_writable(out)
        if out.exists() and not (self.force or self.resume):
            raise UsageError(f"{out} exists (choose another --out, --resume or --force)")
        if self.force and self.resume:
            raise UsageError("--force, --resume: expected at most one of them")
        self._train(out)
        named_env = f" --env {self.env}" if ":" in self.env else ""
        say(f"saved {out} (next: grasp evaluate {shlex.quote(str(out))}{named_env})")

    def _train(self, out: Path) -> None:
        one_thread()
        from grasp_agent import GraspAgent

        with kept(lambda: "nothing was saved: no step had been taken"), made(self.env), user_errors(ValueError):
            agent = GraspAgent("MultiInputPolicy", self.env, seed=self.seed, device="cpu")
            before = self._earlier(GraspAgent, agent, out)
        with kept(lambda: self._kept(agent, out, before)):
            with user_errors(ValueError), self._shown(agent) as bar:
                agent.learn(self.steps, progress_bar=bar, checkpoint=out if self.resume else None)
            if not self.resume:
                out.parent.mkdir(parents=True, exist_ok=True)
                agent.save(out)

    def _earlier(self, kind: type[GraspAgent], agent: GraspAgent, out: Path) -> int:
        """Returns the environment steps of a checkpoint; refuses a file of another agent."""
        if not (self.resume and out.exists()):
            return 0
        before = getattr(kind.load(out, env=agent.env, device="cpu"), "num_timesteps", 0)
        if before >= self.steps:
            say(f"{out}: already {before:,} of {self.steps:,} steps")
        return before

    @contextmanager
    def _shown(self, agent: GraspAgent) -> Iterator[bool]:
        """Shows progress where stderr is no terminal; yields whether learning shall show a bar instead."""
        if sys.stderr.isatty():
            yield True
            return
        with lines(lambda: f"{self.env}: {agent.num_timesteps:,} of {self.steps:,} steps"):
            yield False

    def _kept(self, agent: GraspAgent, out: Path, before: int) -> str:
        """Saves what an interrupted training has learned, and says what was kept."""
        steps = f"{agent.num_timesteps:,} steps"
        if not self.resume and agent.policy.world is not None:
            agent.save(out)
        elif not self.resume:
            return f"nothing was saved: no model had been fitted in {steps} (--resume keeps all steps)"
        elif agent.num_timesteps in (0, before):
            return f"{out} holds {before:,} steps, as before" if before else "nothing was saved: no step had been taken"
        return f"saved what was learned in {steps}: {out}"
