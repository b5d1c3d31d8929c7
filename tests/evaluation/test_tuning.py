"""Studies: their trials, their interruptions, their winner. Trainings are replaced by a formula, but in one test."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from grasp_agent import GRASP
from grasp_agent.agent.settings import AgentSettings
from grasp_agent.evaluation.config import TrainingConfig
from grasp_agent.evaluation.tuning import Study, Trial, Tuned, cells, conclusion, open_study, study, write
from grasp_agent.evaluation.tuning.space import Space
from grasp_agent.evaluation.tuning.trials import Outcome, Training, train_and_evaluate, winner_of
from grasp_agent.models import MLPConfig, TrainConfig
from grasp_agent.planners import ICEM

BASE = TrainingConfig(env="grasp/BallNav-v0", steps=150)
Call = Callable[[Training], Outcome]


class Formula:
    """Stands for trainings: a score of the settings and the seed; the call of a given number is killed."""

    def __init__(self, *, killed_at: int = -1, score: Callable[[Training], float] | None = None) -> None:
        self.trained: list[Training] = []
        self.killed_at, self.score = killed_at, score or _near_seventy

    def __call__(self, training: Training) -> Outcome:
        if len(self.trained) == self.killed_at:
            raise KeyboardInterrupt
        self.trained.append(training)
        return Outcome(self.score(training), 1.0, True)


def _near_seventy(training: Training) -> float:
    """Best for a horizon of 70 steps; a little better for later seeds."""
    assert training.config.settings.horizon is not None
    return 1 - abs(training.config.settings.horizon - 70) / 100 + training.config.seed % 10 / 1000


@pytest.fixture
def tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tuned]:
    """A run of a study, in a folder, with a formula."""

    def run(formula: Call, trials: int = 12, folder: str = "study", **settings: Any) -> Tuned:
        monkeypatch.setattr(study, "train_and_evaluate", formula)
        with open_study(tmp_path / folder, BASE, **settings) as opened:
            return opened.run(trials, 2)

    return run


def test_the_defaults_are_the_first_trial_and_the_winner_is_better_in_further_trainings(tune):
    formula = Formula()
    tuned = tune(formula)
    first = formula.trained[0].config.settings
    assert (first.horizon, first.planner, first.model, first.train) == (50, GRASP(), None, TrainConfig())
    assert len(tuned.trials) == 12 and tuned.trials[0].is_default and not tuned.winner.is_default
    assert tuned.winner.score == max(trial.score for trial in tuned.trials)
    assert tuned.config.settings.horizon == tuned.winner.params["horizon"] != 50
    assert [len(trial.confirmed) for trial in tuned.trials if trial.confirmed] == [2] * 4
    assert conclusion(tuned).startswith(f"Trial {tuned.winner.number} wins with horizon ")


def test_trials_and_further_trainings_have_other_seeds_than_reports(tune):
    formula = Formula()
    tune(formula, trials=3, seeds=2, episodes=7)
    assert {(t.config.seed, t.first) for t in formula.trained[:6]} == {(70_000, 20_000), (70_001, 20_000)}
    assert {(t.config.seed, t.first) for t in formula.trained[6:]} == {(75_000, 25_000), (75_001, 25_000)}
    assert [training.episodes for training in formula.trained] == [7] * 6 + [14] * 6


@pytest.mark.parametrize("killed_at", [0, 1, 6, 7, 21, 24, 27])
def test_an_interrupted_study_continues_without_a_lost_or_doubled_trial(killed_at: int, tune):
    whole, first, second = Formula(), Formula(killed_at=killed_at), Formula()
    unbroken = tune(whole, folder="whole")
    with pytest.raises(KeyboardInterrupt):
        tune(first)
    resumed = tune(second)
    assert [trial._replace(key=0) for trial in resumed.trials] == [trial._replace(key=0) for trial in unbroken.trials]
    assert resumed.winner.number == unbroken.winner.number and resumed.config == unbroken.config
    done = [training._replace(trial=0) for training in first.trained + second.trained]
    assert done == [training._replace(trial=0) for training in whole.trained]  # none is repeated, either


def test_a_study_that_is_killed_again_and_again_ends_as_the_unbroken_one(tune):
    unbroken = tune(Formula(), folder="whole")
    resumed, attempts = None, 0
    while resumed is None:
        attempts += 1
        with suppress(KeyboardInterrupt):
            resumed = tune(Formula(killed_at=1))
    assert attempts == 12 * 2 + 4 * 2  # each makes one training
    assert [trial._replace(key=0) for trial in resumed.trials] == [trial._replace(key=0) for trial in unbroken.trials]


@pytest.mark.parametrize("method", ["tell", "enqueue_trial"])
def test_a_process_that_is_killed_while_it_continues_a_study_loses_nothing(method: str, tune, monkeypatch):
    unbroken = tune(Formula(), folder="whole")
    with pytest.raises(KeyboardInterrupt):
        tune(Formula(killed_at=3))
    with monkeypatch.context() as patch:

        def killed(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(optuna.Study, method, killed)
        with pytest.raises(KeyboardInterrupt):
            tune(Formula())
    resumed = tune(Formula())
    assert [trial._replace(key=0) for trial in resumed.trials] == [trial._replace(key=0) for trial in unbroken.trials]


def test_half_a_line_of_a_killed_process_and_its_lock_are_removed(tmp_path: Path, tune):
    before = tune(Formula(), trials=3)
    with (tmp_path / "study" / study.JOURNAL).open("ab") as file:
        file.write(b'{"op_code":4,"wor')
    (tmp_path / "study" / f"{study.JOURNAL}.lock").touch()
    assert tune(Formula(), trials=3) == before
    assert len(tune(Formula(), trials=5).trials) == 5


def test_a_study_goes_on_with_more_trials_and_more_further_trainings(tune, tmp_path: Path, monkeypatch):
    before, more = tune(Formula(), trials=3), Formula()
    after = tune(more, trials=5)
    assert [trial.params for trial in after.trials[:3]] == [trial.params for trial in before.trials]
    assert len({training.trial for training in more.trained if training.config.seed < 75_000}) == 2
    again = Formula()
    monkeypatch.setattr(study, "train_and_evaluate", again)
    with open_study(tmp_path / "study", BASE) as opened:
        assert opened.left(5, 2) == 0 and opened.left(6, 3) > opened.left(5, 3) > 0
        opened.run(5, 3)
    assert {training.config.seed for training in again.trained} == {75_002}


@pytest.mark.parametrize(
    ("base", "settings", "said"),
    [
        (BASE, {"episodes": 3}, "it holds a study with episodes 5, not 3"),
        (BASE, {"seeds": 3}, "it holds a study with seeds 2, not 3"),
        (replace(BASE, steps=9), {}, "it holds a study with steps 150, not 9"),
        (replace(BASE, env="grasp/BallNavTrap-v0"), {}, "a study with env grasp/BallNav-v0, not grasp/BallNavTrap-v0"),
        (replace(BASE, settings=AgentSettings(goal_tolerance=0.3)), {}, "a study with goal_tolerance None, not 0.3"),
    ],
)
def test_a_study_of_other_settings_is_refused(base, settings, said, tune, tmp_path: Path):
    tune(Formula(), trials=1)
    with pytest.raises(ValueError, match=said), open_study(tmp_path / "study", base, **settings):
        pass


def test_a_folder_in_use_or_of_something_else_is_refused(tmp_path: Path, tune):
    with (
        open_study(tmp_path / "a", BASE),
        pytest.raises(BlockingIOError, match="another command tunes with this folder"),
        open_study(tmp_path / "a", BASE),
    ):
        pass
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / study.JOURNAL).write_text("something else\nand more\n")
    with pytest.raises(ValueError, match="no study of this command"), open_study(tmp_path / "b", BASE):
        pass


def test_settings_with_which_a_training_fails_are_a_finished_trial(tune):
    def sometimes(training: Training) -> Outcome:
        if training.config.settings.planner == GRASP() or training.config.seed == 70_000:
            return Outcome(0.5, 1.0, True)
        return Outcome(None, 1.0, False, "fit: the model diverged")

    tuned = tune(sometimes, trials=4)
    assert [trial.score for trial in tuned.trials] == [0.5, None, None, None]
    assert {trial.problem for trial in tuned.trials[1:]} == {"fit: the model diverged"}
    assert tuned.winner.is_default
    assert conclusion(tuned).startswith("The defaults win: no other trial was better by more than the standard error")


@pytest.mark.parametrize("failing_seed", [70_000, 70_001])
@pytest.mark.parametrize("killed_at", [2, 3, 4, 7, 8])
def test_an_interrupted_trial_that_fails_is_not_doubled(killed_at: int, failing_seed: int, tune):
    class Failing(Formula):
        def __call__(self, training: Training) -> Outcome:
            found, settings = super().__call__(training), training.config.settings
            fails = settings.horizon != 50 and training.config.seed == failing_seed
            return Outcome(None, 1.0, False, "fit: the model diverged") if fails else found

    unbroken = tune(Failing(), trials=4, folder="whole")
    with pytest.raises(KeyboardInterrupt):
        tune(Failing(killed_at=killed_at), trials=4)
    resumed = tune(Failing(), trials=4)
    assert [trial._replace(key=0) for trial in resumed.trials] == [trial._replace(key=0) for trial in unbroken.trials]
    assert len(resumed.trials) == 4 and [bool(trial.problem) for trial in resumed.trials] == [False, True, True, True]


@pytest.mark.parametrize("method", ["tell", "set_user_attr"])
def test_a_process_that_is_killed_before_it_ends_a_failed_trial_loses_nothing(method: str, tune, monkeypatch):
    def failing(training: Training) -> Outcome:
        is_default = training.config.settings.horizon == 50
        return Outcome(0.5, 1.0, True) if is_default else Outcome(None, 1.0, False, "fit: the model diverged")

    unbroken = tune(failing, trials=3, folder="whole")
    kind = optuna.Study if method == "tell" else optuna.Trial
    known = getattr(kind, method)
    for count in range(1, 10):
        left = [count]

        def killed(*given: Any, left: list[int] = left, **named: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return known(*given, **named)

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(kind, method, killed)
            tune(failing, trials=3, folder=f"{count}")
        resumed = tune(failing, trials=3, folder=f"{count}")
        assert [t._replace(key=0) for t in resumed.trials] == [t._replace(key=0) for t in unbroken.trials]


def test_an_open_study_can_be_run_again_after_an_interruption(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(study, "train_and_evaluate", Formula(killed_at=1))
    with open_study(tmp_path, BASE) as opened:
        with pytest.raises(KeyboardInterrupt):
            opened.run(3, 1)
        monkeypatch.setattr(study, "train_and_evaluate", Formula())
        assert len(opened.run(3, 1).trials) == 3


def test_interrupted_trials_come_first_also_where_fewer_are_asked_for(tmp_path: Path, tune, monkeypatch):
    """Two at a time: the second trial has finished when the first is killed."""

    def last_first(call: Call, items: Any, **_: Any) -> Any:
        begun = [next(items) for _ in range(4)]
        for item in begun[2:]:
            yield item, call(item)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("grasp_agent.execution.results", last_first)
        with pytest.raises(KeyboardInterrupt):
            tune(Formula())
    tuned = tune(Formula(), trials=1)
    assert [trial.params["horizon"] == 50 for trial in tuned.trials] == [True, False]


def test_defaults_that_fail_are_an_error(tune):
    with pytest.raises(ValueError, match="the defaults fail: no goal"):
        tune(lambda training: Outcome(None, 1.0, False, "no goal"))


@pytest.mark.parametrize(
    ("confirmed", "seconds", "wins"),
    [
        ([(0.5, 0.5), (0.4, 0.6), (0.5, 0.5)], [9, 1, 1], 0),  # no other is better
        ([(0.5, 0.5), (0.4, 0.7), (0.5, 0.5)], [9, 9, 1], 0),  # better by less than the standard error
        ([(0.5, 0.4), (0.7, 0.5), (0.5, 0.5)], [9, 9, 1], 1),
        ([(0.5,), (0.6,), (0.5,)], [9, 9, 1], 1),
        ([(0.5, None), (0.2, 0.2), (0.1, 0.1)], [9, 9, 1], 1),  # the defaults failed
        ([(0.5, 0.5), (0.6, 0.6), (0.6, 0.6)], [9, 9, 1], 2),  # the cheaper of equal ones
        ([(0.5, 0.5), (None, 1.0), (0.1, 0.1)], [9, 9, 1], 0),  # one that failed
    ],
)
def test_the_defaults_win_unless_another_trial_is_clearly_better_in_further_trainings(confirmed, seconds, wins):
    trials = [Trial(n, n, {}, 0.0, seconds[n], "", confirmed[n]) for n in range(3)]
    assert winner_of(trials).number == wins


def test_results_are_written_and_the_winner_can_be_trained(tune, tmp_path: Path):
    tuned = tune(Formula())
    best, table, figure = write(tuned, tmp_path)
    known = TrainingConfig.read(best)
    assert known == tuned.config and known.seed == 0
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["score"]) for row in rows] == [trial.score for trial in tuned.trials]
    assert [row["trial"] for row in rows if row["winner"] == "True"] == [str(tuned.winner.number)]
    assert figure.stat().st_size > 5000
    lines = cells(tuned, most=5)
    assert [line[0].split(" ", 1)[-1] for line in lines[:1]] == ["(winner)"] and len(lines) == 5
    assert any(line[0] == "0 (defaults)" for line in lines)


@pytest.mark.parametrize("at_end", [0.0, 1.0])
def test_every_setting_of_the_space_makes_an_agent(at_end: float):
    """At both ends of all ranges, for both planners and all kinds of networks."""
    from grasp_agent.evaluation.config import make_agent

    space = Space.around(BASE)
    assert space.horizon == 50
    for planner in ("grasp", "icem"):
        for kind in ("chosen", "sharp", "smooth"):
            ends = {"planner": planner, "model": kind}

            class End:
                def suggest_int(self, name: str, low: int, high: int, **_: Any) -> int:
                    return high if at_end else low

                def suggest_float(self, name: str, low: float, high: float, **_: Any) -> float:
                    return high if at_end else low

                def suggest_categorical(self, name: str, choices: Any) -> Any:
                    return ends.get(name, choices[-1 if at_end else 0])  # noqa: B023  used in this round only

            config = space.config(space.suggest(End()))
            settings = make_agent(config).settings
            assert isinstance(settings.planner, GRASP if planner == "grasp" else ICEM)
            assert settings.planner.proposals is not None
            assert isinstance(settings.model, MLPConfig) == (kind != "chosen")
            assert TrainingConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_a_training_is_a_pure_function_of_its_settings_and_its_seed():
    settings = AgentSettings(
        horizon=10,
        planner=GRASP(candidates=2, iterations=1),
        model=MLPConfig(members=2, width=16, depth=1),
        train=TrainConfig(gradient_steps=20),
    )
    config = replace(BASE, seed=70_000, settings=settings, env_kwargs={"layout": "open"})
    found = [train_and_evaluate(Training(0, config, 2, 20_000)) for _ in range(2)]
    assert found[0]._replace(seconds=0) == found[1]._replace(seconds=0)
    assert found[0].is_success and found[0].seconds > 0 and found[0].score in (0.0, 0.5, 1.0)


def test_a_training_that_fails_is_an_outcome(monkeypatch):
    def diverges(config: TrainingConfig) -> None:
        raise FloatingPointError("fit: the model diverged")

    monkeypatch.setattr("grasp_agent.evaluation.tuning.trials.make_agent", diverges)
    found = train_and_evaluate(Training(0, BASE, 2, 20_000))
    assert (found.score, found.problem) == (None, "fit: the model diverged")


def test_a_study_shows_its_trials_while_it_is_open(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(study, "train_and_evaluate", Formula(killed_at=5))
    with open_study(tmp_path, BASE) as opened:
        assert isinstance(opened, Study) and opened.trials(2) == [] and opened.left(4, 2) == 4 * 2 + 4 * 2
        with pytest.raises(KeyboardInterrupt):
            opened.run(4, 2)
        assert len(opened.trials(2)) == 2
    with open_study(tmp_path, BASE) as opened:
        assert opened.left(4, 2) == 2 * 2 - 1 + 4 * 2  # the score of the third trial's first training is known
