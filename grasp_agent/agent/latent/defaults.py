"""The default planner for latents."""

from __future__ import annotations

from grasp_agent.planners import ICEM, Coloured, Retrieval, Rollout


def default_planner(frame_skip: int) -> ICEM:
    """Returns the default planner for latents, whose noise goes on along the environment's steps."""
    noise = Coloured(beta=2.0, steps=frame_skip)
    return ICEM(iterations=4, samples=64, proposals=Retrieval(otherwise=Rollout(shape=noise)), proposed=8, noise=noise)
