"""Trains the bundled models from scratch, evaluates them on fresh seeds and writes the catalog.

    python scripts/train_pretrained.py            # all of them
    python scripts/train_pretrained.py reacher    # one of them
    python scripts/train_pretrained.py --score-only

Models are trained with seed 0, settings were chosen on seeds from 5000, the score is measured on seeds from 10000.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from tqdm import trange

from grasp_agent import ExploreConfig, GraspAgent, MLPConfig, TrainConfig, evaluate
from grasp_agent.files import atomic_write
from grasp_agent.models import EncoderConfig
from grasp_agent.planners import ICEM, Planner
from grasp_agent.replay.episodes import Episode
from grasp_agent.task.observation import raw_vectors
from grasp_agent.zoo.pretrained import BundledModel
from grasp_envs.push_t_expert import PushTExpert

FOLDER = Path(__file__).parent.parent / "grasp_agent" / "zoo" / "pretrained"
EPISODES, SEED = 100, 10_000


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a bundled model's training."""

    env_id: str
    description: str
    steps: int
    model: MLPConfig | None  # None: the default of `learn`
    horizon: int | None = None  # of the saved agent; it learns with the default one
    anywhere: bool = False  # learn from starts and goals in the whole arena
    train: TrainConfig = TrainConfig(gradient_steps=5000, lr=2e-3, batch_size=512)
    explore: ExploreConfig | None = None  # None: random actions, enough with starts and goals everywhere
    planner: Planner[Any] | None = None  # of the saved agent; None: the default one
    data: Callable[[int], list[Episode]] | None = None  # source of an offline dataset; None: learn online
    options: Mapping[str, Any] = field(default_factory=dict)  # of the environment
    encoder: EncoderConfig | None = None  # of images
    goal_tolerance: float | None = None
    seed: int = 0


def push_t_data(steps: int, longest: int = 150, *, images: bool = False) -> list[Episode]:
    """Returns Push-T episodes of a poor policy with noise, at times with held random actions."""
    random, expert = np.random.default_rng(0), PushTExpert(seed=0, tries=4)
    env, camera, episodes = gym.make("grasp/PushT-v0"), gym.make("grasp/PushT-v0", observation="pixels"), []

    def stored(observation: Any) -> NDArray[Any]:
        if not images:
            return raw_vectors(observation)
        return camera.reset(options={"state": env.unwrapped.state})[0]["observation"].ravel()  # type: ignore[attr-defined]

    for seed in trange(-(-steps // longest), desc="playing", leave=False):
        observation, _ = env.reset(seed=seed)
        states, actions = [stored(observation)], []
        left, wild, action = 0, False, np.zeros(2)
        for _ in range(min(longest, steps - seed * longest)):
            if not left:
                left, wild = int(random.integers(5, 25)), random.random() < 0.35
                expert.forget()
            if not wild:
                action = expert(observation) + random.normal(0, 0.2, 2)
            elif random.random() < 0.15:
                action = random.uniform(-1, 1, 2)
            left -= 1
            actions.append(np.clip(action, -1, 1).astype(np.float32))
            observation, *_ = env.step(actions[-1])
            states.append(stored(observation))
        episodes.append(Episode(np.stack(states), np.stack(actions)))
    return episodes


RECIPES = {
    "ball-nav": Recipe(
        env_id="grasp/BallNav-v0",
        description="A ball goes round a wall.",
        steps=20_000,
        model=MLPConfig.sharp(),
    ),
    "wall": Recipe(
        env_id="grasp/Wall-v0",
        description="A ball finds the door to the other room.",
        steps=30_000,
        model=MLPConfig.sharp(),
        anywhere=True,
    ),
    "ball-nav-trap": Recipe(
        env_id="grasp/BallNavTrap-v0",
        description="A ball leaves a U-shaped trap by moving away from its goal.",
        steps=30_000,
        model=MLPConfig.sharp(),
        anywhere=True,
    ),
    "ball-nav-maze": Recipe(
        env_id="grasp/BallNavMaze-v0",
        description="A ball passes through a maze, more than 80 steps long.",
        steps=30_000,
        model=MLPConfig.sharp(),
        horizon=120,
        anywhere=True,
    ),
    "ball-nav-4": Recipe(
        env_id="grasp/BallNav4-v0",
        description="Four balls go round a wall, each to a goal of its own.",
        steps=40_000,
        model=MLPConfig(width=160),
        train=TrainConfig(gradient_steps=6000, lr=2e-3, batch_size=256, weight_decay=0.05),
    ),
    "point-maze": Recipe(
        env_id="grasp/PointMaze-v0",
        description="A ball with inertia (MuJoCo) is driven through a U-shaped maze.",
        steps=20_000,
        model=MLPConfig.sharp(),
    ),
    "point-maze-medium": Recipe(
        env_id="grasp/PointMazeMedium-v0",
        description="A ball with inertia (MuJoCo) is driven through a larger maze.",
        steps=40_000,
        model=MLPConfig.sharp(),
        horizon=120,
    ),
    "push-t": Recipe(
        env_id="grasp/PushT-v0",
        description="A disc pushes a T-shaped block to a pose.",
        steps=20_000,
        model=MLPConfig(width=192, octaves=3),
        horizon=40,  # 100 tuning episodes: 20 steps .91 (detours around the block are too long), 30 .97, 40 .99
        train=TrainConfig(gradient_steps=6000, lr=2e-3, weight_decay=0.1, batch_size=512),
        # GRASP finds 12 of 16 tuning episodes, with iCEM as its sync all. With a search over several calls, one scoring
        # at the end: .93 of 60 (four iterations, each scored: .83 of 30).
        planner=ICEM(iterations=3, verify_every=3, samples=128),
        data=push_t_data,
    ),
    "reacher": Recipe(
        env_id="grasp/Reacher-v0",
        description="A two-link MuJoCo arm brings its fingertip to a target and holds it there.",
        steps=40_000,
        model=MLPConfig.smooth(),
        train=TrainConfig(gradient_steps=8000, lr=2e-3, weight_decay=0.02, batch_size=512),
        explore=ExploreConfig(learning_starts=1500, refit_growth=3.0),
    ),
}


PIXELS = {"observation": "pixels", "goal": "pixels"}
RECIPES |= {
    "wall-pixels": Recipe(
        env_id="grasp/Wall-v0",
        description="A ball finds the door to the other room, from images of 64 x 64 pixels.",
        steps=30_000,
        model=MLPConfig.sharp(),
        encoder=EncoderConfig(gradient_steps=800),
        anywhere=True,
        # One plan that is never corrected, 100 tuning episodes: lr 2e-3 .72 and .84 at the end, 4e-3 .88 and .89.
        train=TrainConfig(gradient_steps=4000, lr=4e-3, batch_size=512),
        explore=ExploreConfig(learning_starts=30_000, rest=0.2),
        options=PIXELS,
    ),
    "wall-door-pixels": Recipe(
        env_id="grasp/WallDoor-v0",
        description="A ball finds the door, wherever it is, from images of 64 x 64 pixels.",
        steps=100_000,
        model=MLPConfig(width=192),
        encoder=EncoderConfig(gradient_steps=800),
        anywhere=True,
        train=TrainConfig(gradient_steps=10_000, lr=4e-3, batch_size=512),
        explore=ExploreConfig(learning_starts=100_000, rest=0.15),
        options=PIXELS,
    ),
    "point-maze-pixels": Recipe(
        env_id="grasp/PointMaze-v0",
        description="A ball with inertia (MuJoCo) is driven through a maze, from images of 64 x 64 pixels.",
        steps=20_000,
        model=MLPConfig.sharp(),
        encoder=EncoderConfig(gradient_steps=800),
        options={**PIXELS, "frames": 3},
    ),
    "push-t-pixels": Recipe(
        env_id="grasp/PushT-v0",
        description="A disc pushes a T-shaped block to a pose, from images of 64 x 64 pixels.",
        steps=24_000,
        model=MLPConfig(width=192, octaves=3),
        encoder=EncoderConfig(
            points=16,
            body=True,
            gradient_steps=900,
            reconstruction=2.0,
            sharpness=3.0,
            whiten=False,
            focus=0.0,
            contrast=0.0,
        ),
        horizon=30,
        train=TrainConfig(gradient_steps=4000, lr=2e-3, weight_decay=0.1, batch_size=512),
        planner=ICEM(iterations=4, samples=128),
        data=partial(push_t_data, longest=60, images=True),
        goal_tolerance=0.05,  # [half the image's width]
        options=PIXELS,
    ),
}


QUICK = {"point-maze": 2000, "reacher": 6000}
"""Models from `learn` with its default settings and few steps, for comparison with trained agents."""
for _name, _steps in QUICK.items():
    RECIPES[f"{_name}-{_steps // 1000}k"] = Recipe(
        env_id=RECIPES[_name].env_id,
        description=f"{RECIPES[_name].description[:-1]}: learned from {_steps:,} steps.",
        steps=_steps,
        model=None,
        train=TrainConfig(),
        explore=ExploreConfig(),
    )


def train(name: str) -> None:
    """Trains one model and writes its file."""
    recipe = RECIPES[name]
    began = time.monotonic()
    torch.set_num_threads(2 if recipe.encoder else 1)  # convolutions gain from a second core, small networks do not
    options = {"anywhere": True} if recipe.anywhere else {}
    agent = GraspAgent(
        "MultiInputPolicy",
        gym.make(recipe.env_id, **recipe.options, **options),
        model=recipe.model,
        encoder=recipe.encoder,
        train=recipe.train,
        explore=recipe.explore or ExploreConfig(learning_starts=recipe.steps),
        goal_tolerance=recipe.goal_tolerance,
        seed=recipe.seed,
        device="cpu",
    )
    if recipe.data is None:
        agent.learn(recipe.steps, progress_bar=True)
    else:
        agent.fit(recipe.data(recipe.steps), progress_bar=True)
    agent.set_env(gym.make(recipe.env_id, **recipe.options))
    agent.horizon = recipe.horizon or agent.horizon
    agent.planner = recipe.planner or agent.planner
    agent.save(FOLDER / f"{name}.zip")
    torch.set_num_threads(1)
    print(f"{name}: {(time.monotonic() - began) / 60:.1f} min")


def scored(name: str) -> BundledModel:
    """Evaluates one model and returns its entry of the catalog."""
    recipe, path = RECIPES[name], FOLDER / f"{name}.zip"
    summary = evaluate(GraspAgent.load(path, device="cpu"), recipe.env_id, EPISODES, SEED).summary()
    milliseconds = 1000 * summary["seconds_per_action_mean"]
    print(f"{name}: {path.stat().st_size / 2**20:.2f} MB, success {summary['success_end']:.2f}, {milliseconds:.1f} ms")
    return BundledModel(
        env_id=recipe.env_id,
        description=recipe.description,
        command=f"python scripts/train_pretrained.py {name}",
        steps=recipe.steps,
        score=summary["success_end"],
        evaluation=f"grasp evaluate {name} --episodes {EPISODES} --seed {SEED}",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        options=dict(recipe.options),
    )


def main(names: tyro.conf.Positional[tuple[str, ...]] = (), score_only: bool = False) -> None:
    """Trains and evaluates the named models, or all.

    Args:
        names: models.
        score_only: only evaluate existing models.
    """
    unknown = set(names) - set(RECIPES)
    if unknown:
        raise SystemExit(f"unknown model {unknown.pop()!r} (choose from {', '.join(RECIPES)})")
    torch.set_num_threads(1)
    for name in names or tuple(RECIPES):
        if not score_only:
            train(name)
        entry = scored(name)
        path = FOLDER / "catalog.json"  # read late: two trainings may run side by side
        catalog = json.loads(path.read_text()) if path.exists() else {}
        catalog = {**catalog, name: dataclasses.asdict(entry)}
        with atomic_write(path) as aside:
            aside.write_text(json.dumps({key: catalog[key] for key in RECIPES if key in catalog}, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
