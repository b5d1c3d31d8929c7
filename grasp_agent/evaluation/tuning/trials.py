"""A training of a trial and its score, as a pure function; the trials of a study as data."""

from __future__ import annotations

import math
import statistics
import time
from typing import Any, NamedTuple

from grasp_agent.evaluation.config import TrainingConfig, make_agent
from grasp_agent.evaluation.evaluate import evaluate
from grasp_agent.evaluation.rollout import opened


class Training(NamedTuple):
    """One training of a trial, and the evaluation that follows it."""

    trial: int
    """The trial's number in the study."""
    config: TrainingConfig
    """Its settings and its seed."""
    episodes: int
    """Episodes of the evaluation."""
    first: int
    """Seed of the first of them."""


class Outcome(NamedTuple):
    """What became of it."""

    score: float | None
    """Success at the end, a fraction, or the mean return where success is not reported; None if it failed."""
    seconds: float
    """CPU time of training and evaluation [s]."""
    is_success: bool
    """Whether the score is a success."""
    problem: str = ""
    """Why it failed."""


class Trial(NamedTuple):
    """A finished trial."""

    number: int
    """Its place in the order in which trials were proposed; 0 for the defaults."""
    key: int
    """Its number in Optuna's study, in which interrupted trials count too."""
    params: dict[str, Any]
    """The settings, see `Space`."""
    score: float | None
    """Mean over its trainings; None if one failed."""
    seconds: float
    """Mean CPU time of a training and its evaluation [s]."""
    problem: str
    """Why it failed."""
    confirmed: tuple[float | None, ...]
    """Scores of further trainings, if there were any."""

    @property
    def is_default(self) -> bool:
        """Whether it has the default settings."""
        return self.number == 0

    @property
    def confirmed_mean(self) -> float | None:
        """Mean score of the further trainings; minus infinity if one failed, None if there were none."""
        if not self.confirmed:
            return None
        known = [-math.inf if score is None else score for score in self.confirmed]
        return sum(known) / len(known)


class Tuned(NamedTuple):
    """The result of a study."""

    trials: tuple[Trial, ...]
    """All finished trials."""
    winner: Trial
    """The defaults, unless another trial was clearly better in the further trainings, see `winner_of`."""
    config: TrainingConfig
    """Its configuration."""
    is_success: bool
    """Whether scores are successes, or else returns."""


def train_and_evaluate(training: Training) -> Outcome:
    """Trains an agent and evaluates it; settings with which that fails are an outcome too."""
    import grasp_envs  # noqa: F401  registers its environments in a new process
    from grasp_agent.models.threads import one_thread

    began = time.process_time()
    try:
        with one_thread():
            agent = make_agent(training.config)
            agent.learn(training.config.steps)
            with opened(training.config.env, agent, options=training.config.env_kwargs) as env:
                found = evaluate(agent, env, training.episodes, training.first)
        if agent.env is not None:
            agent.env.close()
    except Exception as error:  # settings may break a training in any way: the others go on
        return Outcome(None, time.process_time() - began, False, str(error) or type(error).__name__)
    seconds, is_success = time.process_time() - began, found.summary()["success_end"] is not None
    if not math.isfinite(found.score):
        return Outcome(None, seconds, is_success, f"expected a finite return, got {found.score}")
    return Outcome(found.score, seconds, is_success)


def ranked(trials: list[Trial]) -> list[Trial]:
    """Returns the trials that did not fail, the best first; of equal ones the cheaper first."""
    scored = [(trial.score, trial) for trial in trials if trial.score is not None]
    return [trial for _, trial in sorted(scored, key=lambda pair: (-pair[0], pair[1].seconds))]


def winner_of(trials: list[Trial]) -> Trial:
    """Returns the trial that is best in the further trainings; the defaults unless another one is clearly better there.

    Of the best of several trials some are so by luck: where the mean of the differences to the defaults, training by
    training, is within its standard error, the defaults stay (after Breiman et al. 1984, section 3.4.3).
    """
    known = [(trial.confirmed_mean, trial) for trial in trials if trial.confirmed_mean is not None]
    order = sorted(known, key=lambda pair: (-pair[0], not pair[1].is_default, pair[1].seconds))
    best, default = order[0][1], next((trial for _, trial in known if trial.is_default), None)
    return best if default is None or _clearly_better(best, default) else default


def _clearly_better(one: Trial, other: Trial) -> bool:
    """Returns whether further trainings of one trial are better than another's by more than the standard error."""
    pairs = zip(one.confirmed, other.confirmed, strict=True)
    differences = [-math.inf if a is None else math.inf if b is None else a - b for a, b in pairs]
    mean = sum(differences) / len(differences)
    if not math.isfinite(mean) or len(differences) == 1:
        return mean > 0
    return mean > statistics.stdev(differences) / math.sqrt(len(differences))
