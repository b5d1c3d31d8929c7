"""What an agent that sees pictures imagines: its virtual states, decoded, beside what comes true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from grasp_agent.agent.agent import GraspAgent
from grasp_agent.agent.pixel_perception import PixelPerception
from grasp_agent.evaluation.rollout import rollout
from grasp_agent.planners import Planner
from grasp_agent.video.config import VideoConfig
from grasp_agent.video.overlay import Band, tiled, titled
from grasp_agent.video.search_trace import watched
from grasp_agent.video.writer import film, rate

Pictures = NDArray[np.uint8]


def record_imagination(
    agent: GraspAgent,
    env: gym.Env[Any, Any],
    path: str | Path,
    seed: int = 0,
    *,
    size: int = 200,
    fps: float | None = None,
    force: bool = False,
) -> int:
    """Films an episode: what is seen, what the plan had foreseen for now, where it ends, and the goal.

    Args:
        agent: one that sees pictures and has learned.
        env: an environment whose observations hold them.
        path: a name that ends in .mp4 or .gif.
        seed: of the episode.
        size: width of each of the four pictures [pixels].
        fps: pictures per second; None for the environment's own.
        force: whether a file that is there may be written over.

    Returns:
        Pictures written.

    Raises:
        ValueError: if the agent does not see, or as `record`.
    """
    perception = _seeing(agent)
    band, plan_before = Band(agent, env), None
    with film(path, rate(env, path, VideoConfig(fps=fps, size=size)), force=force) as reel:
        for moment in rollout(agent, env, seed):
            seen, _ = perception.layout.read(moment.observation)
            now = seen.images[0, ..., -perception.layout.shape[2] :]
            panels = {"seen": now}
            plan = moment.plan
            if plan is not None:
                foreseen = plan.path[min(plan.step, len(plan.path) - 1)], plan.path[-1]
            elif plan_before is not None:  # the last picture, for which no action was asked
                foreseen = plan_before.path[min(plan_before.step + 1, len(plan_before.path) - 1)], plan_before.path[-1]
            else:
                raise ValueError("agent: expected one that shows its plan")
            plan_before = plan
            panels["foreseen for now"], panels["where the plan ends"] = perception.decode(np.stack(foreseen))
            if seen.goals is not None:
                panels["goal"] = seen.goals[0]
            drawn = [titled(enlarged(picture, size), name, "") for name, picture in panels.items()]
            reel.add(band.below(tiled(drawn, len(drawn)), moment, ended=moment.seconds is None))
        return reel.frames


def imagined(
    agent: GraspAgent,
    observation: Any,
    planner: Planner[Any] | None = None,
    *,
    rows: int = 4,
    columns: int = 8,
    size: int = 112,
) -> Image.Image:
    """One candidate's virtual states through a search, decoded: time to the right, iterations downward.

    Args:
        agent: one that sees pictures and has learned.
        observation: a single one.
        planner: None for the agent's own.
        rows: iterations that are shown, from the first to the last; the plan that came of the search follows.
        columns: steps that are shown.
        size: width of a picture [pixels].

    Raises:
        ValueError: if the agent does not see.
    """
    perception, search = _seeing(agent), watched(agent, observation, planner)
    found = search.candidates[:, 0] if len(search.candidates) else search.path[None, 1:]
    shown = np.unique(np.linspace(0, len(found) - 1, rows).round().astype(int))
    steps = np.linspace(0, found.shape[1] - 1, columns).round().astype(int)
    ways = {f"iteration {index}": found[index, steps] for index in shown}
    ways["the plan"] = search.path[1:][steps]
    drawn = [
        titled(enlarged(picture, size), name if not column else "", f"step {steps[column] + 1}")
        for name, way in ways.items()
        for column, picture in enumerate(perception.decode(way))
    ]
    return tiled(drawn, columns)


def _seeing(agent: GraspAgent) -> PixelPerception:
    if not isinstance(agent.perception, PixelPerception) or agent.perception.encoder is None:
        raise ValueError("agent: expected one that has learned from images")
    return agent.perception


def enlarged(picture: Pictures, size: int) -> Image.Image:
    """A picture `[height, width, colours]`, so many pixels wide."""
    colours = np.repeat(picture, 3, -1) if picture.shape[-1] == 1 else picture[..., :3]
    image = Image.fromarray(np.ascontiguousarray(colours))
    return image.resize((size, round(image.height * size / image.width)), Image.Resampling.NEAREST)
