"""Goals, prior knowledge of a task, and layouts of observations."""

from grasp_agent.task.goal import Goal, GoalVecEnv
from grasp_agent.task.structure import Frame, Structure

__all__ = ["Frame", "Goal", "GoalVecEnv", "Structure"]
