"""What an agent is made with can be saved and loaded again, or is refused when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
from agents import ENV, tiny
from test_users_settings import Line

from grasp_agent import GRASP, Criteria, ExploreConfig, Goal, GraspAgent, MLPConfig, TrainConfig
from grasp_agent.planners import Planner, Rollout, filled
from grasp_agent.planners.protocols import Block
from grasp_agent.task.structure import Structure


class Still(NamedTuple):
    plans: Any


@dataclass(frozen=True, kw_only=True)
class Resting(Planner[Any]):
    """A planner of a user: it rests."""

    def init(self, problem: Any, given: Any, noise: Any) -> Any:
        return Still(filled(problem, given, 1, Rollout(), noise).actions)

    def step(self, problem: Any, state: Any, noise: Any) -> Any:
        return state

    def actions(self, problem: Any, state: Any) -> Any:
        return 0 * state.plans


@dataclass(frozen=True, kw_only=True)
class Held(Rollout):
    """A proposal of a user."""


@dataclass(frozen=True, kw_only=True)
class Strict(Criteria):
    """Criteria of a user."""


@pytest.mark.parametrize("planner", [Resting(), GRASP(proposals=Held())], ids=["planner", "proposal"])
def test_a_planner_of_a_user_is_given_again_when_its_agent_is_loaded(planner: Planner[Any], tmp_path: Path):
    agent = tiny(ENV, planner=planner).learn(120, checkpoint=tmp_path / "course")
    agent.save(tmp_path / "agent")
    for name in ("agent", "course"):
        with pytest.raises(
            ValueError, match=rf"{name}.zip: .*its planner {type(planner).__name__} .*load\(\.\.\., planner=\)"
        ):
            GraspAgent.load(tmp_path / f"{name}.zip")
        assert GraspAgent.load(tmp_path / f"{name}.zip", planner=planner).planner == planner
    again = tiny(ENV, planner=planner).learn(150, checkpoint=tmp_path / "course")
    assert again.num_timesteps == 150 and again.planner == planner
    other = tiny(ENV)
    other.set_parameters(tmp_path / "agent.zip")
    assert other.policy.world is not None and other.planner != planner


@pytest.mark.parametrize(
    "settings",
    [
        {"criteria": Strict()},
        {"horizon": 10**6},
        {"model": MLPConfig(members=1000)},
        {"planner": GRASP(candidates=10**6)},
        {"criteria": Criteria(hold=10**6)},
    ],
    ids=["subclass", "horizon", "members", "candidates", "hold"],
)
def test_what_no_file_could_give_back_is_refused_when_an_agent_is_made(settings: dict[str, Any]):
    with pytest.raises(ValueError, match="can be saved and loaded") as failure:
        tiny(ENV, **settings)
    assert "\n" not in str(failure.value)


def test_changes_that_no_file_could_give_back_are_refused_and_change_nothing():
    agent = tiny(ENV)
    before = agent.settings
    for name, value in (("horizon", 10**6), ("criteria", Strict()), ("planner", GRASP(candidates=10**6))):
        with pytest.raises(ValueError, match="can be saved and loaded"):
            setattr(agent, name, value)
    assert agent.settings == before


@pytest.mark.parametrize("mode", ["rgb:depth", float("nan"), {"deep": ["module:name"]}, object()])
def test_options_that_no_file_could_give_back_are_left_out_with_a_warning(mode: Any, tmp_path: Path):
    class Optional(Line):
        def __init__(self, mode: Any = None) -> None:
            super().__init__(-1, 1, np.float32)

    gym.register("grasp-tests/Optional-v0", lambda **options: Optional(**options), max_episode_steps=10)
    env = gym.make("grasp-tests/Optional-v0", mode=mode)
    goal = Goal.at({0: 0.0}, tolerance=0.1)
    with pytest.warns(UserWarning, match="options that cannot be saved"):
        agent = tiny(env, goal=goal)
    plain = tiny(gym.make("grasp-tests/Optional-v0", mode="plain"), goal=goal)
    assert plain.env_kwargs == {"mode": "plain"} and agent.env_kwargs == {}
    with pytest.warns(UserWarning, match="options that cannot be saved"):
        plain.set_env(env)
    for each in (agent, plain):
        each.save(tmp_path / "agent")
        assert GraspAgent.load(tmp_path / "agent").env_kwargs == {}
    del gym.registry["grasp-tests/Optional-v0"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"planner": GRASP.paper()},
        {"criteria": Criteria(accept=-1.0, termination=0.0), "horizon": 7},
        {"explore": ExploreConfig(noise=float(np.float64(0.2))), "train": TrainConfig(lr=np.float64(1e-3))},
        {"structure": Structure(blocks=(Block((0,), (0,)), Block((1,), (1,))))},
        {"goal": Goal.of(lambda seen: seen[:, :1], [0.0], tolerance=0.1), "env": Line(-1, 1, np.float32)},
        {"env": gym.make("grasp/PushT-v0")},
    ],
    ids=["defaults", "paper", "criteria", "numpy", "blocks", "function", "structure of the environment"],
)
def test_what_is_accepted_is_loaded_as_it_was(settings: dict[str, Any], tmp_path: Path):
    agent = tiny(**{"env": ENV, **settings})
    agent.save(tmp_path / "agent")
    goal: dict[str, Any] = {} if agent.goal is None else {"goal": agent.goal}
    assert GraspAgent.load(tmp_path / "agent", **goal).settings == agent.settings
