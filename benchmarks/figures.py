"""The figures that the method is explained with, from our own models.

    python -m benchmarks.figures              # all of them, some minutes
    python -m benchmarks.figures distance     # one

`distance`: to the goal along paths that first lead away from it. `conditioning`: of the action gradient through a
rollout, and of the lifted one, against the horizon. `optimisation`: lifted states, shooting and collocation side by
side. `adversarial`: how far a small step in STATE space makes a model believe what is not so, and who sees it. Each
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
from torch import Tensor
from tqdm import tqdm

import grasp_agent
from benchmarks import pages
from grasp_agent import GRASP, GraspAgent
from grasp_agent.evaluation.participants import participant
from grasp_agent.evaluation.rollout import rollout
from grasp_agent.planners import (
    Adam,
    Collocation,
    Coloured,
    GradientShooting,
    NoiseSource,
    Planner,
    Problem,
)
from grasp_agent.serialization import atomic_write
from grasp_agent.task.observation import raw_vectors

FOLDER = Path(__file__).parent.parent / "docs" / "figures"
SEED = 60_000
BLUE, RUST, GREEN, VIOLET, GREY = "#255ce0", "#c46034", "#2b8a66", "#805ccd", "#7a808a"
Figures = dict[str, Any]


def problem_of(agent: GraspAgent, seeds: Sequence[int], horizon: int) -> Problem:
    """The planning problems at the starts of episodes."""
    assert agent.policy.world is not None
    env = gym.make(str(agent.env_id))
    seen = [env.reset(seed=seed)[0] for seed in seeds]
    env.close()
    batch = {key: np.stack([observation[key] for observation in seen]) for key in seen[0]}
    start = agent.policy.world.encode(raw_vectors(batch))
    return agent.policy.world.problem(start, batch["desired_goal"].astype(np.float32), horizon, agent.criteria)


def distance(path: Path) -> Figures:
    """Distance to the goal along the episodes of GRASP and of SAC."""
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.3), dpi=110, layout="constrained")
    found: Figures = {}
    for panel, env_id in zip(panels, ("grasp/BallNavTrap-v0", "grasp/BallNavMaze-v0"), strict=True):
        for name, colour in (("sac@30000", GREY), ("grasp@30000", BLUE)):
            env = gym.make(env_id)
            agent = participant(name, env_id).make(env, SEED)
            ways = [[float(moment.distance or 0) for moment in rollout(agent, env, SEED + i)] for i in range(12)]
            env.close()
            for index, way in enumerate(ways):
                label = {GREY: "SAC + HER", BLUE: "GRASP"}[colour] if not index else None
                panel.plot(way, color=colour, alpha=0.55, lw=1.3, label=label)
            rises = [max(0.0, max(way) - way[0]) for way in ways]
            ends = [way[-1] for way in ways]
            found[f"{env_id} {name}"] = {"start": median([way[0] for way in ways]), "greatest rise": median(rises)}
            found[f"{env_id} {name}"]["end"] = median(ends)
        panel.set(xlabel="step", ylabel="distance to the goal [m]", title=env_id)
        tidy(panel)
    panels[0].legend(frameon=False)
    save(figure, path)
    return found


def conditioning(path: Path) -> Figures:
    """Condition numbers of the Gauss-Newton matrices of both objectives, along random smooth trajectories."""
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
            by_state, by_action = slopes_along(problem, NoiseSource(0, problem.start.device, problem.start.dtype))
            rows["through the rollout"].append(condition(by_rollout(by_state, by_action)))
            steps = condition(by_lifting(by_action)).reshape(count, horizon)
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


def slopes_along(problem: Problem, noise: NoiseSource) -> tuple[Tensor, Tensor]:
    """D_s F `[B, H, S, S]` and D_a F `[B, H, S, A]` along rollouts of smooth random actions."""
    draw = Coloured(beta=3.0).sample(noise, problem.size, problem.horizon, problem.low.shape[0])
    actions = problem.clamp(draw[:, None])
    states = problem.shifted(problem.follow(actions))
    _, by_state, by_action = problem.ensemble.jacobians(states, actions)
    return by_state[:, 0].double(), by_action[:, 0].double()


def by_rollout(by_state: Tensor, by_action: Tensor) -> Tensor:
    """The states of a rollout by its actions, `[B, H * S, H * A]`: block lower triangular, products of D_s F."""
    size, horizon, states, actions = by_action.shape
    whole = by_action.new_zeros(size, horizon, states, horizon, actions)
    for t in range(horizon):
        if t:
            whole[:, t] = torch.einsum("bij,bjha->biha", by_state[:, t], whole[:, t - 1])
        whole[:, t, :, t] = by_action[:, t]
    return whole.reshape(size, horizon * states, horizon * actions)


def by_lifting(by_action: Tensor) -> Tensor:
    """The published residuals (eq. 10) of each time by its own action and virtual state, `[B * H, 2 S, A + S]`."""
    slopes = by_action.flatten(0, 1)
    eye = torch.eye(slopes.shape[1], dtype=slopes.dtype).expand(len(slopes), -1, -1)
    gaps = torch.cat([slopes, -eye], -1)  # F(s, a) - s', the first s without gradient
    goal = torch.cat([slopes, torch.zeros_like(eye)], -1)  # F(s, a) - g
    return torch.cat([gaps, goal], 1)


def condition(residuals: Tensor) -> NDArray[Any]:
    """Condition number of `J' J`, that of the steps that a gradient takes."""
    values = torch.linalg.svdvals(residuals)
    return (values[..., 0] / values[..., -1].clamp_min(1e-12)).square().numpy()


class Trace(NamedTuple):
    """What is seen of one search, iteration by iteration."""

    seconds: list[float]
    rollout: list[float]
    """Of the best candidate so far, at the end."""
    virtual: list[float]
    """Of the present best candidate's virtual states, one step before the end, where nothing is pinned to the goal."""
    true: list[float]
    """Of its rollout, there."""
    gap: list[float]


def optimisation(path: Path) -> Figures:
    """The same starts, from straight lines, without proposals, each with eight candidates."""
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
        traces = [traced(planner, problem) for problem in tqdm(problems, desc=name, leave=False)]
        longest = max(len(trace.rollout) for trace in traces)
        rollouts = filled([trace.rollout for trace in traces], longest)
        seconds = np.median(filled([trace.seconds for trace in traces], longest), axis=0)
        low, middle, high = np.percentile(rollouts, (25, 50, 75), axis=0)
        panels[0].fill_between(seconds, low, high, color=colour, alpha=0.15, lw=0)
        panels[0].plot(seconds, middle, color=colour, label=name)
        found[name] = {"seconds": float(seconds[-1]), "reached": float(np.mean(rollouts[:, -1] <= 1))}
        found[name]["median distance"] = float(middle[-1])
        if planner.__class__ is not GradientShooting:
            virtual = np.median(filled([trace.virtual for trace in traces], longest), axis=0)
            panels[1].plot(seconds, virtual, "--", color=colour, label=f"{name}: virtual states")
            true = np.median(filled([trace.true for trace in traces], longest), axis=0)
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


def traced(planner: Planner[Any], problem: Problem) -> Trace:
    """One search, looked at every fourth iteration; the time of looking does not count."""
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
        for seen, ways in ((trace.virtual, states), (trace.true, path)):
            seen.append(float(problem.scoring.distances(ways[:, :, -2:-1])[..., 0, 0].gather(1, best)))
        gaps = (problem.ensemble.step(problem.shifted(states), actions) - states).norm(dim=-1).mean(-1)
        trace.gap.append(float(gaps.gather(1, best)))
        trace.seconds.append(spent)
        began = perf_counter()
        for _ in range(4):
            state = planner.step(problem, state, noise)
        spent += perf_counter() - began
    return trace


def adversarial(path: Path) -> Figures:
    """The start is moved by at most so much, such that one member believes that doing nothing leads to the goal.

    Speeds stay as they are: to change them is no lie, as motion leads on.
    """
    sizes, count, horizon = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5), 64, 15
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.4), dpi=110, layout="constrained")
    found: Figures = {"sizes": sizes}
    for panel, (model, speeds) in zip(panels, (("ball-nav-trap", ()), ("reacher", (4, 5))), strict=True):
        problem = problem_of(grasp_agent.load(model, device="cpu"), range(SEED, SEED + count), horizon)
        free = torch.ones_like(problem.start[0]).index_fill(0, torch.tensor(speeds, dtype=torch.long), 0)
        before = ends_of(problem, problem.start)
        rows: dict[str, list[float]] = {
            name: [] for name in ("attacked", "attacked, most", "others", "flagged", "apart")
        }
        assert problem.support is not None
        for size in sizes:
            moved = fooled(problem, size, free)
            after = ends_of(problem, moved)
            gains = (before - after) / size
            rows["attacked"].append(median(gains[0]))
            rows["attacked, most"].append(float(gains[0].max()))
            rows["others"].append(median(gains[1:].mean(0)))
            rows["apart"].append(median(after.std(0) / before.std(0).clamp_min(1e-6)))
            rows["flagged"].append(float(problem.support.off(moved[:, None]).float().mean()))
        panel.plot(sizes, rows["attacked, most"], "o:", color=RUST, alpha=0.6, label="attacked member, most of 64")
        panel.plot(sizes, rows["attacked"], "o-", color=RUST, label="attacked member, median")
        panel.plot(sizes, rows["others"], "o-", color=BLUE, label="the other members, median")
        share = panel.twinx()
        share.plot(sizes, [100 * value for value in rows["flagged"]], "s--", color=GREEN, ms=4)
        share.set(ylim=(-4, 104))
        share.set_ylabel("off the known states [%] (dashed)", color=GREEN)
        share.spines[["top"]].set_visible(False)
        panel.set(xscale="log", xlabel="size of the step in state space [model units]", title=model)
        panel.set_ylabel("nearer to the goal, per unit of step")
        tidy(panel)
        found[model] = rows
    panels[1].legend(frameon=False, fontsize=8, loc="center left")
    save(figure, path)
    return found


def ends_of(problem: Problem, start: Tensor) -> Tensor:
    """Each member's distance to the goal after doing nothing, `[K, B]` [model units]."""
    state = start.expand(problem.members, -1, -1)
    rest = problem.rest.expand(problem.members, problem.size, -1)
    for _ in range(problem.horizon):
        state = problem.dynamics(state, rest)
    return problem.goal.cost(state[:, :, None, None])[..., 0, 0].sqrt()


def fooled(problem: Problem, size: float, free: Tensor) -> Tensor:
    """Start states `[B, S]`, moved by up to `size` so that the first member ends as near to the goal as may be.

    Steps along the normalised gradient, put back onto the ball (Madry et al. 2018, arXiv 1706.06083); the best counts.
    """
    step = torch.zeros_like(problem.start)
    best, nearest = step, ends_of(problem, problem.start)[0]
    for _ in range(60):
        step = step.detach().requires_grad_()
        ends = ends_of(problem, problem.start + step)[0]
        (slope,) = torch.autograd.grad(ends.sum(), step)
        with torch.no_grad():
            better = ends < nearest
            best, nearest = torch.where(better[:, None], step, best), torch.where(better, ends, nearest)
            slope = slope * free
            step = step - size / 10 * slope / slope.norm(dim=-1, keepdim=True).clamp_min(1e-9)
            step = step * (size / step.norm(dim=-1, keepdim=True).clamp_min(1e-9)).clamp_max(1)
    return problem.start + best.detach()


def median(values: Any) -> float:
    """As a plain number."""
    return float(np.median(np.asarray(values)))


def filled(rows: list[list[float]], length: int) -> NDArray[Any]:
    """Rows of one length, the last values of short ones going on."""
    return np.array([row + row[-1:] * (length - len(row)) for row in rows])


def tidy(panel: Axes) -> None:
    """The look of all plots."""
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def save(figure: Any, path: Path) -> None:
    """Written aside, then moved."""
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
    """Draws the named ones of some figures, or all, each with a JSON file beside it."""
    unknown = set(names) - set(figures)
    if unknown:
        raise SystemExit(f"unknown figure {unknown.pop()!r} (choose from {', '.join(figures)})")
    torch.set_num_threads(1)
    matplotlib.use("agg")
    for name in tqdm(names or tuple(figures)):
        found = figures[name](FOLDER / f"{name}.png")
        pages.keep(f"figures/{name}", found)


def main(names: tyro.conf.Positional[tuple[str, ...]] = ()) -> None:
    """Draws the named ones, or all."""
    draw(names, FIGURES)


if __name__ == "__main__":
    tyro.cli(main)
