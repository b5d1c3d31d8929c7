"""World models: what has been learned of an environment, as one-step dynamics that planners can call."""

from grasp_agent.models.dynamics.base import WorldModel
from grasp_agent.models.dynamics.body_frame import FramedMLP
from grasp_agent.models.dynamics.ensemble import EnsembleMLP, MLPConfig
from grasp_agent.models.dynamics.fitting import FitReport, TrainConfig
from grasp_agent.models.dynamics.normalizer import Normalizer
from grasp_agent.models.encoder.encoder import EncoderConfig, PixelEncoder
from grasp_agent.models.encoder.fitting import EncoderReport, fit_encoder

__all__ = [
    "EncoderConfig",
    "EncoderReport",
    "EnsembleMLP",
    "FitReport",
    "FramedMLP",
    "MLPConfig",
    "Normalizer",
    "PixelEncoder",
    "TrainConfig",
    "WorldModel",
    "fit_encoder",
]
