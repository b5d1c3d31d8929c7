"""Configurations of trainings, and their files."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from grasp_agent import GRASP, Criteria, EncoderConfig, ExploreConfig, Goal, MLPConfig, ReplanRule, Structure
from grasp_agent.agent.settings import AgentSettings
from grasp_agent.evaluation.config import TrainingConfig, goal_from_json, goal_to_json, make_agent, planner_from_name
from grasp_agent.models import TrainConfig
from grasp_agent.planners import ICEM

EVERYTHING = TrainingConfig(
    env="grasp/BallNav-v0",
    steps=300,
    env_kwargs={"layout": "open"},
    seed=4,
    settings=AgentSettings(
        goal=Goal.at({2: 1.0, 0: -0.5}, tolerance=0.1, weights={2: 3.0}, running=True),
        planner=ICEM(samples=64, proposals=GRASP().proposals),
        horizon=12,
        model=MLPConfig.smooth(),
        encoder=EncoderConfig(points=2),
        train=TrainConfig(lr=1e-3, weight_decay=0.0),
        explore=ExploreConfig(learning_starts=100),
        criteria=Criteria(running=1.0, accept=-1.0),
        rule=ReplanRule(work=None),
        structure=Structure(rests=True),
        goal_tolerance=0.2,
    ),
)
SHORT = {"env": "grasp/BallNav-v0", "steps": 9}


def test_every_setting_comes_back_from_a_file(tmp_path: Path):
    assert all(getattr(EVERYTHING.settings, known.name) is not None for known in fields(AgentSettings))
    path = tmp_path / "new" / "a.json"
    EVERYTHING.write(path)
    assert TrainingConfig.read(path) == EVERYTHING
    assert pickle.loads(pickle.dumps(EVERYTHING)) == EVERYTHING  # it is sent to other processes


def test_what_a_file_leaves_out_has_its_default():
    assert TrainingConfig.from_json(SHORT) == TrainingConfig(env="grasp/BallNav-v0", steps=9)
    partly = TrainingConfig.from_json({**SHORT, "planner": "icem", "train": {"type": "TrainConfig", "lr": 0.1}})
    assert partly.settings == AgentSettings(planner=planner_from_name("icem"), train=TrainConfig(lr=0.1))


def test_the_module_of_an_environment_is_not_written():
    config = TrainingConfig(env="mymodule:my/Env-v0", steps=9)
    assert config.to_json()["env"] == "my/Env-v0"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"stepps": 9}, "unknown setting 'stepps'; expected some of format, env, env_kwargs, steps, seed, goal"),
        ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
        ({"steps": "9"}, "steps: expected a whole number of at least 1, got '9'"),
        ({"seed": -1}, "seed: expected a whole number of at least 0, got -1"),
        ({"env": "module:Env-v0"}, "env_id: a file must not name a module to import"),
        ({"env_kwargs": {"inner": "module:Env-v0"}}, "env_kwargs: a file must not name a module to import"),
        ({"env_kwargs": 3}, "env_kwargs: expected options by name, got 3"),
        ({"format": 2}, "format: expected 1, got 2"),
        ({"horizon": 1.5}, "horizon: expected a whole number of at least 1, got 1.5"),
        ({"horizon": 10**6}, "horizon: expected at most 10000 in a file"),
        ({"planner": "best"}, "planner: expected one of grasp, grasp-paper, shooting"),
        ({"planner": {"type": "os.system"}}, "planner: expected settings: unknown type 'os.system'; expected one of"),
        ({"planner": {"type": "GRASP", "candidates": 0}}, "planner: expected settings: candidates: expected a whole"),
        ({"planner": {"type": "GRASP", "speed": 1}}, "speed"),
        ({"planner": {"type": "MLPConfig"}}, "planner: expected a Planner, got MLPConfig"),
        ({"model": 3}, "model: expected settings by name, with their type, got 3"),
        ({"train": {"type": "TrainConfig", "lr": "fast"}}, "train: expected settings: lr: expected a number, got fast"),
        ({"goal": 3}, "goal: expected target values by entry"),
        ({"goal": {"0": 1.0}}, "goal: expected a tolerance too"),
        ({"goal": {"0": "x", "tolerance": 1}}, "goal: target values, entry 0: expected a finite number, got 'x'"),
        ({"train": {"lr": -1}}, 'train: expected a type among the settings, as "type": "TrainConfig", got none'),
        ({"planner": {"samples": 9}}, 'planner: expected a type among the settings, as "type": "GRASP", got none'),
        (
            {"planner": {"type": "ICEM", "sample": 9}},
            "planner: expected settings: unknown setting 'sample' of ICEM; expected some of ",
        ),
        ({"goal": {"0": 1, "tolerance": 1, "weights": {"3": 1}}}, "goal: expected weights of 0, got one of 3"),
        ({"goal": {"tolerance": 1}}, "goal: expected finite values, at least one"),
        ({"goal": {"0": 1, "tolerance": 1, "running": 1}}, "goal: running: expected true or false, got 1"),
    ],
)
def test_a_file_with_a_mistake_gets_one_line_that_names_the_file_and_the_setting(
    changed: dict[str, Any], said: str, tmp_path: Path
):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**SHORT, **changed}))
    with pytest.raises(ValueError, match="no configuration of a training") as caught:
        TrainingConfig.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "3", '{"env": "a"}', '{"steps": 3}', '{"steps": NaN}', "[" * 10_000])
def test_a_file_of_something_else_is_refused(text: str, tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="no configuration of a training"):
        TrainingConfig.read(path)


def test_a_goal_that_is_a_function_is_not_written():
    goal = Goal.of(lambda seen: seen[:, :1], [0.0], tolerance=0.1)
    with pytest.raises(ValueError, match="got a function, which no file holds"):
        replace(EVERYTHING, settings=AgentSettings(goal=goal)).to_json()


def test_a_goal_is_typed_as_target_values_by_entry():
    assert goal_from_json({"0": 1, "2": 0.5}, 0.2) == Goal.at({0: 1.0, 2: 0.5}, tolerance=0.2)
    for goal in (Goal.at({3: 1.0, 1: 2.0}, tolerance=0.3), EVERYTHING.settings.goal):
        assert goal is not None and goal_from_json(goal_to_json(goal)) == goal


def test_another_tolerance_is_also_that_of_the_goal():
    changed = EVERYTHING.with_settings(goal_tolerance=0.7, horizon=5).settings
    assert changed.goal is not None and changed.goal.tolerance == changed.goal_tolerance == 0.7
    assert changed.horizon == 5 and changed.planner == EVERYTHING.settings.planner


def test_an_agent_is_made_with_the_settings_and_the_environments_options():
    agent = make_agent(replace(EVERYTHING, settings=AgentSettings(horizon=7, planner=ICEM())))
    assert agent.env is not None
    assert (agent.horizon, agent.planner, agent.seed) == (7, ICEM(), 4)
    assert agent.env_kwargs == {"layout": "open"}
    agent.env.close()


def test_the_summary_says_what_is_not_the_default():
    config = TrainingConfig(env="a/B-v0", steps=2000, env_kwargs={"big": True}, settings=AgentSettings(horizon=7))
    assert config.summary() == "a/B-v0, big=True; 2,000 steps; seed 0; horizon 7; the other settings by default"
    shown = config.with_settings(planner=ICEM(samples=64), train=TrainConfig(lr=1e-3)).summary()
    assert "planner ICEM (samples 64); horizon 7; train TrainConfig (lr 0.001); the" in shown
