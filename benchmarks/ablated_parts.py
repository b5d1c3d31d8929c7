"""Parts of a planner that are measured in the ablation and are not in the package."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from grasp_agent.planners import Adam, Candidates, Problem
from grasp_agent.planners.lifted.first_order import Moments


@dataclass(frozen=True, kw_only=True)
class Cautious:
    """Actions along the gradient under ALL members, with a disagreement penalty `w sum_k |F_k - mean|^2 / K`.

    Attributes:
        optimiser: optimiser of the actions.
        weight: w, weight of the members' squared distance from their mean.
    """

    optimiser: Adam = Adam(lr=0.05)
    weight: float = 1.0

    def start(self, actions: Tensor) -> Moments:
        """Returns the optimiser's initial state."""
        return self.optimiser.start(actions)

    def apply(
        self, problem: Problem, candidates: Candidates, goal_weight: float, memory: Moments | None
    ) -> tuple[Tensor, Tensor, Moments]:
        """Applies one step, as the package's `Gradient` does at a K-th of the cost."""
        states, actions = candidates.pair
        shape, every = states.shape[:-1], (problem.members, -1, -1)
        starts, acting = (values.flatten(0, -2).expand(*every) for values in (problem.shifted(states), actions))
        assert problem.action_pullback is not None
        predicted, pull = problem.action_pullback(starts, acting)
        mean = predicted.mean(0)
        deviations = predicted - mean
        meant = mean.unflatten(0, shape)
        toward = 2 * (meant - states) + goal_weight * problem.goal.gradient(meant)
        # The deviations add up to zero, so the mean's own derivative drops out of the penalty's.
        slope = pull((toward.flatten(0, -2) + 2 * self.weight * deviations) / problem.members).sum(0)
        actions, memory = self.optimiser.apply(actions, slope.unflatten(0, shape), memory)
        return meant - states, actions, memory
