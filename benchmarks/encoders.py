"""Two claims on learning from images, over training seeds: the contrast term, and the success radius that is learned.

    python -m benchmarks.encoders             # ten trainings, half an hour on a core; goes on where it was stopped
    python -m benchmarks.encoders --seeds 0   # one seed of them

Each training is `learn(10_000)` with default settings in `grasp/WallDoor-v0` from images (only its dynamics are left
out: they do not matter here), with the contrast term (`EncoderConfig(contrast=)`, default) and without. Measured on
fresh episodes: how far off the door's place and the ball's are when read from latents (by the 5 nearest of 2,000 other
images, whatever the map from one to the other looks like), and what the learned radius says of balls near their goals,
beside the radius that is taken where nothing is learned, a twentieth of the spread. Writes
`benchmarks/results/encoders.json` and prints the tables of `docs/encoders.md`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from tqdm import tqdm

from grasp_agent import EncoderConfig, GraspAgent, TrainConfig
from grasp_agent.agent.pixel_perception import PixelPerception
from grasp_agent.serialization import atomic_write

RESULTS = Path(__file__).parent / "results"
ENV, STEPS, SEED = "grasp/WallDoor-v0", 10_000, 50_000
IMAGES, EPISODES, NEAREST = 4000, 400, 5
SPREAD = 0.05  # of the goals, what is taken for the radius where nothing is learned
Row = dict[str, Any]


def pixels() -> gym.Env[Any, Any]:
    """The environment, observations and goals as images."""
    return gym.make(ENV, observation="pixels", goal="pixels")


def trained(seed: int, contrast: float) -> GraspAgent:
    """An agent whose encoder has learned."""
    agent = GraspAgent(
        "MultiInputPolicy",
        pixels(),
        encoder=EncoderConfig(contrast=contrast),
        train=TrainConfig(gradient_steps=1),
        seed=seed,
        device="cpu",
    )
    return agent.learn(STEPS)


def seen(agent: GraspAgent, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Latents `[count, D]` of first images, and the states `[count, 3]` that they show: ball and door."""
    env, latents, states = pixels(), [], []
    assert isinstance(agent.perception, PixelPerception)
    for seed in range(SEED, SEED + count):
        observation, _ = env.reset(seed=seed)
        latents.append(agent.perception.encoded(observation["observation"][None])[0])
        states.append(env.unwrapped.state)  # type: ignore[attr-defined]
    return np.stack(latents), np.stack(states)


def off(latents: NDArray[Any], states: NDArray[Any]) -> tuple[float, float]:
    """Root mean square errors of ball and door [m] when read off from the nearest latents of the first half."""
    half = len(latents) // 2
    far = np.linalg.norm(latents[half:, None] - latents[None, :half], axis=-1)
    told = states[:half][np.argsort(far, axis=1)[:, :NEAREST]].mean(1)
    missed = np.square(told - states[half:])
    return float(missed[:, :2].sum(1).mean() ** 0.5), float(missed[:, 2].mean() ** 0.5)


def near(agent: GraspAgent) -> tuple[NDArray[Any], NDArray[Any]]:
    """Distances of latents from their goals' [latent units], and whether the environment calls them a success."""
    env, random, distances, reached = pixels(), np.random.default_rng(SEED), [], []
    assert isinstance(agent.perception, PixelPerception) and agent.policy.world is not None
    threshold = env.unwrapped.distance_threshold  # type: ignore[attr-defined]
    for seed in range(SEED, SEED + EPISODES):
        env.reset(seed=seed)
        goal, door = env.unwrapped.goal, env.unwrapped.state[2:]  # type: ignore[attr-defined]
        angle, length = random.uniform(0, 2 * np.pi), random.uniform(0, 2 * threshold)
        place = goal + length * np.array([np.cos(angle), np.sin(angle)])
        try:
            observation, info = env.reset(options={"state": np.concatenate([place, door]), "goal": goal})
        except ValueError:  # within a wall
            continue
        both = agent.perception.to_goal_dict(observation)
        distances.append(agent.policy.world.goal_distance(both["achieved_goal"], both["desired_goal"]))
        reached.append(info["is_success"])
    return np.array(distances), np.array(reached)


def measured(seed: int, contrast: float) -> Row:
    """What came of one training."""
    agent = trained(seed, contrast)
    latents, states = seen(agent, IMAGES)
    ball, door = off(latents, states)
    distances, reached = near(agent)
    world = agent.policy.world
    assert world is not None
    row: Row = {"seed": seed, "contrast": contrast, "ball_m": round(ball, 4), "door_m": round(door, 4)}
    entries = np.flatnonzero(world.goal_weights)
    usual = SPREAD * float(latents[:, entries].std(0).max())
    for name, radius in (("learned", world.tolerance), ("usual", usual)):
        called = distances <= radius
        row[name] = {
            "radius": round(float(radius), 3),
            "right": round(float(reached[called].mean()), 3) if called.any() else None,
            "found": round(float(called[reached].mean()), 3),
        }
    row["changes"] = len(agent.trainer.verdicts)
    return row


def table(rows: list[Row]) -> str:
    """Markdown of all that was measured."""
    lines = ["| contrast | seeds | door off by [mm], by seed | ball off by [mm], by seed |", "|---|---|---|---|"]
    for contrast in sorted({row["contrast"] for row in rows}):
        of = [row for row in rows if row["contrast"] == contrast]
        door, ball = (" ".join(f"{1000 * row[name]:.0f}" for row in of) for name in ("door_m", "ball_m"))
        lines.append(f"| {contrast:g} | {len(of)} | {door} | {ball} |")
    lines += [
        "",
        "| radius | of what it calls reached, is reached, by seed | of what is reached, it finds, by seed |",
        "|---|---|---|",
    ]
    of = [row for row in rows if row["contrast"]]
    for name, said in (("learned", "learned"), ("usual", "a twentieth of the spread")):
        right = " ".join("-" if row[name]["right"] is None else f"{row[name]['right']:.2f}" for row in of)
        found = " ".join(f"{row[name]['found']:.2f}" for row in of)
        lines.append(f"| {said} | {right} | {found} |")
    return "\n".join(lines) + "\n"


def main(
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4), contrasts: tuple[float, ...] = (0.0, EncoderConfig().contrast)
) -> None:
    """Measures what is missing, and prints the tables."""
    torch.set_num_threads(1)
    path = RESULTS / "encoders.json"
    wanted = [(seed, contrast) for seed in seeds for contrast in contrasts]
    for seed, contrast in tqdm(wanted):
        rows = json.loads(path.read_text()) if path.exists() else []
        if not any((row["seed"], row["contrast"]) == (seed, contrast) for row in rows):
            rows = sorted([*rows, measured(seed, contrast)], key=lambda row: (row["contrast"], row["seed"]))
            with atomic_write(path) as aside:
                aside.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(json.loads(path.read_text())))


if __name__ == "__main__":
    tyro.cli(main)
