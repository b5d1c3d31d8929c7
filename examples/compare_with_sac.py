"""Plays the same episodes with GRASP, SAC and random actions, and writes a report."""

import grasp_agent
from grasp_agent.evaluation import report


def main(episodes: int = 20) -> str:
    """Returns the report."""
    agents = {
        "GRASP": grasp_agent.load("ball-nav-trap"),
        "SAC": grasp_agent.baseline("sac", "grasp/BallNavTrap-v0", steps=30_000),
        "random": "random",
    }
    found = grasp_agent.compare("grasp/BallNavTrap-v0", agents, episodes=episodes)
    report.write(found, "trap")  # trap/report.md, .csv, .json, .png
    written = report.markdown(found)
    print(written)
    return written


if __name__ == "__main__":
    main()
