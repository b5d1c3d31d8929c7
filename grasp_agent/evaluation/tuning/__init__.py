"""Search for settings of planner and model with Optuna (Akiba et al. 2019, arXiv 1907.10902)."""

from grasp_agent.evaluation.tuning.report import HEADERS, cells, conclusion, write
from grasp_agent.evaluation.tuning.study import Study, open_study
from grasp_agent.evaluation.tuning.trials import Trial, Tuned

__all__ = ["HEADERS", "Study", "Trial", "Tuned", "cells", "conclusion", "open_study", "write"]
