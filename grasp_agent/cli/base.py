"""Common parts of all commands: arguments, checks, construction of environments."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from grasp_agent import files
from grasp_agent.cli.console import complain

if TYPE_CHECKING:
    import gymnasium as gym

    from grasp_agent import GraspAgent

Model = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
Id = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="ENV")]]
MaybeFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
MaybeEnv = Annotated[str | None, tyro.conf.arg(metavar="ID", help_behavior_hint="")]
MaybeInt = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
MaybeFps = Annotated[float | None, tyro.conf.arg(metavar="FPS", help_behavior_hint="")]


class UsageError(Exception):
    """A request that cannot be fulfilled; the message is for the user, on one line."""


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """One command; its fields are its arguments and options."""

    @abstractmethod
    def run(self) -> None:
        """Runs the command.

        Raises:
            UsageError: if the request cannot be fulfilled.
        """


@contextmanager
def user_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turns exceptions of these types into usage errors."""
    try:
        yield
    except kinds as error:
        raise UsageError(str(error)) from error


def check_numbers(*, seed: int, **counts: int) -> None:
    """Refuses counts below 1 and seeds below 0."""
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"--{name}: expected at least 1, got {count}")
    if seed < 0:
        raise UsageError(f"--seed: expected 0 or more, got {seed}")


def check_engine(name: str, address: str | None) -> None:
    """Refuses an engine that is unknown or not installed, before the work starts."""
    from grasp_agent.execution import engines

    with user_errors(ValueError):
        engines.check_engine(name, address)


def check_writable(path: Path) -> None:
    """Refuses a path that cannot be written, before the work starts.

    Raises:
        UsageError: for a folder, and for a name that no file can have.
        OSError: if the folder or the file may not be written.
    """
    if os.path.isdir(path):
        raise UsageError(f"{path} is a folder (choose a file name)")
    with user_errors(ValueError):
        files.check_writable(path)


@contextmanager
def kept(state: Callable[[], str]) -> Iterator[None]:
    """Says what was kept where Ctrl-C or SIGTERM ends the work."""
    try:
        yield
    except KeyboardInterrupt:
        complain(state())
        raise


def check_video(path: Path, *, force: bool) -> None:
    """As `check_writable`, for a video: refuses other suffixes, and a file that exists."""
    if path.suffix.lower() not in (".mp4", ".gif"):
        raise UsageError(f"{path}: expected a name that ends in .mp4 or .gif")
    check_writable(path)
    if path.exists() and not force:
        raise UsageError(f"{path} exists (choose another name, or --force)")


def one_thread() -> None:
    """Restricts torch to one thread, which is fastest for small networks."""
    import torch

    torch.set_num_threads(1)


def load(model: str) -> GraspAgent:
    """Loads a bundled agent, or one from a file.

    Raises:
        UsageError: if there is no such model or file, or the file holds no agent.
    """
    one_thread()
    import grasp_agent

    with user_errors(ValueError):
        return grasp_agent.load(model, device="cpu")  # the fastest device for small networks


@contextmanager
def made_for(agent: GraspAgent, env_id: str | None, render_mode: str | None = None) -> Iterator[gym.Env[Any, Any]]:
    """Makes the agent's own environment, or another one with the same spaces."""
    if env_id is None and agent.env_id is None:
        raise UsageError("the agent does not know which environment it was trained in (name it: --env ID)")
    with made(env_id or str(agent.env_id), agent, render_mode) as env:
        if env_id is not None:
            with user_errors(ValueError):
                agent.set_env(env)
        yield env


@contextmanager
def made(
    env_id: str,
    agent: GraspAgent | None = None,
    render_mode: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[gym.Env[Any, Any]]:
    """Makes an environment and, with a render mode, renders it once as a check before the work starts."""
    import gymnasium as gym

    import grasp_agent  # noqa: F401  registers its environments
    from grasp_agent.evaluation.rollout import opened

    ours = [known for known in gym.registry if known.startswith("grasp/")]
    with ExitStack() as stack:
        try:
            env = stack.enter_context(opened(env_id, agent, render_mode, options))
            if render_mode is not None:
                env.reset(seed=0)
                env.render()
        except (gym.error.UnregisteredEnv, ModuleNotFoundError) as error:
            missing = getattr(error, "name", None) or getattr(error.__cause__, "name", None)  # gym.make hides the name
            if missing is not None:
                raise UsageError(f"{env_id}: no module {missing!r} (is it installed, or in this folder?)") from error
            others = "or any other registered Gymnasium id"
            raise UsageError(f"no environment {env_id!r} (choose from {', '.join(ours)}, {others})") from error
        except Exception as error:  # foreign code may raise anything, for example for options of a file
            reason = str(error) or f"it cannot be made or rendered ({type(error).__name__})"
            raise UsageError(f"{reason if reason.startswith(env_id) else f'{env_id}: {reason}'}") from error
        if env.spec is not None and env.spec.max_episode_steps is None:
            complain(f"{env_id} has no time limit: an episode may never end (Ctrl-C ends it)")
        yield env
