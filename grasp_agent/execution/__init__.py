"""Calls of a function for many items: in this process, in several, or on the machines of a cluster."""

from grasp_agent.execution.calls import Content, results
from grasp_agent.execution.engines import ENGINES, engine

__all__ = ["ENGINES", "Content", "engine", "results"]
