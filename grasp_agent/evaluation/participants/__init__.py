"""Who takes part in a comparison: from a name, a file or an object to something with `predict`."""

from grasp_agent.evaluation.participants.base import Given, Participant
from grasp_agent.evaluation.participants.resolve import HOW, PLANNERS, Random, participant, participants, planner_called

__all__ = ["HOW", "PLANNERS", "Given", "Participant", "Random", "participant", "participants", "planner_called"]
