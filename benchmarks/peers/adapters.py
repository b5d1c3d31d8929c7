"""Planners of other libraries behind one call, all with the same model, bounds and objective.

An adapter is built for each episode as `Adapter(problem, setting, seed)`; calling it with the current problem and the
number of actions executed since its last plan gives the next plan `[H, A]`, as the peer returned it. Libraries are
imported by the adapter that needs them, since each lives in an environment of its own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from grasp_agent.planners import Problem

Plan = Callable[[Problem, int], Tensor]
"""`(problem, actions executed since the last plan) -> actions [H, A]`."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much a peer computes for one plan.

    Attributes:
        samples: action sequences in each iteration.
        elites: sequences that the next iteration is fitted to; 0 where the method has none.
        iterations: rounds of improvement.
        sigma: standard deviation of the first samples; the range of an action is 2.
        temperature: of MPPI's weights; without effect on the others.
    """

    samples: int
    elites: int
    iterations: int
    sigma: float = 1.0
    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Solver:
    """One planner of a library.

    Attributes:
        package: name on PyPI.
        adapter: builds it for an episode.
        default: the published setting.
    """

    package: str
    adapter: Callable[[Problem, Setting, int], Plan]
    default: Setting


def step(problem: Problem, states: Tensor, actions: Tensor) -> Tensor:
    """Returns next states `[N, S], [N, A] -> [N, S]`, each sample under a member of its own, as in our planners.

    Actions are clipped as they will be executed.
    """
    return problem.ensemble.step(states[None], problem.clamp(actions)[None])[0]


def objective(problem: Problem, states: Tensor) -> Tensor:
    """Returns costs of rollouts `[N, H, S] -> [N]`: the worst of the last distances, plus a small running cost."""
    rule = problem.criteria
    distance = problem.goal.cost(states[None])[0].clamp_min(1e-12).sqrt() / problem.goal.tolerance
    return distance[:, -rule.hold :].amax(-1) + rule.running * distance.mean(-1)


def cost(problem: Problem, actions: Tensor) -> Tensor:
    """Returns costs of action sequences `[N, H, A] -> [N]`."""
    state, states = problem.start.expand(len(actions), -1), []
    for action in actions.unbind(1):
        state = step(problem, state, action)
        states.append(state)
    return objective(problem, torch.stack(states, 1))


class _CostModel:
    """A `Costable` of stable-worldmodel."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def get_cost(self, info_dict: dict[str, Any], action_candidates: Tensor) -> Tensor:
        """Returns costs, `[1, N, H, A] -> [1, N]`."""
        return cost(self.problem, action_candidates[0])[None]


class StableWorldModel:
    """A solver of stable-worldmodel, warm-started like its `WorldModelPolicy`: on what is left of the last plan."""

    def __init__(self, problem: Problem, setting: Setting, seed: int, *, name: str, **options: Any) -> None:
        self._model = _CostModel(problem)
        sizes: dict[str, Any] = {"num_samples": setting.samples, "n_steps": setting.iterations, "seed": seed}
        if setting.elites:
            sizes |= {"topk": setting.elites, "var_scale": setting.sigma}  # it multiplies the noise
        self._solver = getattr(_stable_worldmodel_solvers(), name)(self._model, **sizes, **options)
        self._solver.configure(
            action_space=gym.spaces.Box(problem.low[None].numpy(), problem.high[None].numpy()),
            n_envs=1,
            config=SimpleNamespace(horizon=problem.horizon, action_block=1),
        )
        self._last: Tensor | None = None

    def __call__(self, problem: Problem, executed: int) -> Tensor:
        """See the module."""
        self._model.problem = problem
        rest = None if self._last is None else self._last[:, executed:]
        with contextlib.redirect_stdout(io.StringIO()):  # each call prints its time
            actions: Tensor = self._solver.solve({"start": problem.start}, init_action=rest)["actions"]
        self._last = actions
        return actions[0]


def _stable_worldmodel_solvers() -> Any:
    """Imports only the subpackage of solvers: the package also imports data formats and torchvision."""
    if "stable_worldmodel" not in sys.modules:
        spec = importlib.util.find_spec("stable_worldmodel")
        if spec is None:
            raise ModuleNotFoundError("stable_worldmodel")
        sys.modules["stable_worldmodel"] = importlib.util.module_from_spec(spec)
    return importlib.import_module("stable_worldmodel.solver")


class PytorchMPPI:
    """pytorch-mppi, as a controller that lives for one episode; each iteration is one `command`.

    It has no default for the noise: the identity is taken, one standard deviation is half the range of an action.
    """

    def __init__(self, problem: Problem, setting: Setting, seed: int) -> None:
        from pytorch_mppi import MPPI  # pyright: ignore[reportMissingImports]

        torch.manual_seed(seed)
        self._problem, self._iterations = problem, setting.iterations
        self._controller = MPPI(
            lambda states, actions: step(self._problem, states, actions),
            lambda states, actions: states.new_zeros(len(states)),
            problem.start.shape[1],
            setting.sigma**2 * torch.eye(len(problem.low)),
            lambda_=setting.temperature,
            num_samples=setting.samples,
            horizon=problem.horizon,
            terminal_state_cost=lambda states, actions: objective(self._problem, states[0]),
            u_min=problem.low,
            u_max=problem.high,
        )

    def __call__(self, problem: Problem, executed: int) -> Tensor:
        """See the module."""
        self._problem = problem
        for _ in range(executed):
            self._controller.shift_nominal_trajectory()
        for _ in range(self._iterations):
            self._controller.command(problem.start[0], shift_nominal_trajectory=False)
        return self._controller.get_action_sequence()


class PytorchICEM:
    """pytorch-icem, as a controller that lives for one episode."""

    def __init__(self, problem: Problem, setting: Setting, seed: int) -> None:
        from pytorch_icem import iCEM  # pyright: ignore[reportMissingImports]

        torch.manual_seed(seed)
        self._problem = problem
        size = len(problem.low)
        self._controller = iCEM(
            lambda states, actions: step(self._problem, states, actions),
            lambda states, actions: objective(self._problem, states),
            problem.start.shape[1],
            size,
            # Its default of ones, with as many axes as actions, as its check demands; they broadcast.
            sigma=setting.sigma * torch.ones([1] * (size - 1) + [size]),
            num_samples=setting.samples,
            num_elites=setting.elites,
            horizon=problem.horizon,
            warmup_iters=setting.iterations,
            online_iters=setting.iterations,
        )

    def __call__(self, problem: Problem, executed: int) -> Tensor:
        """See the module."""
        self._problem = problem
        for _ in range(executed):
            self._controller.shift()
        self._controller.command(problem.start[0], shift_nominal_trajectory=False)
        return self._controller.kept_elites[0]  # the sequence whose first action `command` returns


class TorchWorldCEM:
    """torch-world's CEM, which has no warm start."""

    def __init__(self, problem: Problem, setting: Setting, seed: int) -> None:
        from torch_world.models import WorldModel  # pyright: ignore[reportMissingImports]
        from torch_world.planning import CEM  # pyright: ignore[reportMissingImports]

        class Model(WorldModel):
            history = 1

            def __init__(self, problem: Problem) -> None:
                super().__init__()
                self.problem = problem

            def predict(self, z: Tensor, actions: Tensor) -> Tensor:
                return step(self.problem, z[:, -1], actions[:, -1])[:, None]

            def cost(self, z: Tensor, goal: Tensor) -> Tensor:
                return objective(self.problem, z[:, 1:])

        self._model, self._generator = Model(problem), torch.Generator().manual_seed(seed)
        self._cem = CEM(
            problem.horizon,
            len(problem.low),
            num_samples=setting.samples,
            num_elites=setting.elites,
            iterations=setting.iterations,
            std=setting.sigma,
            bounds=(float(problem.low[0]), float(problem.high[0])),
        )

    def __call__(self, problem: Problem, executed: int) -> Tensor:
        """See the module."""
        self._model.problem = problem
        start = problem.start[:, None]  # `cost` knows the goal: the argument of that name is not used
        return self._cem(self._model, start, problem.start, generator=self._generator)[0]


SOLVERS = {
    "stable-worldmodel-cem": Solver(
        package="stable-worldmodel",
        adapter=partial(StableWorldModel, name="CEMSolver"),
        default=Setting(samples=300, elites=30, iterations=30),
    ),
    "stable-worldmodel-icem": Solver(
        package="stable-worldmodel",
        adapter=partial(StableWorldModel, name="ICEMSolver"),
        default=Setting(samples=300, elites=30, iterations=30),
    ),
    # The class has no default number of steps: this is the repository's scripts/eval/config/solver/gd.yaml.
    "stable-worldmodel-sgd": Solver(
        package="stable-worldmodel",
        adapter=partial(StableWorldModel, name="GradientSolver"),
        default=Setting(samples=100, elites=0, iterations=30),
    ),
    # The repository's scripts/plan/config/solver/adam.yaml.
    "stable-worldmodel-adamw": Solver(
        package="stable-worldmodel",
        adapter=partial(
            StableWorldModel, name="GradientSolver", optimizer_cls=torch.optim.AdamW, optimizer_kwargs={"lr": 0.1}
        ),
        default=Setting(samples=1, elites=0, iterations=30),
    ),
    "pytorch-mppi": Solver(
        package="pytorch-mppi", adapter=PytorchMPPI, default=Setting(samples=100, elites=0, iterations=1)
    ),
    "pytorch-icem": Solver(
        package="pytorch-icem", adapter=PytorchICEM, default=Setting(samples=100, elites=10, iterations=100)
    ),
    "torch-world-cem": Solver(
        package="torch-world", adapter=TorchWorldCEM, default=Setting(samples=300, elites=30, iterations=10)
    ),
}
