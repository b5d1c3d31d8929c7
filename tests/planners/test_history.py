"""Problems whose model depends on earlier states, large states, goals at a distance, and retrieved proposals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from grasp_agent.planners import (
    CEM,
    ILQR,
    Candidates,
    Coloured,
    Criteria,
    DistanceGoal,
    GradientShooting,
    History,
    Line,
    NoiseSource,
    Problem,
    Recording,
    Retrieval,
    lifted_loss,
)
from grasp_agent.planners.feedback import feedback
from grasp_agent.planners.proposals.tracking import Tracking

SIZE, ACTIONS, BACK = 3, 2, 2
GENERATOR = torch.Generator().manual_seed(0)
MIX = [0.4 * torch.randn(SIZE, SIZE, generator=GENERATOR) for _ in range(BACK + 1)]
PUSH = [torch.randn(ACTIONS, SIZE, generator=GENERATOR) for _ in range(BACK + 1)]


def step(states: list[Tensor], actions: list[Tensor]) -> Tensor:
    """Next state by the last three states and actions, the oldest first."""
    parts = [*(s @ m for s, m in zip(states, MIX, strict=True)), *(a @ p for a, p in zip(actions, PUSH, strict=True))]
    return torch.tanh(torch.stack(parts).sum(0))


def dynamics(context: Tensor, action: Tensor) -> Tensor:
    states = list(context[..., : (BACK + 1) * SIZE].split(SIZE, -1))
    actions = [*context[..., (BACK + 1) * SIZE :].split(ACTIONS, -1), action]
    return step(states, actions)


def problem(horizon: int = 6, size: int = 2) -> Problem:
    torch.manual_seed(1)
    return Problem(
        dynamics=dynamics,
        goal=DistanceGoal(target=torch.randn(size, SIZE) / 3, tolerance=0.1),
        start=torch.randn(size, SIZE) / 3,
        low=-torch.ones(ACTIONS),
        high=torch.ones(ACTIONS),
        horizon=horizon,
        history=History(torch.randn(size, BACK, SIZE) / 3, torch.rand(size, BACK, ACTIONS)),
        criteria=Criteria(hold=1, feedback=False),
    )


def by_hand(of: Problem, actions: Tensor) -> Tensor:
    """Rollouts `[B, N, H, S]`, one candidate at a time."""
    assert of.history is not None
    found = torch.zeros(*actions.shape[:3], SIZE)
    for b, n in torch.cartesian_prod(torch.arange(of.size), torch.arange(actions.shape[1])).tolist():
        states, taken = [*of.history.states[b], of.start[b]], [*of.history.actions[b]]
        for t in range(of.horizon):
            taken.append(actions[b, n, t])
            states.append(step(states[-BACK - 1 :], taken[-BACK - 1 :]))
            found[b, n, t] = states[-1]
    return found


def test_rollouts_carry_the_history_along():
    of = problem()
    actions = 2 * torch.rand(2, 4, 6, ACTIONS) - 1
    torch.testing.assert_close(of.follow(actions), by_hand(of, actions))
    torch.testing.assert_close(of.rollout(actions)[0], by_hand(of, actions))


def test_lifted_states_of_a_rollout_have_no_gaps():
    of = problem()
    actions = 2 * torch.rand(2, 4, 6, ACTIONS) - 1
    states = of.follow(actions)
    torch.testing.assert_close(of.ensemble.step(of.contexts(states, actions), actions), states)
    assert lifted_loss(of, states, actions, 0.0).abs().max() < 1e-10
    assert lifted_loss(of, states + 0.1, actions, 0.0).min() > 1e-3


def test_the_pullback_reaches_actions_through_the_history():
    of = problem()
    states, actions = torch.randn(2, 3, 6, SIZE) / 3, 2 * torch.rand(2, 3, 6, ACTIONS) - 1
    cotangent = torch.randn(2, 3, 6, SIZE)
    values, pull = of.pullback(states, actions)
    found = pull(cotangent)
    for entry in ((0, 0, 0, 0), (1, 2, 3, 1), (0, 1, 5, 0)):
        moved = actions.clone()
        moved[entry] += 1e-2
        after = of.ensemble.step(of.contexts(states, moved), moved)
        assert ((after - values) * cotangent).sum() / 1e-2 == pytest.approx(found[entry].item(), abs=2e-2)
    assert found[0, 0, 0].abs().sum() > 0


def test_tracking_follows_states_of_a_model_with_history():
    of = problem()
    wanted = of.follow(1.2 * torch.rand(2, 3, 6, ACTIONS) - 0.6)
    given = Candidates(wanted, of.resting(3))
    tracked = Tracking().refine(of, given)
    before, after = ((of.follow(actions) - wanted).norm() for actions in (given.actions, tracked))
    assert after < 0.5 * before


def test_no_feedback_is_computed_where_derivatives_by_the_state_are_not_formed():
    of, actions = problem(), torch.zeros(2, 6, ACTIONS)
    assert feedback(of, of.follow(actions[:, None])[:, 0], actions).gains.shape == (2, 6, ACTIONS, 0)


def test_merits_are_the_same_in_parts(monkeypatch: pytest.MonkeyPatch):
    scale = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    of = replace(problem(), members=3, dynamics=lambda c, a: dynamics(c, a) * scale[: len(c)])
    actions = 2 * torch.rand(2, 20, 6, ACTIONS) - 1  # of 20 candidates, two members step ten each
    whole, kept, follow = of.merit(actions), [], Problem.follow

    def counted(self: Problem, part: Tensor, members: int | None = None) -> Tensor:
        kept.append(part.shape[1])
        return follow(self, part, members)

    monkeypatch.setattr(Problem, "follow", counted)
    monkeypatch.setattr("grasp_agent.planners.problem._MOST", 2 * 6 * SIZE * 6)
    torch.testing.assert_close(of.merit(actions), whole)
    assert kept == [6, 6, 6, 2]


@pytest.mark.parametrize("own", [False, True])
def test_goals_at_a_distance(own: bool):
    target = torch.randn(2, 4)

    def distance(states: Tensor, targets: Tensor) -> Tensor:
        assert states.shape == targets.shape and states.ndim == 2
        return (states - targets).square().mean(-1)

    goal = DistanceGoal(target=target, tolerance=0.5, distance=distance if own else None)
    states = torch.randn(3, 2, 5, 6, 4)  # members, problems, candidates, steps
    squared = (states - target[:, None, None]).square().mean(-1)
    torch.testing.assert_close(goal.parts(states)[..., 0], squared.square() if own else squared)
    leaf = states.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(goal.cost(leaf).sum(), leaf)
    torch.testing.assert_close(goal.gradient(states), wanted)
    there = goal.project(states)
    assert goal.parts(there).max() == 0 and goal.gradient(there).isfinite().all()
    if own:  # d = mean square: 2 d' d'^T, with d' = difference / 2
        slope = (states - target[:, None, None]) / 2
        torch.testing.assert_close(goal.curvature(states), 2 * slope[..., None] * slope[..., None, :])
    else:
        torch.testing.assert_close(goal.curvature(states)[0, 0, 0, 0], torch.eye(4) / 2)


def test_coloured_noise_goes_on_along_the_steps_of_an_action():
    noise = Coloured(beta=2.0, steps=5).sample(NoiseSource(0, torch.device("cpu"), torch.float32), 4000, 4, 10)
    single = noise.reshape(4000, 20, 2)
    plain = Coloured(beta=2.0).sample(NoiseSource(0, torch.device("cpu"), torch.float32), 4000, 20, 2)
    torch.testing.assert_close(single, plain)
    assert (single[:, 4] * single[:, 5]).mean() > 0.7  # across the border of two actions
    with pytest.raises(ValueError, match="divisor of the action's 10 entries, got 3"):
        Coloured(steps=3).sample(NoiseSource(0, torch.device("cpu"), torch.float32), 1, 4, 10)


def record() -> Recording:
    """Two walks along a line, of 8 and 5 rows, whose actions are their moments, two rows to a step."""
    states = torch.cat([torch.arange(8.0), 10 - torch.arange(5.0)])[:, None]
    left = torch.cat([torch.arange(7, -1, -1) // 2, torch.arange(4, -1, -1) // 2])
    return Recording(states, torch.arange(13.0)[:, None] / 20, left, 2)


def along_a_line(start: float, goal: float) -> Problem:
    return Problem(
        dynamics=lambda s, a: s + a,
        goal=DistanceGoal(target=torch.tensor([[goal]]), tolerance=0.5),
        start=torch.tensor([[start]]),
        low=-torch.ones(1),
        high=torch.ones(1),
        horizon=4,
        recording=record(),
    )


@pytest.mark.parametrize(
    ("start", "goal", "rows"),
    [
        (1.0, 7.0, [1, 3, 5]),  # to its last whole step
        (1.0, 3.0, [1]),
        (9.0, 7.0, [9]),  # of the second walk, which goes down
        (2.0, 2.0, []),  # there already
    ],
)
def test_retrieved_actions_lead_from_the_start_to_the_goal(start: float, goal: float, rows: list[int]):
    found = Retrieval(apart=1)(along_a_line(start, goal), 1, NoiseSource(0, torch.device("cpu"), torch.float32))
    taken = [row / 20 for row in rows] + [0.0] * (4 - len(rows))
    torch.testing.assert_close(found.actions[0, 0, :, 0], torch.tensor(taken))


def test_retrieved_segments_are_apart_and_repeated_where_there_are_too_few():
    noise = NoiseSource(0, torch.device("cpu"), torch.float32)
    chosen = Retrieval(apart=3)._distinct(torch.tensor([4.0, 1.0, 0.0, 2.0, 3.0, 5.0, 9.0]), 4)
    assert chosen.tolist() == [2, 5, 2, 5]
    many = Retrieval(apart=50)(along_a_line(2.0, 4.0), 3, noise)
    assert torch.equal(many.actions[:, 0], many.actions[:, 2])


def test_without_a_recording_another_source_proposes():
    of = replace(along_a_line(0.0, 1.0), recording=None)
    found = Retrieval(otherwise=Line(sigma=0.0))(of, 2, NoiseSource(0, torch.device("cpu"), torch.float32))
    torch.testing.assert_close(found.states[0, 0, :, 0], torch.tensor([0.25, 0.5, 0.75, 1.0]))


def test_a_large_state_is_planned_for():
    size = 75_000
    of = Problem(
        dynamics=lambda s, a: s + a.sum(-1, keepdim=True) / 10,
        goal=DistanceGoal(target=torch.full((1, size), 0.3), tolerance=0.01),
        start=torch.zeros(1, size),
        low=-torch.ones(2),
        high=torch.ones(2),
        horizon=8,
        criteria=Criteria(hold=1, feedback=False),
        forms_jacobians=False,
    )
    with pytest.raises(ValueError, match="states of 75000 entries, got ILQR"):
        ILQR().plan(of)
    assert CEM(iterations=2, samples=300, elites=10).plan(of).cost.item() < 15
    shooting = GradientShooting(candidates=2, iterations=20, verify_every=20)
    assert shooting.plan(of).cost.item() < 15
