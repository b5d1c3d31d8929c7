"""Learns from images of 64 x 64 pixels, towards a goal that is an image."""

import gymnasium as gym

import grasp_agent
from grasp_agent import EncoderConfig, GraspAgent


def main(steps: int = 20_000, episodes: int = 20, encoder: EncoderConfig | None = None) -> float:
    """Returns the success at the end of the evaluation's episodes."""
    env = gym.make("grasp/Wall-v0", observation="pixels", goal="pixels")
    agent = GraspAgent("MultiInputPolicy", env, encoder=encoder, seed=0)
    agent.learn(steps, progress_bar=True)
    agent.save("wall-images.zip")
    summary = grasp_agent.evaluate(agent, env, episodes=episodes, seed=10_000).summary()
    print(f"success {summary['success_end']:.2f} ({summary['success_end_low']:.2f}-{summary['success_end_high']:.2f})")

    observation, _ = env.reset(seed=1)
    agent.set_goal(observation["observation"])  # any image of the environment is a goal
    action, _ = agent.predict(observation)
    print(f"an action at the goal: {action}")
    return summary["success_end"]


if __name__ == "__main__":
    main()
