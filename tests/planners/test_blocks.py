"""Factored problems: goals, regions and roadmaps for each block, and planners that use them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from problems import STARTS, STEP, double_integrator, grid, make, noise, point, several, slide, steering, tensor
from torch import Tensor

from grasp_agent.planners import (
    GRASP,
    ICEM,
    Block,
    BlockRoadmap,
    BlockSupport,
    Candidates,
    Criteria,
    Problem,
    Recombination,
    RoadmapGraph,
    Rollout,
    Steering,
    Support,
    Tracking,
    block_dynamics,
    block_jacobian,
)
from grasp_agent.planners.blocks import gather_parts
from grasp_agent.planners.goal import EntryGoal

# torch's own forward-mode derivatives still use what torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

PAIR = (Block((0, 3), (1,)), Block((1, 2), (0, 2)))
"""Blocks of different sizes whose entries are not adjacent."""


@pytest.mark.parametrize("part", [None, torch.tensor([1, 0, 1])])
def test_a_goals_gradient_curvature_and_parts_are_those_of_its_cost(part: Tensor | None):
    goal = EntryGoal(
        size=5,
        index=torch.tensor([3, 0, 2]),
        target=noise().normal(4, 3),
        weights=tensor(0.5, 2.0, 3.0),
        tolerance=0.1,
        part=part,
    )
    states = noise(1).normal(2, 4, 5, 6, 5).requires_grad_()
    cost = goal.cost(states)
    (gradient,) = torch.autograd.grad(cost.sum(), states, create_graph=True)
    torch.testing.assert_close(goal.gradient(states), gradient)
    rows = [torch.autograd.grad(gradient[..., i].sum(), states, retain_graph=True)[0] for i in range(5)]
    torch.testing.assert_close(goal.curvature(states), torch.stack(rows, -2))
    parts = goal.parts(states)
    assert parts.shape == (*cost.shape, 1 if part is None else 2)
    torch.testing.assert_close(parts.sum(-1), cost)
    if part is not None:
        torch.testing.assert_close(parts[..., 0], 2 * (states[..., 0] - goal.target[:, 1, None, None]) ** 2)
    assert (goal.cost(goal.project(states)) == 0).all()


def test_merits_are_counted_part_by_part_and_the_worst_part_decides():
    problem = several(2, criteria=Criteria(hold=1, running=0.0))
    actions = (problem.goal.project(problem.start[:, None, None]) - problem.start[:, None, None]) / STEP / 12
    actions = actions.expand(-1, -1, 12, -1).clone()
    actions[2:, :, :, 2:] = 0  # the second block of the last three problems stays where it is
    merits = problem.scoring.part_merits(problem.follow(actions))
    missed = (problem.start[:, 2:] - problem.goal.project(problem.start[:, None, None])[:, 0, 0, 2:]).norm(dim=-1) / 0.1
    torch.testing.assert_close(merits[:, 0, 0], torch.zeros(5).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(merits[2:, 0, 1], missed[2:])
    torch.testing.assert_close(problem.scoring.merit(problem.follow(actions)), merits.sum(-1))
    verdict = problem.score(actions)
    assert verdict.accepted[:, 0].tolist() == [True, True, False, False, False]
    torch.testing.assert_close(verdict.cost, merits.amax(-1))


def test_a_rollout_without_numbers_is_the_worst_of_all_in_every_part():
    problem, path = several(2), several(2).follow(torch.zeros(5, 3, 12, 4).double())
    path[1, 2, 7, 0] = torch.nan
    bad = problem.scoring.part_merits(path).isinf()
    assert bad[1, 2].all()
    assert bad.sum() == 2


def test_plans_are_combined_block_by_block():
    problem = replace(several(2), blocks=PAIR, low=-torch.ones(3).double(), high=torch.ones(3).double())
    samples = torch.arange(4).double()[:, None, None].expand(2, 4, 12, 3)  # sample p is full of the number p
    index = torch.tensor([[3, 0], [1, 2], [0, 0]]).expand(2, -1, -1)
    plans = gather_parts(problem, samples, index)
    assert plans.shape == (2, 3, 12, 3)
    assert plans[1, :, 5].tolist() == [[0, 3, 0], [2, 1, 2], [0, 0, 0]]
    whole = gather_parts(problem, samples, index[..., :1])
    assert whole[0, :, 0].tolist() == [[3, 3, 3], [1, 1, 1], [0, 0, 0]]


def test_recombination_puts_the_best_parts_together():
    problem = replace(several(2), blocks=PAIR, low=-torch.ones(3).double(), high=torch.ones(3).double())
    number = torch.arange(8).double()[:, None, None]
    old = Candidates(number.expand(2, 8, 12, 4), number.expand(2, 8, 12, 3))
    # In problem 0 candidates 5 and 2 are best for the first block, 7 and 0 for the second; in problem 1 it is turned.
    costs = torch.full((2, 8, 2), 9.0)
    for row, part, order in ((0, 0, (5, 2)), (0, 1, (7, 0)), (1, 0, (7, 0)), (1, 1, (5, 2))):
        costs[row, order[0], part], costs[row, order[1], part] = 1, 2
    new = Recombination(share=0.25)(problem, old, costs)
    assert new.states.shape == old.states.shape
    assert new.actions.shape == old.actions.shape
    for row, (first, second) in enumerate([((5, 2), (7, 0)), ((7, 0), (5, 2))]):
        assert new.states[row, 0, 3].tolist() == [first[0], second[0], second[0], first[0]]
        assert new.actions[row, 0, 3].tolist() == [second[0], first[0], second[0]]
        pairs = {(int(s[0]), int(s[1])) for s in new.states[row, :, 3]}
        assert pairs == {(a, b) for a in first for b in second}  # every pairing occurs
        assert (new.states[row, :, :, 0] == new.actions[row, :, :, 1]).all()  # a block's states keep its actions
    assert old.states[0, 0, 0, 0] == 0  # the old ones are left alone


def test_recombination_without_blocks_is_selection():
    problem = point()
    old = Rollout()(problem, 8, noise())
    costs = problem.scoring.part_merits(old.states)
    new = Recombination(share=0.25)(problem, old, costs)
    for row in range(5):
        best = costs[row, :, 0].argsort()[:2]
        assert torch.equal(new.actions[row], old.actions[row, best].repeat(4, 1, 1))
        assert torch.equal(new.states[row], old.states[row, best].repeat(4, 1, 1))


def test_recombination_never_makes_the_best_merit_of_separable_problems_worse():
    problem = several(4)
    old = Rollout()(problem, 16, noise())
    costs = problem.scoring.part_merits(old.states)
    new = Recombination()(problem, old, costs)
    merit = problem.scoring.merit(problem.follow(new.actions))
    torch.testing.assert_close(merit[:, 0], costs.amin(1).sum(-1))
    assert (merit.amin(1) < costs.sum(-1).amin(1)).all()


@pytest.mark.parametrize("seed", range(3))
def test_elites_of_each_block_solve_what_elites_of_all_cannot(seed: int):
    problem = several(8, criteria=Criteria(hold=1, accept=-1.0))
    worst = {}
    for factored in (True, False):
        planner = ICEM(samples=128, decay=1.0, factored=factored)
        plan = planner.plan(problem, seed=seed)
        worst[factored] = problem.scoring.part_merits(problem.follow(plan.actions[:, None])).amax(-1)
    assert (worst[True] < 1.2).all()  # one tolerance from the goal, and the trajectory there
    assert (worst[False] > 1.4).all()


def test_recombination_solves_blocks_that_candidates_alone_do_not():
    problem = several(4, members=4)
    planner = GRASP(opening=0, iterations=20, sync=Tracking())
    assert not planner.plan(problem).accepted.any()
    assert replace(planner, recombination=Recombination()).plan(problem).accepted.all()


def test_the_support_of_blocks_is_evaluated_block_by_block():
    supports = Support(tensor([0.0, 0.0], [1.0, 1.0]), 0.5), Support(tensor([5.0, 5.0]), 0.5)
    region = BlockSupport(supports, PAIR)
    # The first block's entries are the outer two.
    states = tensor([0.1, 5.1, 5.0, 0.0], [0.1, 0.0, 0.0, 0.0], [3.0, 5.0, 5.0, 3.0], [0.9, 9.0, 5.0, 9.0])
    assert region.off(states).tolist() == [[False, False], [False, True], [True, False], [True, True]]
    assert region.off(states.view(2, 1, 2, 4)).shape == (2, 1, 2, 2)
    expected = tensor([0.0, 5.0, 5.0, 0.0], [0.0, 5.0, 5.0, 0.0], [1.0, 5.0, 5.0, 1.0], [1.0, 5.0, 5.0, 1.0])
    before = states.clone()
    assert torch.equal(region.nearest(states), expected)
    assert torch.equal(states, before)


def test_a_stray_costs_the_block_that_strays_while_its_goal_is_not_reached():
    problem = several(2, criteria=Criteria(hold=1, running=0.0, off_support=10.0, stride=1))
    everywhere, nowhere = Support(tensor([0.0, 0.0]), 9.0), Support(tensor([99.0, 99.0]), 1.0)
    actions = Rollout()(problem, 3, noise()).actions
    path = problem.follow(actions)
    free = problem.scoring.part_merits(path)
    astray = replace(problem, support=BlockSupport((everywhere, nowhere), problem.blocks))
    strays = (problem.scoring.distances(path)[..., 1] > 1).double().sum(-1)
    extra = torch.stack([torch.zeros_like(strays), 10 * strays], -1)
    torch.testing.assert_close(astray.scoring.part_merits(path), free + extra)
    torch.testing.assert_close(astray.score(actions).cost, free.amax(-1) + 10 * strays, atol=1e-9, rtol=0)
    assert (extra.sum() > 0).all()


def test_planning_checks_each_strideth_state_and_the_final_score_all():
    rule = Criteria(hold=1, running=0.0, off_support=10.0, stride=3)
    problem = make(slide(), tensor([0.0, 0.0]), tensor([1.0, 0.0]), horizon=6, criteria=rule)
    problem = replace(problem, support=Support(tensor([0.0, 0.0]), 0.2))
    path = problem.follow(tensor([0.5, 0.0]).expand(1, 1, 6, 2))  # 1/8, 1/4, 3/8, 1/2, 5/8, 3/4: the first is known
    assert problem.scoring.merit(path).item() == pytest.approx(2.5 + 3 * 10)  # of 1/8 and 1/2, each for three
    verdict = problem.score(tensor([0.5, 0.0]).expand(1, 1, 6, 2))
    assert verdict.cost.item() == pytest.approx(2.5 + 5 * 10)


def test_a_blocks_own_dynamics_are_those_of_the_whole_with_the_others_at_rest():
    problem = double_integrator()
    seen: list[tuple[Tensor, Tensor]] = []

    def whole(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((state, action))
        return problem.ensemble._generic_jacobian(state, action)

    block = Block((1, 3), (1,))  # the second axis: its position and velocity, and its force
    step = block_jacobian(whole, block, tensor(7.0, 8.0, 9.0, 10.0), tensor(0.5, 0.25))
    state, action = noise().normal(1, 6, 2), noise(1).normal(1, 6, 1)
    following, slopes = step(state, action)
    position, velocity = state.unbind(-1)
    expected = [position + STEP * velocity + STEP**2 / 2 * action[..., 0], velocity + STEP * action[..., 0]]
    torch.testing.assert_close(following, torch.stack(expected, -1))
    alone = block_dynamics(problem.dynamics, block, tensor(7.0, 8.0, 9.0, 10.0), tensor(0.5, 0.25))
    torch.testing.assert_close(alone(state, action), following)
    torch.testing.assert_close(slopes, tensor([STEP**2 / 2], [STEP]).expand(1, 6, 2, 1))
    assert (seen[0][0][..., [0, 2]] == tensor(7.0, 9.0)).all()
    assert (seen[0][1][..., 0] == 0.5).all()


def block_roadmap(problem: Problem) -> BlockRoadmap:
    """Returns a roadmap for each block, driven by the block's part of the joint dynamics."""
    graphs = []
    for block in problem.blocks:
        one = tensor(1.0, 1.0)
        step = block_dynamics(problem.dynamics, block, problem.start[0], problem.rest)
        jacobian = block_jacobian(problem.ensemble._generic_jacobian, block, problem.start[0], problem.rest)
        drive = Steering(dynamics=step, action_jacobian=jacobian, members=problem.members, low=-one, high=one)
        graphs.append(RoadmapGraph.build(grid(8), drive))
    assert None not in graphs
    return BlockRoadmap(graphs, problem.blocks)


def test_each_block_takes_the_routes_of_its_own_roadmap():
    problem = several(3)
    roadmap = block_roadmap(problem)
    ways = roadmap.paths(problem.start, lambda s: problem.goal.project(s[..., None, :])[..., 0, :], 2, 12, 1.1)
    assert ways.shape == (5, 2, 12, 6)
    for block, graph in zip(problem.blocks, roadmap.graphs, strict=True):
        entries = list(block.states)
        target = problem.goal.project(problem.start[:, None, None])[:, 0, 0, entries]
        alone = make(slide(), problem.start[:, entries], target)
        single = RoadmapGraph.build(grid(8), steering(alone))
        assert single is not None
        expected = single.paths(alone.start, lambda s, g=alone.goal: g.project(s[..., None, :])[..., 0, :], 2, 12, 1.1)
        torch.testing.assert_close(ways[..., entries], expected)
        assert isinstance(graph, RoadmapGraph)
        assert torch.equal(graph.nodes, single.nodes)
    torch.testing.assert_close(ways[:, :, -1], problem.goal.project(ways[:, :, -1:])[:, :, 0])
    assert 0.5 < roadmap.connected <= 1
    assert roadmap.connected == min(graph.connected for graph in roadmap.graphs)


def test_a_roadmap_of_blocks_plans_without_an_iteration():
    problem = several(3)
    plan = GRASP().plan(replace(problem, roadmap=block_roadmap(problem)))
    assert plan.accepted.all()
    assert plan.iterations == 0


def test_one_block_of_everything_stands_for_no_blocks():
    problem = point()
    assert problem.independent == (Block((0, 1), (0, 1)),)
    assert problem.size == len(STARTS)
    named = replace(problem, blocks=problem.independent)
    planner = ICEM(samples=32, elites=4, iterations=3, factored=True)
    assert torch.equal(planner.plan(named).actions, planner.plan(problem).actions)
