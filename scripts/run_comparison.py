"""The README's comparison: bundled models and bundled agents of Stable-Baselines3 on the same starts.

    python scripts/run_comparison.py    # resumes where it was stopped, in runs/comparison

As many environment steps for each, then ten times as many for the others. 100 episodes with seeds from 10000. Writes
`docs/comparison.md`, the README's tables, and for each environment the files of `grasp compare`: the commands in them
give the same figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from grasp_agent import compare
from grasp_agent.evaluation import report
from grasp_agent.serialization import atomic_write

ROOT = Path(__file__).parent.parent
EPISODES, SEED, JOBS = 100, 10_000, 2
COLUMNS = tuple(
    report.HEADERS.index(name)
    for name in ("agent", "training", "success at the end", "difference to the first", "ms per action")
)
BEGINNING, END = "<!-- comparison: python scripts/run_comparison.py -->\n", "<!-- end of the comparison -->\n"
AGENTS = {
    "grasp/BallNavTrap-v0": "grasp,sac@30000,sac@300000,random",
    "grasp/PointMaze-v0": "grasp@2000,sac@2000,td3@2000,sac@20000,td3@20000,random",
    "grasp/Reacher-v0": "grasp@6000,sac@6000,td3@6000,sac@60000,td3@60000,random",
}


def main() -> None:
    """Plays missing episodes, and writes the page."""
    parts: list[str] = []
    short: list[str] = []
    for env_id, agents in AGENTS.items():
        folder = ROOT / "runs" / "comparison" / env_id.split("/")[1]
        names = agents.split(",")
        with tqdm(total=EPISODES * len(names), desc=env_id) as bar:
            found = compare(env_id, names, episodes=EPISODES, seed=SEED, out=folder, jobs=JOBS, on_episodes=bar.update)
        report.write(found, folder)
        command = f"`grasp compare {env_id} --agents {agents}`"
        parts.append(f"{command}\n\n{report.markdown(found)}")
        [[header, *rows]] = report.tables(found, COLUMNS)
        short.append("\n".join([command, "", line(header), line("---" for _ in header), *map(line, rows)]))
    with atomic_write(ROOT / "docs" / "comparison.md") as aside:
        aside.write_text("# Beside trained agents\n\n" + "\n".join(parts), encoding="utf-8")
    before, rest = (ROOT / "README.md").read_text(encoding="utf-8").split(BEGINNING)
    after = rest.split(END)[1]
    with atomic_write(ROOT / "README.md") as aside:
        aside.write_text(before + BEGINNING + "\n\n".join(short) + "\n" + END + after, encoding="utf-8")


def line(cells: Iterable[str]) -> str:
    """Returns a line of a table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
