"""Records agents' behaviour bit for bit, to show that a refactoring does not change it.

    python scripts/record_behaviour.py before.json
    python scripts/record_behaviour.py after.json --expected before.json    # exits 1 where they differ

Per bundled agent: a digest of the actions of three seeded episodes in its own environment. For vectors and for images:
a short seeded `learn`, then digests of the learned tensors and of an episode's actions. One thread. Digests depend on
the processor and the version of torch, so none are kept in the repository.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro

import grasp_agent
import grasp_envs  # noqa: F401
from grasp_agent import EncoderConfig, ExploreConfig, GraspAgent, TrainConfig

SEEDS = (70_000, 70_001, 70_002)


def main(out: tyro.conf.Positional[Path], expected: Path | None = None) -> None:
    """Records behaviour, writes it, and compares it with an earlier record.

    Args:
        out: JSON file to write.
        expected: an earlier record.
    """
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name in grasp_agent.bundled():
        agent = grasp_agent.load(name, device="cpu")
        found[name] = played(agent, gym.make(str(agent.env_id), **agent.env_kwargs), SEEDS)
        print(name, found[name], flush=True)
    for name, settings in LEARNED.items():
        found[f"learn: {name}"] = learned(**settings)
        print(name, found[f"learn: {name}"], flush=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    if expected is not None:
        known = json.loads(expected.read_text())
        other = [name for name in {**known, **found} if known.get(name) != found.get(name)]
        if other:
            raise SystemExit(f"not as in {expected}: {', '.join(other)}")
        print(f"as in {expected}: {len(found)} records")


LEARNED: dict[str, dict[str, Any]] = {
    "vectors": {"env_id": "grasp/BallNav-v0", "options": {}, "steps": 300},
    "images": {
        "env_id": "grasp/Wall-v0",
        "options": {"observation": "pixels", "goal": "pixels"},
        "steps": 300,
        "encoder": EncoderConfig(gradient_steps=60, batch_size=32),
    },
}


def learned(env_id: str, options: dict[str, Any], steps: int, **settings: Any) -> dict[str, Any]:
    """Trains briefly; returns digests of the learned weights and of the agent's actions."""
    env = gym.make(env_id, **options)
    agent = GraspAgent(
        "MultiInputPolicy",
        env,
        explore=ExploreConfig(learning_starts=200),
        train=TrainConfig(gradient_steps=300),
        seed=5,
        device="cpu",
        **settings,
    ).learn(steps)
    assert agent.policy.world is not None
    digest = hashlib.sha256()
    for _, value in sorted(agent.policy.world.model.state_dict().items()):
        digest.update(value.cpu().numpy().tobytes())
    return {"weights": digest.hexdigest(), **played(agent, gym.make(env_id, **options), SEEDS[:1])}


def played(agent: GraspAgent, env: gym.Env[Any, Any], seeds: tuple[int, ...]) -> dict[str, Any]:
    """Returns a digest of the actions over seeded episodes, and which of them end in success."""
    digest, ends = hashlib.sha256(), list[bool]()
    agent.set_random_seed(seeds[0])
    for seed in seeds:
        observation, info = env.reset(seed=seed)
        state, start, done = None, np.ones(1, bool), False
        while not done:
            action, state = agent.predict(observation, state=state, episode_start=start, deterministic=True)
            digest.update(np.ascontiguousarray(action).tobytes())
            observation, _, terminated, truncated, info = env.step(action)
            start, done = np.zeros(1, bool), terminated or truncated
        ends.append(bool(info["is_success"]))
    env.close()
    return {"actions": digest.hexdigest(), "success": ends}


if __name__ == "__main__":
    tyro.cli(main)
