"""Trains the bundled models from nothing, evaluates them on fresh seeds and writes the catalog.

    python scripts/train_pretrained.py            # all of them
    python scripts/train_pretrained.py reacher    # one of them

Models are trained with seed 0, settings were chosen on seeds from 5000, the score is measured on seeds from 10000.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from grasp_agent import ExploreConfig, GraspAgent, MLPConfig, TrainConfig, evaluate
from grasp_agent.files import written_aside
from grasp_agent.pretrained import BundledModel

FOLDER = Path(__file__).parent.parent / "grasp_agent" / "pretrained"
EPISODES, SEED = 100, 10_000


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a bundled model is trained."""

    env_id: str
    description: str
    steps: int
    model: MLPConfig
    train: TrainConfig = TrainConfig(gradient_steps=5000)
    explore: ExploreConfig = ExploreConfig(learning_starts=1500, refit_growth=3.0)
    seed: int = 0


RECIPES = {
    "ball-nav": Recipe(
        env_id="grasp/BallNav-v0",
        description="A ball goes round a wall.",
        steps=20_000,
        model=MLPConfig.sharp(),
    ),
    "ball-nav-trap": Recipe(
        env_id="grasp/BallNavTrap-v0",
        description="A ball leaves a U-shaped trap by moving away from its goal.",
        steps=30_000,
        model=MLPConfig.sharp(),
        explore=ExploreConfig(learning_starts=1500, refit_growth=1.4, frontier_share=0.8),
    ),
    "reacher": Recipe(
        env_id="grasp/Reacher-v0",
        description="A two-link MuJoCo arm brings its fingertip to a target and holds it there.",
        steps=40_000,
        model=MLPConfig.smooth(),
        train=TrainConfig(gradient_steps=8000, weight_decay=0.02),
    ),
}


def train(name: str) -> BundledModel:
    """Trains one model, writes its file and returns its entry of the catalog."""
    recipe = RECIPES[name]
    began = time.monotonic()
    agent = GraspAgent(
        "MultiInputPolicy",
        recipe.env_id,
        model=recipe.model,
        train=recipe.train,
        explore=recipe.explore,
        seed=recipe.seed,
        device="cpu",
    )
    agent.learn(recipe.steps, progress_bar=True)
    path = FOLDER / f"{name}.zip"
    agent.save(path)
    minutes = (time.monotonic() - began) / 60
    outcome = evaluate(GraspAgent.load(path, device="cpu"), recipe.env_id, EPISODES, SEED)
    summary = outcome.summary()
    print(
        f"{name}: {minutes:.1f} min, {path.stat().st_size / 2**20:.2f} MB, success {summary['success_end']:.2f}, ",
        end="",
    )
    print(f"ms per action {1000 * summary['seconds_per_action_mean']:.1f}")
    return BundledModel(
        env_id=recipe.env_id,
        description=recipe.description,
        command=f"python scripts/train_pretrained.py {name}",
        steps=recipe.steps,
        score=summary["success_end"],
        evaluation=f"grasp evaluate {name} --episodes {EPISODES} --seed {SEED}",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def main(names: tyro.conf.Positional[tuple[str, ...]] = ()) -> None:
    """Trains the named models, or all."""
    unknown = set(names) - set(RECIPES)
    if unknown:
        raise SystemExit(f"unknown model {unknown.pop()!r} (choose from {', '.join(RECIPES)})")
    torch.set_num_threads(1)
    for name in names or tuple(RECIPES):
        entry = train(name)
        path = FOLDER / "catalog.json"  # read late: two trainings may run side by side
        catalog = json.loads(path.read_text()) if path.exists() else {}
        catalog = {**catalog, name: dataclasses.asdict(entry)}
        with written_aside(path) as aside:
            aside.write_text(json.dumps({key: catalog[key] for key in RECIPES if key in catalog}, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
