"""Draws the figures that explain the method, from bundled models.

    python -m benchmarks.figures              # all of them, some minutes
    python -m benchmarks.figures distance     # one

`distance`: to the goal along paths that first lead away from it. `conditioning`: of the action gradient through a
rollout, and of the lifted one, against the horizon. `optimisation`: lifted states, shooting and collocation side by
side. `adversarial`: the gain of a small step in state space under one member of the ensemble, and what notices it. Each
writes `docs/figures/NAME.png` and `benchmarks/results/figures/NAME.json`; `docs/method_in_figures.md` explains them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import gymnasium as gym
import matplotlib
import numpy as np
import torch
import tyro
from matplotlib import pyplot
from matplotlib.axes import Axes
from numpy.typing import NDArray
from tqdm import tqdm

import grasp_agent
from benchmarks import pages
from benchmarks.figure_analysis import (
    adversarial_starts,
    condition_number,
    jacobians_along,
    lifted_jacobian,
    rest_distances,
    rollout_jacobian,
)
from grasp_agent import GRASP, GraspAgent
from grasp_agent.evaluation.participants import participant
from grasp_agent.evaluation.rollout import rollout
from grasp_agent.files import atomic_write
from grasp_agent.planners import (
    Adam,
    Collocation,
    GradientShooting,
    NoiseSource,
    Planner,
    Problem,
)
from grasp_agent.task.observation import raw_vectors

FOLDER = Path(__file__).parent.parent / "docs" / "figures"
SEED = 60_000
BLUE, RUST, GREEN, VIOLET, GREY = "#255ce0", "#c46034", "#2b8a66", "#805ccd", "#7a808a"
Figures = dict[str, Any]


def problem_of(agent: GraspAgent, seeds: Sequence[int], horizon: int) -> Problem:
    """Returns the planning problems at the starts of episodes."""
    assert agent.policy.world is not None
    env = gym.make(str(agent.env_id))
    observations = [env.reset(seed=seed)[0] for seed in seeds]
    env.close()
    batch = {key: np.stack([observation[key] for observation in observations]) for key in observations[0]}
    start = agent.policy.world.encode(raw_vectors(batch))
    return agent.policy.world.problem(start, batch["desired_goal"].astype(np.float32), horizon, agent.criteria)


def distance(path: Path) -> Figures:
    """Plots the distance to the goal along episodes of GRASP and of SAC."""
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.3), dpi=110, layout="constrained")
    found: Figures = {}
    for panel, env_id in zip(panels, ("grasp/BallNavTrap-v0", "grasp/BallNavMaze-v0"), strict=True):
        for name, colour in (("sac@30000", GREY), ("grasp@30000", BLUE)):
            env = gym.make(env_id)
            agent = participant(name, env_id).make(env, SEED)
            runs = [[float(moment.distance or 0) for moment in rollout(agent, env, SEED + i)] for i in range(12)]
            env.close()
            for index, run in enumerate(runs):
                label = {GREY: "SAC + HER", BLUE: "GRASP"}[colour] if not index else None
                panel.plot(run, color=colour, alpha=0.55, lw=1.3, label=label)
            rises = [max(0.0, max(run) - run[0]) for run in runs]
            ends = [run[-1] for run in runs]
            found[f"{env_id} {name}"] = {"start": median([run[0] for run in runs]), "greatest rise": median(rises)}
            found[f"{env_id} {name}"]["end"] = median(ends)
        panel.set(xlabel="step", ylabel="distance to the goal [m]", title=env_id)
        tidy(panel)
    panels[0].legend(frameon=False)
    save(figure, path)
    return found


def conditioning(path: Path) -> Figures:
    """Plots condition numbers of both objectives' Gauss-Newton matrices, along random smooth trajectories."""
    horizons, count = (5, 10, 20, 40, 80), 32
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.3), dpi=110, layout="constrained", sharey=True)
    found: Figures = {"horizons": horizons}
    for panel, model in zip(panels, ("ball-nav-trap", "point-maze"), strict=True):
        agent = grasp_agent.load(model, device="cpu")
        rows: dict[str, list[NDArray[Any]]] = {
            "through the rollout": [],
            "lifted, worst step": [],
            "lifted, median": [],
        }
        for horizon in horizons:
            problem = problem_of(agent, range(SEED, SEED + count), horizon)
            by_state, by_action = jacobians_along(problem, NoiseSource(0, problem.start.device, problem.start.dtype))
            rows["through the rollout"].append(condition_number(rollout_jacobian(by_state, by_action)))
            steps = condition_number(lifted_jacobian(by_action)).reshape(count, horizon)
            rows["lifted, worst step"].append(steps.max(1))
            rows["lifted, median"].append(np.median(steps, 1))
        for (name, values), colour in zip(rows.items(), (RUST, BLUE, VIOLET), strict=True):
            low, middle, high = np.percentile(np.stack(values), (25, 50, 75), axis=1)
            panel.fill_between(horizons, low, high, color=colour, alpha=0.18, lw=0)
            panel.plot(horizons, middle, "o-", color=colour, label=name)
            found[f"{model} {name}"] = {"q25": low.tolist(), "median": middle.tolist(), "q75": high.tolist()}
        panel.set(xscale="log", yscale="log", xlabel="horizon [steps]", title=model)
        panel.set_xticks(horizons, [str(h) for h in horizons])
        panel.minorticks_off()
        tidy(panel)
    panels[0].set_ylabel("condition number")
    panels[0].legend(frameon=False)
    save(figure, path)
    return found


class Trace(NamedTuple):
    """The trace of one search, iteration by iteration."""

    seconds: list[float]
    rollout: list[float]
    """Final distance of the best candidate so far."""
    virtual: list[float]
    """Distance of the best candidate's virtual state one step before the end, which is not pinned to the goal."""
    true: list[float]
    """Distance of its rollout at that step."""
    gap: list[float]


def optimisation(path: Path) -> Figures:
    """Plots searches with eight candidates from the same starts and straight lines, without proposals."""
    searches: dict[str, tuple[Planner[Any], str]] = {
        "lifted (published)": (replace(GRASP.paper(sigma=0.1, iterations=200), candidates=8), BLUE),
        "shooting": (GradientShooting(candidates=8, iterations=200, optimiser=Adam(lr=0.1)), RUST),
        "collocation": (Collocation(candidates=8, iterations=120), GREEN),
    }
    agent = grasp_agent.load("ball-nav", device="cpu")
    problems = [problem_of(agent, [SEED + index], 30) for index in range(12)]
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.4), dpi=110, layout="constrained")
    found: Figures = {}
    for name, (planner, colour) in searches.items():
        traces = [trace_search(planner, problem) for problem in tqdm(problems, desc=name, leave=False)]
        longest = max(len(trace.rollout) for trace in traces)
        rollouts = padded([trace.rollout for trace in traces], longest)
        seconds = np.median(padded([trace.seconds for trace in traces], longest), axis=0)
        low, middle, high = np.percentile(rollouts, (25, 50, 75), axis=0)
        panels[0].fill_between(seconds, low, high, color=colour, alpha=0.15, lw=0)
        panels[0].plot(seconds, middle, color=colour, label=name)
        found[name] = {"seconds": float(seconds[-1]), "reached": float(np.mean(rollouts[:, -1] <= 1))}
        found[name]["median distance"] = float(middle[-1])
        if planner.__class__ is not GradientShooting:
            virtual = np.median(padded([trace.virtual for trace in traces], longest), axis=0)
            panels[1].plot(seconds, virtual, "--", color=colour, label=f"{name}: virtual states")
            true = np.median(padded([trace.true for trace in traces], longest), axis=0)
            panels[1].plot(seconds, true, color=colour, label=f"{name}: their rollout")
            found[name] |= {"virtual distance": float(virtual[-1]), "rollout's distance": float(true[-1])}
            found[name]["gap of one step"] = float(np.median([trace.gap[-1] for trace in traces]))
    panels[0].axhline(1, color=GREY, lw=0.8, ls=":")
    panels[0].set(title="the best rollout so far")
    panels[1].set(title="claimed and true, one step before the end")
    for panel in panels:
        panel.set(xscale="log", yscale="log", xlabel="time [s]", ylabel="distance to the goal [success radii]")
        panel.legend(frameon=False, fontsize=8)
        tidy(panel)
    save(figure, path)
    return found


def trace_search(planner: Planner[Any], problem: Problem) -> Trace:
    """Traces one search every fourth iteration; the time of tracing does not count."""
    trace = Trace([], [], [], [], [])
    noise = NoiseSource(SEED, problem.start.device, problem.start.dtype)
    state, spent = planner.init(problem, None, noise), 0.0
    for _ in range(planner.iterations // 4 + 1):
        actions = planner.actions(problem, state)
        path = problem.follow(actions)
        ends = problem.scoring.distances(path)[..., -1, 0]
        best = ends.argmin(1, keepdim=True)
        trace.rollout.append(min([*trace.rollout[-1:], float(ends.min())]))
        states = state.states if hasattr(state, "states") else path
        for distances, paths in ((trace.virtual, states), (trace.true, path)):
            distances.append(float(problem.scoring.distances(paths[:, :, -2:-1])[..., 0, 0].gather(1, best)))
        gaps = (problem.ensemble.step(problem.shifted(states), actions) - states).norm(dim=-1).mean(-1)
        trace.gap.append(float(gaps.gather(1, best)))
        trace.seconds.append(spent)
        began = perf_counter()
        for _ in range(4):
            state = planner.step(problem, state, noise)
        spent += perf_counter() - began
    return trace


def adversarial(path: Path) -> Figures:
    """Plots adversarial starts: perturbed so that one member predicts that resting approaches the goal.

    Velocities are not perturbed, as a different velocity really changes the motion.
    """
    sizes, count, horizon = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5), 64, 15
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.4), dpi=110, layout="constrained")
    found: Figures = {"sizes": sizes}
    for panel, (model, velocities) in zip(panels, (("ball-nav-trap", ()), ("reacher", (4, 5))), strict=True):
        problem = problem_of(grasp_agent.load(model, device="cpu"), range(SEED, SEED + count), horizon)
        free = torch.ones_like(problem.start[0]).index_fill(0, torch.tensor(velocities, dtype=torch.long), 0)
        before = rest_distances(problem, problem.start)
        rows: dict[str, list[float]] = {
            name: [] for name in ("attacked", "attacked, most", "others", "flagged", "disagreement")
        }
        assert problem.support is not None
        for size in sizes:
            moved = adversarial_starts(problem, size, free)
            after = rest_distances(problem, moved)
            gains = (before - after) / size
            rows["attacked"].append(median(gains[0]))
            rows["attacked, most"].append(float(gains[0].max()))
            rows["others"].append(median(gains[1:].mean(0)))
            rows["disagreement"].append(median(after.std(0) / before.std(0).clamp_min(1e-6)))
            rows["flagged"].append(float(problem.support.off(moved[:, None]).float().mean()))
        panel.plot(sizes, rows["attacked, most"], "o:", color=RUST, alpha=0.6, label="attacked member, most of 64")
        panel.plot(sizes, rows["attacked"], "o-", color=RUST, label="attacked member, median")
        panel.plot(sizes, rows["others"], "o-", color=BLUE, label="the other members, median")
        percentage = panel.twinx()
        percentage.plot(sizes, [100 * value for value in rows["flagged"]], "s--", color=GREEN, ms=4)
        percentage.set(ylim=(-4, 104))
        percentage.set_ylabel("off the known states [%] (dashed)", color=GREEN)
        percentage.spines[["top"]].set_visible(False)
        panel.set(xscale="log", xlabel="size of the step in state space [model units]", title=model)
        panel.set_ylabel("nearer to the goal, per unit of step")
        tidy(panel)
        found[model] = rows
    panels[1].legend(frameon=False, fontsize=8, loc="center left")
    save(figure, path)
    return found


def median(values: Any) -> float:
    """Returns the median as a float."""
    return float(np.median(np.asarray(values)))


def padded(rows: list[list[float]], length: int) -> NDArray[Any]:
    """Returns rows of equal length, short ones padded with their last value."""
    return np.array([row + row[-1:] * (length - len(row)) for row in rows])


def tidy(panel: Axes) -> None:
    """Applies the common style of all plots."""
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def save(figure: Any, path: Path) -> None:
    """Writes a figure atomically, and closes it."""
    with atomic_write(path) as aside:
        figure.savefig(aside, format="png")
    pyplot.close(figure)


FIGURES: dict[str, Callable[[Path], Figures]] = {
    "distance": distance,
    "conditioning": conditioning,
    "optimisation": optimisation,
    "adversarial": adversarial,
}


def draw(names: tuple[str, ...], figures: dict[str, Callable[[Path], Figures]]) -> None:
    """Draws the named figures, or all, each with a JSON file of its numbers."""
    unknown = set(names) - set(figures)
    if unknown:
        raise SystemExit(f"unknown figure {unknown.pop()!r} (choose from {', '.join(figures)})")
    torch.set_num_threads(1)
    matplotlib.use("agg")
    for name in tqdm(names or tuple(figures)):
        found = figures[name](FOLDER / f"{name}.png")
        pages.keep(f"figures/{name}", found)


def main(names: tyro.conf.Positional[tuple[str, ...]] = ()) -> None:
    """Draws the named figures, or all."""
    draw(names, FIGURES)


if __name__ == "__main__":
    tyro.cli(main)
