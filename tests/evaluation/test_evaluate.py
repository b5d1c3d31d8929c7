import csv
import json
import time
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from grasp_agent.evaluation.evaluate import atomic_write, evaluate


class Line(gym.Env[Any, Any]):
    """A point on a line that moves by its action; the episode lasts five steps."""

    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space = spaces.Dict({key: spaces.Box(-9, 9, (1,)) for key in ("achieved_goal", "desired_goal")})
    action_space = spaces.Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.x, self.steps = 0.0, 0
        self.goal = float(self.np_random.integers(1, 4))
        return self.observe(), {}

    def observe(self):
        return {key: np.array([v], np.float32) for key, v in (("achieved_goal", self.x), ("desired_goal", self.goal))}

    def step(self, action: np.ndarray):
        self.x += float(action[0])
        self.steps += 1
        return self.observe(), -1.0, False, self.steps == 5, {"is_success": abs(self.x - self.goal) < 0.5}


class Shown(NamedTuple):
    fresh: bool


class Walker:
    """Walks right, past every goal; plans at every second call."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.last_plan: Shown | None = None

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.calls.append({"episode_start": episode_start, "deterministic": deterministic})
        self.last_plan = Shown(fresh=len(self.calls) % 2 == 0)
        return np.ones(1, np.float32), None


class Stopper:
    """Goes to the goal and stays; shows no plan."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.clip(observation["desired_goal"] - observation["achieved_goal"], -1, 1), None


def test_success_at_the_end_and_at_any_step_are_separate():
    walked = evaluate(Walker(), Line(), episodes=6, seed=3)
    stayed = evaluate(Stopper(), Line(), episodes=6, seed=3)
    assert walked.summary()["success_end"] == 0.0
    assert walked.summary()["success_any"] == 1.0
    assert stayed.summary()["success_end"] == 1.0
    for row in (*walked.episodes, *stayed.episodes):
        goal = Line()
        goal.reset(seed=row.seed)
        assert row.steps_to_success == goal.goal
        assert (row.steps, row.return_) == (5, -5.0)
    assert [row.final_distance for row in stayed.episodes] == [0.0] * 6
    assert [row.seed for row in stayed.episodes] == [3, 4, 5, 6, 7, 8]


def test_the_interval_is_wilsons():
    outcome = evaluate(Stopper(), Line(), episodes=10, seed=0).summary()
    # Wilson's interval for 10 of 10 at 95 %: low = 1 / (1 + z^2 / n).
    assert outcome["success_end_low"] == pytest.approx(1 / (1 + 1.959964**2 / 10), abs=1e-5)
    assert outcome["success_end_high"] == 1.0


def test_replans_leave_out_the_first_plan_and_are_unknown_without_plans():
    # The throw-away call is the first, so that calls 2, 4, 6 plan: one at the start, two after it.
    assert evaluate(Walker(), Line(), episodes=1).episodes[0].replans == 2
    assert evaluate(Stopper(), Line(), episodes=1).episodes[0].replans is None


def test_only_the_warm_up_call_marks_its_episode_start():
    agent = Walker()
    evaluate(agent, Line(), episodes=2)
    assert [call["episode_start"] is None for call in agent.calls] == [False] + [True] * 10
    assert all(call["deterministic"] for call in agent.calls)


def test_planning_time_counts_and_start_up_does_not():
    class Slow(Stopper):
        waits = iter([0.1, 0.03, 0, 0, 0, 0])

        def predict(self, *arguments, **options):
            time.sleep(next(self.waits))
            return super().predict(*arguments, **options)

    outcome = evaluate(Slow(), Line(), episodes=1).summary()
    assert outcome["seconds_first_call"] >= 0.1
    assert 0.03 <= outcome["seconds_per_action_max"] < 0.1
    assert outcome["seconds_per_action_mean"] >= 0.03 / 5
    assert outcome["seconds_per_action_p50"] < outcome["seconds_per_action_p99"]


def test_the_path_length_is_measured_and_starts_are_identified():
    walked, stayed = (evaluate(agent, Line(), episodes=6, seed=3).episodes for agent in (Walker(), Stopper()))
    assert [row.path_length for row in walked] == [5.0] * 6
    assert [row.path_length for row in stayed] == [row.steps_to_success for row in stayed]
    assert [row.start for row in walked] == [row.start for row in stayed]
    goals = [row.steps_to_success for row in stayed]
    assert len({row.start for row in stayed}) == len(set(goals)) > 1


def test_without_success_in_the_info_success_is_null():
    class Constant:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return 1, None

    outcome = evaluate(Constant(), "CartPole-v1", episodes=2)
    assert outcome.summary()["success_end"] is None
    assert outcome.summary()["success_any_low"] is None
    assert outcome.summary()["steps_to_success_median"] is None
    assert outcome.episodes[0].final_distance is None
    assert outcome.env_id == "CartPole-v1"


def test_the_distance_is_the_environments_own_where_it_has_one():
    class Doubled(Line):
        def goal_distance(self, achieved_goal, desired_goal):
            return 2.0 * np.abs(achieved_goal - desired_goal).max(axis=-1)

    own, euclidean = (evaluate(Walker(), env, episodes=6, seed=3).episodes for env in (Doubled(), Line()))
    # Five steps of one, past goals at one to three.
    assert {row.final_distance for row in euclidean} <= {2.0, 3.0, 4.0}
    assert [(row.final_distance or 0.0) / 2 for row in own] == [row.final_distance for row in euclidean]


def test_json_and_csv_hold_every_episode(tmp_path):
    outcome = evaluate(Stopper(), Line(), episodes=3, seed=7)
    outcome.to_json(tmp_path / "new" / "a.json")
    outcome.to_csv(tmp_path / "a.csv")
    content = json.loads((tmp_path / "new" / "a.json").read_text())
    assert content["summary"] == outcome.summary()
    assert (content["env_id"], content["agent"], content["seed"]) == ("Line", "Stopper", 7)
    assert [row["return"] for row in content["episodes"]] == [-5.0] * 3
    with (tmp_path / "a.csv").open() as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["7", "8", "9"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "new"]


def test_a_failed_write_only_leaves_the_old_file(tmp_path):
    (tmp_path / "a.json").write_text("old")

    def interrupted():
        with atomic_write(tmp_path / "a.json") as aside:
            aside.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "old")]


def test_the_callback_sees_each_episode_in_order():
    episodes_reported = []
    outcome = evaluate(Stopper(), Line(), episodes=3, on_episode=episodes_reported.append)
    assert tuple(episodes_reported) == outcome.episodes


def test_the_agents_own_environment_is_made_with_its_options():
    class Own(Stopper):
        env_id = "CartPole-v1"
        env_kwargs = {"max_episode_steps": 3}  # noqa: RUF012

        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return 0, None

    assert evaluate(Own(), "CartPole-v1", episodes=1).episodes[0].steps == 3


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="episodes: expected a whole number of at least 1, got 0"):
        evaluate(Stopper(), Line(), episodes=0)
    with pytest.raises(ValueError, match=r"expected a Gymnasium id .* got list"):
        evaluate(Stopper(), [Line()])  # type: ignore[arg-type]
