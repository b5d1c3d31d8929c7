"""World models: what has been learned of an environment, as one-step dynamics that planners can call."""

from grasp_agent.models.base import WorldModel
from grasp_agent.models.encoder import EncoderConfig, PixelEncoder
from grasp_agent.models.encoder_training import EncoderReport, fit_encoder
from grasp_agent.models.frame import Frame, FramedMLP
from grasp_agent.models.mlp import EnsembleMLP, MLPConfig
from grasp_agent.models.normalizer import Normalizer

__all__ = [
    "EncoderConfig",
    "EncoderReport",
    "EnsembleMLP",
    "Frame",
    "FramedMLP",
    "MLPConfig",
    "Normalizer",
    "PixelEncoder",
    "WorldModel",
    "fit_encoder",
]
