"""Success of single open-loop plans from images, with cross-room goals in `grasp/Wall-v0`.

    python scripts/evaluate_pixels.py

The bundled model plans once per episode, on seeds from 10000, and its actions are executed without feedback: with the
saved criteria, which hold the goal until the plan ends, and with plans that may stop there, as a ball rests under
action 0. Writes docs/pixels.json.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import grasp_agent
from benchmarks.trials import open_loop
from grasp_agent.evaluation.intervals import proportion
from grasp_agent.serialization import atomic_write

MODEL, EPISODES, SEED = "wall-pixels", 100, 10_000
PATH = Path(__file__).parent.parent / "docs" / "pixels.json"


def played(stop: bool) -> dict[str, Any]:
    """Returns the success of plans that may stop at the goal, or have to hold it."""
    agent = grasp_agent.load(MODEL, device="cpu")
    agent.criteria = replace(agent.criteria, stop=stop)
    env = gym.make(str(agent.env_id), **agent.env_kwargs)
    trials = [open_loop(agent, env, seed) for seed in range(SEED, SEED + EPISODES)]
    env.close()
    return {
        "steps of a plan": agent.horizon,
        "terminal": proportion([trial.end for trial in trials]),
        "anytime": proportion([trial.any for trial in trials]),
        "median seconds of a plan": float(np.median([trial.seconds for trial in trials])),
    }


def main() -> None:
    """Plans, acts and counts."""
    torch.set_num_threads(1)
    found = {"model": MODEL, "plans keep the goal": played(stop=False), "plans may stop": played(stop=True)}
    print(json.dumps(found))
    with atomic_write(PATH) as aside:
        aside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
