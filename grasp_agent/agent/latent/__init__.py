"""Planning with a world model of your own, whose latents have any shape."""

from grasp_agent.agent.latent.agent import LatentAgent
from grasp_agent.agent.latent.model import LatentModel

__all__ = ["LatentAgent", "LatentModel"]
