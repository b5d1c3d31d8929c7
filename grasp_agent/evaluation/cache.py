"""A cache of played episodes, from which an interrupted comparison continues."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from grasp_agent.evaluation.evaluate import Episode, Evaluation
from grasp_agent.files import check_writable
from grasp_agent.serialization import atomic_write

Played = tuple[list[Episode], list[list[float]]]
"""Episodes, and the times of their `predict` calls [s]."""


class Store:
    """Played episodes, in RAM and, with a folder, in files that are written once: several processes may share it.

    Args:
        folder: folder of the files; None writes none.
        setting: settings that must be equal for episodes of one comparison.

    Raises:
        ValueError: if the folder holds another comparison.
        OSError: if the folder cannot be written.
    """

    def __init__(self, folder: Path | None, setting: dict[str, Any]) -> None:
        self._folder = folder
        try:
            self._setting = json.loads(json.dumps(setting))
        except TypeError as error:
            raise ValueError(f"env_kwargs: expected options that JSON can hold, got {setting['options']}") from error
        if folder is not None:
            check_writable(folder / "0.json")  # before anything is played
        self._played: dict[str, dict[int, tuple[Episode, list[float]]]] = {}
        for path in sorted(folder.glob("*.json")) if folder is not None else ():
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            setting, key = held["setting"], held["agent"]
            rows = [(Episode(*row), times) for row, times in held["episodes"]]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}: no episodes of a comparison: {error}") from error
        if setting != self._setting:
            raise ValueError(
                f"{path} is of another comparison, {setting}; expected {self._setting} (choose another folder)"
            )
        self._played.setdefault(key, {}).update({episode.seed: (episode, times) for episode, times in rows})

    def holds(self, key: str, seeds: range) -> bool:
        """Returns whether an agent has played the episodes of all these seeds."""
        return set(seeds) <= set(self._played.get(key, {}))

    def keep(self, key: str, played: Played, *, only_now: bool = False) -> None:
        """Adds played episodes; `only_now` does not write them to the folder."""
        rows = list(zip(*played, strict=True))
        self._played.setdefault(key, {}).update({episode.seed: (episode, times) for episode, times in rows})
        if self._folder is None or only_now:
            return
        name = f"{hashlib.sha256(key.encode()).hexdigest()[:12]}-{rows[0][0].seed}-{rows[-1][0].seed}.json"
        with atomic_write(self._folder / name) as aside:
            content = {"setting": self._setting, "agent": key, "episodes": rows}
            aside.write_text(json.dumps(content) + "\n", encoding="utf-8")

    def evaluation(self, key: str, name: str, env_id: str, seeds: range) -> Evaluation:
        """Returns the episodes of one agent."""
        rows = [self._played[key][seed] for seed in seeds]
        seconds = np.array([second for _, times in rows for second in times])
        return Evaluation(env_id, name, seeds[0], tuple(episode for episode, _ in rows), seconds, 0.0)
