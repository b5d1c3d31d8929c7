"""Evaluation of an agent while it learns; the best agent is kept in a file."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

from stable_baselines3.common.callbacks import BaseCallback

from grasp_agent.agent.agent import GraspAgent
from grasp_agent.evaluation.evaluate import Evaluation, evaluate
from grasp_agent.files import atomic_write
from grasp_agent.validation import whole

SEED = 30_000
"""Seed of the first of these episodes."""


class Checked(NamedTuple):
    """One evaluation on the way."""

    steps: int
    """Environment steps that the agent had learned from."""
    score: float
    """Success at the end, a fraction; the mean return where the environment does not report success."""
    best: bool
    """Whether it was the best so far, and has been saved."""


class BestAgent(BaseCallback):
    """Evaluates the agent every so many steps and at the end of learning, and saves it where it is the best so far.

    What is evaluated is a copy, from the bytes that are saved: the training itself is not disturbed, and the saved
    agent gives the same figures again. The later one of two equal agents is kept, which has learned from more steps.
    A file that is already there counts as the best so far if `resume` is True. Figures are logged as `eval/...`.

    Args:
        path: file of the best agent.
        every: environment steps between two evaluations.
        episodes: of an evaluation, with the seeds from 30,000.
        resume: whether the file that is already there is of the same training.
        on_checked: called after each evaluation.

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        path: Path,
        *,
        every: int,
        episodes: int = 20,
        resume: bool = False,
        on_checked: Callable[[Checked], object] | None = None,
    ) -> None:
        super().__init__()
        whole(1, every=every, episodes=episodes)
        self._path, self._every, self._episodes, self._resume = path, every, episodes, resume
        self._on_checked = on_checked or (lambda _: None)
        self._checked_at = 0
        self.best: Checked | None = None

    def _on_training_start(self) -> None:
        self._checked_at = self.num_timesteps
        if self._resume and self.best is None and self._path.exists():
            agent = GraspAgent.load(self._path, device="cpu")
            self.best = Checked(agent.num_timesteps, self._evaluated(agent).score, best=True)

    def _on_step(self) -> bool:
        due = self.num_timesteps - self._checked_at >= self._every
        if due and self.num_timesteps < self.locals.get("total_timesteps", math.inf):  # then the last fit comes first
            self._check()
        return True

    def _on_training_end(self) -> None:
        self._check()

    def _check(self) -> None:
        agent = cast("GraspAgent", self.model)
        self._checked_at = agent.num_timesteps
        if not agent.policy.is_fitted:
            return
        stream = io.BytesIO()
        agent.save(stream)
        found = self._evaluated(GraspAgent.load(io.BytesIO(stream.getvalue()), device="cpu"))
        self._log(found, agent.num_timesteps)
        best = self.best is None or found.score >= self.best.score
        checked = Checked(agent.num_timesteps, found.score, best)
        if best:
            with atomic_write(self._path) as aside:
                aside.write_bytes(stream.getvalue())
            self.best = checked
        self._on_checked(checked)

    def _evaluated(self, agent: GraspAgent) -> Evaluation:
        env: Any = agent.env_id
        if env is None:
            raise ValueError("env: expected one with a registered id, of which another can be made for evaluation")
        return evaluate(agent, env, self._episodes, SEED)

    def _log(self, found: Evaluation, steps: int) -> None:
        summary = found.summary()
        if summary["success_end"] is not None:
            self.logger.record("eval/success_rate", summary["success_end"])
        self.logger.record("eval/mean_reward", summary["return_mean"])
        self.logger.dump(steps)
