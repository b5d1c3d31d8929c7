"""Videos of seeded episodes, complete to the last frame, with the agent's plan drawn into the picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np
from PIL import Image

from grasp_agent.agent.agent import GraspAgent
from grasp_agent.evaluation.participants import participants
from grasp_agent.evaluation.rollout import Moment, Predictor, opened, own_goal, rollout
from grasp_agent.planners import Planner
from grasp_agent.task.goal import Goal
from grasp_agent.validation import whole
from grasp_agent.video.config import VideoConfig, VideoOptions
from grasp_agent.video.overlay import Band, Overlay, Strip, framed, tiled, titled
from grasp_agent.video.search_trace import Search, watched
from grasp_agent.video.writer import film, rate

if TYPE_CHECKING:
    from typing_extensions import Unpack

_MOST_BESIDE = 4  # in one row
OnFrame = Callable[[Moment], None]


class Recording(NamedTuple):
    """What a video shows."""

    path: Path
    """The file."""
    frames: int
    """Pictures in it: for each episode its steps and one; side by side, those of the longest."""
    fps: float
    """Pictures per second."""
    successes: tuple[bool | None, ...]
    """Success at the end of each episode; None where the environment does not report it."""


class Shot(NamedTuple):
    """One picture of an episode."""

    picture: Image.Image
    """Without its caption."""
    moment: Moment
    """What it shows."""


def record(
    agent: Predictor,
    env: str | gym.Env[Any, Any],
    path: str | Path,
    episodes: int = 1,
    seed: int = 0,
    *,
    on_frame: OnFrame | None = None,
    **video: Unpack[VideoOptions],
) -> Recording:
    """Films seeded episodes, one after the other.

    The plan is drawn where the environment offers `goal_to_pixels` and the agent `last_plan`: what is left of
    it as a blue line that fades with time (grey if the planner could not vouch for it), the virtual states of
    its candidates as violet dots that fade after the moment of planning, the path so far as a rusty line. For other
    environments it stands in charts beside the picture, one for each entry of the goal.

    Args:
        agent: anything with Stable-Baselines3's `predict`.
        env: a Gymnasium id, or a single environment with `render_mode="rgb_array"` (left open).
        path: where to write; `.mp4` (H.264) or `.gif`, which keeps equal neighbours as one picture that lasts
            longer.
        episodes: how many, at least 1.
        seed: episode i is reset with `seed + i`.
        on_frame: called after each picture, e.g. to move a progress bar.
        **video: how it looks, see `VideoConfig`.

    Raises:
        ValueError: if the suffix is unknown, the file exists, a number is out of range, or `env` does not render
            pictures.
    """
    whole(1, episodes=episodes)
    config, ends = VideoConfig(**video), list[bool | None]()
    with _filming(agent, env, path, config) as (plain, reel):
        for index in range(episodes):
            band, success = Band(agent, plain) if config.caption else None, None
            for shot in shots(agent, plain, seed + index, draw_plan=config.draw_plan, size=config.size):
                reel.add(shot.picture if band is None else band.below(shot.picture, shot.moment))
                success = shot.moment.success
                if on_frame is not None:
                    on_frame(shot.moment)
            ends.append(success)
    return Recording(reel.path, reel.frames, reel.fps, tuple(ends))


def record_beside(
    agents: Mapping[str, Predictor] | Sequence[Predictor],
    env: str | gym.Env[Any, Any],
    path: str | Path,
    episodes: int = 1,
    seed: int = 0,
    *,
    on_frame: OnFrame | None = None,
    **video: Unpack[VideoOptions],
) -> Recording:
    """Films several agents side by side on the same seeded episodes; more than four in two rows.

    One that has ended stays as it was, marked, until the last one has.

    Args:
        agents: anything with Stable-Baselines3's `predict`; a dict gives the names that stand below. Where the
            environment does not report success, the first goal that one of them has of its own judges all.
        env: as in `record`, like all that follows.
        path: where to write.
        episodes: how many.
        seed: episode i is reset with `seed + i`, for every agent.
        on_frame: called for each moment of each agent.
        **video: how it looks, see `VideoConfig`; `size` is that of each picture.

    Raises:
        ValueError: as `record`, or if there is no agent.
    """
    whole(1, episodes=episodes)
    if not isinstance(agents, Mapping):
        agents = {who.name: agent for who, agent in zip(participants(agents, ""), agents, strict=True)}
    if not agents:
        raise ValueError("agents: expected at least one, got none")
    columns = len(agents) if len(agents) <= _MOST_BESIDE else math.ceil(len(agents) / 2)
    pages = [[Cell(agent, seed + index, name) for name, agent in agents.items()] for index in range(episodes)]
    return _record_tiled(pages, env, path, columns, VideoConfig(**video), on_frame, own_goal(*agents.values()))


def record_grid(
    agent: Predictor,
    env: str | gym.Env[Any, Any],
    path: str | Path,
    episodes: int = 9,
    seed: int = 0,
    *,
    on_frame: OnFrame | None = None,
    **video: Unpack[VideoOptions],
) -> Recording:
    """Films many seeded episodes of one agent at once, in a grid; see `record_beside`. Pictures are 240 pixels wide."""
    whole(1, episodes=episodes)
    cells = [Cell(agent, seed + index, f"seed {seed + index}") for index in range(episodes)]
    config = VideoConfig(**{"size": 240, **video})
    return _record_tiled([cells], env, path, math.ceil(math.sqrt(episodes)), config, on_frame)


class Cell(NamedTuple):
    """An episode that is shown beside others."""

    agent: Predictor
    """Who plays it."""
    seed: int
    """Of the reset."""
    label: str
    """What stands below."""


def _record_tiled(
    pages: Sequence[Sequence[Cell]],
    env: str | gym.Env[Any, Any],
    path: str | Path,
    columns: int,
    config: VideoConfig,
    on_frame: OnFrame | None,
    goal: Goal | None = None,
) -> Recording:
    """Films cells side by side, page after page."""
    look = {"draw_plan": config.draw_plan, "size": config.size, "goal": goal}
    ends: list[bool | None] = []
    with _filming(pages[0][0].agent, env, path, config) as (plain, reel):
        for cells in pages:
            takes = [_take(shots(cell.agent, plain, cell.seed, **look), on_frame) for cell in cells]
            bands = [Band(cell.agent, plain, cell.label) if config.caption else None for cell in cells]
            for step in range(max(map(len, takes))):
                reel.add(tiled([_at(band, take, step) for band, take in zip(bands, takes, strict=True)], columns))
            ends += [take[-1].moment.success for take in takes]
    return Recording(reel.path, reel.frames, reel.fps, tuple(ends))


def record_search(
    agent: GraspAgent,
    env: str | gym.Env[Any, Any],
    path: str | Path,
    seed: int = 0,
    *,
    planner: Planner[Any] | None = None,
    fps: float = 12.0,
    speed: float = 1.0,
    size: int | None = None,
    force: bool = False,
    search: Search | None = None,
) -> Recording:
    """Films how a plan is found: its candidates moving over the iterations, in violet, then the plan, in blue.

    GRASP's candidates are its virtual states; those of other planners, rollouts.

    Args:
        agent: one that has learned something.
        env: as in `record`; it must offer `goal_to_pixels`.
        path: where to write.
        seed: of the reset.
        planner: None for the agent's own.
        fps: iterations per second.
        speed: how much faster than that it is shown.
        size: width of the picture [pixels].
        force: whether a file that exists may be replaced.
        search: the search itself, where it was made already from that reset; None makes it.

    Returns:
        A recording with a picture for each iteration, one for the beginning and two seconds of the plan.

    Raises:
        ValueError: as `record`; or if the environment does not say where goals lie in its picture.
    """
    config = VideoConfig(fps=fps, speed=speed, size=size, force=force)
    with _filming(agent, env, path, config) as (plain, reel):
        overlay = Overlay(plain)
        if not overlay.knows_where:
            raise ValueError("env: expected one that says where goals lie in its picture (goal_to_pixels)")
        observation, _ = plain.reset(seed=seed)
        found = search or watched(agent, observation, planner)
        scene = Image.fromarray(np.ascontiguousarray(plain.render(), dtype=np.uint8))

        def show(paths: Any, plan: Any | None, text: str) -> None:
            picture = overlay.searched(scene, paths, plan, found.accepted)
            if config.size is not None:
                picture = picture.resize((config.size, round(picture.height * config.size / picture.width)))
            reel.add(titled(picture, type(planner or agent.planner).__name__, text))

        for iteration, paths in enumerate(found.candidates):
            show(paths, None, f"iteration {iteration} / {len(found.candidates) - 1}")
        for _ in range(round(2 * reel.fps)):
            show(found.candidates[-1:].reshape(-1, *found.path[1:].shape), found.path, "the plan")
    return Recording(reel.path, reel.frames, reel.fps, ())


@contextmanager
def _filming(
    agent: object, env: str | gym.Env[Any, Any], path: str | Path, config: VideoConfig
) -> Iterator[tuple[gym.Env[Any, Any], Any]]:
    """The environment, and the file that is written."""
    with (
        filmed(agent, env) as plain,
        film(path, rate(plain, path, config), force=config.force) as reel,
    ):
        yield plain, reel


def _take(episode: Iterator[Shot], on_frame: Callable[[Moment], None] | None) -> list[Shot]:
    """All pictures of an episode."""
    take = []
    for shot in episode:
        take.append(shot)
        if on_frame is not None:
            on_frame(shot.moment)
    return take


def _at(band: Band | None, take: list[Shot], step: int) -> Image.Image:
    """The picture of a step, or the last one."""
    shot = take[min(step, len(take) - 1)]
    return shot.picture if band is None else band.below(shot.picture, shot.moment, ended=step >= len(take))


def shots(
    agent: Predictor,
    env: gym.Env[Any, Any],
    seed: int,
    *,
    draw_plan: bool = True,
    size: int | None = None,
    goal: Goal | None = None,
) -> Iterator[Shot]:
    """Plays an episode and pictures each of its moments."""
    own = own_goal(agent)
    judged = goal in (None, own)  # a plan for another goal cannot be drawn beside this one
    overlay = Overlay(env) if draw_plan else None
    charts = overlay is not None and not overlay.knows_where and hasattr(agent, "last_plan") and judged
    strip = Strip(own) if charts else None
    for moment in rollout(agent, env, seed, goal=goal):
        yield Shot(framed(env, moment, size, overlay, strip), moment)


@contextmanager
def filmed(agent: object, env: str | gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    """The environment, made to be filmed.

    Raises:
        ValueError: if it does not render pictures.
    """
    with opened(env, agent, render_mode="rgb_array") as plain:
        if plain.render_mode != "rgb_array":
            raise ValueError(f'env: expected render_mode="rgb_array", got {plain.render_mode!r}')
        yield plain
