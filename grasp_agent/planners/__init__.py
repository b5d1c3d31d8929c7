"""Planners in torch only, without Gymnasium or files. Each plans for a batch of problems with any one-step model."""

from grasp_agent.planners.approach import Approach
from grasp_agent.planners.base import Initial, Plan, Planner
from grasp_agent.planners.blocks import Recombination
from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.cem import CEM, ICEM
from grasp_agent.planners.collocation import Collocation
from grasp_agent.planners.distance_goal import DistanceGoal
from grasp_agent.planners.grasp import GRASP, GraspState, lifted_loss
from grasp_agent.planners.ilqr import ILQR
from grasp_agent.planners.lifted.first_order import Adam, Descent, GaussNewton, Gradient, Relaxation
from grasp_agent.planners.lifted.newton import LiftedNewton
from grasp_agent.planners.mppi import MPPI
from grasp_agent.planners.noise import Coloured, NoiseSource
from grasp_agent.planners.objective import Objective, Return
from grasp_agent.planners.problem import Problem
from grasp_agent.planners.proposals.contact import ContactReplay
from grasp_agent.planners.proposals.initial import Line, Portfolio, Rollout, filled
from grasp_agent.planners.proposals.replayed import Replay, Roadmap, Snap, Warp
from grasp_agent.planners.proposals.retrieval import Retrieval
from grasp_agent.planners.proposals.stitching import Stitching
from grasp_agent.planners.proposals.tracking import Tracking
from grasp_agent.planners.protocols import Block, Goal, History, Recording, ReplayWindows
from grasp_agent.planners.receding import Receding
from grasp_agent.planners.refusals import Refusals
from grasp_agent.planners.regions import BlockSupport, Support, TerminalStates
from grasp_agent.planners.roadmap.blocks import BlockRoadmap, block_dynamics, block_jacobian
from grasp_agent.planners.roadmap.contexts import ContextRoadmap
from grasp_agent.planners.roadmap.covering import farthest_points
from grasp_agent.planners.roadmap.graph import RoadmapGraph
from grasp_agent.planners.roadmap.linear_model import LinearModel
from grasp_agent.planners.roadmap.recorded import RecordedRoadmap
from grasp_agent.planners.roadmap.steering import InertialSteering, Steering
from grasp_agent.planners.scoring import Criteria, Verdict
from grasp_agent.planners.shooting import GradientShooting

__all__ = [
    "CEM",
    "GRASP",
    "ICEM",
    "ILQR",
    "MPPI",
    "Adam",
    "Approach",
    "Block",
    "BlockRoadmap",
    "BlockSupport",
    "Candidates",
    "Collocation",
    "Coloured",
    "ContactReplay",
    "ContextRoadmap",
    "Criteria",
    "Descent",
    "DistanceGoal",
    "GaussNewton",
    "Goal",
    "Gradient",
    "GradientShooting",
    "GraspState",
    "History",
    "InertialSteering",
    "Initial",
    "LiftedNewton",
    "Line",
    "LinearModel",
    "NoiseSource",
    "Objective",
    "Plan",
    "Planner",
    "Portfolio",
    "Problem",
    "Receding",
    "Recombination",
    "RecordedRoadmap",
    "Recording",
    "Refusals",
    "Relaxation",
    "Replay",
    "ReplayWindows",
    "Retrieval",
    "Return",
    "Roadmap",
    "RoadmapGraph",
    "Rollout",
    "Snap",
    "Steering",
    "Stitching",
    "Support",
    "TerminalStates",
    "Tracking",
    "Verdict",
    "Warp",
    "block_dynamics",
    "block_jacobian",
    "farthest_points",
    "filled",
    "lifted_loss",
]
