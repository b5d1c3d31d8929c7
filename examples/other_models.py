"""Two more world models of your own: a plain physics function, and a flat latent model with TD-MPC2's two methods."""

from __future__ import annotations

import time

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

import grasp_agent
from grasp_agent import Criteria, GraspAgent

ENV = "grasp/BallNav-v0"


def moved(latents: Tensor, actions: Tensor) -> Tensor:
    """The ball's position after an action, without walls: `[M, 1, 2], [M, 1, 2] -> [M, 2]`."""
    return (latents[:, -1] + 0.06 * actions[:, -1]).clamp(-0.94, 0.94)


class Flat(nn.Module):
    """A latent model with the methods that TD-MPC2 has: `encode(observation)` and `next(z, action)`."""

    def __init__(self, width: int = 128, size: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, width), nn.Mish(), nn.Linear(width, size))
        layers = [nn.Linear(size + 2, width), nn.Mish(), nn.Linear(width, width), nn.Mish(), nn.Linear(width, size)]
        self.dynamics = nn.Sequential(*layers)

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


def play(episodes: int = 300, steps: int = 60) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Records noisy walks to random points from starts anywhere: observations and actions of each episode."""
    env, random, recorded = gym.make(ENV, anywhere=True), np.random.default_rng(0), []
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        seen, actions, target = [observation["observation"]], [], random.uniform(-0.9, 0.9, 2)
        for _ in range(steps):
            if np.linalg.norm(target - seen[-1]) < 0.06 or random.uniform() < 0.05:
                target = random.uniform(-0.9, 0.9, 2)
            action = np.clip((target - seen[-1]) / 0.06, -1, 1) * random.uniform() + random.normal(0, 0.2, 2)
            rests = random.uniform() < 0.1  # planners rest at goals, so the model has to know rest
            actions.append(np.zeros(2) if rests else np.clip(action, -1, 1))
            observation, *_ = env.step(actions[-1].astype(np.float32))
            seen.append(observation["observation"])
        recorded.append(({"observation": np.stack(seen)}, np.stack(actions).astype(np.float32)))
    return recorded


def trained(recorded: list[tuple[dict[str, np.ndarray], np.ndarray]], seconds: float) -> Flat:
    """Fits a flat model: it has to predict its own latents, from which the position can be read."""
    model, readout = Flat(), nn.Linear(16, 2)
    states = torch.from_numpy(np.stack([seen["observation"] for seen, _ in recorded])).float()
    taken = torch.from_numpy(np.stack([actions for _, actions in recorded]))
    optimiser = torch.optim.Adam([*model.parameters(), *readout.parameters()])
    began = time.process_time()
    while (share := (time.process_time() - began) / seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * 0.5 * (1 + np.cos(np.pi * share)) + 1e-6
        episode, first = torch.randint(len(taken), (256,)), torch.randint(taken.shape[1] - 4, (256,))
        z, loss = model.encode(states[episode, first]), torch.zeros(())
        for step in range(4):
            loss = loss + (readout(z) - states[episode, first + step]).square().mean()
            z = model.next(z, taken[episode, first + step])
            loss = loss + (z - model.encode(states[episode, first + step + 1]).detach()).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


def main(seconds: float = 60, episodes: int = 20, updates: int = 1500) -> dict[str, float]:
    """Returns the success at the end with each model; the physics function knows no walls, so its arena has none."""
    torch.manual_seed(0)
    stops = Criteria(hold=1, feedback=False, stop=True)  # at an action of 0 the ball rests: plans may end early
    open_arena, arena = gym.make(ENV, layout="open"), gym.make(ENV)
    physics = GraspAgent.from_model(open_arena, moved, horizon=40, criteria=stops, goal_tolerance=0.05)
    recorded = play()
    flat = GraspAgent.from_model(
        arena, Adapted(trained(recorded, seconds)), horizon=12, criteria=stops, replay=recorded
    )
    flat.learn_distance(updates)  # leads around the wall to goals beyond the horizon
    found = {}
    for name, agent, env in (("physics", physics, open_arena), ("flat latents", flat, arena)):
        found[name] = grasp_agent.evaluate(agent, env, episodes).summary()["success_end"]
        print(f"{name}: success {found[name]:.2f}")
    return found


if __name__ == "__main__":
    main()
