"""`grasp demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

from grasp_agent.cli.base import Command, UsageError, check_numbers, check_writable, kept, load, made, user_errors
from grasp_agent.cli.console import complain, figures, say, show, table
from grasp_agent.execution.processes import in_processes

if TYPE_CHECKING:
    import gymnasium as gym

    from grasp_agent.evaluation.evaluate import Episode, Evaluation
    from grasp_agent.evaluation.rollout import Moment, Predictor

_FPS, _SIZE = 20, 320  # frames per second, width of each image [pixels]
_DEFAULT_MODELS = ("ball-nav-trap", "wall-pixels", "point-maze", "push-t", "reacher")
_RIVALS = {"ball-nav-trap": "sac@30000"}
"""Baselines that are shown next to some models."""


class Showing(NamedTuple):
    """The result of one model's episodes."""

    model: str
    """The bundled model's name."""
    outcomes: list[Evaluation]
    """One for each agent: the model, and its baseline if there is one."""
    video: Path | None
    """None where it could not be recorded."""
    said: str
    """Description of the video."""


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Play fresh seeds with bundled agents and record them, with their plans drawn in."""

    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("demo")
    """Folder of the videos; those of an earlier demo are replaced."""
    all: bool = False
    """Show every bundled agent, not five of them."""
    episodes: int = 3
    """Episodes per agent."""
    seed: int = 20_000
    """Seed of the first episode; each later one adds 1."""
    jobs: int = 1
    """Number of processes."""

    def run(self) -> None:
        """Plays and records, with a line for each episode as it ends; then prints the table and names the videos."""
        check_numbers(episodes=self.episodes, jobs=self.jobs, seed=self.seed)
        check_writable(self.out / "demo.mp4")
        say("loading (a few seconds)")
        import grasp_agent

        models = list(grasp_agent.bundled())
        if not self.all:
            models = [name for name in _DEFAULT_MODELS if name in models] or models
        for name in models:
            check_writable(self.out / f"{name}.mp4")
        showings: list[Showing] = []
        with kept(lambda: f"{sum(one.video is not None for one in showings)} videos were written into {self.out}"):
            for number, (_, showing) in enumerate(in_processes(self.show, models, self.jobs), 1):
                showings.append(showing)
                say(f"{number} of {len(models)} done: {showing.video or 'no video'}")
        showings.sort(key=lambda showing: models.index(showing.model))
        results = table("agent", "environment", "success", "steps", "ms/action")
        for outcome in (outcome for showing in showings for outcome in showing.outcomes):
            results.add_row(outcome.agent, *figures(outcome))
        show(results)
        for showing in showings:
            if showing.video is not None:
                say(f"  {showing.video}: {showing.said}")

    def show(self, name: str) -> Showing:
        """Plays with one model, and with its baseline if there is one, and records a video."""
        from grasp_agent.evaluation.participants import participant

        agent = load(name)
        rival, env_id = _RIVALS.get(name), str(agent.env_id)
        tally = _Tally([name] if rival is None else [name, rival], self.seed)
        try:
            with made(env_id, agent, "rgb_array") as env, user_errors(ValueError):
                agents: dict[str, Predictor] = {name: agent}
                if rival is not None:
                    agents[rival] = participant(rival, env_id).make(env, self.seed)
                video = self._record(agents, env, self.out / f"{name}.mp4", tally)
        except UsageError as reason:
            # A machine that cannot render still gets its table.
            complain(f"no video of {name}: {reason}")
            video = None
            self._play(agent, env_id, tally)
        said, outcomes = _description(name), tally.outcomes(env_id)
        for outcome in outcomes[1:]:
            said += f" Next to it {outcome.agent}: success in {figures(outcome)[1]} episodes."
        return Showing(name, outcomes, video, said)

    def _record(self, agents: dict[str, Predictor], env: gym.Env[Any, Any], path: Path, tally: _Tally) -> Path:
        from grasp_agent.video.record import record, record_beside

        if len(agents) == 1:
            (agent,) = agents.values()
            return record(agent, env, path, self.episodes, self.seed, fps=_FPS, force=True, on_frame=tally.add).path
        return record_beside(
            agents, env, path, self.episodes, self.seed, fps=_FPS, force=True, on_frame=tally.add, size=_SIZE
        ).path

    def _play(self, agent: Predictor, env_id: str, tally: _Tally) -> None:
        """Plays without rendering."""
        from grasp_agent.evaluation.rollout import rollout

        tally.begin(tally.names[:1])
        with made(env_id, agent) as env:  # type: ignore[arg-type]
            for seed in range(self.seed, self.seed + self.episodes):
                for moment in rollout(agent, env, seed):
                    tally.add(moment)


class _Tally:
    """Collects episodes, played in turn by agents of these names, and prints the outcome of each."""

    def __init__(self, names: list[str], seed: int) -> None:
        self.seed = seed
        self.begin(names)

    def begin(self, names: list[str]) -> None:
        """Discards all episodes, and restarts with agents of these names."""
        self.names, self._ended = names, 0
        self._moments: list[Moment] = []
        self._rows: dict[str, list[Episode]] = {name: [] for name in names}
        self._seconds: dict[str, list[float]] = {name: [] for name in names}

    def add(self, moment: Moment) -> None:
        """Adds a moment of the current episode."""
        from grasp_agent.evaluation.evaluate import episode_of

        self._moments.append(moment)
        if moment.seconds is not None:
            return
        count, index = divmod(self._ended, len(self.names))
        name, seed = self.names[index], self.seed + count
        row, seconds = episode_of(seed, iter(self._moments))
        self._rows[name].append(row)
        self._seconds[name] += seconds
        self._moments, self._ended = [], self._ended + 1
        outcome = {None: f"return {row.return_:.1f}", True: "success", False: "no success"}[row.success_end]
        first = "" if row.steps_to_success is None else f", goal first reached after {row.steps_to_success}"
        time = f"{1000 * row.seconds_per_action_mean:.1f} ms per action"
        say(f"  {name}, seed {seed}: {outcome} at the end of {row.steps} steps{first}, {time}")

    def outcomes(self, env_id: str) -> list[Evaluation]:
        """Returns the evaluation of each agent."""
        import numpy as np

        from grasp_agent.evaluation.evaluate import Evaluation

        return [
            Evaluation(env_id, name, self.seed, tuple(rows), np.array(self._seconds[name]), 0.0)
            for name, rows in self._rows.items()
        ]


def _description(name: str) -> str:
    """Returns the description of a bundled model."""
    import grasp_agent

    return grasp_agent.bundled()[name].description
