"""When a running plan is kept, case by case, and how plans that take several calls are begun."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from grasp_agent import Criteria, MLPConfig, Structure, TrainConfig
from grasp_agent.agent.controller import Controller
from grasp_agent.agent.plan_state import PlanState
from grasp_agent.agent.replan_rule import ReplanRule
from grasp_agent.agent.replanning import Searches
from grasp_agent.models.learning import learn_world
from grasp_agent.planners import CEM
from grasp_agent.replay.episodes import Dataset, Episode
from grasp_agent.task.state_map import StateMap

HORIZON = 12
RULE = ReplanRule(commit=8)


def on_course(
    step: int, *, accepted: bool = True, valid: bool = True, off: float = 0.0, goal: float = 1.0, radius: float = 0.1
) -> bool:
    """Whether a plan that moves one unit a step is kept at a step, `off` its prediction."""
    plans = PlanState.blank(1, HORIZON, 1, 1, 1)
    plans.states[0, :, 0] = np.arange(HORIZON + 1)
    plans.goals[:], plans.step[:], plans.accepted[:], plans.valid[:] = 1.0, step, accepted, valid
    state, goals = np.array([[step + off]], np.float32), np.array([[goal]], np.float32)
    return bool(RULE.on_course(state, goals, plans, radius)[0])


@pytest.mark.parametrize("step", [0, 1, RULE.commit - 1])
@pytest.mark.parametrize("accepted", [True, False])
def test_a_plan_near_its_prediction_is_kept(step: int, accepted: bool):
    assert on_course(step, accepted=accepted)


@pytest.mark.parametrize("step", [RULE.commit, HORIZON - 1])
def test_after_the_commitment_only_an_accepted_plan_is_kept(step: int):
    assert on_course(step)
    assert not on_course(step, accepted=False)


def test_a_plan_ends_with_its_last_action():
    assert not on_course(HORIZON)


@pytest.mark.parametrize(("off", "kept"), [(0.09, True), (-0.09, True), (0.11, False), (-0.11, False)])
def test_a_plan_is_kept_within_the_radius_of_its_prediction(off: float, kept: bool):
    assert on_course(3, off=off) is kept


def test_a_plan_for_another_goal_or_none_is_not_kept():
    assert not on_course(3, goal=1.5)
    assert not on_course(3, valid=False)


@pytest.mark.parametrize("accepted", [True, False])
def test_the_next_search_begins_as_many_steps_before_the_end_as_it_takes(accepted: bool):
    plans = PlanState.blank(1, HORIZON, 1, 1, 1)
    plans.states[0, :, 0] = np.arange(HORIZON + 1)
    plans.accepted[:], plans.valid[:] = accepted, True
    end = HORIZON if accepted else RULE.commit
    for step in range(end):
        plans.step[:] = step
        states, goals = np.array([[step]], np.float32), np.zeros((1, 1), np.float32)
        assert RULE.on_course(states, goals, plans, 0.1, 3)[0] == (step < end - 3)


class Drifting:
    """A point with velocity, whose model is exact: position and velocity, of which goals name the position."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        data = Dataset()
        for _ in range(30):
            actions = (2 * torch.rand(20, 1, generator=generator) - 1).numpy()
            raw = [np.array([*(2 * torch.rand(2, generator=generator) - 1).tolist()])]
            for action in actions:
                raw.append(self.after(raw[-1], action))
            states = np.stack(raw)
            data.add_all([Episode(np.concatenate([states, states[:, :1]], 1).astype(np.float32), actions)])
        self.world, _ = learn_world(
            data,
            StateMap(columns=(0, 1), goal_index=(0,)),
            model=MLPConfig(members=2, width=8, depth=1, octaves=0),
            train=TrainConfig(gradient_steps=1500, full_at=500),
            tolerance=0.1,
            structure=Structure(),
            seed=0,
            device=torch.device("cpu"),
        )

    @staticmethod
    def after(state: np.ndarray, action: np.ndarray) -> np.ndarray:
        return np.array([state[0] + 0.1 * state[1] + 0.01 * action[0], state[1] + 0.2 * action[0]])


def test_a_plan_that_took_several_calls_begins_where_the_model_expected_it_to():
    toy, searches = Drifting(), Searches()
    planner = CEM(iterations=2, samples=16, elites=4)
    controller = Controller(planner, 12, Criteria(accept=-1.0), ReplanRule(work=8000))
    state, goals, plans, misses, moved = np.array([-0.5, 0.8]), np.array([[0.5]], np.float32), None, [], []
    for _ in range(60):
        raw = np.array([[*state, state[0]]], np.float32)
        action, plans, view = controller.decide(toy.world, raw, goals, plans, True, searches=searches)
        assert view is not None
        if view.fresh:
            expected = toy.world.model.decode(torch.from_numpy(plans.states[:, 0])).numpy()
            misses.append(np.linalg.norm(expected - state))
        before, state = state, toy.after(state, action[0])
        moved.append(np.linalg.norm(state - before))
    assert searches.delay >= 2  # each takes several calls
    assert len(misses) > 5
    # The first one waits where it is, as far as its speed permits; of later ones the start is forecast.
    assert np.median(misses[2:]) < 0.2 * searches.delay * np.mean(moved)


def test_a_search_without_a_plan_to_follow_begins_where_holding_the_state_leads():
    toy, searches = Drifting(), Searches()
    controller = Controller(
        CEM(iterations=2, samples=16, elites=4), 12, Criteria(accept=-1.0), ReplanRule(work=8000, commit=12)
    )
    state, plans, goals = np.array([-0.5, 0.8]), None, np.array([[0.5]], np.float32)
    view = begun = None
    for step in range(40):
        if view is not None and view.fresh and searches.delay and begun is None:
            state, goals, begun = np.array([-0.5, 0.8]), np.array([[-0.9]], np.float32), step
        raw = np.array([[*state, state[0]]], np.float32)
        action, plans, view = controller.decide(toy.world, raw, goals, plans, True, searches=searches)
        assert view is not None
        if begun is not None and view.fresh:
            break
        state = toy.after(state, action[0])
    assert begun is not None and plans is not None
    expected = toy.world.model.decode(torch.from_numpy(plans.states[:, 0])).numpy()[0, :2]
    moved = np.linalg.norm(state - [-0.5, 0.8])
    assert searches.delay >= 2
    assert moved > 0.2  # it cannot stop at once
    assert np.linalg.norm(expected - state) < 0.2 * moved


def test_a_plan_that_predicts_the_goal_is_not_kept_away_from_it():
    world = Drifting().world
    controller = Controller(CEM(), HORIZON, Criteria(), ReplanRule(deviation=1e6))

    def kept(position: float, predicted: float) -> bool:
        raws = [np.array([[value, 0.0, value]], np.float32) for value in (position, predicted)]
        plans = controller.blank(world, 1)
        plans.states[:] = world.encode(raws[1]).numpy()
        plans.goals[:], plans.accepted[:], plans.valid[:] = 0.5, True, True
        return bool(controller.on_course(world, raws[0], np.array([[0.5]], np.float32), plans)[0])

    assert kept(0.55, 0.5)
    assert not kept(0.7, 0.5)
    assert kept(0.7, 0.75)  # still on the way


@pytest.mark.parametrize(
    ("position", "last", "found", "accepted", "stays"),
    [
        (0.5, 0.5, 0.8, False, True),
        (0.5, 0.5, 0.55, False, False),  # it does not leave the goal
        (0.5, 0.5, 0.8, True, False),
        (0.5, 0.8, 0.8, False, False),  # the running plan leaves it, too
        (0.8, 0.5, 0.8, False, False),  # not there yet
    ],
)
def test_at_the_goal_a_plan_that_leaves_it_is_worse_than_to_stay(
    position: float, last: float, found: float, accepted: bool, stays: bool
):
    world = Drifting().world
    controller = Controller(CEM(), HORIZON, Criteria(), ReplanRule(deviation=1e6))

    def states(value: float) -> np.ndarray:
        return world.encode(np.array([[value, 0.0, value]], np.float32)).numpy()

    goals, (running, new) = np.array([[0.5]], np.float32), (controller.blank(world, 1) for _ in range(2))
    running.goals[:], running.valid[:], running.states[:, -1] = 0.5, True, states(last)
    new.accepted[:], new.states[:] = accepted, states(0.5)
    new.states[:, 5] = states(found)
    assert controller._stays(world, states(position), goals, running, np.array([0]), new)[0] == stays
