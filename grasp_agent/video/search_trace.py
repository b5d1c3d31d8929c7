"""Traces of a planner's search: its candidates, iteration by iteration."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from grasp_agent.agent.agent import GraspAgent
from grasp_agent.planners import GraspState, Planner, Problem
from grasp_agent.task.observation import batched, raw_vectors
from grasp_agent.validation import instance


class SearchTrace(NamedTuple):
    """The trace of a search for a plan from one observation."""

    candidates: NDArray[np.float32]
    """`[I + 1, N, H, G]`, achieved goals along the initial candidates and those after each iteration [the environment's
    units]: of GRASP's virtual states, of other planners' rollouts."""
    path: NDArray[np.float32]
    """`[H + 1, G]`, achieved goals along the resulting plan, from the start."""
    accepted: bool
    """Whether the plan was accepted."""
    iterations: int
    """Iterations of the planner; 0 where a proposal was accepted."""
    seconds: float
    """Time of the search, including that of tracing [s]."""


def trace_search(agent: GraspAgent, observation: Any, planner: Planner[Any] | None = None) -> SearchTrace:
    """Plans once from an observation, without a running plan.

    Args:
        agent: a trained agent.
        observation: a single observation.
        planner: None for the agent's own.

    Raises:
        ValueError: if the agent is untrained, the planner is none, or the observation does not fit.
    """
    instance(Planner, planner=planner)
    policy, world = agent.policy, agent.policy.world
    if world is None:
        raise ValueError("agent: expected one that has learned something")
    arrays, is_batch = batched(agent.perception.to_goal_dict(observation), policy.observation_space)
    if is_batch:
        raise ValueError("observation: expected a single one, got a batch")
    start, candidates_seen = world.encode(raw_vectors(arrays)), []
    problem = world.problem(start, arrays["desired_goal"], agent.horizon, agent.criteria)
    planner = planner or agent.planner

    def append_candidates(_: int, state: Any) -> None:
        candidates_seen.append(world.achieved(_states(problem, planner, state)[0]))

    with torch.inference_mode(False), torch.no_grad():
        plan = planner.plan(problem, seed=policy.controller.seed, on_step=append_candidates)
        path = world.achieved(torch.cat([start, plan.states[0]]))
    shape = (0, 0, agent.horizon, path.shape[-1])
    candidates = np.stack(candidates_seen) if candidates_seen else np.zeros(shape, np.float32)
    return SearchTrace(candidates, path, bool(plan.accepted[0]), plan.iterations, plan.seconds)


def _states(problem: Problem, planner: Planner[Any], state: Any) -> torch.Tensor:
    """Returns the states of a search's candidates, `[B, N, H, S]`."""
    return state.states if isinstance(state, GraspState) else problem.follow(planner.actions(problem, state))
