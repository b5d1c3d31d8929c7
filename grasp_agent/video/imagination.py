"""Videos and images of decoded predictions, for agents with image observations."""

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
from grasp_agent.video.search_trace import trace_search
from grasp_agent.video.writer import open_video, rate

Images = NDArray[np.uint8]


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
    """Records an episode: the observation, the plan's prediction for now, the end of the plan, and the goal.

    Args:
        agent: a trained agent with image observations.
        env: an environment whose observations contain images.
        path: a name that ends in .mp4 or .gif.
        seed: of the episode.
        size: width of each of the four images [pixels].
        fps: frames per second; None for the environment's own.
        force: whether an existing file may be replaced.

    Returns:
        The number of frames written.

    Raises:
        ValueError: if the agent has no encoder, or as `record`.
    """
    perception = _pixel_perception(agent)
    band, plan_before = Band(agent, env), None
    with open_video(path, rate(env, path, VideoConfig(fps=fps, size=size)), force=force) as writer:
        for moment in rollout(agent, env, seed):
            observed, _ = perception.layout.read(moment.observation)
            now = observed.images[0, ..., -perception.layout.shape[2] :]
            panels = {"seen": now}
            plan = moment.plan
            if plan is not None:
                predicted = plan.path[min(plan.step, len(plan.path) - 1)], plan.path[-1]
            elif plan_before is not None:  # the last frame, for which no action was chosen
                predicted = plan_before.path[min(plan_before.step + 1, len(plan_before.path) - 1)], plan_before.path[-1]
            else:
                raise ValueError("agent: expected one that shows its plan")
            plan_before = plan
            panels["foreseen for now"], panels["where the plan ends"] = perception.decode(np.stack(predicted))
            if observed.goals is not None:
                panels["goal"] = observed.goals[0]
            drawn = [titled(upscaled(image, size), name, "") for name, image in panels.items()]
            writer.add(band.below(tiled(drawn, len(drawn)), moment, ended=moment.seconds is None))
        return writer.frames


def imagined(
    agent: GraspAgent,
    observation: Any,
    planner: Planner[Any] | None = None,
    *,
    rows: int = 4,
    columns: int = 8,
    size: int = 112,
) -> Image.Image:
    """Draws one candidate's decoded virtual states during a search: time to the right, iterations downward.

    Args:
        agent: a trained agent with image observations.
        observation: a single observation.
        planner: None for the agent's own.
        rows: iterations that are shown, from the first to the last; the resulting plan follows.
        columns: steps that are shown.
        size: width of an image [pixels].

    Raises:
        ValueError: if the agent has no encoder.
    """
    perception, trace = _pixel_perception(agent), trace_search(agent, observation, planner)
    found = trace.candidates[:, 0] if len(trace.candidates) else trace.path[None, 1:]
    shown = np.unique(np.linspace(0, len(found) - 1, rows).round().astype(int))
    steps = np.linspace(0, found.shape[1] - 1, columns).round().astype(int)
    paths = {f"iteration {index}": found[index, steps] for index in shown}
    paths["the plan"] = trace.path[1:][steps]
    drawn = [
        titled(upscaled(image, size), name if not column else "", f"step {steps[column] + 1}")
        for name, path in paths.items()
        for column, image in enumerate(perception.decode(path))
    ]
    return tiled(drawn, columns)


def _pixel_perception(agent: GraspAgent) -> PixelPerception:
    if not isinstance(agent.perception, PixelPerception) or agent.perception.encoder is None:
        raise ValueError("agent: expected one that has learned from images")
    return agent.perception


def upscaled(image: Images, size: int) -> Image.Image:
    """Returns an image `[height, width, channels]`, resized to `size` pixels in width."""
    channels = np.repeat(image, 3, -1) if image.shape[-1] == 1 else image[..., :3]
    small = Image.fromarray(np.ascontiguousarray(channels))
    return small.resize((size, round(small.height * size / small.width)), Image.Resampling.NEAREST)
