"""How far one plan leads that is never corrected, from pictures: cross-room goals of `grasp/Wall-v0`.

    python scripts/evaluate_pixels.py

The bundled model plans once, on seeds from 10000, and its actions are carried out blindly. Writes docs/pixels.json.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

import grasp_agent
from grasp_agent.carry import Carry
from grasp_agent.files import written_aside
from grasp_agent.statistics import share

MODEL, EPISODES, SEED = "wall-pixels", 100, 10_000
PATH = Path(__file__).parent.parent / "docs" / "pixels.json"


def main() -> None:
    """Plans, acts, counts."""
    torch.set_num_threads(1)
    agent = grasp_agent.load(MODEL, device="cpu")
    env = gym.make(str(agent.env_id), **agent.env_kwargs)
    ends, anys, seconds = [], [], []
    for seed in range(SEED, SEED + EPISODES):
        observation, _ = env.reset(seed=seed)
        began = time.perf_counter()
        _, state = agent.predict(observation, episode_start=np.ones(1, bool), deterministic=True)
        seconds.append(time.perf_counter() - began)
        reached = []
        for action in agent.policy.to_space(Carry.of(state, 1).actions[0]):
            *_, info = env.step(action)
            reached.append(info["is_success"])
        ends.append(reached[-1])
        anys.append(any(reached))
    found = {
        "model": MODEL,
        "steps of a plan": agent.policy.horizon,
        **{name: share(found) for name, found in (("terminal", ends), ("anytime", anys))},
        "median seconds of a plan": float(np.median(seconds)),
    }
    print(json.dumps(found))
    with written_aside(PATH) as aside:
        aside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
