"""An environment of your own: a cart on a line that must stop in the middle."""

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from gymnasium.wrappers import TimeLimit

import grasp_agent
from grasp_agent import Goal, GraspAgent


class CartEnv(gym.Env):
    """A cart with a position and a velocity, driven by a force."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    render_mode = "rgb_array"
    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, 2) * (1.0, 0.1)
        return self.state.astype(np.float32), {}

    def step(self, action):
        position, velocity = self.state
        velocity = np.clip(0.95 * velocity + 0.02 * float(action[0]), -0.2, 0.2)
        self.state = np.array([np.clip(position + velocity, -1.5, 1.5), velocity])
        return self.state.astype(np.float32), -abs(float(self.state[0])), False, False, {}

    def render(self):
        frame = np.full((64, 320, 3), 245, np.uint8)
        frame[:, 159:161] = (60, 160, 90)  # the goal
        cart = round(160 + 100 * self.state[0])
        frame[24:40, max(cart - 8, 0) : cart + 8] = (200, 90, 50)
        return frame


def main(steps: int = 1500, episodes: int = 20) -> float:
    """Returns the fraction of episodes that end at the goal."""
    env = TimeLimit(CartEnv(), max_episode_steps=60)
    goal = Goal.at({0: 0.0, 1: 0.0}, weights={1: 0.5}, tolerance=0.05)  # in the middle, at rest
    agent = GraspAgent("MultiInputPolicy", env, goal=goal, seed=0)
    agent.learn(steps, progress_bar=True)
    agent.save("cart.zip")
    summary = grasp_agent.evaluate(agent, env, episodes=episodes, seed=10_000).summary()
    print(f"reached in {summary['success_any']:.2f}, held at the end in {summary['success_end']:.2f}")
    grasp_agent.record(agent, env, "cart.mp4", seed=3, force=True)
    return summary["success_end"]


if __name__ == "__main__":
    main()
