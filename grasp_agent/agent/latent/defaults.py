"""The default planner and criteria for latents."""

from __future__ import annotations

from grasp_agent.planners import ICEM, Coloured, Criteria, Retrieval, Rollout, Stitching


def default_planner(frame_skip: int) -> ICEM:
    """Returns the default planner for latents, whose noise goes on along the environment's steps."""
    noise = Coloured(beta=2.0, steps=frame_skip)
    proposals = Stitching(otherwise=Retrieval(otherwise=Rollout(shape=noise)))
    return ICEM(iterations=4, samples=64, proposals=proposals, proposed=8, noise=noise)


def default_criteria() -> Criteria:
    """Returns the default criteria: the goal is reached early, by the weight of the way, and at the last step."""
    return Criteria(hold=1, running=1.0, feedback=False)
