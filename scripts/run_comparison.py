"""The bundled models and Stable-Baselines3's agents, all bundled, on the same starts.

    python scripts/run_comparison.py    # resumes where it was stopped, in runs/comparison

As many environment steps for each, then ten times as many for the others. 100 episodes with seeds from 10000. Writes
`docs/results/comparison.md`, and for each environment what `grasp compare` writes: the same figures come
from the commands that stand there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import pages
from grasp_agent import compare
from grasp_agent.evaluation import report

ROOT = Path(__file__).parent.parent
EPISODES, SEED, JOBS = 100, 10_000, 2
AGENTS = {
    "grasp/BallNavTrap-v0": "grasp,sac@30000,sac@300000,random",
    "grasp/PointMaze-v0": "grasp@2000,sac@2000,td3@2000,sac@20000,td3@20000,random",
    "grasp/Reacher-v0": "grasp@6000,sac@6000,td3@6000,sac@60000,td3@60000,random",
}


def main() -> None:
    """Plays missing episodes, and writes the page."""
    parts: list[str] = []
    rows: dict[str, Any] = {}
    for env_id, agents in AGENTS.items():
        folder = ROOT / "runs" / "comparison" / env_id.split("/")[1]
        names = agents.split(",")
        with tqdm(total=EPISODES * len(names), desc=env_id) as bar:
            found = compare(env_id, names, episodes=EPISODES, seed=SEED, out=folder, jobs=JOBS, on_episodes=bar.update)
        report.write(found, folder)
        command = f"`grasp compare {env_id} --agents {agents}`"
        rows[env_id] = [entry.row() for entry in found.entries]
        parts.append(f"{command}\n\n{report.markdown(found)}")
    pages.keep("comparison", rows)
    pages.publish(
        "comparison", pages.page("Comparison with trained agents", "python scripts/run_comparison.py", *parts)
    )


if __name__ == "__main__":
    main()
