"""Tracking: from virtual states to actions, for one model or for all members together; proposals scored by it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from problems import STARTS, STEP, TARGETS, Counted, double_integrator, noise, point, spread
from torch import Tensor

from grasp_agent.planners import GRASP, Candidates, Coloured, Criteria, NoiseSource, Problem, Rollout, Tracking

# torch's own forward-mode derivatives still use what torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

TOGETHER = Tracking(damping=1e-9, together=True)


def test_tracking_reproduces_a_path_that_can_be_driven():
    problem = double_integrator()
    actions = 0.9 * torch.tanh(Coloured().sample(noise(), 3, 16, 2)).expand(5, -1, -1, -1)
    path = problem.follow(actions)
    tracked = Tracking(damping=1e-6).refine(problem, Candidates(path, torch.zeros_like(actions)))
    torch.testing.assert_close(problem.follow(tracked), path, atol=1e-4, rtol=0)


def smooth(problem: Problem, count: int = 3) -> tuple[Tensor, Tensor]:
    """A path `[B, N, H, S]` that the true integrator drives, and actions at rest to start from."""
    actions = 0.9 * torch.tanh(Coloured().sample(noise(), count, problem.horizon, 2)).expand(5, -1, -1, -1)
    return STARTS[:, None, None] + STEP * actions.cumsum(2), problem.resting(count)


def test_with_joint_tracking_the_mean_follows_the_path_and_the_scored_rollout_of_each_member_too():
    problem = point(4)
    path, rest = smooth(problem)
    states, actions, rollouts = TOGETHER.propose(problem, path, rest)
    assert torch.equal(states, path)
    bare = replace(problem, criteria=replace(problem.criteria, feedback=False)).rollout(actions)
    torch.testing.assert_close(bare.mean(0), path, atol=1e-6, rtol=0)
    assert (bare - path).abs().amax((1, 2, 3, 4)).min() > 0.004  # each member drifts
    assert rollouts is not None
    torch.testing.assert_close(rollouts, path.expand(4, -1, -1, -1, -1), atol=1e-6, rtol=0)
    own = Tracking(damping=1e-9).refine(problem, Candidates(path, rest))
    assert not torch.allclose(own, actions, atol=1e-3)
    assert torch.equal(TOGETHER.refine(problem, Candidates(path, rest)), actions)


def test_scored_rollouts_go_only_as_far_as_each_members_bounds_allow():
    problem = point(4)
    far = problem.goal.project(STARTS[:, None, None]).expand(-1, 1, 12, -1)
    rollouts = TOGETHER.propose(problem, far, problem.resting(1)).rollouts
    assert rollouts is not None
    way = TARGETS - STARTS
    reach = STEP * spread(4) * (torch.arange(12).double() + 1)  # [K, 1, H]
    moved = torch.minimum(reach[:, :, :, None], way.abs()[None, :, None]) * way.sign()[:, None]
    torch.testing.assert_close(rollouts[:, :, 0], STARTS[:, None] + moved, atol=1e-6, rtol=0)


def test_tracking_together_takes_one_derivative_and_one_call_a_step():
    counted = Counted(point(4))
    path, rest = smooth(counted.problem)
    counted.calls.clear()
    TOGETHER.propose(counted.problem, path, rest)
    rows = 4 * 2 * 5 * 3  # members, the bare and the fed rollout, problems, candidates
    assert counted.calls == [("action_jacobian", rows), ("dynamics", rows)] * 12


@pytest.mark.parametrize(("members", "together"), [(1, True), (1, False), (4, False)])
def test_each_candidate_is_tracked_by_its_own_member_otherwise(members: int, together: bool):
    problem = point(members)
    path, rest = smooth(problem, 4)
    found = replace(TOGETHER, together=together).propose(problem, path, rest)
    assert found.rollouts is None
    torch.testing.assert_close(problem.follow(found.actions), path, atol=1e-6, rtol=0)
    assert torch.equal(found.actions, Tracking(damping=1e-9).refine(problem, Candidates(path, rest)))


@pytest.mark.parametrize("feedback", [True, False])
def test_proposals_are_scored_by_their_own_rollouts_with_feedback(feedback: bool):
    problem = replace(point(4), criteria=Criteria(hold=1, feedback=feedback, accept=-1.0))
    offers = Rollout()(problem, 3, noise(3))
    arriving = problem.goal.project(offers.states).expand(4, -1, -1, -1, -1)

    def known(problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        return Candidates(*offers.pair, arriving)

    seen = problem.scoring.evaluate(arriving) if feedback else problem.score(offers.actions)
    planner = GRASP(proposals=known, proposed=3, iterations=1, candidates=3, sigma=0.0)
    accepting = replace(problem, criteria=replace(problem.criteria, accept=0.6))
    plan = planner.plan(accepting)
    if feedback:
        assert plan.accepted.all()
        assert plan.iterations == 0
        torch.testing.assert_close(plan.cost, seen.cost.amin(1))
        torch.testing.assert_close(plan.states, arriving[0, :, 0])
        torch.testing.assert_close(plan.actions, offers.actions[:, 0])
    else:
        assert not accepting.score(offers.actions).accepted.all()
        assert plan.iterations == 1
        assert (plan.cost <= seen.cost.amin(1)).all()
        assert (plan.cost > 0.05).all()  # the cost of the given rollouts is 0


def test_candidates_are_taken_and_joined_without_their_rollouts():
    problem = point(4)
    path, rest = smooth(problem)
    found = TOGETHER.propose(problem, path, rest)
    assert found.size == 3
    for part, count in ((found.first(2), 2), (found.join(found), 6)):
        assert part.size == count
        assert part.rollouts is None
        assert torch.equal(part.actions[:, :2], found.actions[:, :2])
    states, actions = found.pair
    assert states is found.states
    assert actions is found.actions
