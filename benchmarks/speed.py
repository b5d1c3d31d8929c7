"""Cost of one iteration: growth with the horizon, and ratio to the time of its matrix products alone.

    python -m benchmarks.speed

On the bundled BallNav model, one thread, without gradients, as planning is. What a ratio compares runs in turns in one
process (an iteration after a long one of another planner would start with cold caches); figures are medians. Writes
`benchmarks/results/speed.json` and the plot `docs/figures/iteration_cost.png`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import matplotlib
import numpy as np
import torch
import tyro
from matplotlib import pyplot

import grasp_agent
from benchmarks import pages
from grasp_agent import GRASP, Criteria
from grasp_agent.models.world import World
from grasp_agent.planners import GradientShooting, Line, NoiseSource, Planner

ROOT = Path(__file__).parent.parent
HORIZONS = (10, 20, 40, 80, 160)
Work = Callable[[], object]


def medians(works: dict[str, Work], repeats: int) -> dict[str, float]:
    """Returns the median time of each work [ms], run in turns."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 5):
        for name, work in works.items():
            began = perf_counter()
            work()
            if turn >= 5:
                times[name].append(perf_counter() - began)
    return {name: 1000 * float(np.median(values)) for name, values in times.items()}


def iteration(world: World, planner: Planner[Any], horizon: int, candidates: int) -> Work:
    """Returns a function that runs one iteration of a planner, without syncs."""
    start = world.encode(np.array([[-0.5, 0.0, -0.5, 0.0]], np.float32))
    problem = world.problem(start, np.array([[0.5, 0.0]], np.float32), horizon, Criteria())
    noise = NoiseSource(0, start.device, start.dtype)
    planner = replace(planner, candidates=candidates, initial=Line())  # type: ignore[call-arg]
    state = planner.init(problem, None, noise)

    @torch.no_grad()
    def work() -> None:
        nonlocal state
        state = planner.step(problem, state, noise)

    return work


def floor(world: World, horizon: int, candidates: int) -> Work:
    """Returns a function that only runs the matrix products of forward pass and input gradient, in equal shapes."""
    members = next(k for k in range(world.model.members, 0, -1) if candidates % k == 0)
    rows = candidates * horizon // members
    weights = [weight[:members].detach() for weight in world.model.weights]
    biases = [bias[:members].detach() for bias in world.model.biases]
    inputs = torch.randn(members, rows, weights[0].shape[1])
    skip = world.model.skip[:members].detach()
    columns = slice(world.model.state_size, skip.shape[1])  # where actions enter
    plain, actions, through = inputs[..., : skip.shape[1]], weights[0][:, columns], skip[:, columns]

    def work() -> None:
        hidden = inputs
        for weight, bias in zip(weights, biases, strict=True):
            hidden = torch.baddbmm(bias, hidden, weight)
        cotangent = hidden = torch.baddbmm(hidden, plain, skip)
        for weight in (*weights[:0:-1], actions):
            hidden = torch.bmm(hidden, weight.mT)
        torch.baddbmm(hidden, cotangent, through.mT)

    return work


def main(repeats: int = 200) -> None:
    """Measures and draws."""
    torch.set_num_threads(1)
    world = grasp_agent.load("ball-nav", device="cpu").policy.world
    assert world is not None
    published = replace(GRASP.paper(), sync_every=10**9)
    default = replace(GRASP(), sync_every=10**9, opening=0, proposals=None)
    planners: dict[str, Planner[Any]] = {
        "GRASP, published iteration": published,
        "GRASP, default iteration": default,
        "shooting, one gradient": GradientShooting(),
    }
    growth = {
        name: list(medians({str(h): iteration(world, planner, h, 1) for h in HORIZONS}, repeats // 4).values())
        for name, planner in planners.items()
    }
    many = medians(
        {
            "floor": floor(world, 50, 16),
            "published": iteration(world, published, 50, 16),
            "default": iteration(world, default, 50, 16),
        },
        repeats,
    )
    result = {
        "horizons": HORIZONS,
        "growth_ms": growth,
        "growth_160_over_10": {name: values[-1] / values[0] for name, values in growth.items()},
        "n16_h50_ms": many,
        "over_floor": {name: many[name] / many["floor"] for name in ("published", "default")},
    }
    pages.keep("speed", result)
    draw(growth, ROOT / "docs" / "figures" / "iteration_cost.png")
    print(json.dumps({key: result[key] for key in ("growth_160_over_10", "over_floor")}, indent=1))


def draw(growth: dict[str, list[float]], path: Path) -> None:
    """Plots the time of an iteration against the horizon, both logarithmic."""
    matplotlib.use("agg")
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), dpi=110, layout="constrained")
    styles = (("#3b6fb6", "o-"), ("#8a6fc0", "o--"), ("#d9803f", "o-"))  # the first two lie on each other
    for (name, values), (colour, style) in zip(growth.items(), styles, strict=True):
        axes.plot(HORIZONS, values, style, color=colour, label=f"{name} (x {values[-1] / values[0]:.1f})")
    axes.set(xscale="log", yscale="log", xlabel="horizon [steps]", ylabel="one iteration [ms]")
    axes.set_xticks(HORIZONS, [str(h) for h in HORIZONS])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)
    pyplot.close(figure)


if __name__ == "__main__":
    tyro.cli(main)
