"""Two more world models of your own: a plain physics function, and a flat latent model with TD-MPC2's two methods."""

from __future__ import annotations

import time

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

import grasp_agent
from grasp_agent import Criteria, LatentAgent
from grasp_agent.planners import ICEM, Retrieval

ENV = "grasp/BallNav-v0"


def moved(latents: Tensor, actions: Tensor) -> Tensor:
    """The ball's position after an action, without walls: `[M, 1, 2], [M, 1, 2] -> [M, 2]`."""
    return (latents[:, -1] + 0.06 * actions[:, -1]).clamp(-0.94, 0.94)


class Flat(nn.Module):
    """A latent model with the methods that TD-MPC2 has: `encode(observation)` and `next(z, action)`."""

    def __init__(self, width: int = 128, size: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, width), nn.Mish(), nn.Linear(width, size))
        self.dynamics = nn.Sequential(nn.Linear(size + 2, width), nn.Mish(), nn.Linear(width, size))

    def encode(self, observation: Tensor) -> Tensor:
        return self.encoder(observation)

    def next(self, z: Tensor, action: Tensor) -> Tensor:
        return z + self.dynamics(torch.cat([z, action], -1))


class Adapted:
    """The form that an agent expects, in two lines for each method."""

    def __init__(self, model: Flat) -> None:
        self.model = model.eval()

    def encode(self, observation) -> Tensor:
        return self.model.encode(torch.from_numpy(observation["observation"].astype(np.float32)))

    def step(self, latents: Tensor, actions: Tensor) -> Tensor:
        return self.model.next(latents[:, -1], actions[:, -1])


def trained(seconds: float) -> Flat:
    """Fits a flat model to random play: it has to predict its own latents, from which the position can be read."""
    env, model, before, actions = gym.make(ENV), Flat(), [], []
    readout = nn.Linear(16, 2)
    for episode in range(150):
        observation, _ = env.reset(seed=episode)
        seen, action = [observation["observation"]], np.zeros(2)
        for _ in range(60):
            action = np.clip(0.9 * action + 0.5 * env.np_random.normal(size=2), -1, 1)
            observation, *_ = env.step(action.astype(np.float32))
            seen.append(observation["observation"])
            actions.append(action)
        before.append(np.stack(seen))
    states = torch.from_numpy(np.stack(before)).float()
    taken = torch.from_numpy(np.stack(actions)).float().view(150, 60, 2)
    optimiser = torch.optim.Adam([*model.parameters(), *readout.parameters()], 1e-3)
    began = time.process_time()
    while time.process_time() - began < seconds:
        episode, first = torch.randint(150, (256,)), torch.randint(56, (256,))
        z, loss = model.encode(states[episode, first]), torch.zeros(())
        for step in range(4):
            loss = loss + (readout(z) - states[episode, first + step]).square().mean()
            z = model.next(z, taken[episode, first + step])
            loss = loss + (z - model.encode(states[episode, first + step + 1]).detach()).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


def main(seconds: float = 40, episodes: int = 20) -> dict[str, float]:
    """Returns the success at the end with each model."""
    torch.manual_seed(0)
    stops = Criteria(hold=1, feedback=False, stop=True)  # at an action of 0 the ball rests: plans may end early
    found, planner = {}, ICEM(iterations=4, samples=64, proposals=Retrieval(), proposed=8)
    for name, model in {"physics": moved, "flat latents": Adapted(trained(seconds))}.items():
        agent = LatentAgent(gym.make(ENV), model, horizon=20, planner=planner, criteria=stops, goal_tolerance=0.05)
        agent.collect(2000)  # routes around the walls come from recorded play
        found[name] = grasp_agent.evaluate(agent, ENV, episodes).summary()["success_end"]
        print(f"{name}: success {found[name]:.2f}")
    return found


if __name__ == "__main__":
    main()
