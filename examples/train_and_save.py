"""Trains an agent, saves it, loads it and evaluates it."""

import grasp_agent
from grasp_agent import GraspAgent


def main(steps: int = 3000, episodes: int = 20) -> float:
    """Returns the success at the end of the evaluation's episodes."""
    agent = GraspAgent("MultiInputPolicy", "grasp/BallNav-v0", seed=0)
    agent.learn(steps, checkpoint="ball-run.zip", progress_bar=True)  # killed? run it again: it continues
    agent.save("ball.zip")

    agent = GraspAgent.load("ball.zip", env="grasp/BallNav-v0")
    summary = grasp_agent.evaluate(agent, "grasp/BallNav-v0", episodes=episodes, seed=10_000).summary()
    print(f"success {summary['success_end']:.2f} ({summary['success_end_low']:.2f}-{summary['success_end_high']:.2f})")
    return summary["success_end"]


if __name__ == "__main__":
    main()
