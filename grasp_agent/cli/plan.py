"""`grasp plan`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import tyro

from grasp_agent.cli.base import (
    Command,
    MaybeEnv,
    MaybeFile,
    Model,
    UsageError,
    check_numbers,
    check_video,
    kept,
    load,
    made_for,
    user_errors,
)
from grasp_agent.cli.console import say, show, table

if TYPE_CHECKING:
    from grasp_agent.planners import Planner


@dataclass(frozen=True, kw_only=True)
class Plan(Command):
    """Plan once from the start of an episode, without acting; record a video of the search."""

    model: Model
    """Bundled name (e.g. ball-nav) or saved file."""
    planner: Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = "own"
    """own (the agent's), or another one: grasp, icem, cem, mppi, ilqr, shooting, latco, grasp-paper."""
    search: bool = False
    """Leave out proposals (roadmap, recorded segments), so that the planner has to search."""
    seed: int = 0
    """Seed of the episode."""
    out: MaybeFile = None
    """Video of the search to write: a name that ends in .mp4 or .gif."""
    env: MaybeEnv = None
    """Another environment than the one that the agent was trained in."""
    force: bool = False
    """Replace OUT if it exists."""

    def run(self) -> None:
        """Plans, prints the result and records the search."""
        check_numbers(seed=self.seed)
        if self.out is not None:
            check_video(self.out, force=self.force)
        self._check_planner()
        with kept(lambda: "nothing was written"):
            self._plan()

    def _plan(self) -> None:
        agent = load(self.model)
        from grasp_agent.agent.agent import GraspAgent
        from grasp_agent.video.record import record_search
        from grasp_agent.video.search_trace import trace_search

        if not isinstance(agent, GraspAgent):
            raise UsageError(f"{self.model}: expected an agent that plans for goals, got one for rewards")
        planner = self._planner(agent.planner)
        mode = None if self.out is None else "rgb_array"
        with made_for(agent, self.env, mode) as env, user_errors(ValueError):
            if self.out is not None and not hasattr(env.unwrapped, "goal_to_pixels"):
                raise UsageError("--out: expected an environment that maps goals to pixels of its image")
            observation, _ = env.reset(seed=self.seed)
            found = trace_search(agent, observation, planner)
            rows = table("", "", title=f"{self.model}, seed {self.seed}: {type(planner).__name__}")
            rows.add_row("good enough under all members", "yes" if found.accepted else "no")
            rows.add_row("iterations", str(found.iterations))
            rows.add_row("steps", str(len(found.path) - 1))
            rows.add_row("ms, with tracing", f"{1000 * found.seconds:.0f}")
            show(rows)
            if self.out is not None:
                made = record_search(agent, env, self.out, self.seed, planner=planner, force=self.force, search=found)
                say(f"{made.path}: {made.frames} frames")

    def _check_planner(self) -> None:
        from grasp_agent.evaluation.participants import PLANNERS

        if self.planner not in ("own", "grasp", *PLANNERS):
            known = ", ".join(("own", "grasp", *PLANNERS))
            raise UsageError(f"--planner: expected one of {known}, got {self.planner!r}")

    def _planner(self, own: Planner) -> Planner:
        from grasp_agent.evaluation.participants import planner_called
        from grasp_agent.planners import GRASP

        others = {"own": own, "grasp": GRASP()}
        planner = others[self.planner] if self.planner in others else planner_called(self.planner)
        return replace(planner, proposals=None) if self.search else planner
