"""Draws an agent's decoded predictions, and the effect of adversarial steps in the latent space.

    python -m benchmarks.pixel_figures                    # both, into docs/figures
    python -m benchmarks.pixel_figures imagined

`imagined`: a candidate's virtual states while GRASP searches without a roadmap, decoded. `fooled`: the start's latent
is perturbed by a small step such that one member of the ensemble predicts that resting approaches the goal; the decoded
latent before and after, and the members' predictions. The numbers are in a JSON file next to each figure.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro

import grasp_agent
from benchmarks.figure_analysis import adversarial_starts, rest_distances
from benchmarks.figures import draw, median
from grasp_agent import GRASP
from grasp_agent.agent.pixel_perception import PixelPerception
from grasp_agent.files import atomic_write
from grasp_agent.task.observation import raw_vectors
from grasp_agent.video.imagination import imagined, upscaled
from grasp_agent.video.overlay import tiled, titled

SEED, COUNT, SIZES = 40_000, 32, (0.02, 0.05, 0.1, 0.2)
MODEL = "wall-pixels"


def virtual_states(path: Path) -> dict[str, Any]:
    """Draws decoded virtual states, iteration by iteration."""
    agent = grasp_agent.load(MODEL, device="cpu")
    env = gym.make(str(agent.env_id), **agent.env_kwargs)
    observation, _ = env.reset(seed=SEED)
    image = imagined(agent, observation, GRASP(proposals=None, iterations=60, candidates=8))
    with atomic_write(path) as aside:
        image.save(aside, format="png")
    return {"model": MODEL, "seed": SEED}


def latents(path: Path) -> dict[str, Any]:
    """Draws the decoded latents of adversarial steps and the predictions from them."""
    agent = grasp_agent.load(MODEL, device="cpu")
    world, perception = agent.policy.world, agent.perception
    assert world is not None and isinstance(perception, PixelPerception)
    env = gym.make(str(agent.env_id), **agent.env_kwargs)
    observations = [perception.to_goal_dict(env.reset(seed=SEED + row)[0]) for row in range(COUNT)]
    batch = {key: np.stack([one[key] for one in observations]) for key in observations[0]}
    problem = world.problem(world.encode(raw_vectors(batch)), batch["desired_goal"], 15, agent.criteria)
    before, found = rest_distances(problem, problem.start), {"model": MODEL, "sizes": list(SIZES)}
    free = torch.ones_like(problem.start[0])
    plain = perception.decode(world.achieved(problem.start)).astype(np.float64)
    drawn = []
    assert problem.support is not None
    for size in SIZES:
        moved = adversarial_starts(problem, size, free)
        after = rest_distances(problem, moved)
        gains = (before - after) / size
        images = perception.decode(world.achieved(moved))
        rows = {
            "attacked": median(gains[0]),
            "attacked, most": float(gains[0].max()),
            "others": median(gains[1:].mean(0)),
            "flagged": float(problem.support.off(moved[:, None]).float().mean()),
            "change of the image [of 255]": float(np.abs(images - plain).mean()),
        }
        found[f"step {size}"] = rows
        worst = int(gains[0].argmax())
        state, rest = moved.expand(problem.members, -1, -1), problem.rest.expand(problem.members, problem.size, -1)
        for _ in range(problem.horizon):
            state = problem.dynamics(state, rest)
        ahead = perception.decode(world.achieved(state[:2, worst]))
        shown = (plain[worst].astype(np.uint8), images[worst], ahead[0], ahead[1])
        names = ("start", f"moved by {size:g}", "attacked member, 15 steps on", "another member")
        drawn += [titled(upscaled(one, 200), name, "") for one, name in zip(shown, names, strict=True)]
    with atomic_write(path) as aside:
        tiled(drawn, 4).save(aside, format="png")
    return found


FIGURES: dict[str, Callable[[Path], dict[str, Any]]] = {"imagined": virtual_states, "fooled": latents}


def main(names: tyro.conf.Positional[tuple[str, ...]] = ()) -> None:
    """Draws the named figures, or both."""
    draw(names, FIGURES)


if __name__ == "__main__":
    tyro.cli(main)
