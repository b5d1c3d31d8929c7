"""How far one plan leads that is never corrected, from pictures: cross-room goals of `grasp/Wall-v0`.

    python scripts/evaluate_pixels.py

The bundled model plans once, on seeds from 10000, and its actions are carried out blindly. Writes docs/pixels.json.
"""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from trials import open_loop

import grasp_agent
from grasp_agent.files import written_aside
from grasp_agent.statistics import share

MODEL, EPISODES, SEED = "wall-pixels", 100, 10_000
PATH = Path(__file__).parent.parent / "docs" / "pixels.json"


def main() -> None:
    """Plans, acts, counts."""
    torch.set_num_threads(1)
    agent = grasp_agent.load(MODEL, device="cpu")
    env = gym.make(str(agent.env_id), **agent.env_kwargs)
    played = [open_loop(agent, env, seed) for seed in range(SEED, SEED + EPISODES)]
    found = {
        "model": MODEL,
        "steps of a plan": agent.policy.horizon,
        "terminal": share([trial.end for trial in played]),
        "anytime": share([trial.any for trial in played]),
        "median seconds of a plan": float(np.median([trial.seconds for trial in played])),
    }
    print(json.dumps(found))
    with written_aside(PATH) as aside:
        aside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
