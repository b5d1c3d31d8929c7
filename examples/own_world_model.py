"""Plans with a world model of your own: a transformer on the 8 x 8 tokens of 64 x 64 images, trained on recorded play.

The ball of `grasp/Wall-v0` has to go through the door into the other room, to where a goal image shows it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

import grasp_agent
from grasp_agent import Criteria, GraspAgent
from grasp_agent.evaluation import report

SKIP, HISTORY, HORIZON = 5, 2, 12  # environment steps of a model step; latents that it sees; model steps of a plan
DOOR = np.array([0.0, 0.45])  # [m]
TOKENS, CHANNELS = 8, 16  # a latent has TOKENS * TOKENS rows of CHANNELS entries


def record(episodes: int = 520, steps: int = 80, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Records play that starts anywhere: smooth random actions, or walks to random points, through the door."""
    random, env = np.random.default_rng(seed), WithPositions(anywhere=True)
    recorded = []
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed + episode)
        images, actions, action = [observation["observation"]], [], random.uniform(-1, 1, 2)
        walks, target = random.uniform() < 0.5, random.uniform(-0.9, 0.9, 2)
        for _ in range(steps):
            if walks:
                here = observation["at"]
                crossing = np.sign(here[0]) != np.sign(target[0]) and abs(here[0]) > 0.03
                aim = (DOOR if crossing else target) - here
                if np.linalg.norm(target - here) < 0.06:
                    target = random.uniform(-0.9, 0.9, 2)
                action = np.clip(aim / 0.06, -1, 1) + random.normal(0, 0.3, 2)
            else:
                action = 0.9 * action + 0.4 * random.normal(0, 1, 2)
            actions.append(np.clip(action, -1, 1).astype(np.float32))
            observation, *_ = env.step(actions[-1])
            images.append(observation["observation"])
        recorded.append((np.stack(images), np.stack(actions)))
    env.close()
    return recorded


class TokenModel(nn.Module):
    """Frozen filters turn an image into tokens; a transformer predicts the tokens after the next `SKIP` actions."""

    def __init__(self, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        self.register_buffer("filters", gaussian_filters())
        self.register_buffer("colour", torch.zeros(3))
        self.register_buffer("mean", torch.zeros(TOKENS * TOKENS, CHANNELS))
        self.register_buffer("std", torch.ones(CHANNELS))
        self.patch = nn.Linear(HISTORY * 4 * CHANNELS, width)
        self.action = nn.Linear(HISTORY * 2 * SKIP, width)
        self.place = nn.Parameter(0.02 * torch.randn(TOKENS * TOKENS // 4 + 1, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.trunk = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.out = nn.Linear(width, 4 * CHANNELS)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def calibrate(self, images: np.ndarray) -> None:
        """Chooses the colour axis along which images vary most, and scales the tokens."""
        pixels = torch.from_numpy(images).float().div(255)
        changes = (pixels - pixels.mean(0)).flatten(0, 2)
        self.colour = torch.linalg.eigh(changes.T @ changes).eigenvectors[:, -1]
        tokens = self._tokens(pixels)
        self.mean, spread = tokens.mean(0), tokens.std(0).mean(0)
        self.std = spread / torch.tensor([0.6, 0.8, 1.4, 2.5]).repeat_interleave(CHANNELS // 4)

    def _tokens(self, pixels: Tensor) -> Tensor:
        return ((pixels @ self.colour).flatten(1) @ self.filters).unflatten(1, (-1, CHANNELS))

    @torch.no_grad()
    def encode(self, observation) -> Tensor:
        """Returns tokens `[n, 64, 16]` of images `[n, 64, 64, 3]`, alone or in observations."""
        images = observation["observation"] if isinstance(observation, dict) else observation
        return (self._tokens(torch.from_numpy(images).float().div(255)) - self.mean) / self.std

    def step(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Returns the next tokens `[M, 64, 16]` of the last ones `[M, 2, 64, 16]` and actions `[M, 2, 10]`."""
        patches = merged(latents.transpose(1, 2).flatten(2))
        action = self.action(actions.flatten(1))[:, None]
        rows = torch.cat([self.patch(patches) + action, action], 1) + self.place
        return latents[:, -1] + split(self.out(self.trunk(rows)[:, :-1]))


def merged(tokens: Tensor) -> Tensor:
    """Returns squares of 2 x 2 tokens as rows, `[M, 64, C] -> [M, 16, 4 C]`."""
    half = TOKENS // 2
    return tokens.unflatten(1, (half, 2, half, 2)).transpose(2, 3).reshape(len(tokens), half * half, -1)


def split(rows: Tensor) -> Tensor:
    """Returns the tokens of rows, `[M, 16, 4 C] -> [M, 64, C]`."""
    half = TOKENS // 2
    return rows.unflatten(2, (2, 2, -1)).unflatten(1, (half, half)).transpose(2, 3).reshape(len(rows), TOKENS**2, -1)


def gaussian_filters(size: int = 64) -> Tensor:
    """Returns Gaussians and their derivatives around each token's centre as a matrix, `[size * size, 64 * 16]`."""
    pixel = torch.arange(size, dtype=torch.float32)
    centre = (torch.arange(TOKENS) + 0.5) * size / TOKENS - 0.5
    offset = pixel[:, None] - centre
    kinds = []
    for sigma in (3.0, 6.0, 12.0, 20.0):
        bell = torch.exp(-((offset / sigma) ** 2) / 2)
        slope, bend = bell * offset / sigma, bell * ((offset / sigma) ** 2 - 1)
        pairs = [(bell, bell), (slope, bell), (bell, slope), (bend, bell)]
        kinds += [torch.einsum("iu,jv->ijuv", down, right) for down, right in pairs]
    return torch.stack(kinds, -1).flatten(2).flatten(0, 1)


def train(model: TokenModel, recorded: list[tuple[np.ndarray, np.ndarray]], seconds: float = 300) -> float:
    """Fits the transformer to windows of the recorded play, rolled out for longer and longer; returns the loss."""
    model.calibrate(np.concatenate([images[::20] for images, _ in recorded]))
    latents = torch.stack([model.encode(images) for images, _ in recorded])  # [episodes, T + 1, 64, 16]
    actions = torch.stack([torch.from_numpy(actions) for _, actions in recorded])
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    began, loss = time.process_time(), torch.zeros(())
    while (share := (time.process_time() - began) / seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, 50 * share + 0.05) * 0.5 * (1 + np.cos(np.pi * share)) + 1e-6
        steps = 1 if share < 0.3 else 2 if share < 0.6 else 4
        episode = torch.randint(len(latents), (64,))
        first = torch.randint(actions.shape[1] - (HISTORY + steps - 1) * SKIP + 1, (64,))
        times = first[:, None] + SKIP * torch.arange(HISTORY + steps)
        known = latents[episode[:, None], times]
        blocks = actions[episode[:, None, None], times[:, :-1, None] + torch.arange(SKIP)].flatten(2)
        seen, loss = known[:, :HISTORY], torch.zeros(())
        for step in range(steps):
            following = model.step(seen, blocks[:, step : step + HISTORY])
            loss = loss + (following - known[:, HISTORY + step]).square().mean() / steps
            seen = torch.cat([seen[:, 1:], following[:, None]], 1)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return float(loss.detach())


class WithPositions(gym.ObservationWrapper):
    """Adds the positions that SAC was trained on to the images of `grasp/Wall-v0`; within .14 m counts as success."""

    def __init__(self, **options) -> None:
        super().__init__(gym.make("grasp/Wall-v0", observation="pixels", goal="pixels", **options))
        self.world: Any = self.unwrapped
        self.world.distance_threshold = 0.14
        place, images = gym.spaces.Box(-1.0, 1.0, (2,), np.float64), cast(gym.spaces.Dict, self.env.observation_space)
        self.observation_space = gym.spaces.Dict({**images.spaces, "at": place, "to": place})

    def observation(self, observation):
        return {**observation, "at": self.world.state, "to": self.world.goal}


class SeesPositions:
    """The bundled SAC, which learned from positions."""

    def __init__(self) -> None:
        self.sac = grasp_agent.baseline("sac", "grasp/Wall-v0")

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        at, to = observation["at"], observation["to"]
        vectors = {"observation": at, "achieved_goal": at, "desired_goal": to}
        return self.sac.predict(vectors, state, episode_start, deterministic)


def main(episodes: int = 520, seconds: float = 300, tests: int = 100, path: str = "token-model.pt") -> float:
    """Returns the success at the end, in the other room, after 100 steps."""
    torch.manual_seed(0)
    recorded, model = record(episodes), TokenModel()
    if Path(path).exists():
        model.load_state_dict(torch.load(path, weights_only=True))
    else:
        print(f"loss {train(model, recorded, seconds):.4f}")
        torch.save(model.state_dict(), path)

    stops = Criteria(hold=1, feedback=False, stop=True)  # at an action of 0 the ball rests: plans may end early
    sizes = {"frame_skip": SKIP, "history": HISTORY, "horizon": HORIZON}
    agent = GraspAgent.from_model(WithPositions(), model.eval(), **sizes, replay=recorded, criteria=stops, seed=0)
    agent.learn_distance(progress_bar=True)  # the steps between two latents, which know of the wall
    gym.register("own/Wall-v0", WithPositions, max_episode_steps=100)
    agents = {"GRASP": agent, "SAC": SeesPositions(), "random": "random"}
    found = grasp_agent.compare("own/Wall-v0", agents, episodes=tests, seed=10_000)
    print(report.markdown(found))
    grasp_agent.record(agent, "own/Wall-v0", "own-world-model.mp4", episodes=2, seed=10_000, force=True)
    return found.entries[0].evaluation.summary()["success_end"]


if __name__ == "__main__":
    main()
