"""What the commands of `grasp` do.

What needs seconds to import is imported by the commands, so that `grasp --help` answers at once.
"""

from grasp_agent.cli.base import Command, UsageError
from grasp_agent.cli.compare import Compare
from grasp_agent.cli.demo import Demo
from grasp_agent.cli.evaluate import Evaluate
from grasp_agent.cli.models import Models
from grasp_agent.cli.plan import Plan
from grasp_agent.cli.record import Record
from grasp_agent.cli.train import Train
from grasp_agent.cli.tune import Tune

__all__ = ["Command", "Compare", "Demo", "Evaluate", "Models", "Plan", "Record", "Train", "Tune", "UsageError"]
