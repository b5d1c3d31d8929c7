"""Makes the videos and the README's picture from the bundled agents.

    python scripts/make_videos.py

Each is written to `videos/`; the command behind each stands in `videos/README.md`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tqdm import tqdm

import grasp_agent
from grasp_agent import record

FOLDER = Path(__file__).parent.parent / "videos"
# Name of the file, bundled model, first seed, episodes, pictures per second.
VIDEOS = (
    ("ball-nav-trap.gif", "ball-nav-trap", 50_000, 1, 20.0),
    ("ball-nav.mp4", "ball-nav", 50_000, 2, 20.0),
    ("ball-nav-trap.mp4", "ball-nav-trap", 50_000, 2, 20.0),
    ("ball-nav-maze.mp4", "ball-nav-maze", 50_000, 1, 20.0),
    ("ball-nav-4.mp4", "ball-nav-4", 50_000, 2, 20.0),
    ("wall.mp4", "wall", 50_000, 2, 20.0),
    ("point-maze-medium.mp4", "point-maze-medium", 50_000, 2, 20.0),
    ("reacher.mp4", "reacher", 50_000, 3, 20.0),
)


def main() -> None:
    """Films all of them."""
    torch.set_num_threads(1)
    for name, model, seed, episodes, fps in tqdm(VIDEOS):
        agent = grasp_agent.load(model, device="cpu")
        record(agent, str(agent.env_id), FOLDER / name, episodes, seed, fps, force=True)


if __name__ == "__main__":
    main()
