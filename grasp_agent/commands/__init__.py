"""What the commands of `grasp` do.

What needs seconds to import is imported by the commands, so that `grasp --help` answers at once.
"""

from grasp_agent.commands.base import Command, UsageError
from grasp_agent.commands.compare import Compare
from grasp_agent.commands.demo import Demo
from grasp_agent.commands.evaluate import Evaluate
from grasp_agent.commands.models import Models
from grasp_agent.commands.plan import Plan
from grasp_agent.commands.record import Record
from grasp_agent.commands.train import Train

__all__ = ["Command", "Compare", "Demo", "Evaluate", "Models", "Plan", "Record", "Train", "UsageError"]
