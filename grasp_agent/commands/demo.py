"""`grasp demo`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

from grasp_agent.commands.base import Command, UsageError, check_numbers, check_writable, load, made, user_errors
from grasp_agent.console import complain, say, show, table

if TYPE_CHECKING:
    import gymnasium as gym

    from grasp_agent.evaluation import Moment, Predictor

_FPS, _SIZE = 20, 320
_SHOWN = ("ball-nav-trap", "wall-pixels", "point-maze", "push-t", "reacher")
_BESIDE = {"ball-nav-trap": "sac@30000"}
"""Baselines that some models are shown beside."""


class Episode(NamedTuple):
    """How one agent did in one episode."""

    agent: str
    """Its name."""
    success: bool | None
    """Success at the end; None where the environment does not say."""
    reached: int | None
    """Steps until the goal was first reached; None if it never was."""
    seconds: float
    """Mean time of a `predict` call [s]."""


class Showing(NamedTuple):
    """What came of one video."""

    model: str
    """The bundled model's name."""
    env_id: str
    """Gymnasium id."""
    episodes: list[Episode]
    """Those of all agents."""
    video: Path | None
    """None where it could not be recorded."""
    said: str
    """What is to be seen in it."""


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Play fresh seeds with bundled agents and record them, with their plans drawn in."""

    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("demo")
    """Where the videos go; those of an earlier demo are replaced."""
    all: bool = False
    """Show every bundled agent, not five of them."""
    episodes: int = 3
    """Episodes per agent."""
    seed: int = 20_000
    """Seed of the first episode; each later one adds 1."""
    jobs: int = 1
    """Processes that play and record."""

    def run(self) -> None:
        """Plays and records, with a line for each episode as it ends; then prints the table and names the videos."""
        check_numbers(episodes=self.episodes, jobs=self.jobs, seed=self.seed)
        check_writable(self.out / "demo.mp4")
        say("loading (a few seconds)")
        import grasp_agent

        models = list(grasp_agent.bundled())
        if not self.all:
            models = [name for name in _SHOWN if name in models] or models
        showings: list[Showing] = []
        for number, showing in enumerate(self._shown(models), 1):
            showings.append(showing)
            say(f"{number} of {len(models)} done: {showing.video or 'no video'}")
        showings.sort(key=lambda showing: models.index(showing.model))
        results = table("agent", "environment", "success", "steps", "ms/action")
        for showing in showings:
            for agent in dict.fromkeys(episode.agent for episode in showing.episodes):
                results.add_row(agent, showing.env_id, *_figures(showing.episodes, agent))
        show(results)
        for showing in showings:
            if showing.video is not None:
                say(f"  {showing.video}: {showing.said}")

    def _shown(self, models: list[str]) -> Iterator[Showing]:
        """Shows the models one after the other, or several at once, as they are done."""
        if self.jobs == 1:
            yield from map(self.show, models)
            return
        from concurrent.futures import ProcessPoolExecutor, as_completed
        from multiprocessing import get_context

        with ProcessPoolExecutor(self.jobs, get_context("spawn")) as pool:
            futures = [pool.submit(self.show, name) for name in models]
            try:
                for future in as_completed(futures):
                    yield future.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def show(self, name: str) -> Showing:
        """Plays with one model, beside a baseline where there is one for it, and records that."""
        from grasp_agent.contestants import contestant

        agent = load(name)
        rival, env_id = _BESIDE.get(name), str(agent.env_id)
        tally = _Tally([name] if rival is None else [name, rival], self.seed)
        try:
            with made(env_id, agent, "rgb_array") as env, user_errors(ValueError):
                agents: dict[str, Predictor] = {name: agent}
                if rival is not None:
                    agents[rival] = contestant(rival, env_id).make(env, self.seed)
                video = self._record(agents, env, self.out / f"{name}.mp4", tally)
        except UsageError as reason:
            # A machine that cannot render still gets its table.
            complain(f"no video of {name}: {reason}")
            video = None
            self._play(agent, env_id, tally)
        said = _description(name)
        if rival is not None and video is not None:
            said += f" Beside it {rival}: success in {_figures(tally.episodes, rival)[0]} episodes."
        return Showing(name, env_id, tally.episodes, video, said)

    def _record(self, agents: dict[str, Predictor], env: gym.Env[Any, Any], path: Path, tally: _Tally) -> Path:
        from grasp_agent.video import record, record_beside

        if len(agents) == 1:
            (agent,) = agents.values()
            return record(agent, env, path, self.episodes, self.seed, _FPS, force=True, on_frame=tally.add).path
        return record_beside(
            agents, env, path, self.episodes, self.seed, _FPS, force=True, on_frame=tally.add, size=_SIZE
        ).path

    def _play(self, agent: Predictor, env_id: str, tally: _Tally) -> None:
        """Plays without a camera."""
        from grasp_agent.evaluation import rollout

        tally.begin(tally.names[:1])
        with made(env_id, agent) as env:  # type: ignore[arg-type]
            for seed in range(self.seed, self.seed + self.episodes):
                for moment in rollout(agent, env, seed):
                    tally.add(moment)


@dataclass
class _Tally:
    """Counts what happens in episodes, played in turn by agents of these names, and says how each has ended."""

    names: list[str]
    seed: int
    episodes: list[Episode] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    reached: int | None = None

    def begin(self, names: list[str]) -> None:
        """Forgets everything, and goes on with agents of these names."""
        self.names, self.episodes, self.seconds, self.reached = names, [], [], None

    def add(self, moment: Moment) -> None:
        """One instant of the present episode."""
        if moment.success and self.reached is None:
            self.reached = moment.step
        if moment.seconds is not None:
            self.seconds.append(moment.seconds)
            return
        count, place = divmod(len(self.episodes), len(self.names))
        ended = Episode(self.names[place], moment.success, self.reached, sum(self.seconds) / max(1, len(self.seconds)))
        self.episodes.append(ended)
        self.seconds, self.reached = [], None
        said = {None: f"return {moment.return_:.1f}", True: "success", False: "no success"}[ended.success]
        first = "" if ended.reached is None else f", goal first reached after {ended.reached}"
        speed = f"{1000 * ended.seconds:.1f} ms per action"
        say(f"  {ended.agent}, seed {self.seed + count}: {said} at the end of {moment.step} steps{first}, {speed}")


def _figures(episodes: list[Episode], agent: str) -> tuple[str, str, str]:
    """Successes at the end, median steps to the goal and ms per action of one agent, as text."""
    from statistics import mean, median

    own = [episode for episode in episodes if episode.agent == agent]
    ends, waits = [row.success for row in own], [row.reached for row in own if row.reached is not None]
    return (
        "-" if None in ends else f"{sum(map(bool, ends))}/{len(ends)}",
        f"{median(waits):.0f}" if waits else "-",
        f"{1000 * mean(row.seconds for row in own):.1f}",
    )


def _description(name: str) -> str:
    """What is to be seen of a bundled model."""
    import grasp_agent

    return grasp_agent.bundled()[name].description
