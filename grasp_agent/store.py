"""Episodes that were played, kept so that a comparison goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from grasp_agent.evaluation import Episode, Evaluation
from grasp_agent.files import written_aside

Played = tuple[list[Episode], list[list[float]]]
"""Episodes, and the times of their `predict` calls [s]."""


class Store:
    """What was played, in memory and, with a folder, in a file that is whole at any moment.

    Args:
        folder: where; None for nowhere.
        setting: what must be the same for episodes to be of one comparison.

    Raises:
        ValueError: if the folder holds another comparison.
    """

    def __init__(self, folder: Path | None, setting: dict[str, Any]) -> None:
        self._path = None if folder is None else folder / "episodes.json"
        try:
            self._setting = json.loads(json.dumps(setting))
        except TypeError as error:
            raise ValueError(f"env_kwargs: expected options that JSON can hold, got {setting['options']}") from error
        self._played: dict[str, dict[int, tuple[Episode, list[float]]]] = {}
        if self._path is not None and self._path.exists():
            self._read(self._path)

    def _read(self, path: Path) -> None:
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            setting, agents = held["setting"], held["agents"]
            for key, rows in agents.items():
                episodes = [(Episode(*row), times) for row, times in rows]
                self._played[key] = {episode.seed: (episode, times) for episode, times in episodes}
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}: no episodes of a comparison: {error}") from error
        if setting != self._setting:
            raise ValueError(
                f"{path} holds another comparison, {setting}; expected {self._setting} (choose another folder)"
            )

    def holds(self, key: str, seeds: range) -> bool:
        """Whether an agent has played all of these."""
        return set(seeds) <= set(self._played.get(key, {}))

    def keep(self, key: str, played: Played) -> None:
        """Keeps what was played."""
        for episode, times in zip(*played, strict=True):
            self._played.setdefault(key, {})[episode.seed] = episode, times
        if self._path is not None:
            agents = {key: list(rows.values()) for key, rows in self._played.items()}
            with written_aside(self._path) as aside:
                aside.write_text(json.dumps({"setting": self._setting, "agents": agents}) + "\n", encoding="utf-8")

    def evaluation(self, key: str, name: str, env_id: str, seeds: range) -> Evaluation:
        """The episodes of one agent."""
        rows = [self._played[key][seed] for seed in seeds]
        seconds = np.array([second for _, times in rows for second in times])
        return Evaluation(env_id, name, seeds[0], tuple(episode for episode, _ in rows), seconds, 0.0)
