"""When running plans are replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grasp_agent.agent.plan_state import PlanState
from grasp_agent.models.world import World
from grasp_agent.validation import more_than, whole

Array = NDArray[np.float32]
Goals = NDArray[np.floating[Any]]
_SMALLEST_RADIUS = 1e-3  # of `ReplanRule.radius`, for models that are almost exact [model units]; chosen by hand


@dataclass(frozen=True, kw_only=True)
class ReplanRule:
    """When a running plan is replaced.

    A plan is kept as long as its goal is the same, it is not at its end, observations stay near its predictions, and
    the goal is reached where it predicts that. Where it has ended at the goal, only a plan that is accepted, or stays
    there, replaces it; else its last step goes on. A plan to a state on the way, where the goal is farther than the
    horizon, is replaced after half of its steps.

    Attributes:
        commit: steps after which a plan that was not accepted is replaced; at least 40 where contact has to be made.
        deviation: largest distance of a state from its prediction, in multiples of the model's error, the 99 %
            quantile of the one-step error on held-out data.
        work: limit of what one call may search for new plans [rows of a forward pass of the model]; a longer search
            goes on in the next calls, if these get neither `state` nor `episode_start`. Where there is no plan to
            follow meanwhile, the best of the planner's proposals comes first. None is no limit.
        total_work: work after which a search that goes on ends with the best plan so far.
        patience: how often the same observation in a row gets the same action, where a policy keeps its plan between
            calls; after that the plan counts as failed, and a new one is made with another seed of noise.

    Raises:
        ValueError: if a number is out of range.
    """

    commit: int = 8
    deviation: float = 2.0
    patience: int = 8
    work: int | None = 45_000
    total_work: int = 900_000

    def __post_init__(self) -> None:
        whole(1, commit=self.commit, patience=self.patience, total_work=self.total_work)
        more_than(0, deviation=self.deviation)
        if self.work is not None:
            whole(1, work=self.work)

    def radius(self, world: World) -> float:
        """Returns the largest distance of states from their predictions [model units]."""
        return max(self.deviation * world.error, _SMALLEST_RADIUS)

    def on_course(
        self, states: Array, goals: Array, plans: PlanState, radius: float, delay: int = 0
    ) -> NDArray[np.bool_]:
        """Returns where plans are kept, `[n]`, for states `[n, S]` [model units] and goals `[n, G]`.

        New plans that take more calls, `delay`, are begun as many steps earlier.
        """
        horizon = plans.actions.shape[1]
        length = np.where(plans.final, horizon, max(1, horizon // 2))  # states on the way are not to be held
        left = np.where(plans.accepted, length, np.minimum(length, self.commit)) - plans.step
        return plans.aims_at(goals) & plans.usable(states, radius) & (left > delay)
