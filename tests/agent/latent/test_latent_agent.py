"""Planning with world models that were not learned here, in closed loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from worlds import LIMIT, Exact, Point, moved, played, solved

from grasp_agent import GRASP, GraspAgent, evaluate
from grasp_agent.planners import CEM, ICEM, ILQR, MPPI, Collocation, Coloured, Criteria, GradientShooting

QUICK = ICEM(iterations=2, samples=24, elites=4, noise=Coloured(beta=2.0))


def scripted() -> Any:
    class Scripted(torch.nn.Module):
        @torch.jit.export
        def encode(self, observation: torch.Tensor) -> torch.Tensor:
            return observation

        @torch.jit.export
        def step(self, latents: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
            return latents[:, -1] + 0.1 * actions[:, -1]

        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            return latents

    script = torch.jit.script(Scripted().eval())

    class Wrapped:
        def encode(self, observation: Any) -> torch.Tensor:
            return script.encode(torch.from_numpy(observation))

        step = staticmethod(script.step)

    return Wrapped()


FORMS: dict[str, Callable[[], Any]] = {
    "module": lambda: Exact().eval(),
    "torchscript": scripted,
    "function": lambda: moved,
    "ensemble": lambda: [Exact().eval(), Exact().eval()],
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("form", FORMS)
def test_models_of_every_form_reach_goals(form: str):
    env = Point(length=30)
    assert all(solved(GraspAgent.from_model(env, FORMS[form](), horizon=6, planner=QUICK), env))


@pytest.mark.parametrize("delay", [False, True])
def test_frame_skip_executes_the_actions_of_a_block_one_by_one(delay: bool):
    env = Point(delay=delay, length=40)
    model = Exact(5, delay=delay).eval()
    agent = GraspAgent.from_model(env, model, frame_skip=5, history=2 if delay else 1, horizon=4, planner=QUICK)
    encoded = []
    encode = model.encode
    model.encode = lambda observation: encoded.append(1) or encode(observation)  # type: ignore[method-assign]
    assert all(solved(agent, env, 3))
    assert len(encoded) == 3 * (40 // 5 + 1)  # and each goal


def test_without_its_history_a_model_with_delay_misses():
    env = Point(delay=True, length=40)

    class Forgetful(Exact):
        def step(self, latents: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
            return super().step(latents, torch.cat([torch.zeros_like(actions), actions], 1))

    env.reset(seed=0)
    errors = []
    for model, history in ((Forgetful(delay=True).eval(), 1), (Exact(delay=True).eval(), 2)):
        agent = GraspAgent.from_model(env, model, history=history, planner=QUICK, replay=played(env), horizon=4)
        errors.append(agent.memory.error)
    assert errors[1] == pytest.approx(0, abs=1e-5)
    assert errors[0] > 0.01


@pytest.mark.parametrize(
    "planner",
    [
        CEM(iterations=3, samples=32, elites=4),
        QUICK,
        MPPI(iterations=4, samples=48),
        GradientShooting(iterations=40, candidates=4),
        GRASP(proposals=None, candidates=4, sync=GradientShooting.sync()),
    ],
    ids=lambda planner: type(planner).__name__,
)
@pytest.mark.parametrize("history", [1, 2])
def test_every_planner_for_large_states_plans_with_a_history(planner: Any, history: int):
    env = Point(delay=history > 1, length=30)
    agent = GraspAgent.from_model(
        env, Exact(delay=history > 1).eval(), history=history, horizon=6, planner=planner, goal_tolerance=0.05
    )
    assert sum(solved(agent, env, 3)) >= 2


@pytest.mark.parametrize("planner", [ILQR(), Collocation(), GRASP()], ids=lambda planner: type(planner).__name__)
def test_planners_that_need_small_states_are_refused_at_once(planner: Any):
    with pytest.raises(ValueError, match=r"planner: expected .*history, got .*(ILQR|Collocation).*; CEM"):
        GraspAgent.from_model(Point(), Exact(delay=True).eval(), history=2, planner=planner)

    class Wide(Exact):
        def encode(self, observation: Any) -> torch.Tensor:
            return super().encode(observation).repeat(1, 1, 100)

        def step(self, latents: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
            return super().step(latents[..., :3], actions).repeat(1, 1, 100)

    agent = GraspAgent.from_model(Point(), Wide().eval())
    with pytest.raises(ValueError, match="600 entries, got"):
        agent.planner = planner


def test_goals_of_the_observation_are_used():
    env = Point(dictionary=True, length=30)
    agent = GraspAgent.from_model(env, Exact().eval(), horizon=6, planner=QUICK)
    assert all(solved(agent, env))
    report = evaluate(agent, env, 5, 100).summary()
    assert report["success_end"] == 1.0


def test_without_a_goal_predict_says_how_to_give_one():
    env = Point()
    agent = GraspAgent.from_model(env, Exact().eval())
    with pytest.raises(ValueError, match="goal: expected one, by set_goal"):
        agent.predict(env.reset(seed=0)[0])


def test_a_batch_plans_each_row_as_alone_and_a_state_continues_it():
    env, model = Point(length=20), Exact(2, delay=True).eval()
    agent = GraspAgent.from_model(env, model, frame_skip=2, history=2, horizon=4, planner=QUICK)
    agent.set_goal(np.array([0.5, 0.5], np.float32))
    observations = np.array([[0.0, 0.0], [-0.9, 0.3]], np.float32)
    together, state = agent.predict(observations, episode_start=np.array([True, True]))
    for row in (0, 1):
        agent.forget()
        alone, own = agent.predict(observations[row])
        np.testing.assert_allclose(together[row], alone, atol=1e-6)
    again, later = agent.predict(observations[1:], state=own)
    second, _ = agent.predict(observations, state=state)
    np.testing.assert_allclose(second[1], again[0], atol=1e-6)
    assert later[4].tolist() == [0]  # both steps of the block are taken
    restarted, _ = agent.predict(observations, state=state, episode_start=np.array([False, True]))
    np.testing.assert_allclose(restarted[1], together[1], atol=1e-6)
    with pytest.raises(ValueError, match="state: expected what predict returned"):
        agent.predict(observations, state=own)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frame_skip": 0}, "frame_skip"),
        ({"history": 1.5}, "history"),
        ({"horizon": -1}, "horizon"),
        ({"goal_tolerance": 0.0}, "goal_tolerance"),
        ({"criteria": 3}, "criteria"),
        ({"planner": "CEM"}, "planner"),
        ({"goal": 3}, "goal"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=f"{message}: expected"):
        GraspAgent.from_model(Point(), Exact().eval(), **arguments)


def test_scoring_criteria_may_be_given():
    criteria = Criteria(hold=2, accept=0.5)
    assert GraspAgent.from_model(Point(), Exact().eval(), criteria=criteria).criteria == criteria


def test_a_goal_that_changes_in_mid_block_keeps_the_history():
    env = Point(delay=True, length=60)
    agent = GraspAgent.from_model(env, Exact(5, delay=True).eval(), frame_skip=5, history=2, horizon=4, planner=QUICK)
    observation, _ = env.reset(seed=0)
    first, second = np.array([0.8, 0.0], np.float32), np.array([-0.5, 0.5], np.float32)
    for goal in (first, second):
        agent.set_goal(goal)
        goal[:] = 9.0  # a copy is kept
        for _ in range(28):
            observation, *_ = env.step(agent.predict(observation)[0])
    assert agent._plans is not None and agent._plans.past_actions.any()
    assert np.linalg.norm(env.position - [-0.5, 0.5]) < 0.4  # of 1.4
    with pytest.raises(ValueError, match="goal: expected one observation, got 2"):
        agent.set_goal(np.zeros((2, 2), np.float32))


def test_another_horizon_takes_effect_with_the_next_call():
    env = Point(length=60)
    agent = GraspAgent.from_model(env, Exact().eval(), horizon=6, planner=QUICK)
    agent.set_goal(np.array([0.5, 0.5], np.float32))
    observation, _ = env.reset(seed=0)
    for horizon in (6, 3, 9):
        agent.horizon = horizon
        for _ in range(3):
            action, state = agent.predict(observation)
            observation, *_ = env.step(action)
            assert state[0].shape == (1, horizon, 2)


def test_a_model_whose_predictions_become_infinite_is_reported():
    class Breaking(Exact):
        broken = False

        def step(self, latents: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
            return super().step(latents, actions) * (np.nan if self.broken else 1.0)

    env, model = Point(), Breaking().eval()
    agent = GraspAgent.from_model(env, model, planner=QUICK)
    observation, _ = env.reset(seed=0)
    agent.set_goal(observation)
    model.broken = True
    with pytest.warns(UserWarning, match="no finite prediction"):
        action, _ = agent.predict(observation)
    assert np.isfinite(action).all()


def test_goals_that_name_only_a_part_of_what_is_observed_are_refused():
    """As in robots' environments: a position is wanted, positions and velocities are observed."""
    env = Point(dictionary=True)
    wide = spaces.Box(-30, 30, (4,), np.float32)
    box = spaces.Box(-LIMIT, LIMIT, (2,), np.float32)
    env.observation_space = spaces.Dict({"observation": wide, "achieved_goal": box, "desired_goal": box})

    def widened(observation: Any) -> Any:
        return {**observation, "observation": np.tile(observation["observation"], 2)}

    class First(Exact):
        def encode(self, observation: Any) -> torch.Tensor:
            return super().encode(observation["observation"][:, :2])

    agent = GraspAgent.from_model(env, First().eval(), planner=QUICK)
    observation = widened(env.reset(seed=0)[0])
    with pytest.raises(ValueError, match="goal: expected one, by set_goal"):
        agent.predict(observation)
    agent.set_goal(observation)
    assert np.isfinite(agent.predict(observation)[0]).all()


def test_goal_functions_have_to_return_observations():
    env = Point(dictionary=True)
    observation, _ = env.reset(seed=0)
    for goal, reason in (
        (lambda seen: {**seen, "observation": seen["desired_goal"][:, :1]}, "its function returned what is no observ"),
        (lambda seen: {key: value[0] for key, value in seen.items()}, "expected its function to return 1 stacked"),
    ):
        agent = GraspAgent.from_model(env, Exact().eval(), planner=QUICK, goal=goal)
        with pytest.raises(ValueError, match=f"goal: {reason}"):
            agent.predict(observation)
