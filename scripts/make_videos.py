"""Makes the videos and the README's images from the bundled agents.

    python scripts/make_videos.py                  # all of them
    python scripts/make_videos.py wall-search.mp4  # one

Each is written to `videos/`; the command behind each stands in `videos/README.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import gymnasium as gym
import torch
import tyro
from tqdm import tqdm

import grasp_agent
from grasp_agent import GRASP, record, record_beside, record_search
from grasp_agent.evaluation.participants import participant
from grasp_agent.video.imagination import record_imagination

FOLDER = Path(__file__).parent.parent / "videos"
SEED, FPS = 50_000, 20.0


def alone(model: str, episodes: int, path: Path) -> None:
    """Records episodes of one agent."""
    agent = grasp_agent.load(model, device="cpu")
    record(agent, str(agent.env_id), path, episodes, SEED, fps=FPS, force=True)


def baseline(algorithm: str, env_id: str, steps: int, path: Path) -> None:
    """Records one episode of a bundled baseline."""
    agent = grasp_agent.baseline(algorithm, env_id, steps)
    record(agent, env_id, path, 1, SEED, fps=FPS, force=True)


def beside(env_id: str, names: tuple[str, ...], episodes: int, size: int, path: Path) -> None:
    """Records agents on the same starts, side by side."""
    with gym.make(env_id, render_mode="rgb_array") as env:
        known = [participant(name, env_id) for name in names]
        record_beside(
            {who.name: who.make(env, SEED) for who in known}, env, path, episodes, SEED, fps=FPS, force=True, size=size
        )


def search(model: str, seed: int, path: Path) -> None:
    """Records the search for a plan without a roadmap."""
    agent = grasp_agent.load(model, device="cpu")
    record_search(
        agent, str(agent.env_id), path, seed, planner=GRASP(proposals=None, iterations=60), fps=6.0, force=True
    )


def predictions(model: str, seed: int, path: Path) -> None:
    """Records an agent's decoded predictions next to its observations."""
    agent = grasp_agent.load(model, device="cpu")
    with gym.make(str(agent.env_id), **agent.env_kwargs) as env:
        record_imagination(agent, env, path, seed, fps=12, force=True)


VIDEOS: dict[str, Callable[[Path], None]] = {
    "ball-nav-trap.gif": partial(alone, "ball-nav-trap", 1),
    "ball-nav-trap-sac.gif": partial(baseline, "sac", "grasp/BallNavTrap-v0", 30_000),
    "ball-nav.mp4": partial(alone, "ball-nav", 2),
    "ball-nav-trap.mp4": partial(alone, "ball-nav-trap", 2),
    "ball-nav-maze.mp4": partial(alone, "ball-nav-maze", 1),
    "ball-nav-4.mp4": partial(alone, "ball-nav-4", 2),
    "wall.mp4": partial(alone, "wall", 2),
    "point-maze-medium.mp4": partial(alone, "point-maze-medium", 2),
    "push-t.mp4": partial(alone, "push-t", 2),
    "reacher.mp4": partial(alone, "reacher", 3),
    "trap-beside.mp4": partial(beside, "grasp/BallNavTrap-v0", ("grasp", "sac@30000", "random"), 2, 320),
    "wall-pixels.mp4": partial(predictions, "wall-pixels", 3),
    "wall-door-pixels.mp4": partial(predictions, "wall-door-pixels", 2),
    "point-maze-pixels.mp4": partial(predictions, "point-maze-pixels", 2),
    "wall-search.mp4": partial(search, "wall", 3),
}


def main(names: tyro.conf.Positional[tuple[str, ...]] = ()) -> None:
    """Records the named ones, or all."""
    unknown = set(names) - set(VIDEOS)
    if unknown:
        raise SystemExit(f"unknown video {unknown.pop()!r} (choose from {', '.join(VIDEOS)})")
    torch.set_num_threads(1)
    for name in tqdm(names or tuple(VIDEOS)):
        VIDEOS[name](FOLDER / name)


if __name__ == "__main__":
    tyro.cli(main)
