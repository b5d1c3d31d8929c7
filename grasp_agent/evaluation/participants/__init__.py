"""Participants of a comparison, resolved from a name, a file or an object to an agent with `predict`."""

from grasp_agent.evaluation.participants.base import TEXT, Given, OwnFile, Participant
from grasp_agent.evaluation.participants.places import located
from grasp_agent.evaluation.participants.resolve import (
    HOW,
    PLANNERS,
    Random,
    is_object,
    participant,
    participants,
    planner_called,
    without_proposals,
)

__all__ = [
    "HOW",
    "PLANNERS",
    "TEXT",
    "Given",
    "OwnFile",
    "Participant",
    "Random",
    "is_object",
    "located",
    "participant",
    "participants",
    "planner_called",
    "without_proposals",
]
