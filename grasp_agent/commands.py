"""What the commands of `grasp` do.

What needs seconds to import is imported by the commands, so that `grasp --help` answers at once.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from grasp_agent.console import complain, figures, print_outcome, progress, say, show, table

if TYPE_CHECKING:
    import gymnasium as gym

    from grasp_agent import GraspAgent
    from grasp_agent.evaluation import Evaluation
    from grasp_agent.video import Recording

_DEMO_FPS = 20
_DEMO_VIDEO_EPISODES = 3

_Model = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
_Video = tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
_Id = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="ENV")]]
_Target = Annotated[Path, tyro.conf.arg(metavar="FILE")]
_MaybeFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
_MaybeEnv = Annotated[str | None, tyro.conf.arg(metavar="ID", help_behavior_hint="")]
_MaybeFps = Annotated[float | None, tyro.conf.arg(metavar="FPS", help_behavior_hint="")]


class UsageError(Exception):
    """What was asked for cannot be done; the message is for the user, on one line."""


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """One command; its fields are its arguments and options."""

    @abstractmethod
    def run(self) -> None:
        """Does what the command says.

        Raises:
            UsageError: if what the user asked for cannot be done.
        """


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
        _check_numbers(episodes=self.episodes, seed=self.seed)
        _check_writable(self.out / "demo.mp4")
        import grasp_agent

        results = table("environment", "success", "median steps", "ms per action")
        videos: list[str] = []
        for name in grasp_agent.bundled():
            agent = _load(name)
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


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train an agent from nothing in an environment and save it."""

    env: _Id
    """Gymnasium id, e.g. grasp/BallNav-v0."""
    steps: int
    """Environment steps to learn from."""
    out: _Target
    """Where to save the agent."""
    seed: int = 0
    """Seed of everything random."""
    force: bool = False
    """Replace FILE if it exists."""
    resume: bool = False
    """Keep FILE up to date on the way, with all experience, and go on from it if it exists."""

    def run(self) -> None:
        """Learns with a progress bar and saves."""
        _check_numbers(steps=self.steps, seed=self.seed)
        _check_writable(self.out)
        out = self.out if self.out.suffix else self.out.with_suffix(".zip")
        if out.exists() and not (self.force or self.resume):
            raise UsageError(f"{out} exists (choose another --out, --resume or --force)")
        if self.force and self.resume:
            raise UsageError("--force, --resume: expected at most one of them")
        _one_thread()
        from grasp_agent import GraspAgent

        with _made(self.env), _user_errors(ValueError):
            agent = GraspAgent("MultiInputPolicy", self.env, seed=self.seed, device="cpu")
            if self.resume and out.exists():
                GraspAgent.load(out, env=agent.env, device="cpu")  # refuses what is not this agent's
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
            with _user_errors(OSError):
                agent.save(out)
        named = f" --env {self.env}" if ":" in self.env else ""
        say(f"saved {out} (next: grasp evaluate {out}{named})")


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Play seeded episodes with an agent; report success with its interval, and speed."""

    model: _Model
    """Bundled name (e.g. ball-nav) or saved file."""
    episodes: int = 100
    """Episodes to play."""
    seed: int = 10_000
    """Seed of the first episode; each later one adds 1."""
    json: _MaybeFile = None
    """Write the figures and one row per episode there."""
    csv: _MaybeFile = None
    """Write one row per episode there."""
    env: _MaybeEnv = None
    """Another environment than the one that the agent was trained in."""

    def run(self) -> None:
        """Plays, prints and writes."""
        _check_numbers(episodes=self.episodes, seed=self.seed)
        outputs = [path for path in (self.json, self.csv) if path is not None]
        if len({path.resolve() for path in (*outputs, Path(self.model))}) <= len(outputs):
            raise UsageError("--json, --csv: expected two files that are not the model's")
        for path in outputs:
            _check_writable(path)
        outcome = self.play(_load(self.model))
        print_outcome(outcome)
        if self.json is not None:
            outcome.to_json(self.json)
        if self.csv is not None:
            outcome.to_csv(self.csv)

    def play(self, agent: GraspAgent) -> Evaluation:
        """Plays the episodes, with a progress bar."""
        from grasp_agent.evaluation import evaluate

        with (
            _made_for(agent, self.env) as env,
            progress(f"{self.model}: {self.episodes} episodes", self.episodes) as advance,
        ):
            return evaluate(agent, env, self.episodes, self.seed, on_episode=advance)


@dataclass(frozen=True, kw_only=True)
class Record(Command):
    """Film seeded episodes of an agent, with its plan drawn in."""

    model: _Model
    """Bundled name (e.g. ball-nav) or saved file."""
    out: _Video
    """Video to write: a name that ends in .mp4 or .gif."""
    episodes: int = 1
    """Episodes to film, one after the other."""
    seed: int = 0
    """Seed of the first episode; each later one adds 1."""
    fps: _MaybeFps = None
    """Pictures per second, if not the environment's own."""
    env: _MaybeEnv = None
    """Another environment than the one that the agent was trained in."""
    force: bool = False
    """Replace OUT if it exists."""

    def run(self) -> None:
        """Films, and says what can be seen."""
        _check_numbers(episodes=self.episodes, seed=self.seed)
        _check_writable(self.out)
        if self.out.exists() and not self.force:
            raise UsageError(f"{self.out} exists (choose another name, or --force)")
        made = self.film(_load(self.model))
        ends = "" if None in made.successes else f", success in {sum(map(bool, made.successes))} of {self.episodes}"
        say(f"{made.path}: {made.frames} pictures{ends}")

    def film(self, agent: GraspAgent) -> Recording:
        """Films the episodes, with a progress bar."""
        from grasp_agent.video import record

        with _made_for(agent, self.env, "rgb_array") as env:
            limit = env.spec.max_episode_steps if env.spec is not None else None
            total = None if limit is None else self.episodes * (limit + 1)
            with progress(f"{self.model}: filming", total) as advance, _user_errors(ValueError):
                return record(
                    agent,
                    env,
                    self.out,
                    self.episodes,
                    self.seed,
                    self.fps,
                    force=self.force,
                    on_frame=advance,
                )


@contextmanager
def _user_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Takes exceptions of these kinds for the user's mistakes."""
    try:
        yield
    except kinds as error:
        raise UsageError(str(error)) from error


def _check_numbers(*, seed: int, **counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"--{name}: expected at least 1, got {count}")
    if seed < 0:
        raise UsageError(f"--seed: expected 0 or more, got {seed}")


def _check_writable(path: Path) -> None:
    """Finds out before the work, not after it."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder (choose a file name)")
    with _user_errors(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass


def _one_thread() -> None:
    """Small networks run fastest on one thread."""
    import torch

    torch.set_num_threads(1)


def _load(model: str) -> GraspAgent:
    _one_thread()
    import grasp_agent

    with _user_errors(ValueError):
        return grasp_agent.load(model, device="cpu")  # for small networks it is the fastest


@contextmanager
def _made_for(agent: GraspAgent, env_id: str | None, render_mode: str | None = None) -> Iterator[gym.Env[Any, Any]]:
    """Makes the agent's own environment, or another one that it fits to."""
    if env_id is None and agent.env_id is None:
        raise UsageError("the agent does not know which environment it was trained in (name it: --env ID)")
    with _made(env_id or str(agent.env_id), agent, render_mode) as env:
        if env_id is not None:
            with _user_errors(ValueError):
                agent.set_env(env)
        yield env


@contextmanager
def _made(env_id: str, agent: GraspAgent | None = None, render_mode: str | None = None) -> Iterator[gym.Env[Any, Any]]:
    """Makes an environment and, if it is to be filmed, lets it render once, before the work."""
    import gymnasium as gym

    import grasp_agent  # noqa: F401  registers its environments
    from grasp_agent.evaluation import opened

    ours = [known for known in gym.registry if known.startswith("grasp/")]
    with ExitStack() as stack:
        try:
            env = stack.enter_context(opened(env_id, agent, render_mode))
            if render_mode is not None:
                env.reset(seed=0)
                env.render()
        except (gym.error.UnregisteredEnv, ModuleNotFoundError) as error:
            others = "or any other registered Gymnasium id"
            raise UsageError(f"no environment {env_id!r} (choose from {', '.join(ours)}, {others})") from error
        except (gym.error.Error, ImportError, RuntimeError) as error:
            reason = str(error) or f"it cannot be made or rendered ({type(error).__name__})"
            raise UsageError(f"{env_id}: {reason}") from error
        yield env
