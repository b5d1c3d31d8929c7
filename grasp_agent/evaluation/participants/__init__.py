"""Participants of a comparison, resolved from a name, a file or an object to an agent with `predict`."""

from grasp_agent.evaluation.participants.base import Given, Participant
from grasp_agent.evaluation.participants.resolve import HOW, PLANNERS, Random, participant, participants, planner_called

__all__ = ["HOW", "PLANNERS", "Given", "Participant", "Random", "participant", "participants", "planner_called"]
