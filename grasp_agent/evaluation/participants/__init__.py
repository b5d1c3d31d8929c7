"""Who takes part in a comparison: from a name, a file or an object to something with `predict`."""

from grasp_agent.evaluation.participants.base import Contestant, Given
from grasp_agent.evaluation.participants.resolve import HOW, PLANNERS, Random, contestant, contestants, planner_called

__all__ = ["HOW", "PLANNERS", "Contestant", "Given", "Random", "contestant", "contestants", "planner_called"]
