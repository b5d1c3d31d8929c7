"""Two claims on learning from images, over training seeds: the contrast term, and the learned success radius.

    python -m benchmarks.encoders             # ten trainings, half an hour on a core; resumes where it was stopped
    python -m benchmarks.encoders --seeds 0   # one seed of them

Each training is `learn(10_000)` with default settings in `grasp/WallDoor-v0` from images (only its dynamics are left
out: they do not matter here), with the contrast term (`EncoderConfig(contrast=)`, default) and without. Measured on
fresh episodes: the errors of the positions of door and ball when read from latents (by the 5 nearest of 2,000 other
images, whatever the map from one to the other looks like), and which balls near their goals
the learned radius accepts, compared with the default radius, a twentieth of the spread. Writes
`benchmarks/results/encoders.json` and `docs/results/encoders.md`.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import pages
from grasp_agent import EncoderConfig, GraspAgent, TrainConfig
from grasp_agent.agent.pixel_perception import PixelPerception

ENV, STEPS, SEED = "grasp/WallDoor-v0", 10_000, 50_000
IMAGES, EPISODES, NEAREST = 4000, 400, 5
SPREAD = 0.05  # default radius, as a fraction of the spread of goals
Row = dict[str, Any]


def pixels() -> gym.Env[Any, Any]:
    """Returns the environment, with observations and goals as images."""
    return gym.make(ENV, observation="pixels", goal="pixels")


def trained(seed: int, contrast: float) -> GraspAgent:
    """Returns an agent with a trained encoder."""
    agent = GraspAgent(
        "MultiInputPolicy",
        pixels(),
        encoder=EncoderConfig(contrast=contrast),
        train=TrainConfig(gradient_steps=1),
        seed=seed,
        device="cpu",
    )
    return agent.learn(STEPS)


def encoded(agent: GraspAgent, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns latents `[count, D]` of first images, and their states `[count, 3]`: ball and door."""
    env, latents, states = pixels(), [], []
    assert isinstance(agent.perception, PixelPerception)
    for seed in range(SEED, SEED + count):
        observation, _ = env.reset(seed=seed)
        latents.append(agent.perception.encoded(observation["observation"][None])[0])
        states.append(env.unwrapped.state)  # type: ignore[attr-defined]
    return np.stack(latents), np.stack(states)


def decoding_errors(latents: NDArray[Any], states: NDArray[Any]) -> tuple[float, float]:
    """Returns root mean square errors of ball and door [m], as decoded by the nearest latents of the first half."""
    half = len(latents) // 2
    distances = np.linalg.norm(latents[half:, None] - latents[None, :half], axis=-1)
    decoded = states[:half][np.argsort(distances, axis=1)[:, :NEAREST]].mean(1)
    errors = np.square(decoded - states[half:])
    return float(errors[:, :2].sum(1).mean() ** 0.5), float(errors[:, 2].mean() ** 0.5)


def goal_distances(agent: GraspAgent) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns distances of latents from their goals' [latent units], and whether the environment reports success."""
    env, random, distances, reached = pixels(), np.random.default_rng(SEED), [], []
    assert isinstance(agent.perception, PixelPerception) and agent.policy.world is not None
    threshold = env.unwrapped.distance_threshold  # type: ignore[attr-defined]
    for seed in range(SEED, SEED + EPISODES):
        env.reset(seed=seed)
        goal, door = env.unwrapped.goal, env.unwrapped.state[2:]  # type: ignore[attr-defined]
        angle, length = random.uniform(0, 2 * np.pi), random.uniform(0, 2 * threshold)
        position = goal + length * np.array([np.cos(angle), np.sin(angle)])
        try:
            observation, info = env.reset(options={"state": np.concatenate([position, door]), "goal": goal})
        except ValueError:  # inside a wall
            continue
        both = agent.perception.to_goal_dict(observation)
        distances.append(agent.policy.world.goal_distance(both["achieved_goal"], both["desired_goal"]))
        reached.append(info["is_success"])
    return np.array(distances), np.array(reached)


def measured(seed: int, contrast: float) -> Row:
    """Returns the figures of one training."""
    agent = trained(seed, contrast)
    latents, states = encoded(agent, IMAGES)
    ball, door = decoding_errors(latents, states)
    distances, reached = goal_distances(agent)
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
    row["changes"] = len(agent.trainer.success_radius)
    return row


def table(rows: list[Row]) -> str:
    """Returns all results as Markdown."""
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


def page(rows: list[Row]) -> str:
    """Returns the page of results."""
    return pages.page(
        "What encoders learn, over training seeds",
        "python -m benchmarks.encoders",
        f"Trainings of `learn({STEPS:_})` in `{ENV}` from images, with default settings except for the dynamics, "
        "which are "
        "left out (one gradient step, so no plan explores well), with the contrast term "
        "(`EncoderConfig(contrast=0.3)`, the "
        f"default) and without. Errors are root mean squares on {IMAGES // 2:,} fresh images, read off from the "
        "latents of "
        "as many others. Their floor is the distance between images that latents are compared with, about 30 mm.",
        table(rows),
    )


def main(
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4), contrasts: tuple[float, ...] = (0.0, EncoderConfig().contrast)
) -> None:
    """Measures what is missing, and writes the page."""
    torch.set_num_threads(1)
    wanted = [(seed, contrast) for seed in seeds for contrast in contrasts]
    for seed, contrast in tqdm(wanted):
        rows = pages.read("encoders", [])
        if not any((row["seed"], row["contrast"]) == (seed, contrast) for row in rows):
            rows = sorted([*rows, measured(seed, contrast)], key=lambda row: (row["contrast"], row["seed"]))
            pages.keep("encoders", rows)
    pages.publish("encoders", page(pages.read("encoders", [])))


if __name__ == "__main__":
    tyro.cli(main)
