"""What an agent does while searches for plans go on over several calls."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from agents import ENV, threads

import grasp_agent
from grasp_agent import GRASP, Criteria, GraspAgent, ReplanRule
from grasp_agent.agent.plan_state import PlanState
from grasp_agent.agent.replanning import Replanning, Searches
from grasp_agent.agent.search import Search
from grasp_agent.planners import CEM
from grasp_agent.planners.candidates import Candidates
from grasp_agent.planners.work import spend


def always(_: Replanning) -> bool:
    """Found plans are due."""
    return True


def never(rows: np.ndarray, _: PlanState) -> np.ndarray:
    """Nowhere is it better to stay."""
    return np.zeros(len(rows), np.bool_)


@pytest.fixture
def env() -> Any:
    env = gym.make(ENV)
    yield env
    env.close()


@pytest.fixture
def bounded() -> GraspAgent:
    """An agent whose search needs several calls."""
    agent = grasp_agent.load("ball-nav", device="cpu")
    agent.rule = ReplanRule(work=10_000)
    return agent


def played(agent: GraspAgent, env: gym.Env[Any, Any], steps: int = 100) -> tuple[bool, list[bool], list[np.ndarray]]:
    observation, _ = env.reset(seed=5)
    fresh, actions, success = [], [], False
    for _ in range(steps):
        action, _ = agent.predict(observation, deterministic=True)
        assert agent.last_plan is not None
        fresh.append(agent.last_plan.fresh)
        actions.append(action)
        observation, *_, info = env.step(action)
        success = info["is_success"]
    return success, fresh, actions


def test_a_plan_that_takes_several_calls_is_followed_once_it_is_found(bounded: GraspAgent, env: gym.Env[Any, Any]):
    success, fresh, actions = played(bounded, env)
    first = fresh.index(True)
    assert 2 <= first <= 12
    assert success
    assert max(np.abs(action).max() for action in actions[:first]) < 0.2  # it waits where it is
    bounded.policy.forget()
    again = played(bounded, env)
    np.testing.assert_array_equal(actions, again[2])
    assert fresh == again[1]


@pytest.mark.parametrize(
    ("work", "proposals", "stages"), [(10_000, True, [0, 4]), (10_000, False, [4, 4]), (None, True, [4, 4])]
)
def test_without_a_plan_the_best_proposal_is_followed_until_a_better_one_is_found(
    bounded: GraspAgent,
    env: gym.Env[Any, Any],
    monkeypatch: pytest.MonkeyPatch,
    work: int | None,
    proposals: bool,
    stages: list[int],
):
    searched, plan = [], GRASP.plan
    monkeypatch.setattr(GRASP, "plan", lambda self, *a, **k: searched.append(self.iterations) or plan(self, *a, **k))
    source = bounded.planner.proposals if proposals else None
    bounded.planner = GRASP(candidates=4, proposals=source, iterations=4, verify_every=1)
    bounded.criteria, bounded.rule = Criteria(accept=-1.0), ReplanRule(work=work)
    played(bounded, env, 90)
    assert searched[:2] == stages
    assert 0 not in searched[1:]


def test_a_goal_that_moves_a_little_gets_whole_searches(
    bounded: GraspAgent, env: gym.Env[Any, Any], monkeypatch: pytest.MonkeyPatch
):
    searched, plan = [], GRASP.plan
    monkeypatch.setattr(GRASP, "plan", lambda self, *a, **k: searched.append(self.iterations) or plan(self, *a, **k))
    bounded.criteria = Criteria(accept=-1.0)
    observation, _ = env.reset(seed=5)
    for step in range(50):
        moved = {**observation, "desired_goal": observation["desired_goal"] + 1e-4 * step}
        observation, *_ = env.step(bounded.predict(moved, deterministic=True)[0])
    assert searched[0] == 0
    assert len(searched) > 1 and 0 not in searched[1:]


def test_after_a_search_without_an_accepted_plan_the_noise_is_another_one(
    bounded: GraspAgent, env: gym.Env[Any, Any], monkeypatch: pytest.MonkeyPatch
):
    seeds, plan = [], CEM.plan
    monkeypatch.setattr(CEM, "plan", lambda self, *a, **k: seeds.append(k["seed"]) or plan(self, *a, **k))
    bounded.planner, bounded.criteria = CEM(iterations=1, samples=16, elites=4), Criteria(accept=-1.0)
    actions = played(bounded, env, 50)[2]
    assert len(seeds) >= 3 and seeds == [*range(len(seeds))]
    bounded.policy.forget()
    np.testing.assert_array_equal(actions, played(bounded, env, 50)[2])
    bounded.policy.forget()
    seeds.clear()
    bounded.criteria = Criteria(accept=1e9, excursion=1e9)
    played(bounded, env, 60)
    assert len(seeds) >= 2 and set(seeds) == {0}


def test_a_proposal_that_is_not_accepted_is_improved_at_once(bounded: GraspAgent, env: gym.Env[Any, Any]):
    bounded.criteria = Criteria(accept=-1.0)
    first = played(bounded, env, 30)[1].index(True)
    bounded.policy.forget()
    played(bounded, env, first + 1)
    assert not bounded.policy.searching
    bounded.policy.forget()
    played(bounded, env, first + 2)
    assert bounded.policy.searching  # in the call after the first plan, not after its commitment


def test_without_a_limit_the_first_call_finds_the_plan(bounded: GraspAgent, env: gym.Env[Any, Any]):
    bounded.rule = ReplanRule(work=None)
    assert played(bounded, env, 2)[1] == [True, False]


def test_a_passed_state_completes_the_search_in_the_call(bounded: GraspAgent, env: gym.Env[Any, Any]):
    observation, _ = env.reset(seed=5)
    first, _ = bounded.predict(observation, episode_start=np.array([True]), deterministic=True)
    assert bounded.last_plan is not None and bounded.last_plan.fresh
    second, _ = bounded.predict(observation, episode_start=np.array([True]), deterministic=True)
    np.testing.assert_array_equal(first, second)


def test_another_goal_abandons_the_search(bounded: GraspAgent, env: gym.Env[Any, Any]):
    observation, _ = env.reset(seed=5)
    bounded.predict(observation)
    other = {**observation, "desired_goal": -observation["desired_goal"]}
    for _ in range(20):
        bounded.predict(other)
        assert bounded.last_plan is not None
        if bounded.last_plan.fresh:
            break
    assert bounded.last_plan is not None
    assert np.linalg.norm(bounded.last_plan.path[-1] - other["desired_goal"]) < 0.1
    plans = bounded.policy._plans
    assert plans is not None and (plans.goals[0] == other["desired_goal"]).all()


def test_copies_and_files_hold_no_search(bounded: GraspAgent, env: gym.Env[Any, Any]):
    observation, _ = env.reset(seed=5)
    bounded.predict(observation)
    assert bounded.policy._searches
    for twin in (copy.deepcopy(bounded.policy), pickle.loads(pickle.dumps(bounded.policy))):
        assert not twin._searches
        twin.predict(observation)
    bounded.policy.forget()
    assert not bounded.policy._searches


def test_a_rule_is_saved_with_the_agent(bounded: GraspAgent, tmp_path: Any):
    bounded.rule = ReplanRule(commit=3, work=20_000)
    bounded.save(tmp_path / "agent.zip")
    assert GraspAgent.load(tmp_path / "agent.zip", device="cpu").rule == ReplanRule(commit=3, work=20_000)
    for wrong in ({"work": 0}, {"work": 1.5}, {"commit": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
            ReplanRule(**wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="rule: expected"):
        bounded.rule = 7  # type: ignore[assignment]


def test_late_plans_begin_at_the_step_nearest_to_the_present_state():
    class Found(Replanning):
        def __init__(self) -> None:
            self.rows, self.goals = np.array([0]), np.zeros((1, 1), np.float32)
            self.ahead, self.waited = 1, 4

    plans = PlanState.blank(1, 5, 1, 1, 1)
    found = PlanState.blank(1, 5, 1, 1, 1)
    found.states[0, :, 0] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    found.valid[:] = True
    for state, step in ((2.1, 2), (3.2, 3), (4.9, 3), (-3.0, 0)):  # three steps late at most
        replanning = Found()
        replanning.found = found
        states = np.array([[state]], np.float32)
        assert replanning.store(plans, states, lambda *_: np.array([True]), never).tolist() == [0]
        assert plans.step[0] == step
    assert replanning.store(plans, states, lambda *_: np.array([False]), never).tolist() == []


@pytest.mark.parametrize("stay", [True, False])
def test_where_it_is_better_to_stay_the_plan_that_led_there_goes_on(stay: bool):
    running, found = (PlanState.blank(1, 3, 1, 1, 1) for _ in range(2))
    running.states[0, :, 0], running.actions[0, :, 0], running.gains[0, :, 0, 0] = [0, 1, 2, 3], [1, 1, 0.5], [7, 8, 9]
    running.step[:], running.accepted[:], running.valid[:] = 3, True, True
    found.states[:], found.valid[:] = 5.0, True
    replanning = Replanning(CEM(), lambda: None, np.array([0]), np.zeros((1, 1), np.float32), None, 0)  # type: ignore[arg-type]
    replanning.found = found
    stored = replanning.store(
        running, np.array([[3.0]], np.float32), lambda *_: np.array([True]), lambda *_: np.array([stay])
    )
    if not stay:
        assert stored.tolist() == [0] and (running.states == 5).all()
        return
    assert stored.tolist() == []
    assert (running.states == 3).all() and (running.actions == 0.5).all() and (running.gains == 9).all()
    assert running.step[0] == 0 and not running.accepted[0]
    assert running.feedback(np.array([[2.9]], np.float32))[0, 0] == pytest.approx(0.5 - 0.9, abs=1e-5)


def test_several_searches_share_the_work_of_a_call():
    spent: list[tuple[str, float]] = []

    class Counting(Replanning):
        def __init__(self, name: str, rows: list[int]) -> None:
            self.rows, self.goals = np.array(rows), np.zeros((len(rows), 1), np.float32)
            self.ahead, self.waited, self.provisional, self.found, self.name = 0, 0, False, None, name

        def run(self, seconds: float | None = None) -> None:
            for _ in range(4):
                spend(10)
                spent.append((self.name, 10.0))

    searches = Searches()
    one, two = Counting("one", [0]), Counting("two", [2])
    assert searches.advance([one, two], always, 40, np.inf, None) == []
    assert [name for name, _ in spent] == ["one"] * 2 + ["two"] * 2
    assert searches.cover(3, lambda rows, _: rows >= 0).tolist() == [True, False, True]
    assert searches.advance([], always, 40, np.inf, None) == [one, two]
    assert not searches and searches.delay == 1


def test_a_search_for_a_goal_that_nobody_has_any_more_is_dropped():
    class Endless(Replanning):
        def __init__(self, row: int) -> None:
            self.rows, self.goals = np.array([row]), np.zeros((1, 1), np.float32)
            self.ahead, self.waited, self.provisional = 0, 0, False

        def run(self, seconds: float | None = None) -> None:
            while True:
                spend(10)

    before = threads()
    searches = Searches()
    assert searches.advance([Endless(0), Endless(1)], always, 40, np.inf, None) == []
    assert threads() == before + 2
    assert searches.cover(2, lambda rows, _: rows == 1).tolist() == [False, True]
    assert threads() == before + 1
    searches.clear()
    assert threads() == before


def test_a_goal_that_moves_a_little_does_not_stop_the_agent(bounded: GraspAgent, env: gym.Env[Any, Any]):
    observation, _ = env.reset(seed=5)
    before, away = threads(), []
    for step in range(60):
        goal = observation["desired_goal"] + 1e-4 * step
        away.append(np.linalg.norm(observation["achieved_goal"] - goal))
        action, _ = bounded.predict({**observation, "desired_goal": goal}, deterministic=True)
        observation, *_ = env.step(action)
        assert threads() <= before + 1
    assert away[-1] < 0.2 * away[0]


@pytest.mark.parametrize("change", ["horizon", "planner", "rule"])
def test_a_setting_that_is_replaced_ends_the_search(bounded: GraspAgent, env: gym.Env[Any, Any], change: str):
    observation, _ = env.reset(seed=5)
    bounded.predict(observation)
    controller, searches = bounded.policy.controller, bounded.policy._searches
    old = searches._running[0][0]
    new = {"horizon": 30, "planner": GRASP(iterations=1), "rule": ReplanRule(work=9000)}[change]
    setattr(controller, change, new)
    for _ in range(40):
        bounded.predict(observation)
        assert all(replanning is not old for replanning, _ in searches._running)
        if bounded.last_plan is not None and bounded.last_plan.fresh:
            break
    assert bounded.last_plan is not None and bounded.last_plan.fresh


def test_a_budget_too_small_to_score_the_running_plan_keeps_it(env: gym.Env[Any, Any], monkeypatch: pytest.MonkeyPatch):
    agent = grasp_agent.load("ball-nav", device="cpu")
    observation, _ = env.reset(seed=5)
    _, state = agent.predict(observation, episode_start=np.array([True]), deterministic=True)
    known = PlanState._make(state)
    agent.planner = GRASP(budget=1e-4)
    moved = {**observation, "observation": observation["observation"] + 0.06}
    moved["achieved_goal"] = moved["observation"]
    _, after = agent.predict(moved, state, deterministic=True)
    assert agent.last_plan is not None and not agent.last_plan.fresh
    np.testing.assert_array_equal(PlanState._make(after).actions, known.actions)
    assert PlanState._make(after).accepted[0]


def test_a_search_that_ends_before_a_plan_is_scored_says_so(env: gym.Env[Any, Any]):
    agent = grasp_agent.load("ball-nav", device="cpu")
    for rule in (ReplanRule(work=1, total_work=1000), ReplanRule(work=5000, total_work=5000)):
        agent.rule = rule
        with pytest.warns(RuntimeWarning, match=f"total_work={rule.total_work}"):
            played(agent, env, 30)


def test_a_plan_is_followed_as_soon_as_the_state_is_where_it_begins(bounded: GraspAgent, env: gym.Env[Any, Any]):
    # The last search took long, and the next one reckons with that; but the agent has no plan, and stays.
    observation, _ = env.reset(seed=5)
    bounded.predict(observation, deterministic=True)
    bounded.policy._searches.delay = 40
    other = observation | {"desired_goal": -observation["desired_goal"]}
    fresh = []
    while not any(fresh):
        bounded.predict(other, deterministic=True)
        assert bounded.last_plan is not None
        fresh.append(bounded.last_plan.fresh)
    assert 2 <= len(fresh) < 20


@dataclass(frozen=True)
class Aimless:
    """Proposals that hold an array, which cannot be compared."""

    data: Any

    def __call__(self, problem: Any, count: int, noise: Any) -> Candidates:
        actions = problem.resting(count)
        return Candidates(problem.follow(actions), actions)


def test_settings_that_cannot_be_compared_may_be_replaced_by_equal_ones(bounded: GraspAgent, env: gym.Env[Any, Any]):
    observation, _ = env.reset(seed=5)
    for _ in range(2):
        bounded.planner = GRASP(proposals=Aimless(np.zeros(3)))
        for _ in range(3):
            bounded.predict(observation)


def test_ctrl_c_while_a_search_begins_leaves_no_thread(monkeypatch: pytest.MonkeyPatch):
    before, start = threads(), threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Search(lambda: None)
    gc.collect()
    assert threads() == before
