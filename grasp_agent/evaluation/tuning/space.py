"""The settings that are tuned, and their ranges around the defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from grasp_agent.evaluation.config import TrainingConfig, make_agent, planner_from_name
from grasp_agent.models import MLPConfig, TrainConfig
from grasp_agent.planners import GRASP, ICEM, Planner

# All ranges are chosen by hand, towards settings that cost little more than the defaults.
_PLANNERS = ("grasp", "icem")
_KINDS = ("chosen", "sharp", "smooth")
_WIDTHS = (64, 128, 192)
_BATCHES = (64, 128, 256)
_DECAYS = (None, 0.02, 0.1, 0.5, 2.0)


class Suggestions(Protocol):
    """The part of Optuna's trial that proposes values."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Proposes a whole number."""
        ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Proposes a number."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Proposes one of several values."""
        ...


class Space(NamedTuple):
    """The values that settings may take, as flat parameters by name."""

    base: TrainingConfig
    """What is not tuned."""
    horizon: int
    """Default horizon in its environment [steps]."""

    @classmethod
    def around(cls, base: TrainingConfig) -> Space:
        """Returns the space around the defaults in an environment, which is made for a moment.

        Raises:
            ValueError: if it cannot be made with its options, or an agent cannot learn in it.
        """
        agent = make_agent(base)
        if agent.env is not None:
            agent.env.close()
        return cls(base, agent.horizon)

    def defaults(self) -> dict[str, Any]:
        """Returns the parameters of the default settings."""
        train, planner = TrainConfig(), GRASP()
        return {
            "horizon": self.horizon,
            "planner": "grasp",
            "grasp_candidates": planner.candidates,
            "grasp_iterations": planner.iterations,
            "model": "chosen",
            "lr": train.lr,
            "gradient_steps": train.gradient_steps,
            "batch_size": train.batch_size,
            "weight_decay": train.weight_decay,
        }

    def suggest(self, trial: Suggestions) -> dict[str, Any]:
        """Returns the parameters that a trial proposes; some are asked for only where another one has a certain value.

        Iterations of GRASP are those at whose end a sync is due.
        """
        train, planner = TrainConfig(), GRASP()
        known: dict[str, Any] = {
            "horizon": trial.suggest_int("horizon", max(2, self.horizon // 2), 3 * self.horizon // 2, log=True),
            "planner": trial.suggest_categorical("planner", _PLANNERS),
        }
        if known["planner"] == "grasp":
            known["grasp_candidates"] = trial.suggest_int("grasp_candidates", 4, 64, log=True)
            most = planner.opening + 3 * planner.sync_every
            known["grasp_iterations"] = trial.suggest_int(
                "grasp_iterations", planner.opening, most, step=planner.sync_every
            )
        else:
            known["icem_samples"] = trial.suggest_int("icem_samples", 64, 256, log=True)
            known["icem_iterations"] = trial.suggest_int("icem_iterations", 3, 12, log=True)
        known["model"] = trial.suggest_categorical("model", _KINDS)
        if known["model"] != "chosen":
            known["width"] = trial.suggest_categorical("width", _WIDTHS)
        known["lr"] = trial.suggest_float("lr", train.lr / 4, train.lr * 4, log=True)
        least, greatest = train.gradient_steps // 2, 3 * train.gradient_steps // 2
        known["gradient_steps"] = trial.suggest_int("gradient_steps", least, greatest, log=True)
        known["batch_size"] = trial.suggest_categorical("batch_size", _BATCHES)
        known["weight_decay"] = trial.suggest_categorical("weight_decay", _DECAYS)
        return known

    def config(self, params: Mapping[str, Any]) -> TrainingConfig:
        """Returns the configuration of a training with these parameters."""
        train = TrainConfig(**{name: params[name] for name in ("lr", "gradient_steps", "batch_size", "weight_decay")})
        return self.base.with_settings(
            horizon=params["horizon"], planner=_planner(params), model=_model(params), train=train
        )


def _planner(params: Mapping[str, Any]) -> Planner[Any]:
    planner = planner_from_name(params["planner"])
    if isinstance(planner, GRASP):
        return replace(planner, candidates=params["grasp_candidates"], iterations=params["grasp_iterations"])
    assert isinstance(planner, ICEM)
    return replace(planner, samples=params["icem_samples"], iterations=params["icem_iterations"])


def _model(params: Mapping[str, Any]) -> MLPConfig | None:
    """Returns the network's shape; None selects the kind by held-out data."""
    if params["model"] == "chosen":
        return None
    kind = MLPConfig.sharp() if params["model"] == "sharp" else MLPConfig.smooth()
    return replace(kind, width=params["width"])
