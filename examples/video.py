"""Videos: an agent, the same next to SAC, many seeds in a grid, and the search for a plan."""

import grasp_agent


def main(size: int = 320, episodes: int = 4) -> None:
    """Writes four videos."""
    env_id, seed = "grasp/BallNavTrap-v0", 3
    agent = grasp_agent.load("ball-nav-trap")
    sac = grasp_agent.baseline("sac", env_id, steps=30_000)
    grasp_agent.record(agent, env_id, "trap.mp4", seed=seed, size=size, force=True)
    grasp_agent.record_beside({"GRASP": agent, "SAC": sac}, env_id, "beside.mp4", seed=seed, size=size, force=True)
    grasp_agent.record_grid(agent, env_id, "grid.mp4", episodes=episodes, seed=seed, force=True)
    grasp_agent.record_search(agent, env_id, "search.mp4", seed=seed, size=size, force=True)


if __name__ == "__main__":
    main()
