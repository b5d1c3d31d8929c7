"""Planners: torch only, no Gymnasium, no files. Every planner plans for a batch of problems with any one-step model."""

from grasp_agent.planners.base import Plan, Planner
from grasp_agent.planners.descent import Adam, Descent, GaussNewton, Gradient
from grasp_agent.planners.grasp import GRASP, GraspState, lifted_loss
from grasp_agent.planners.initial import Line, Portfolio, Roadmap, Rollout
from grasp_agent.planners.noise import Coloured, NoiseSource
from grasp_agent.planners.problem import Criteria, Goal, Problem, Support, Verdict
from grasp_agent.planners.roadmap import RoadmapGraph, Steering, farthest_points
from grasp_agent.planners.shooting import ILQR, ShootingGradient
from grasp_agent.planners.tracking import Tracking

__all__ = [
    "GRASP",
    "ILQR",
    "Adam",
    "Coloured",
    "Criteria",
    "Descent",
    "GaussNewton",
    "Goal",
    "Gradient",
    "GraspState",
    "Line",
    "NoiseSource",
    "Plan",
    "Planner",
    "Portfolio",
    "Problem",
    "Roadmap",
    "RoadmapGraph",
    "Rollout",
    "ShootingGradient",
    "Steering",
    "Support",
    "Tracking",
    "Verdict",
    "farthest_points",
    "lifted_loss",
]
