"""Videos of seeded episodes, complete to the last frame, with the agent's plan drawn into the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
from PIL import Image

from grasp_agent.agent.agent import GraspAgent
from grasp_agent.evaluation.participants import participants
from grasp_agent.evaluation.rollout import Moment, Predictor, opened, own_goal, rollout
from grasp_agent.planners import Planner
from grasp_agent.task.goal import Goal
from grasp_agent.validation import whole
from grasp_agent.video.config import VideoConfig, VideoOptions
from grasp_agent.video.frames import rendered
from grasp_agent.video.overlay import Band, Overlay, Strip, framed, tiled, titled
from grasp_agent.video.search_trace import SearchTrace, trace_search
from grasp_agent.video.writer import open_video, rate

if TYPE_CHECKING:
    from typing_extensions import Unpack

_MOST_BESIDE = 4  # largest number of agents in one row
OnFrame = Callable[[Moment], None]


class Recording(NamedTuple):
    """A recorded video, and the outcomes of its episodes."""

    path: Path
    """The file."""
    frames: int
    """Number of frames: for each episode its steps plus one; side by side, those of the longest."""
    fps: float
    """Frames per second."""
    successes: tuple[bool | None, ...]
    """Success at the end of each episode; None where the environment does not report it."""


class VideoFrame(NamedTuple):
    """One frame of an episode."""

    image: Image.Image
    """The image, without its caption."""
    moment: Moment
    """The moment that it shows."""


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
    """Records seeded episodes, one after the other.

    The plan is drawn where the environment offers `goal_to_pixels` and the agent `last_plan`: the rest of
    it as a blue line that fades with time (grey if the planner did not accept it), the virtual states of
    its candidates as violet dots that fade after the moment of planning, the path so far as a rusty line. For other
    environments the plan is drawn in charts next to the image, one for each entry of the goal.

    Args:
        agent: anything with Stable-Baselines3's `predict`.
        env: a Gymnasium id, or a single environment with `render_mode="rgb_array"` (left open).
        path: the file; `.mp4` (H.264) or `.gif`, which merges equal neighbouring frames into a longer one.
        episodes: number of episodes, at least 1.
        seed: episode i is reset with `seed + i`.
        on_frame: called after each frame, e.g. to move a progress bar.
        **video: settings of the video, see `VideoConfig`.

    Raises:
        ValueError: if the suffix is unknown, the file exists, a number is out of range, or `env` does not render
            images.
    """
    whole(1, episodes=episodes)
    config, ends = VideoConfig(**video), list[bool | None]()
    with _open(agent, env, path, config) as (plain, writer):
        for index in range(episodes):
            band, success = Band(agent, plain) if config.caption else None, None
            for frame in rendered_frames(agent, plain, seed + index, draw_plan=config.draw_plan, size=config.size):
                writer.add(frame.image if band is None else band.below(frame.image, frame.moment))
                success = frame.moment.success
                if on_frame is not None:
                    on_frame(frame.moment)
            ends.append(success)
    return Recording(writer.path, writer.frames, writer.fps, tuple(ends))


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
    """Records several agents side by side on the same seeded episodes; more than four in two rows.

    The last image of a finished episode stays, marked, until all episodes are finished.

    Args:
        agents: anything with Stable-Baselines3's `predict`; a dict gives the names in the captions. Where the
            environment does not report success, the first agent's own goal, if any has one, defines it for all.
        env: as in `record`, like all that follows.
        path: the file.
        episodes: number of episodes.
        seed: episode i is reset with `seed + i`, for every agent.
        on_frame: called for each moment of each agent.
        **video: settings of the video, see `VideoConfig`; `size` is that of each image.

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
    """Records many seeded episodes of one agent in a grid; see `record_beside`. Images are 240 pixels wide."""
    whole(1, episodes=episodes)
    cells = [Cell(agent, seed + index, f"seed {seed + index}") for index in range(episodes)]
    config = VideoConfig(**{"size": 240, **video})
    return _record_tiled([cells], env, path, math.ceil(math.sqrt(episodes)), config, on_frame)


class Cell(NamedTuple):
    """An episode that is shown next to others."""

    agent: Predictor
    """The agent that plays it."""
    seed: int
    """Of the reset."""
    label: str
    """The text below it."""


def _record_tiled(
    pages: Sequence[Sequence[Cell]],
    env: str | gym.Env[Any, Any],
    path: str | Path,
    columns: int,
    config: VideoConfig,
    on_frame: OnFrame | None,
    goal: Goal | None = None,
) -> Recording:
    """Records cells side by side, page after page."""
    options = {"draw_plan": config.draw_plan, "size": config.size, "goal": goal}
    ends: list[bool | None] = []
    with _open(pages[0][0].agent, env, path, config) as (plain, writer):
        for cells in pages:
            runs = [_collect(rendered_frames(cell.agent, plain, cell.seed, **options), on_frame) for cell in cells]
            bands = [Band(cell.agent, plain, cell.label) if config.caption else None for cell in cells]
            for step in range(max(map(len, runs))):
                writer.add(tiled([_at(band, frames, step) for band, frames in zip(bands, runs, strict=True)], columns))
            ends += [frames[-1].moment.success for frames in runs]
    return Recording(writer.path, writer.frames, writer.fps, tuple(ends))


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
    search: SearchTrace | None = None,
) -> Recording:
    """Records a planner's search: its candidates over the iterations, in violet, then the plan, in blue.

    GRASP's candidates are its virtual states; those of other planners, rollouts.

    Args:
        agent: a trained agent.
        env: as in `record`; it must offer `goal_to_pixels`.
        path: the file.
        seed: of the reset.
        planner: None for the agent's own.
        fps: iterations per second.
        speed: factor by which the video is faster than that.
        size: width of the image [pixels].
        force: whether an existing file may be replaced.
        search: a search that was already traced from that reset; None traces it.

    Returns:
        A recording with a frame for each iteration, one for the initial candidates and two seconds of the plan.

    Raises:
        ValueError: as `record`; or if the environment has no `goal_to_pixels`.
    """
    config = VideoConfig(fps=fps, speed=speed, size=size, force=force)
    with _open(agent, env, path, config) as (plain, writer):
        overlay = Overlay(plain)
        if not overlay.knows_where:
            raise ValueError("env: expected one that maps goals to pixels of its image (goal_to_pixels)")
        observation, _ = plain.reset(seed=seed)
        found = search or trace_search(agent, observation, planner)
        scene = rendered(plain)

        def show(paths: Any, plan: Any | None, text: str) -> None:
            image = overlay.draw_search(scene, paths, plan, found.accepted)
            if config.size is not None:
                image = image.resize((config.size, round(image.height * config.size / image.width)))
            writer.add(titled(image, type(planner or agent.planner).__name__, text))

        for iteration, paths in enumerate(found.candidates):
            show(paths, None, f"iteration {iteration} / {len(found.candidates) - 1}")
        for _ in range(round(2 * writer.fps)):
            show(found.candidates[-1:].reshape(-1, *found.path[1:].shape), found.path, "the plan")
    return Recording(writer.path, writer.frames, writer.fps, ())


@contextmanager
def _open(
    agent: object, env: str | gym.Env[Any, Any], path: str | Path, config: VideoConfig
) -> Iterator[tuple[gym.Env[Any, Any], Any]]:
    """Yields the environment and the video in writing."""
    with (
        rendering_env(agent, env) as plain,
        open_video(path, rate(plain, path, config), force=config.force) as writer,
    ):
        yield plain, writer


def _collect(episode: Iterator[VideoFrame], on_frame: Callable[[Moment], None] | None) -> list[VideoFrame]:
    """Returns all frames of an episode."""
    frames = []
    for frame in episode:
        frames.append(frame)
        if on_frame is not None:
            on_frame(frame.moment)
    return frames


def _at(band: Band | None, frames: list[VideoFrame], step: int) -> Image.Image:
    """Returns the image of a step, or the last one."""
    frame = frames[min(step, len(frames) - 1)]
    return frame.image if band is None else band.below(frame.image, frame.moment, ended=step >= len(frames))


def rendered_frames(
    agent: Predictor,
    env: gym.Env[Any, Any],
    seed: int,
    *,
    draw_plan: bool = True,
    size: int | None = None,
    goal: Goal | None = None,
) -> Iterator[VideoFrame]:
    """Plays an episode and renders each of its moments."""
    own = own_goal(agent)
    same_goal = goal in (None, own)  # a plan for another goal does not fit into these charts
    overlay = Overlay(env) if draw_plan else None
    charts = overlay is not None and not overlay.knows_where and hasattr(agent, "last_plan") and same_goal
    strip = Strip(own) if charts else None
    for moment in rollout(agent, env, seed, goal=goal):
        yield VideoFrame(framed(env, moment, size, overlay, strip), moment)


@contextmanager
def rendering_env(agent: object, env: str | gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    """Yields the environment, built for rendering.

    Raises:
        ValueError: if it does not render images.
    """
    with opened(env, agent, render_mode="rgb_array") as plain:
        if plain.render_mode != "rgb_array":
            raise ValueError(f'env: expected render_mode="rgb_array", got {plain.render_mode!r}')
        yield plain
