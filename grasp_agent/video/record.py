"""Videos of seeded episodes, complete to the last frame, with the agent's plan drawn into the picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from PIL import Image

from grasp_agent.agent.agent import GraspAgent
from grasp_agent.evaluation.participants import participants
from grasp_agent.evaluation.rollout import Moment, Predictor, opened, own_goal, rollout
from grasp_agent.planners import Planner
from grasp_agent.task.goal import Goal
from grasp_agent.video.overlay import Band, Overlay, Strip, framed, tiled, titled
from grasp_agent.video.search_trace import Search, watched
from grasp_agent.video.writer import film, rate

_MOST_BESIDE = 4  # in one row


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
    fps: float | None = None,
    draw_plan: bool = True,
    caption: bool = True,
    force: bool = False,
    on_frame: Callable[[Moment], None] | None = None,
    *,
    speed: float = 1.0,
    size: int | None = None,
) -> Recording:
    """Films seeded episodes, one after the other.

    The plan is drawn where the environment offers `goal_to_pixels` and the agent `last_plan`: what is left of
    it as a blue line that fades with time (grey if the planner could not vouch for it), the virtual states of
    its candidates as violet dots that fade after the moment of planning, the way so far as a rusty line. For other
    environments it stands in charts beside the picture, one for each entry of the goal.

    Args:
        agent: anything with Stable-Baselines3's `predict`.
        env: a Gymnasium id, or a single environment with `render_mode="rgb_array"` (left open).
        path: where to write; `.mp4` (H.264) or `.gif`, which keeps equal neighbours as one picture that lasts
            longer.
        episodes: how many, at least 1.
        seed: episode i is reset with `seed + i`.
        fps: pictures per second; None for the environment's own.
        draw_plan: whether to draw the plan.
        caption: whether to add a band with the agent, the step, the distance to the goal (or the return, where
            there is none), the time of `predict` and a mark that is green while the goal is reached.
        force: whether a file that exists may be replaced.
        on_frame: called after each picture, e.g. to move a progress bar.
        speed: how much faster than that it is shown.
        size: width of the environment's picture [pixels]; None for its own.

    Raises:
        ValueError: if the suffix is unknown, the file exists, a number is out of range, or `env` does not render
            pictures.
    """
    _check(episodes, size)
    ends: list[bool | None] = []
    with filmed(agent, env) as plain, film(path, rate(plain, path, fps, speed), force=force) as reel:
        for index in range(episodes):
            band, success = Band(agent, plain) if caption else None, None
            for shot in shots(agent, plain, seed + index, draw_plan=draw_plan, size=size):
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
    fps: float | None = None,
    draw_plan: bool = True,
    force: bool = False,
    on_frame: Callable[[Moment], None] | None = None,
    *,
    speed: float = 1.0,
    size: int | None = None,
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
        fps: pictures per second.
        draw_plan: whether to draw plans.
        force: whether a file that exists may be replaced.
        on_frame: called for each moment of each agent.
        speed: how much faster than that it is shown.
        size: width of each picture [pixels].

    Raises:
        ValueError: as `record`, or if there is no agent.
    """
    _check(episodes, size)
    if not isinstance(agents, Mapping):
        agents = {who.name: agent for who, agent in zip(participants(agents, ""), agents, strict=True)}
    if not agents:
        raise ValueError("agents: expected at least one, got none")
    goal = own_goal(*agents.values())
    columns = len(agents) if len(agents) <= _MOST_BESIDE else math.ceil(len(agents) / 2)
    ends: list[bool | None] = []
    with (
        filmed(next(iter(agents.values())), env) as plain,
        film(path, rate(plain, path, fps, speed), force=force) as reel,
    ):
        for index in range(episodes):
            takes = {
                name: _take(shots(agent, plain, seed + index, draw_plan=draw_plan, size=size, goal=goal), on_frame)
                for name, agent in agents.items()
            }
            bands = {name: Band(agent, plain, name) for name, agent in agents.items()}
            for step in range(max(map(len, takes.values()))):
                reel.add(tiled([_at(bands[name], take, step) for name, take in takes.items()], columns))
            ends += [take[-1].moment.success for take in takes.values()]
    return Recording(reel.path, reel.frames, reel.fps, tuple(ends))


def record_grid(
    agent: Predictor,
    env: str | gym.Env[Any, Any],
    path: str | Path,
    episodes: int = 9,
    seed: int = 0,
    fps: float | None = None,
    draw_plan: bool = True,
    force: bool = False,
    on_frame: Callable[[Moment], None] | None = None,
    *,
    speed: float = 1.0,
    size: int | None = 240,
) -> Recording:
    """Films many seeded episodes of one agent at once, in a grid; see `record_beside`."""
    _check(episodes, size)
    with filmed(agent, env) as plain, film(path, rate(plain, path, fps, speed), force=force) as reel:
        takes = [
            _take(shots(agent, plain, seed + index, draw_plan=draw_plan, size=size), on_frame)
            for index in range(episodes)
        ]
        bands = [Band(agent, plain, f"seed {seed + index}") for index in range(episodes)]
        for step in range(max(map(len, takes))):
            pictures = [_at(band, take, step) for band, take in zip(bands, takes, strict=True)]
            reel.add(tiled(pictures, math.ceil(math.sqrt(episodes))))
    return Recording(reel.path, reel.frames, reel.fps, tuple(take[-1].moment.success for take in takes))


def record_search(
    agent: GraspAgent,
    env: str | gym.Env[Any, Any],
    path: str | Path,
    seed: int = 0,
    planner: Planner[Any] | None = None,
    fps: float = 12.0,
    force: bool = False,
    *,
    size: int | None = None,
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
        force: whether a file that exists may be replaced.
        size: width of the picture [pixels].
        search: the search itself, where it was made already from that reset; None makes it.

    Returns:
        A recording with a picture for each iteration, one for the beginning and two seconds of the plan.

    Raises:
        ValueError: as `record`; or if the environment does not say where goals lie in its picture.
    """
    _check(1, size)
    with filmed(agent, env) as plain, film(path, rate(plain, path, fps, 1.0), force=force) as reel:
        overlay = Overlay(plain)
        if not overlay.knows_where:
            raise ValueError("env: expected one that says where goals lie in its picture (goal_to_pixels)")
        observation, _ = plain.reset(seed=seed)
        search = search or watched(agent, observation, planner)
        scene = Image.fromarray(np.ascontiguousarray(plain.render(), dtype=np.uint8))

        def show(ways: Any, plan: Any | None, text: str) -> None:
            picture = overlay.searched(scene, ways, plan, search.accepted)
            if size is not None:
                picture = picture.resize((size, round(picture.height * size / picture.width)))
            reel.add(titled(picture, type(planner or agent.planner).__name__, text))

        for iteration, ways in enumerate(search.candidates):
            show(ways, None, f"iteration {iteration} / {len(search.candidates) - 1}")
        for _ in range(round(2 * fps)):
            show(search.candidates[-1:].reshape(-1, *search.path[1:].shape), search.path, "the plan")
    return Recording(reel.path, reel.frames, reel.fps, ())


def _take(episode: Iterator[Shot], on_frame: Callable[[Moment], None] | None) -> list[Shot]:
    """All pictures of an episode."""
    take = []
    for shot in episode:
        take.append(shot)
        if on_frame is not None:
            on_frame(shot.moment)
    return take


def _at(band: Band, take: list[Shot], step: int) -> Image.Image:
    """The picture of a step, or the last one."""
    shot = take[min(step, len(take) - 1)]
    return band.below(shot.picture, shot.moment, ended=step >= len(take))


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


def _check(episodes: int, size: int | None) -> None:
    if episodes < 1:
        raise ValueError(f"episodes: expected at least 1, got {episodes}")
    if size is not None and not 32 <= size <= 4096:
        raise ValueError(f"size: expected 32 to 4096 pixels, got {size}")
