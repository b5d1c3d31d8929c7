"""`GRASP.paper()` next to the published equations, written out in numpy (Psenka et al. 2026, arXiv 2602.00475, eq. 10).

The constants are those of the public port closest to the paper: Adam with rates 0.1 (states) and 0.001 (actions), gamma
1, and a sync of plain gradient steps with rate 0.1 on the last state's squared distance, which resets Adam's moments.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from problems import NEVER, make, tensor
from torch import Tensor

from grasp_agent import GRASP
from grasp_agent.planners import NoiseSource
from grasp_agent.planners.grasp import lifted_loss
from grasp_agent.planners.shooting import GradientShooting

Array = NDArray[np.float64]
START, GOAL, HORIZON = np.array([0.2, -0.1]), np.array([0.7, 0.5]), 4
STATE_RATE, ACTION_RATE, SYNC_RATE, GAMMA, BETAS, EPSILON = 0.1, 0.001, 0.1, 1.0, (0.9, 0.999), 1e-8


def pendulum(state: Tensor, action: Tensor) -> Tensor:
    """A nonlinear model with two entries of the state and one of the action."""
    angle, speed = state[..., :1], state[..., 1:]
    return torch.cat([angle + 0.3 * speed, speed + 0.3 * action.sin() - 0.1 * angle.square()], -1)


def following(states: Array, actions: Array) -> Array:
    """The same model, `[H, 2], [H] -> [H, 2]`."""
    angle, speed = states.T
    return np.stack([angle + 0.3 * speed, speed + 0.3 * np.sin(actions) - 0.1 * angle**2], 1)


class Adam:
    """Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1."""

    def __init__(self, rate: float) -> None:
        self.rate, self.count = rate, 0
        self.first: Array | float = 0.0
        self.second: Array | float = 0.0

    def __call__(self, values: Array, gradient: Array) -> Array:
        self.count += 1
        self.first = BETAS[0] * self.first + (1 - BETAS[0]) * gradient
        self.second = BETAS[1] * self.second + (1 - BETAS[1]) * gradient**2
        first, second = (m / (1 - b**self.count) for m, b in zip((self.first, self.second), BETAS, strict=True))
        return values - self.rate * first / (np.sqrt(second) + EPSILON)


def gradients(states: Array, actions: Array) -> tuple[float, Array, Array]:
    """The loss of eq. 10, and its gradients by s_1 .. s_H and by the actions; states before a prediction are fixed."""
    predicted = following(np.vstack([START, states[:-1]]), actions)
    residual, miss = predicted - states, predicted - GOAL
    loss = (residual**2).sum() + GAMMA * (miss**2).sum()
    return loss, -2 * residual, 2 * (residual + GAMMA * miss)[:, 1] * 0.3 * np.cos(actions)


def synced(actions: Array, steps: int) -> Array:
    """Gradient steps on |s_H(a) - g|^2, through the rollout by the chain rule."""
    for _ in range(steps):
        states = [START]
        for action in actions:
            states.append(following(states[-1][None], np.array([action]))[0])
        adjoint, gradient = 2 * (states[-1] - GOAL), np.zeros(HORIZON)
        for t in reversed(range(HORIZON)):
            gradient[t] = adjoint[1] * 0.3 * np.cos(actions[t])
            adjoint = np.array([adjoint[0] - 0.2 * states[t][0] * adjoint[1], 0.3 * adjoint[0] + adjoint[1]])
        actions = actions - SYNC_RATE * gradient
    return actions


class Recorded(NoiseSource):
    """Noise that is written down."""

    def __init__(self) -> None:
        super().__init__(0, torch.device("cpu"), torch.float64)
        self.drawn: list[Array] = []

    def normal(self, *shape: int) -> Tensor:
        numbers = super().normal(*shape)
        self.drawn.append(numbers.numpy().copy())
        return numbers


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_states_actions_and_losses_are_those_of_the_published_update(sigma: float):
    problem = make(
        pendulum, torch.from_numpy(START)[None], torch.from_numpy(GOAL)[None], horizon=HORIZON, criteria=NEVER
    )
    problem = replace(problem, low=tensor(-3.0), high=tensor(3.0))
    sync = GradientShooting.sync()
    planner = replace(GRASP.paper(sigma=sigma), sync_every=3)
    source = Recorded()
    state = planner.init(problem, None, source)

    states, actions = state.states[0, 0].numpy().copy(), state.actions[0, 0, :, 0].numpy().copy()
    np.testing.assert_allclose(actions, 0)
    line = START + np.linspace(0, 1, HORIZON + 1)[1:, None] * (GOAL - START)
    assert np.abs(states - line).max() < 0.1  # the published initial states have a little noise
    by_states, by_actions = Adam(STATE_RATE), Adam(ACTION_RATE)
    source.drawn.clear()
    for iteration in range(1, 8):
        loss, slope, action_slope = gradients(states, actions)
        found = lifted_loss(problem, state.states, state.actions, GAMMA).item()
        assert found == pytest.approx(loss, abs=1e-6)

        state = planner.step(problem, state, source)
        states, actions = by_states(states, slope), by_actions(actions, action_slope)
        if sigma:
            states = states + sigma * source.drawn.pop(0)[0]
        states[-1] = GOAL
        if iteration % 3 == 0:
            actions = synced(actions, sync.iterations)
            by_states, by_actions = Adam(STATE_RATE), Adam(ACTION_RATE)
        np.testing.assert_allclose(state.states[0, 0].numpy(), states, atol=1e-6, rtol=0)
        np.testing.assert_allclose(state.actions[0, 0, :, 0].numpy(), actions, atol=1e-6, rtol=0)
    assert sync.iterations == 25
    assert not source.drawn
