"""A study of Optuna in a journal file, which continues after an interruption without a lost or a doubled trial."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grasp_agent import execution
from grasp_agent.evaluation.config import TrainingConfig
from grasp_agent.evaluation.folder import check_no_links
from grasp_agent.evaluation.tuning.space import Space
from grasp_agent.evaluation.tuning.trials import (
    Outcome,
    Training,
    Trial,
    Tuned,
    ranked,
    train_and_evaluate,
    winner_of,
)
from grasp_agent.files import atomic_write, locked
from grasp_agent.reading import opened, reading
from grasp_agent.validation import whole

if TYPE_CHECKING:
    import optuna

JOURNAL = "study.log"
"""File of a study in its folder."""
SEED, EPISODE_SEED = 70_000, 20_000
"""First seeds of the trainings and of the episodes of trials."""
CONFIRMING_SEED, CONFIRMING_EPISODE_SEED = 75_000, 25_000
"""First seeds of the further trainings of the best trials, and of their episodes."""
_CONFIRMED = 3  # trials that are trained further, besides the defaults; chosen by hand
_MORE_EPISODES = 2  # factor of the episodes after further trainings; chosen by hand


@contextmanager
def open_study(folder: Path, base: TrainingConfig, *, seeds: int = 2, episodes: int = 5) -> Iterator[Study]:
    """Opens the study in a folder, or begins one; no other process can open it meanwhile.

    Args:
        folder: of the study's file.
        base: environment, steps and all other settings that are not tuned; its seed is not used.
        seeds: trainings of a trial.
        episodes: of the evaluation of a training.

    Raises:
        ValueError: if Optuna is not installed, a number is out of range, the environment cannot be made, or the folder
            holds something else or a study of other settings.
        OSError: if the folder cannot be written, or another process has opened the study (`BlockingIOError`).
    """
    whole(1, seeds=seeds, episodes=episodes)
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ValueError('tune: optuna is not installed; it comes with `pip install "grasp-agent[tune]"`') from error
    path, space = folder / JOURNAL, Space.around(base)
    check_no_links(path)
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with locked(path, "another command tunes with this folder"):
            yield Study(_loaded(path), path, space, seeds, episodes)
    finally:
        optuna.logging.set_verbosity(before)


def _loaded(path: Path) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    Path(f"{path}.lock").unlink(missing_ok=True)  # of a process that was killed while it wrote: this one has the folder
    if path.exists():
        with opened(path) as stream:
            content = stream.read()
        complete = content[: content.rfind(b"\n") + 1]
        if complete != content:  # the last line of a process that was killed while it wrote
            with atomic_write(path) as aside:
                aside.write_bytes(complete)
    with reading(path, "no study of this command"):
        storage = JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
        return optuna.create_study(storage=storage, study_name="tune", direction="maximize", load_if_exists=True)


class Study:
    """An open study; see `open_study`.

    Each proposal is drawn with a seed of its own, so that a study with one training at a time has the same trials
    whether it was interrupted or not.

    Args:
        study: Optuna's.
        path: its file, for messages.
        space: the settings that are tuned.
        seeds: trainings of a trial.
        episodes: of the evaluation of a training.

    Raises:
        ValueError: if it is of other settings.
    """

    def __init__(self, study: optuna.Study, path: Path, space: Space, seeds: int, episodes: int) -> None:
        self._study, self._space, self._seeds, self._episodes = study, space, seeds, episodes
        self._open: dict[int, optuna.Trial] = {}
        settings = {**space.base.to_json(), "seeds": seeds, "episodes": episodes}
        del settings["seed"]
        wanted, held = json.loads(json.dumps(settings)), study.user_attrs.get("settings")
        if held is None and not study.trials:
            study.set_user_attr("settings", wanted)
        elif not isinstance(held, dict) or held != wanted:
            known = held if isinstance(held, dict) else {}
            name = next(name for name in {**wanted, **known} if known.get(name) != wanted.get(name))
            raise ValueError(f"{path}: it holds a study with {name} {known.get(name)}, not {wanted.get(name)}")
        if not study.trials:
            self._queue(space.defaults(), {})
        self._queue_interrupted()

    def _queue(self, params: dict[str, Any], attrs: dict[str, Any]) -> None:
        """Queues a trial; what it is queued with is known also where it is killed before it asks for it."""
        self._study.enqueue_trial(params, {**attrs, "queued": params})

    def _queue_interrupted(self) -> None:
        """Queues trials that a killed process had begun, with the scores that they have; that itself may be killed."""
        known = self._queued()
        for trial in self._in_state("RUNNING"):
            if trial.number not in known:
                params = {**trial.user_attrs.get("queued", {}), **trial.params}
                self._queue(params, {**trial.user_attrs, "again": trial.number})
            self._study.tell(trial.number, state=_state("FAIL"))

    def _queued(self) -> set[Any]:
        """Returns the numbers of trials that go on in other ones."""
        return {trial.user_attrs.get("again") for trial in self._study.get_trials(deepcopy=False)}

    def _in_state(self, *names: str) -> list[optuna.trial.FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=tuple(map(_state, names)))

    def _finished(self) -> list[optuna.trial.FrozenTrial]:
        """Returns the trials whose trainings are all done; some of them failed, which interrupted ones did not."""
        queued = self._queued()
        return [trial for trial in self._in_state("COMPLETE", "FAIL") if trial.number not in queued]

    def run(
        self,
        trials: int,
        confirm: int,
        *,
        executor: Executor | None = None,
        jobs: int = 1,
        on_training: Callable[[Training], object] | None = None,
    ) -> Tuned:
        """Runs trials until there are so many, and then further trainings of the best and of the defaults.

        Further trainings are evaluated on twice as many episodes.

        Args:
            trials: finished trials, with those of earlier calls.
            confirm: further trainings of the defaults and of each of the best three other trials.
            executor: of the trainings; None for processes of this machine.
            jobs: trainings at a time.
            on_training: called after each training.

        Raises:
            ValueError: if the defaults themselves fail, or a number is out of range.
        """
        whole(1, trials=trials, confirm=confirm, jobs=jobs)
        self._queue_interrupted()
        done = on_training or (lambda _: None)
        engine = {"executor": executor, "jobs": jobs}
        for training, outcome in execution.results(train_and_evaluate, self._trainings(trials), **engine):
            self._record(training, outcome)
            done(training)
        further = self._further(confirm)
        for training, outcome in execution.results(train_and_evaluate, iter(further), **engine):
            confirmed = self._study.user_attrs.get("confirmed", {})
            scores = {**confirmed.get(str(training.trial), {}), str(training.config.seed): outcome.score}
            self._study.set_user_attr("confirmed", {**confirmed, str(training.trial): scores})
            done(training)
        return self._tuned(confirm)

    def left(self, trials: int, confirm: int) -> int:
        """Returns how many trainings are left to do, of trials and further ones."""
        found = self.trials(confirm)
        begun = [len(_scores(trial)) for trial in self._in_state("WAITING")]
        others = min(_CONFIRMED, trials - 1)
        candidates = self._candidates(found) if len(found) >= trials else []
        known = sum(len(self._confirmed(trial.key)) for trial in candidates)
        return (trials - min(trials, len(found))) * self._seeds - sum(begun) + (1 + others) * confirm - known

    def trials(self, confirm: int) -> list[Trial]:
        """Returns all finished trials, with their first `confirm` further scores."""
        return sorted((self._trial(trial, confirm) for trial in self._finished()), key=lambda trial: trial.number)

    def _trial(self, trial: optuna.trial.FrozenTrial, confirm: int) -> Trial:
        times = [seconds for _, seconds in _scores(trial).values()]
        known = self._confirmed(trial.number)
        seeds = map(str, range(CONFIRMING_SEED, CONFIRMING_SEED + confirm))
        return Trial(
            number=trial.user_attrs["place"],
            key=trial.number,
            params=dict(trial.params),
            score=trial.value,
            seconds=sum(times) / len(times),
            problem=trial.user_attrs.get("problem", ""),
            confirmed=tuple(known[seed] for seed in seeds if seed in known),
        )

    def _confirmed(self, key: int) -> dict[str, float | None]:
        return self._study.user_attrs.get("confirmed", {}).get(str(key), {})

    def _trainings(self, trials: int) -> Iterator[Training]:
        """Yields the trainings of trials that are proposed when a training can begin."""
        while True:
            begun = len(self._in_state("RUNNING")) + len(self._finished())
            if begun >= trials and not self._in_state("WAITING"):
                return
            trial = self._asked(begun)
            config = self._space.config(trial.params)
            for seed in range(SEED, SEED + self._seeds):
                if str(seed) not in _scores(trial):
                    yield Training(trial.number, replace(config, seed=seed), self._episodes, EPISODE_SEED)
            self._finish(trial)  # one that was interrupted after its last training

    def _asked(self, place: int) -> optuna.Trial:
        import optuna

        self._study.sampler = optuna.samplers.TPESampler(seed=SEED + place)
        trial = self._study.ask()
        if "place" not in trial.user_attrs:
            trial.set_user_attr("place", place)
        self._space.suggest(trial)
        self._open[trial.number] = trial
        return trial

    def _record(self, training: Training, outcome: Outcome) -> None:
        trial = self._open[training.trial]
        if outcome.problem:
            if trial.user_attrs["place"] == 0:
                raise ValueError(f"{training.config.env}: the defaults fail: {outcome.problem}")
            trial.set_user_attr("problem", outcome.problem)
        elif "is_success" not in self._study.user_attrs:
            self._study.set_user_attr("is_success", outcome.is_success)
        result = [outcome.score, round(outcome.seconds, 2)]
        trial.set_user_attr("scores", {**_scores(trial), str(training.config.seed): result})
        self._finish(trial)

    def _finish(self, trial: optuna.Trial) -> None:
        """Ends a trial whose trainings are all done."""
        scores = _scores(trial)
        if len(scores) < self._seeds or trial.number not in self._open:
            return
        del self._open[trial.number]
        if "problem" in trial.user_attrs:
            self._study.tell(trial, state=_state("FAIL"))
        else:
            self._study.tell(trial, sum(score for score, _ in scores.values()) / len(scores))

    def _candidates(self, trials: list[Trial]) -> list[Trial]:
        """Returns the defaults and the best other trials."""
        others = [trial for trial in ranked(trials) if not trial.is_default]
        return [trials[0], *others[:_CONFIRMED]]

    def _further(self, confirm: int) -> list[Training]:
        """Returns the further trainings that are left."""
        return [
            Training(
                trial.key,
                replace(self._space.config(trial.params), seed=seed),
                _MORE_EPISODES * self._episodes,
                CONFIRMING_EPISODE_SEED,
            )
            for trial in self._candidates(self.trials(confirm))
            for seed in range(CONFIRMING_SEED, CONFIRMING_SEED + confirm)
            if str(seed) not in self._confirmed(trial.key)
        ]

    def _tuned(self, confirm: int) -> Tuned:
        found = self.trials(confirm)
        winner = winner_of(self._candidates(found))
        is_success = bool(self._study.user_attrs.get("is_success"))
        return Tuned(tuple(found), winner, self._space.config(winner.params), is_success)


def _state(name: str) -> optuna.trial.TrialState:
    import optuna

    return optuna.trial.TrialState[name]


def _scores(trial: optuna.Trial | optuna.trial.FrozenTrial) -> dict[str, list[Any]]:
    """Returns `[score, CPU seconds]` of a trial's trainings by seed."""
    return trial.user_attrs.get("scores", {})
