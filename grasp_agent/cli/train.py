"""`grasp train`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from grasp_agent.cli.base import (
    Command,
    MaybeFile,
    MaybeInt,
    UsageError,
    check_numbers,
    check_writable,
    kept,
    made,
    one_thread,
    user_errors,
)
from grasp_agent.cli.console import lines, say
from grasp_agent.cli.given import EnvOptions, MaybeGoal, MaybeTolerance, env_options, goal_given
from grasp_agent.files import named

if TYPE_CHECKING:
    from grasp_agent import GraspAgent
    from grasp_agent.agent.reward.agent import RewardAgent
    from grasp_agent.evaluation.best import BestAgent, Checked
    from grasp_agent.evaluation.config import TrainingConfig

    Learner = GraspAgent | RewardAgent

MaybeId = tyro.conf.Positional[Annotated[str | None, tyro.conf.arg(metavar="[ENV]", help_behavior_hint="")]]
MaybeFolder = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
MaybePlanner = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train an agent from scratch in an environment and save it, with its configuration next to it.

    It learns for goals where the environment has goals or --goal gives one, else for rewards.

    The configuration of FILE.zip is FILE.config.json: `grasp train --config FILE.config.json --out OTHER` repeats the
    training exactly.
    """

    env: MaybeId = None
    """Gymnasium id, e.g. grasp/BallNav-v0."""
    steps: MaybeInt = None
    """Environment steps to learn from."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File of the trained agent."""
    config: MaybeFile = None
    """Configuration of another training, or of `grasp tune`. Other options and ENV replace what it holds."""
    env_kwargs: EnvOptions = ()
    """Options of the environment: KEY=VALUE for each, or a JSON object."""
    goal: MaybeGoal = None
    """Goal, for observations without one: target values by entry of the observation, as in '{"0": 1.0, "2": 0.5}'."""
    goal_tolerance: MaybeTolerance = None
    """Distance to the goal that counts as success."""
    horizon: MaybeInt = None
    """Steps of a plan; by default half of the environment's time limit, from 10 to 50; for rewards 10."""
    planner: MaybePlanner = None
    """grasp, icem, cem, mppi, ilqr, shooting, latco or grasp-paper; for rewards icem, cem, mppi or shooting."""
    seed: MaybeInt = None
    """Seed of everything random; 0 by default."""
    eval_every: MaybeInt = None
    """Evaluate every so many steps and at the end, and keep the best agent as FILE-best.zip."""
    eval_episodes: MaybeInt = None
    """Episodes of such an evaluation, with seeds from 30,000; 20 by default."""
    tensorboard: MaybeFolder = None
    """Folder of TensorBoard's logs."""
    force: bool = False
    """Replace FILE, and what belongs to it, if it exists."""
    resume: bool = False
    """Keep FILE up to date during training, with all experience, and continue from it if it exists."""

    def run(self) -> None:
        """Trains, with progress, and saves."""
        numbers = {"steps": self.steps, "horizon": self.horizon}
        numbers |= {"eval-every": self.eval_every, "eval-episodes": self.eval_episodes}
        given = {name: number for name, number in numbers.items() if number is not None}
        check_numbers(**given, seed=self.seed or 0)
        if self.eval_episodes is not None and self.eval_every is None:
            raise UsageError("--eval-episodes: expected with --eval-every STEPS, which evaluates")
        if self.force and self.resume:
            raise UsageError("--force, --resume: expected at most one of them")
        if self.tensorboard is not None and find_spec("tensorboard") is None:
            raise UsageError("--tensorboard: no module 'tensorboard' (pip install tensorboard)")
        check_writable(self.out)
        with user_errors(ValueError):
            out = named(self.out, ".zip")
            files = [named(path) for path in self._files(out)]
        for path in files:
            check_writable(path)
            if path.exists() and not (self.force or self.resume):
                raise UsageError(f"{path} exists (choose another --out, --resume or --force)")
        config = self._configuration()
        self._train(config, out)
        named_env = f" --env {config.env}" if ":" in config.env else ""
        say(f"saved {out} (next: grasp evaluate {shlex.quote(str(out))}{named_env})")

    def _files(self, out: Path) -> list[Path]:
        best = [] if self.eval_every is None else [_beside(out, "-best.zip")]
        return [out, _beside(out, ".config.json"), *best]

    def _configuration(self) -> TrainingConfig:
        """Returns the configuration of the file, if one is given, with the given options in place of what it holds."""
        for name, given in (("ENV", self.env), ("--steps INT", self.steps)):
            if given is None and self.config is None:
                raise UsageError(f"{name}: expected it, or a --config FILE that holds it, got neither")
        from grasp_agent.evaluation.config import TrainingConfig, planner_from_name

        own: dict[str, Any] = {"env": self.env, "steps": self.steps, "seed": self.seed}
        if self.env_kwargs:
            own["env_kwargs"] = env_options(self.env_kwargs)
        own = {name: value for name, value in own.items() if value is not None}
        changes: dict[str, Any] = {"horizon": self.horizon, "goal_tolerance": self.goal_tolerance}
        with user_errors(ValueError):
            if self.planner is not None:
                changes["planner"] = planner_from_name(self.planner)
            known = TrainingConfig(**own) if self.config is None else replace(TrainingConfig.read(self.config), **own)
            if self.goal is not None:
                changes["goal"] = goal_given(self.goal, self.goal_tolerance, known.settings.tolerance)
                changes["goal_tolerance"] = changes["goal"].tolerance
            return known.with_settings(**{name: value for name, value in changes.items() if value is not None})

    def _train(self, config: TrainingConfig, out: Path) -> None:
        one_thread()
        from grasp_agent.agent.reward.agent import RewardAgent
        from grasp_agent.evaluation.config import make_learner

        log = None if self.tensorboard is None else str(self.tensorboard)
        early = kept(lambda: "nothing was saved: no step had been taken")
        with early, made(config.env, options=config.env_kwargs), user_errors(ValueError):
            agent = make_learner(config, log)
            if isinstance(agent, RewardAgent):
                self._check_rewards(agent, config)
            before = self._earlier(agent, config, out)
        say(config.summary() + ("; for rewards, as there is no goal" if isinstance(agent, RewardAgent) else ""))
        best = None if self.eval_every is None else self._best(_beside(out, "-best.zip"), before)
        checkpoint = out if self.resume else None
        with kept(lambda: self._kept(agent, config, out, before)):
            with user_errors(ValueError), self._shown(agent, config) as bar:
                agent.learn(config.steps, best, progress_bar=bar, checkpoint=checkpoint)
            if not self.resume:
                out.parent.mkdir(parents=True, exist_ok=True)
                agent.save(out)
            written = _beside(out, ".config.json")
            if agent.num_timesteps > before or not written.exists():  # else it is that of an earlier call
                config.write(written)
        if best is not None and best.best is not None:
            say(f"{_beside(out, '-best.zip')}: {best.best.score:.3g} after {best.best.steps:,} steps")

    def _check_rewards(self, agent: RewardAgent, config: TrainingConfig) -> None:
        if self.resume:
            raise UsageError("--resume: expected with a goal; an agent for rewards saves no experience")
        if config.steps <= agent.learning_starts:
            most = f"more than {agent.learning_starts:,}, the steps of random actions before it learns"
            raise UsageError(f"--steps: expected {most} for rewards, got {config.steps:,}")

    def _earlier(self, agent: Learner, config: TrainingConfig, out: Path) -> int:
        """Returns the environment steps of a checkpoint; refuses a file of another agent."""
        if not (self.resume and out.exists()):
            return 0
        before = getattr(type(agent).load(out, env=agent.env, device="cpu"), "num_timesteps", 0)
        if before >= config.steps:
            say(f"{out}: already {before:,} of {config.steps:,} steps")
        return before

    def _best(self, path: Path, before: int) -> BestAgent:
        from grasp_agent.evaluation.best import BestAgent

        assert self.eval_every is not None
        counts = {} if self.eval_episodes is None else {"episodes": self.eval_episodes}
        return BestAgent(path, every=self.eval_every, **counts, resume=before > 0, on_checked=_say_checked)

    @contextmanager
    def _shown(self, agent: Learner, config: TrainingConfig) -> Iterator[bool]:
        """Shows progress where stderr is no terminal; yields whether learning shall show a bar instead."""
        if sys.stderr.isatty():
            yield True
            return
        with lines(lambda: f"{config.env}: {agent.num_timesteps:,} of {config.steps:,} steps"):
            yield False

    def _kept(self, agent: Learner, config: TrainingConfig, out: Path, before: int) -> str:
        """Saves what an interrupted training has learned, and says what was kept."""
        from grasp_agent.agent.reward.agent import RewardAgent

        steps = f"{agent.num_timesteps:,} steps"
        if not self.resume and agent.policy.is_fitted:
            agent.save(out)
        elif not self.resume:
            hint = "" if isinstance(agent, RewardAgent) else " (--resume keeps all steps)"
            return f"nothing was saved: no model had been fitted in {steps}{hint}"
        elif agent.num_timesteps in (0, before):
            return f"{out} holds {before:,} steps, as before" if before else "nothing was saved: no step had been taken"
        config.write(_beside(out, ".config.json"))
        return f"saved what was learned in {steps}: {out}"


def _beside(out: Path, ending: str) -> Path:
    """Returns the path of a file that belongs to an agent's."""
    return out.with_name(out.stem + ending)


def _say_checked(found: Checked) -> None:
    say(f"{found.steps:,} steps: {found.score:.3g}{', the best so far' if found.best else ''}")
