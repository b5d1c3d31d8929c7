"""Parts of a planner that were tried in the ablation and did not make it into the package."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from grasp_agent.planners import Adam, Candidates, Problem
from grasp_agent.planners.lifted.first_order import Moments


@dataclass(frozen=True, kw_only=True)
class Cautious:
    """Actions along the gradient under ALL members, who pay for not being of one mind: `w sum_k |F_k - mean|^2 / K`.

    Attributes:
        optimiser: what does the step.
        weight: w, weight of the members' squared distance from their mean.
    """

    optimiser: Adam = Adam(lr=0.05)
    weight: float = 1.0

    def start(self, actions: Tensor) -> Moments:
        """Fresh memory."""
        return self.optimiser.start(actions)

    def apply(
        self, problem: Problem, candidates: Candidates, goal_weight: float, memory: Moments | None
    ) -> tuple[Tensor, Tensor, Moments]:
        """As the package's `Gradient`, at K times its cost."""
        states, actions = candidates.pair
        shape, every = states.shape[:-1], (problem.members, -1, -1)
        starts, acting = (values.flatten(0, -2).expand(*every) for values in (problem.shifted(states), actions))
        assert problem.action_pullback is not None
        predicted, pull = problem.action_pullback(starts, acting)
        mean = predicted.mean(0)
        apart = predicted - mean
        meant = mean.unflatten(0, shape)
        toward = 2 * (meant - states) + goal_weight * problem.goal.gradient(meant)
        # The deviations add up to zero, so the mean's own derivative drops out of the penalty's.
        slope = pull((toward.flatten(0, -2) + 2 * self.weight * apart) / problem.members).sum(0)
        actions, memory = self.optimiser.apply(actions, slope.unflatten(0, shape), memory)
        return meant, actions, memory
